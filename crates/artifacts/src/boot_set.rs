//! The output of `ferroboot image build`: kernel, initramfs and the loaders that start them.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use efi::{SharedFile, UkiStub};
use hardware::CpuArch;
use netboot::boot_set::{BootSetManifest, ManifestFile, SHIM, SIGNED_GRUB, efi_machine};
use netboot::composition::{RamdiskFiles, SignedLoaders};
use provision::artifact::Artifact;

/// A file shared by images, held open: replacing it on disk does not affect a current boot.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) source: SharedFile,
    pub(crate) file: Arc<File>,
}

/// A kernel and an initramfs.
#[derive(Clone, Debug)]
pub(crate) struct Ramdisk {
    pub(crate) kernel: Shared,
    pub(crate) initramfs: Shared,
}

/// A boot set with all files open.
#[derive(Debug)]
pub(crate) struct BootSet {
    cpu_arch: CpuArch,
    pub(crate) ramdisk: Ramdisk,
    stub_file: Shared,
    stub: UkiStub,
    /// `None` if Debian has no iPXE for the architecture.
    ipxe: Option<Shared>,
    grub: Shared,
    /// `None` unless `ferroboot image loaders` has added them.
    signed_loaders: Option<SignedLoaders<Shared>>,
    pub(crate) kernel_version: String,
}

impl BootSet {
    /// Opens all files of `folder`, a boot set for `cpu_arch`.
    ///
    /// Their digests come from the manifest: reading a whole ramdisk takes longer than a start.
    pub(crate) fn open(folder: &Path, cpu_arch: CpuArch) -> Result<Self> {
        let path = folder.join("manifest.json");
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let manifest = BootSetManifest::parse(&text)
            .with_context(|| format!("{} is not the manifest of a boot set", path.display()))?;

        let stub_file = open(&manifest, folder, "stub.efi")?;
        let stub_path = folder.join("stub.efi");
        let stub = fs::read(&stub_path).context("cannot read stub.efi")?;
        let stub = UkiStub::parse(stub_file.source.clone(), &stub)
            .with_context(|| format!("{} cannot be used", stub_path.display()))?;
        ensure!(
            stub.machine() == efi_machine(cpu_arch),
            "{} is not for {cpu_arch}: build the boot set again",
            stub_path.display()
        );
        let ipxe = Artifact::ipxe(cpu_arch).map(Artifact::file_name);
        let ipxe = ipxe.filter(|name| manifest.names().any(|there| there == *name));
        Ok(Self {
            cpu_arch,
            ramdisk: Ramdisk {
                kernel: open(&manifest, folder, "kernel")?,
                initramfs: open(&manifest, folder, "initramfs")?,
            },
            ipxe: ipxe.map(|name| open(&manifest, folder, name)).transpose()?,
            grub: open(&manifest, folder, &format!("grub{}.efi", cpu_arch.uefi_name()))?,
            signed_loaders: signed_loaders(&manifest, folder)?,
            stub_file,
            stub,
            kernel_version: manifest.kernel_version().to_owned(),
        })
    }

    /// The ingredients of a ramdisk's artifacts; the ramdisk is this boot set's, or a node's own.
    pub(crate) fn ramdisk_files<'a>(
        &'a self,
        ramdisk: &'a Ramdisk,
        seed: &'a [u8],
    ) -> RamdiskFiles<'a> {
        RamdiskFiles {
            cpu_arch: self.cpu_arch,
            kernel: &ramdisk.kernel.source,
            initramfs: &ramdisk.initramfs.source,
            seed,
            stub: &self.stub,
            grub: &self.grub.source,
            signed_loaders: self.signed_loaders.as_ref().map(|SignedLoaders { shim, grub }| {
                SignedLoaders { shim: &shim.source, grub: &grub.source }
            }),
            ipxe: self.ipxe.as_ref().map(|ipxe| &ipxe.source),
            kernel_version: &self.kernel_version,
        }
    }

    /// Whether it has shim and a GRUB for it.
    pub(crate) fn has_signed_loaders(&self) -> bool {
        self.signed_loaders.is_some()
    }

    /// The open files of these ingredients.
    pub(crate) fn open_files(&self, ramdisk: &Ramdisk) -> Vec<Shared> {
        let own = [&ramdisk.kernel, &ramdisk.initramfs, &self.stub_file, &self.grub];
        let signed = self.signed_loaders.iter().flat_map(|signed| [&signed.shim, &signed.grub]);
        own.into_iter().chain(&self.ipxe).chain(signed).cloned().collect()
    }
}

/// Opens shim and its GRUB, if the boot set has both.
fn signed_loaders(
    manifest: &BootSetManifest,
    folder: &Path,
) -> Result<Option<SignedLoaders<Shared>>> {
    if [SHIM, SIGNED_GRUB].into_iter().any(|name| !manifest.names().any(|there| there == name)) {
        return Ok(None);
    }
    let open = |name| open(manifest, folder, name);
    Ok(Some(SignedLoaders { shim: open(SHIM)?, grub: open(SIGNED_GRUB)? }))
}

/// Opens a file in the manifest.
fn open(manifest: &BootSetManifest, folder: &Path, name: &str) -> Result<Shared> {
    let Some(ManifestFile { len: expected, sha256 }) = manifest.file(name)? else {
        bail!("the boot set in {} has no {name}", folder.display());
    };
    let path = folder.join(name);
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let len = file.metadata().with_context(|| format!("cannot see {}", path.display()))?.len();
    ensure!(
        len == expected,
        "{} has {len} bytes, its manifest says {expected}: build the boot set again",
        path.display()
    );
    Ok(Shared { source: SharedFile { name: name.into(), len, sha256 }, file: Arc::new(file) })
}
