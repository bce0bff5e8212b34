//! What lies behind each file of a ticket, and the reading of it.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use efi::{ComposedImage, ExtentSlice, UkiParts, esp, iso, seeded_initramfs, uki};
use hardware::CpuArch;
use netboot::scripts;
use provision::boot::{Artifact, HttpLoader, NoBoot};

use crate::boot_set::{BootSet, Ramdisk, Shared};
use crate::images::{Files, Images};

/// How much is read and sent at once: enough to keep a fast link busy, little enough that a stalled
/// machine holds little memory.
const CHUNK: u64 = 256 * 1024;
static ZEROS: [u8; CHUNK as usize] = [0; CHUNK as usize];

/// The name of the system in boot menus.
const OS_RELEASE: &str = "ID=ferroboot\nNAME=Ferroboot\nPRETTY_NAME=\"Ferroboot ramdisk\"\n";

/// A file of a ticket.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) image: ComposedImage,
    /// Its strong entity tag, with the quotes.
    pub(crate) etag: String,
    pub(crate) content_type: &'static str,
    /// Every file that the image has extents of.
    files: Vec<Shared>,
}

impl Contents {
    /// Composes; nothing is read but what is in memory already.
    pub(crate) fn of(
        artifact: Artifact,
        loader: HttpLoader,
        images: &Images,
        cpu_arch: CpuArch,
        command_line: &str,
    ) -> Result<Self> {
        let no_boot_set = || NoBoot::NoBootSet { cpu_arch }.to_string();
        let (image, files) = match (&images.files, artifact) {
            (Files::Iso(iso), Artifact::Iso) => whole(iso),
            (Files::Iso(_), _) => bail!("the machine boots an ISO image and nothing else"),
            (Files::Ramdisks(ramdisks), artifact) => {
                let (boot_set, ramdisk) = ramdisks.get(&cpu_arch).with_context(no_boot_set)?;
                made(artifact, loader, boot_set, ramdisk, &images.seed, command_line)?
            }
        };
        ensure!(!image.is_empty(), "{} is empty", artifact.file_name());
        Ok(Self { etag: image.etag(), image, content_type: content_type(artifact), files })
    }

    /// A sentence in place of a file.
    pub(crate) fn words(sentence: &str) -> Self {
        let image = ComposedImage::of_bytes(format!("{sentence}\n").into_bytes());
        Self { etag: image.etag(), image, content_type: "text/plain", files: Vec::new() }
    }

    /// Some bytes from the start of `range`, at least one if the range is not empty.
    pub(crate) async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let Some(slice) = self.image.slice(range).next() else { return Ok(Bytes::new()) };
        match slice {
            ExtentSlice::Bytes(bytes) => Ok(Bytes::copy_from_slice(bytes)),
            ExtentSlice::Zeros(len) => Ok(Bytes::from_static(&ZEROS[..len.min(CHUNK) as usize])),
            ExtentSlice::File { source, offset, len } => {
                let shared = self.files.iter().find(|shared| shared.source == *source);
                let shared =
                    shared.ok_or_else(|| io::Error::other(format!("no {}", source.name)))?;
                let file = Arc::clone(&shared.file);
                let mut buffer = vec![0; len.min(CHUNK) as usize];
                tokio::task::spawn_blocking(move || {
                    file.read_exact_at(&mut buffer, offset).map(|()| Bytes::from(buffer))
                })
                .await?
            }
        }
    }
}

/// EDK2 (`HttpBootGetFileFromCache`'s callers) compares the whole of it: a parameter after it, and
/// the machine does not know what it got.
fn content_type(artifact: Artifact) -> &'static str {
    match artifact {
        Artifact::BootLoader
        | Artifact::BootLoaderArm64
        | Artifact::BootLoaderRiscv64
        | Artifact::Ipxe
        | Artifact::IpxeArm64 => "application/efi",
        Artifact::Iso => "application/vnd.efi-iso",
        Artifact::IpxeScript | Artifact::GrubConfig => "text/plain",
        Artifact::Kernel | Artifact::Initramfs => "application/octet-stream",
    }
}

fn made(
    artifact: Artifact,
    loader: HttpLoader,
    boot_set: &BootSet,
    ramdisk: &Ramdisk,
    seed: &[u8],
    command_line: &str,
) -> Result<(ComposedImage, Vec<Shared>)> {
    match artifact {
        Artifact::BootLoader | Artifact::BootLoaderArm64 | Artifact::BootLoaderRiscv64 => {
            match loader {
                HttpLoader::Uki => composed(boot_set, ramdisk, seed, command_line),
                HttpLoader::Grub => Ok(whole(&boot_set.grub)),
            }
        }
        Artifact::Ipxe | Artifact::IpxeArm64 => Ok(whole(ipxe_of(boot_set)?)),
        Artifact::IpxeScript => Ok(text(scripts::ipxe(command_line)?)),
        Artifact::Iso => {
            let (uki, files) = composed(boot_set, ramdisk, seed, command_line)?;
            Ok((iso(&esp(&uki, boot_set.stub.machine())?)?, files))
        }
        Artifact::GrubConfig => Ok(text(scripts::grub(command_line)?)),
        Artifact::Kernel => Ok(whole(&ramdisk.kernel)),
        Artifact::Initramfs => {
            let seeded = seeded_initramfs(&ramdisk.initramfs.source, seed);
            Ok((seeded, vec![ramdisk.initramfs.clone()]))
        }
    }
}

fn ipxe_of(boot_set: &BootSet) -> Result<&Shared> {
    boot_set
        .ipxe
        .as_ref()
        .context("the boot set has no iPXE: set the node's boot_interface to http")
}

fn whole(shared: &Shared) -> (ComposedImage, Vec<Shared>) {
    (ComposedImage::of_file(shared.source.clone()), vec![shared.clone()])
}

fn text(text: String) -> (ComposedImage, Vec<Shared>) {
    (ComposedImage::of_bytes(text.into_bytes()), Vec::new())
}

fn composed(
    boot_set: &BootSet,
    ramdisk: &Ramdisk,
    seed: &[u8],
    command_line: &str,
) -> Result<(ComposedImage, Vec<Shared>)> {
    let parts = UkiParts {
        os_release: OS_RELEASE,
        uname: &boot_set.kernel_version,
        kernel: &ramdisk.kernel.source,
        initramfs: &ramdisk.initramfs.source,
        seed,
        command_line,
    };
    let image = uki(&boot_set.stub, &parts).context("cannot compose the image")?;
    Ok((image, vec![boot_set.stub_file.clone(), ramdisk.kernel.clone(), ramdisk.initramfs.clone()]))
}
