//! The reasons why a boot is not set.

use thiserror::Error;

use crate::failure::BmcFailure;
use crate::platform::BmcPlatform;

/// The reason why a boot was not set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BootNotSet {
    /// A request failed.
    #[error(transparent)]
    Failure(#[from] BmcFailure),
    /// The BMC has no way.
    #[error(transparent)]
    Cannot(#[from] CannotHttpBoot),
    /// The BMC took the boot and does not show it.
    #[error(transparent)]
    NotKept(#[from] NotKept),
}

/// The reason why a BMC cannot boot its machine over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CannotHttpBoot {
    /// A BIOS attribute, or the only allowed mode of the override, says that the boot mode is BIOS.
    #[error(
        "the machine boots in BIOS (legacy) mode ({attribute} is {value}), and {} for UEFI only: set its boot mode to \
         UEFI",
        if *.is_media { "the image of its virtual CD is" } else { "HTTP boot is" }
    )]
    BiosMode {
        /// The attribute.
        attribute: String,
        /// Its value.
        value: String,
        /// Whether the machine is to boot from its virtual CD.
        is_media: bool,
    },
    /// The system has no boot override and no boot order.
    #[error(
        "the BMC shows no boot override (no `Boot` with BootSourceOverrideTarget in the system), so its next boot \
         cannot be set"
    )]
    NoOverride,
    /// Only a boot order, without a boot option for HTTP.
    #[error(
        "the BMC shows no boot override, and no boot option with /Uri() has the address of a port of the node, so its \
         next boot cannot be set"
    )]
    NoHttpOption,
    /// No target boots over HTTP.
    #[error(
        "the BMC cannot boot over HTTP: it allows the targets {targets}, UefiHttp is not among them, and no boot \
         option with /Uri() has the address of a port of the node{advice}"
    )]
    NoUefiHttp {
        /// The targets.
        targets: String,
        /// What may help.
        advice: &'static str,
    },
    /// The URL cannot be set.
    #[error("the BMC ({platform}) has no property for a boot URL{advice}{mode}")]
    NoUrl {
        /// The platform.
        platform: BmcPlatform,
        /// What works instead.
        advice: &'static str,
        /// A note about the boot mode.
        mode: &'static str,
    },
    /// A BIOS attribute for the URL cannot be written.
    #[error("the BIOS attribute {attribute} cannot be set: {problem}")]
    Attribute {
        /// The attribute.
        attribute: &'static str,
        /// The problem.
        problem: &'static str,
    },
    /// No virtual CD drive.
    #[error("the BMC shows no virtual CD drive that takes an image by URL")]
    NoVirtualMedia,
    /// No target boots from a CD.
    #[error(
        "the BMC cannot boot from its virtual CD drive: it allows the targets {targets}, and Cd is not among them"
    )]
    NoCdTarget {
        /// The targets.
        targets: String,
    },
    /// The reset action is missing.
    #[error("the BMC offers no ComputerSystem.Reset action")]
    NoReset,
}

/// A difference between the boot that was set and the one that is shown.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the BMC took the boot override but shows {property} as {shown}, not {wanted}")]
pub struct NotKept {
    /// The property.
    pub property: &'static str,
    /// The requested value.
    pub wanted: String,
    /// The value that is shown.
    pub shown: String,
}
