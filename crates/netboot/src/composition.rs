//! The composition of a ticket's files: files of a boot set, scripts, and images made of both.

use efi::{
    ComposedImage, CpioArchive, EspError, IsoError, IsoFolder, SharedFile, Uki, UkiError, UkiParts,
    UkiStub, esp, esp_with_shim, iso, iso_with_folder, seeded_initramfs, uki,
};
use hardware::CpuArch;
use provision::artifact::{Artifact, HttpLoader};
use provision::boot::NoBoot;
use provision::config_drive::{self, BadConfigDrive, SEED_FOLDER};
use provision::image::CONFIG_DRIVE;
use provision::{BootInterface, Node};
use thiserror::Error;

use crate::scripts::{self, SIGNED_GRUB_FOLDER, ScriptError};

/// The name of the system in boot menus.
const OS_RELEASE: &str = "ID=ferroboot\nNAME=Ferroboot\nPRETTY_NAME=\"Ferroboot ramdisk\"\n";

/// The ingredients of a machine's artifacts.
#[derive(Clone, Copy, Debug)]
pub enum Ingredients<'a> {
    /// A ready-made ISO image, sent unchanged.
    Iso(&'a SharedFile),
    /// A ramdisk, and the loaders of a boot set.
    Ramdisk(RamdiskFiles<'a>),
}

/// A ramdisk, and the loaders of a boot set that start it.
#[derive(Clone, Copy, Debug)]
pub struct RamdiskFiles<'a> {
    /// The architecture of all of them.
    pub cpu_arch: CpuArch,
    /// The kernel.
    pub kernel: &'a SharedFile,
    /// The initramfs.
    pub initramfs: &'a SharedFile,
    /// The archive to unpack over the initramfs; empty for none.
    pub seed: &'a [u8],
    /// The stub of a UKI, which contains kernel and initramfs.
    pub stub: &'a UkiStub,
    /// GRUB.
    pub grub: &'a SharedFile,
    /// shim, and a GRUB whose signature it accepts; `None` if the boot set has none.
    pub signed_loaders: Option<SignedLoaders<&'a SharedFile>>,
    /// iPXE; `None` if Debian has none for the architecture.
    pub ipxe: Option<&'a SharedFile>,
    /// The kernel's version, as shown by `uname -r`.
    pub kernel_version: &'a str,
}

/// shim and GRUB with the signatures of their distribution.
#[derive(Clone, Copy, Debug)]
pub struct SignedLoaders<File> {
    /// shim, signed by Microsoft.
    pub shim: File,
    /// GRUB, signed by the distribution, whose certificate is in shim.
    pub grub: File,
}

