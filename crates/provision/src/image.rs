//! The images that a machine boots, by the URLs in its node.

use thiserror::Error;

use crate::boot_interface::BootInterface;
use crate::node::Node;
use crate::procedure::Boots;

/// The deploy interface that boots an instance from its image, without writing to a disk.
pub const RAMDISK_DEPLOY: &str = "ramdisk";

/// The key of `instance_info` for the config drive, as in Ironic.
pub const CONFIG_DRIVE: &str = "configdrive";

/// An image URL of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedImage<'a> {
    /// The field of the URL: `driver_info/deploy_iso`, ….
    pub field: &'static str,
    /// Its URL.
    pub url: &'a str,
}

/// The image of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineImage<'a> {
    /// The operator's or the instance's own ISO image, sent unchanged.
    Iso(NamedImage<'a>),
    /// A kernel and a ramdisk, from which the boot image is composed.
    Ramdisk {
        /// The kernel.
        kernel: NamedImage<'a>,
        /// The initramfs.
        ramdisk: NamedImage<'a>,
    },
    /// The ramdisk of this host's boot set.
    BootSet,
}

impl<'a> MachineImage<'a> {
    /// The image URLs.
    pub fn named(self) -> impl Iterator<Item = NamedImage<'a>> {
        let (first, second) = match self {
            Self::Iso(iso) => (Some(iso), None),
            Self::Ramdisk { kernel, ramdisk } => (Some(kernel), Some(ramdisk)),
            Self::BootSet => (None, None),
        };
        first.into_iter().chain(second)
    }
}

/// The error in an instance's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadInstanceImage {
    /// The node has another deploy interface, which writes an image to a disk.
    #[error(
        "its deploy_interface writes an image to a disk, which this service does not; with deploy_interface ramdisk the \
         instance boots from its image"
    )]
    Interface,
    /// There is no image URL.
    #[error("instance_info names no image: set boot_iso, or kernel and ramdisk")]
    None,
    /// The ramdisk is missing.
    #[error("instance_info has a kernel but no ramdisk")]
    NoRamdisk,
    /// The kernel is missing.
    #[error("instance_info has a ramdisk but no kernel")]
    NoKernel,
    /// There are two images.
    #[error(
        "instance_info has a boot_iso beside a kernel or ramdisk: which of them to boot is not clear"
    )]
    Two,
    /// The image cannot carry a config drive.
    #[error(
        "a config drive cannot be put into an ISO image of the instance's own: leave it out, or boot kernel and ramdisk"
    )]
    ConfigDriveBesideIso,
}

/// The missing half of a kernel and ramdisk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HalfRamdisk {
    /// The ramdisk is missing.
    #[error("driver_info has a deploy_kernel but no deploy_ramdisk")]
    NoRamdisk,
    /// The kernel is missing.
    #[error("driver_info has a deploy_ramdisk but no deploy_kernel")]
    NoKernel,
}

/// The reason why a machine's image is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadImage {
    /// An error in the agent's ramdisk.
    #[error(transparent)]
    Ramdisk(#[from] HalfRamdisk),
    /// An error in the instance's image.
    #[error(transparent)]
    Instance(#[from] BadInstanceImage),
}

/// The image of a node's machine.
///
/// # Errors
/// [`BadImage`]
pub fn image_of(
    node: &Node,
    boots: Boots,
    interface: BootInterface,
) -> Result<MachineImage<'_>, BadImage> {
    match boots {
        Boots::Instance => Ok(instance_image(node)?),
        Boots::Ramdisk | Boots::Nothing => Ok(agent_image(node, interface)?),
    }
}

/// The image with the agent: the node's own, otherwise the boot set's. DHCP never leads to an operator's ISO image
/// with an agent, which could not get its token.
fn agent_image(node: &Node, interface: BootInterface) -> Result<MachineImage<'_>, HalfRamdisk> {
    let iso = named(node.driver_text("deploy_iso"), "driver_info/deploy_iso");
    if let (Some(_), Some(iso)) = (interface.bmc_artifact(), iso) {
        return Ok(MachineImage::Iso(iso));
    }
    let kernel = named(node.driver_text("deploy_kernel"), "driver_info/deploy_kernel");
    let ramdisk = named(node.driver_text("deploy_ramdisk"), "driver_info/deploy_ramdisk");
    match (kernel, ramdisk) {
        (Some(kernel), Some(ramdisk)) => Ok(MachineImage::Ramdisk { kernel, ramdisk }),
        (None, None) => Ok(MachineImage::BootSet),
        (Some(_), None) => Err(HalfRamdisk::NoRamdisk),
        (None, Some(_)) => Err(HalfRamdisk::NoKernel),
    }
}

/// The image of the instance for a node.
///
/// # Errors
/// [`BadInstanceImage`]
pub fn instance_image(node: &Node) -> Result<MachineImage<'_>, BadInstanceImage> {
    if node.kept_text("deploy_interface") != Some(RAMDISK_DEPLOY) {
        return Err(BadInstanceImage::Interface);
    }
    let iso = named(node.instance_text("boot_iso"), "instance_info/boot_iso");
    let kernel = named(node.instance_text("kernel"), "instance_info/kernel");
    let ramdisk = named(node.instance_text("ramdisk"), "instance_info/ramdisk");
    match (iso, kernel, ramdisk) {
        (None, None, None) => Err(BadInstanceImage::None),
        (None, Some(kernel), Some(ramdisk)) => Ok(MachineImage::Ramdisk { kernel, ramdisk }),
        (None, Some(_), None) => Err(BadInstanceImage::NoRamdisk),
        (None, None, Some(_)) => Err(BadInstanceImage::NoKernel),
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => Err(BadInstanceImage::Two),
        (Some(_), None, None) if node.instance_info.contains_key(CONFIG_DRIVE) => {
            Err(BadInstanceImage::ConfigDriveBesideIso)
        }
        (Some(iso), None, None) => Ok(MachineImage::Iso(iso)),
    }
}

fn named<'a>(url: Option<&'a str>, field: &'static str) -> Option<NamedImage<'a>> {
    url.filter(|url| !url.is_empty()).map(|url| NamedImage { field, url })
}
