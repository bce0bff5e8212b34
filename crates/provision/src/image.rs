//! Which images a machine boots, by the URLs that its node names.

use thiserror::Error;

use crate::boot::BootInterface;
use crate::node::Node;
use crate::procedure::Boots;

/// The deploy interface that boots an instance from its image, and writes to no disk.
pub const RAMDISK_DEPLOY: &str = "ramdisk";

/// The key of `instance_info` under which a config drive is kept, as upstream.
pub const CONFIG_DRIVE: &str = "configdrive";

/// An image that a node names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedImage<'a> {
    /// Where it is named: `driver_info/deploy_iso`, ….
    pub field: &'static str,
    /// Its URL.
    pub url: &'a str,
}

/// What a machine boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineImage<'a> {
    /// An ISO image of the operator's or the instance's own, sent as it is.
    Iso(NamedImage<'a>),
    /// A kernel and a ramdisk, of which the rest is composed.
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
    /// The images that it is made of.
    pub fn named(self) -> impl Iterator<Item = NamedImage<'a>> {
        let (first, second) = match self {
            Self::Iso(iso) => (Some(iso), None),
            Self::Ramdisk { kernel, ramdisk } => (Some(kernel), Some(ramdisk)),
            Self::BootSet => (None, None),
        };
        first.into_iter().chain(second)
    }
}

/// What of an instance's image is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadInstanceImage {
    /// Another deploy interface, which writes an image to a disk.
    #[error(
        "its deploy_interface writes an image to a disk, which this service does not; with deploy_interface ramdisk the \
         instance boots from its image"
    )]
    Interface,
    /// Nothing is named.
    #[error("instance_info names no image: set boot_iso, or kernel and ramdisk")]
    None,
    /// Half of it is named.
    #[error("instance_info has a kernel but no ramdisk")]
    NoRamdisk,
    /// Half of it is named.
    #[error("instance_info has a ramdisk but no kernel")]
    NoKernel,
    /// Two are named.
    #[error(
        "instance_info has a boot_iso beside a kernel or ramdisk: which of them to boot is not clear"
    )]
    Two,
    /// The image cannot be changed.
    #[error(
        "a config drive cannot be put into an ISO image of the instance's own: leave it out, or boot kernel and ramdisk"
    )]
    ConfigDriveBesideIso,
}

/// Which half of a kernel and ramdisk is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HalfRamdisk {
    /// The ramdisk is.
    #[error("driver_info has a deploy_kernel but no deploy_ramdisk")]
    NoRamdisk,
    /// The kernel is.
    #[error("driver_info has a deploy_ramdisk but no deploy_kernel")]
    NoKernel,
}

/// Why it cannot be said what a machine boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadImage {
    /// Of the agent's ramdisk.
    #[error(transparent)]
    Ramdisk(#[from] HalfRamdisk),
    /// Of the instance.
    #[error(transparent)]
    Instance(#[from] BadInstanceImage),
}

/// What a node's machine boots.
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

/// The image with the agent: the node's own, else that of the boot set. DHCP leads to no ISO image of an operator's
/// with an agent, which could not be told its token.
fn agent_image(node: &Node, interface: BootInterface) -> Result<MachineImage<'_>, HalfRamdisk> {
    let iso = named(node.driver_text("deploy_iso"), "driver_info/deploy_iso");
    if let (BootInterface::RedfishHttps, Some(iso)) = (interface, iso) {
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

/// The image of the instance that a node is to be given.
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