/// The reason why an artifact cannot be composed.
#[derive(Debug, Error)]
pub enum CompositionError {
    /// The machine boots from an ISO image, and has no other artifacts.
    #[error("the machine boots an ISO image and nothing else")]
    IsoAlone,
    /// The boot set has no iPXE.
    #[error("the boot set has no iPXE: set the node's boot_interface to http")]
    NoIpxe,
    /// The boot set has no shim.
    #[error("the boot set has no shim: add Debian's signed loaders with `ferroboot image loaders`")]
    NoShim,
    /// Nothing starts this file.
    #[error("the first loader is not shim (http_loader), and nothing else starts this file")]
    NoSecondStage,
    /// The artifact is empty: firmware would wait for its first byte.
    #[error("{} is empty", .0.file_name())]
    Empty(Artifact),
    /// The UKI cannot be composed.
    #[error("cannot compose the image")]
    Uki(#[from] UkiError),
    /// The UKI cannot be signed.
    #[error("cannot sign the image")]
    Sign(#[source] SignUkiError),
    /// The EFI system partition cannot be composed.
    #[error(transparent)]
    Esp(#[from] EspError),
    /// The ISO image cannot be composed.
    #[error(transparent)]
    Iso(#[from] IsoError),
    /// A script cannot contain the kernel command line.
    #[error(transparent)]
    Script(#[from] ScriptError),
}

/// The reason why a UKI is not signed.
pub type SignUkiError = Box<dyn std::error::Error + Send + Sync>;

/// The last step of a UKI: its signature, or none ([`unsigned`]).
pub type SignUki<'a> = dyn Fn(Uki) -> Result<ComposedImage, SignUkiError> + 'a;

/// A UKI as it is.
///
/// # Errors
/// None.
pub fn unsigned(uki: Uki) -> Result<ComposedImage, SignUkiError> {
    Ok(uki.into_image())
}

/// The artifacts of a ramdisk that a machine fetches with a boot interface.
///
/// # Errors
/// [`NoBoot::NoIpxe`]
pub fn artifacts_of(
    interface: BootInterface,
    loader: HttpLoader,
    cpu_arch: CpuArch,
) -> Result<Vec<Artifact>, NoBoot> {
    let boot_loader = Artifact::boot_loader(cpu_arch);
    Ok(match (interface, loader) {
        (BootInterface::RedfishHttps | BootInterface::RedfishVirtualMedia, _) => {
            vec![Artifact::Iso]
        }
        (BootInterface::Http, HttpLoader::Uki) => vec![boot_loader],
        (BootInterface::Http, HttpLoader::Grub) => {
            vec![boot_loader, Artifact::GrubConfig, Artifact::Kernel, Artifact::Initramfs]
        }
        (BootInterface::Http, HttpLoader::ShimUki) => vec![boot_loader, Artifact::ShimSecondStage],
        (BootInterface::Http, HttpLoader::ShimGrub) => vec![
            boot_loader,
            Artifact::ShimSecondStage,
            Artifact::GrubConfig,
            Artifact::Kernel,
            Artifact::Initramfs,
        ],
        (BootInterface::HttpIpxe, _) => {
            let ipxe = Artifact::ipxe(cpu_arch).ok_or(NoBoot::NoIpxe { cpu_arch })?;
            vec![ipxe, Artifact::IpxeScript, Artifact::Kernel, Artifact::Initramfs]
        }
    })
}

/// Composes an artifact; `loader` is the first loader of the boot interface `http`, of which [`HttpLoader::in_image`] makes
/// that of an ISO image, and `sign` signs UKIs, also the one in an ISO image.
///
/// # Errors
/// [`CompositionError`]
pub fn compose(
    artifact: Artifact,
    loader: HttpLoader,
    ingredients: &Ingredients<'_>,
    command_line: &str,
    sign: &SignUki<'_>,
) -> Result<ComposedImage, CompositionError> {
    let image = match (ingredients, artifact) {
        (Ingredients::Iso(iso), Artifact::Iso) => whole(iso),
        (Ingredients::Iso(_), _) => return Err(CompositionError::IsoAlone),
        (Ingredients::Ramdisk(files), artifact) => {
            ramdisk_artifact(artifact, loader, files, command_line, sign)?
        }
    };
    if image.is_empty() {
        return Err(CompositionError::Empty(artifact));
    }
    Ok(image)
}

fn ramdisk_artifact(
    artifact: Artifact,
    loader: HttpLoader,
    files: &RamdiskFiles<'_>,
    command_line: &str,
    sign: &SignUki<'_>,
) -> Result<ComposedImage, CompositionError> {
    let signed_uki = || {
        let uki = ramdisk_uki(files, command_line)?;
        sign(uki).map_err(CompositionError::Sign)
    };
    let signed_loaders = || files.signed_loaders.ok_or(CompositionError::NoShim);
    Ok(match artifact {
        Artifact::BootLoader | Artifact::BootLoaderArm64 | Artifact::BootLoaderRiscv64 => {
            match loader {
                HttpLoader::Uki => signed_uki()?,
                HttpLoader::Grub => whole(files.grub),
                HttpLoader::ShimGrub | HttpLoader::ShimUki => whole(signed_loaders()?.shim),
            }
        }
        Artifact::ShimSecondStage => match loader {
            HttpLoader::ShimUki => signed_uki()?,
            HttpLoader::ShimGrub => whole(signed_loaders()?.grub),
            HttpLoader::Uki | HttpLoader::Grub => return Err(CompositionError::NoSecondStage),
        },
        Artifact::Ipxe | Artifact::IpxeArm64 => whole(files.ipxe.ok_or(CompositionError::NoIpxe)?),
        Artifact::IpxeScript => text(scripts::ipxe(command_line)?),
        Artifact::Iso => match loader.in_image(files.cpu_arch) {
            HttpLoader::Uki | HttpLoader::Grub => iso(&esp(&signed_uki()?, files.stub.machine())?)?,
            HttpLoader::ShimUki => {
                iso(&esp_with_shim(&whole(signed_loaders()?.shim), &signed_uki()?)?)?
            }
            HttpLoader::ShimGrub => iso_with_grub(files, signed_loaders()?, command_line)?,
        },
        Artifact::GrubConfig => text(scripts::grub(command_line)?),
        Artifact::Kernel => whole(files.kernel),
        Artifact::Initramfs => seeded_initramfs(files.initramfs, files.seed),
    })
}

/// An ISO image with shim and GRUB in its ESP, and a folder with what GRUB reads.
fn iso_with_grub(
    files: &RamdiskFiles<'_>,
    loaders: SignedLoaders<&SharedFile>,
    command_line: &str,
) -> Result<ComposedImage, CompositionError> {
    let in_folder = [
        (Artifact::GrubConfig, text(scripts::grub_in_image(command_line)?)),
        (Artifact::Kernel, whole(files.kernel)),
        (Artifact::Initramfs, seeded_initramfs(files.initramfs, files.seed)),
    ];
    let folder = IsoFolder {
        name: SIGNED_GRUB_FOLDER,
        files: in_folder.map(|(artifact, file)| (artifact.file_name(), file)).into(),
    };
    let esp = esp_with_shim(&whole(loaders.shim), &whole(loaders.grub))?;
    Ok(iso_with_folder(&esp, &folder)?)
}

fn text(script: String) -> ComposedImage {
    ComposedImage::of_bytes(script.into_bytes())
}

fn whole(file: &SharedFile) -> ComposedImage {
    ComposedImage::of_file(file.clone())
}

fn ramdisk_uki(files: &RamdiskFiles<'_>, command_line: &str) -> Result<Uki, UkiError> {
    let parts = UkiParts {
        os_release: OS_RELEASE,
        uname: files.kernel_version,
        kernel: files.kernel,
        initramfs: files.initramfs,
        seed: files.seed,
        command_line,
    };
    uki(files.stub, &parts)
}

/// The certificate of the authority (PEM) that agents trust for the API, as an archive for the initramfs: the files of
/// Ironic's `[agent] api_ca_file`, which every agent of Ironic reads.
#[must_use]
pub fn agent_authority_archive(authority: &str) -> Vec<u8> {
    const SETTINGS: &str = "[DEFAULT]\ncafile = /etc/ironic-python-agent/ironic.crt\n";
    let mut archive = CpioArchive::default();
    archive.file("etc/ironic-python-agent/ironic.crt", authority.as_bytes().to_vec());
    archive.file("etc/ironic-python-agent.d/ironic-tls.conf", SETTINGS.as_bytes().to_vec());
    archive.finish()
}

/// The config drive of a node's instance, as an archive for its initramfs; empty if there is none.
///
/// # Errors
/// [`BadConfigDrive`]
pub fn config_drive_archive(node: &Node) -> Result<Vec<u8>, BadConfigDrive> {
    let Some(config_drive) = node.instance_info.get(CONFIG_DRIVE) else { return Ok(Vec::new()) };
    let mut archive = CpioArchive::default();
    for file in config_drive::files(config_drive)? {
        archive.file(&format!("{SEED_FOLDER}/{}", file.path), file.contents);
    }
    Ok(archive.finish())
}

/// The content type of an artifact. EDK2 (`HttpBootGetFileFromCache`'s callers) compares the whole value, so it has
/// no parameters.
#[must_use]
pub fn content_type(artifact: Artifact) -> &'static str {
    match artifact {
        Artifact::BootLoader
        | Artifact::BootLoaderArm64
        | Artifact::BootLoaderRiscv64
        | Artifact::ShimSecondStage
        | Artifact::Ipxe
        | Artifact::IpxeArm64 => "application/efi",
        Artifact::Iso => "application/vnd.efi-iso",
        Artifact::IpxeScript | Artifact::GrubConfig => "text/plain",
        Artifact::Kernel | Artifact::Initramfs => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(len: u64) -> SharedFile {
        SharedFile { name: "own.iso".into(), len, sha256: [0; 32] }
    }

    fn of_iso(artifact: Artifact, iso: &SharedFile) -> Result<ComposedImage, CompositionError> {
        compose(artifact, HttpLoader::Uki, &Ingredients::Iso(iso), "", &unsigned)
    }

    #[test]
    fn a_machine_that_boots_an_iso_gets_it_as_it_is_and_nothing_else() {
        assert_eq!(of_iso(Artifact::Iso, &file(9)).unwrap().len(), 9);
        let refused = of_iso(Artifact::Kernel, &file(9)).unwrap_err().to_string();
        assert_eq!(refused, "the machine boots an ISO image and nothing else");
    }

    #[test]
    fn an_empty_file_is_refused_by_its_name() {
        let refused = of_iso(Artifact::Iso, &file(0)).unwrap_err().to_string();
        assert_eq!(refused, "boot.iso is empty");
    }

    #[test]
    fn each_boot_interface_fetches_what_its_loader_asks_for() {
        let of = |interface, loader| artifacts_of(interface, loader, CpuArch::X64).unwrap();

        assert_eq!(of(BootInterface::RedfishHttps, HttpLoader::Grub), [Artifact::Iso]);
        assert_eq!(of(BootInterface::Http, HttpLoader::Uki), [Artifact::BootLoader]);
        let grub =
            [Artifact::BootLoader, Artifact::GrubConfig, Artifact::Kernel, Artifact::Initramfs];
        assert_eq!(of(BootInterface::Http, HttpLoader::Grub), grub);
        let ipxe = [Artifact::Ipxe, Artifact::IpxeScript, Artifact::Kernel, Artifact::Initramfs];
        assert_eq!(of(BootInterface::HttpIpxe, HttpLoader::Uki), ipxe);
        let none = artifacts_of(BootInterface::HttpIpxe, HttpLoader::Uki, CpuArch::Riscv64);
        assert_eq!(none, Err(NoBoot::NoIpxe { cpu_arch: CpuArch::Riscv64 }));
    }
}
