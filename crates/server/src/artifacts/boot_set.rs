//! What `ferroboot image build` made: kernel, initramfs and the loaders that start them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use efi::{Machine, Source, Stub};
use hardware::CpuArch;
use provision::boot::Artifact;
use serde::Deserialize;

/// A file that images share, held open: whoever replaces it on disk does not cut a boot short.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) source: Source,
    pub(super) file: Arc<File>,
}

/// What a machine is started with, whatever starts it.
#[derive(Clone, Debug)]
pub(super) struct Ramdisk {
    pub(super) kernel: Shared,
    pub(super) initramfs: Shared,
}

/// A boot set, all of it open.
#[derive(Debug)]
pub(super) struct BootSet {
    pub(super) ramdisk: Ramdisk,
    pub(super) stub_file: Shared,
    pub(super) stub: Stub,
    /// `None` where Debian has no iPXE for the architecture.
    pub(super) ipxe: Option<Shared>,
    pub(super) grub: Shared,
    pub(super) kernel_version: String,
}

/// `manifest.json`.
#[derive(Debug, Deserialize)]
struct Manifest {
    version: u32,
    files: BTreeMap<String, Entry>,
    #[serde(default)]
    kernel_version: String,
}

#[derive(Debug, Deserialize)]
struct Entry {
    len: u64,
    sha256: String,
}

impl BootSet {
    /// Opens all files of `folder`, a boot set for `cpu_arch`.
    ///
    /// Their digests are the manifest's: reading a ramdisk through takes longer than starting.
    pub(super) fn open(folder: &Path, cpu_arch: CpuArch) -> Result<Self> {
        let path = folder.join("manifest.json");
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let manifest = Manifest::parse(&text)
            .with_context(|| format!("{} is no manifest of a boot set", path.display()))?;

        let stub_file = manifest.open(folder, "stub.efi")?;
        let stub_path = folder.join("stub.efi");
        let stub = fs::read(&stub_path).context("cannot read stub.efi")?;
        let stub = Stub::parse(stub_file.source.clone(), &stub)
            .with_context(|| format!("{} cannot be used", stub_path.display()))?;
        ensure!(
            stub.machine() == machine(cpu_arch),
            "{} is not for {cpu_arch}: build the boot set again",
            stub_path.display()
        );
        let ipxe = Artifact::ipxe(cpu_arch).map(Artifact::file_name);
        let ipxe = ipxe.filter(|name| manifest.files.contains_key(*name));
        Ok(Self {
            ramdisk: Ramdisk {
                kernel: manifest.open(folder, "kernel")?,
                initramfs: manifest.open(folder, "initramfs")?,
            },
            ipxe: ipxe.map(|name| manifest.open(folder, name)).transpose()?,
            grub: manifest.open(folder, &format!("grub{}.efi", cpu_arch.uefi_name()))?,
            stub_file,
            stub,
            kernel_version: manifest.kernel_version,
        })
    }
}

impl Manifest {
    fn parse(text: &[u8]) -> Result<Self> {
        let manifest: Self = serde_json::from_slice(text)?;
        ensure!(manifest.version == 1, "boot set version {} is unknown", manifest.version);
        Ok(manifest)
    }

    fn open(&self, folder: &Path, name: &str) -> Result<Shared> {
        let Some(entry) = self.files.get(name) else {
            bail!("the boot set in {} has no {name}", folder.display());
        };
        let path = folder.join(name);
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let len = file.metadata().with_context(|| format!("cannot see {}", path.display()))?.len();
        ensure!(
            len == entry.len,
            "{} has {len} bytes, its manifest says {}: build the boot set again",
            path.display(),
            entry.len
        );
        let sha256 = digest(&entry.sha256)
            .with_context(|| format!("the manifest's digest of {name} is no SHA-256"))?;
        Ok(Shared { source: Source { name: name.into(), len, sha256 }, file: Arc::new(file) })
    }
}

/// The names and digests that a manifest has. The fuzz target's way in.
///
/// # Errors
/// It is no manifest, or one of its digests is none.
#[doc(hidden)]
pub fn digests(manifest: &[u8]) -> Result<Vec<(String, [u8; 32])>> {
    let Manifest { files, .. } = Manifest::parse(manifest)?;
    let read = |(name, entry): (String, Entry)| {
        let digest = digest(&entry.sha256)
            .with_context(|| format!("the manifest's digest of {name} is no SHA-256"))?;
        Ok((name, digest))
    };
    files.into_iter().map(read).collect()
}

/// What programs for an architecture say in their headers.
pub(super) fn machine(cpu_arch: CpuArch) -> Machine {
    match cpu_arch {
        CpuArch::X64 => Machine::X64,
        CpuArch::Arm64 => Machine::Arm64,
        CpuArch::Riscv64 => Machine::Riscv64,
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (n, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()?;
    }
    Some(digest)
}
