//! The ways in which a BMC has its machine boot over HTTP, and what a boot changes at the BMC.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a BMC has its machine boot over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootWayKind {
    /// The boot override `UefiHttp` with `HttpBootUri` (DSP2046, ComputerSystem).
    HttpBootUri,
    /// Dell's BIOS attributes `HttpDev1…`, and the boot override `UefiHttp`.
    DellHttpDevice,
    /// HPE's BIOS attribute `UrlBootFile`, and the boot override `UefiHttp`.
    HpeUrlBootFile,
    /// The boot override `UefiHttp`; the URL comes from DHCP.
    UefiHttp,
    /// The boot override `Pxe` on firmware that tries HTTP then; the URL comes from DHCP.
    Pxe,
    /// The boot option of the node's card, for the next boot; the URL comes from DHCP.
    BootOption,
    /// The boot option of the node's card, first in the boot order; the URL comes from DHCP.
    BootOrder,
    /// The image in a virtual CD drive of the BMC.
    VirtualMedia,
}

impl BootWayKind {
    /// Whether the URL comes from DHCP.
    #[must_use]
    pub fn is_by_dhcp(self) -> bool {
        match self {
            Self::UefiHttp | Self::Pxe | Self::BootOption | Self::BootOrder => true,
            Self::HttpBootUri
            | Self::DellHttpDevice
            | Self::HpeUrlBootFile
            | Self::VirtualMedia => false,
        }
    }
}

impl fmt::Display for BootWayKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HttpBootUri => "HttpBootUri in the boot override",
            Self::DellHttpDevice => "the BIOS attributes HttpDev1",
            Self::HpeUrlBootFile => "the BIOS attribute UrlBootFile",
            Self::UefiHttp => "the boot target UefiHttp, with the URL from DHCP",
            Self::Pxe => "the boot target Pxe, with the URL from DHCP",
            Self::BootOption => "the boot option of the card, with the URL from DHCP",
            Self::BootOrder => "the boot order, with the URL from DHCP",
            Self::VirtualMedia => "the virtual CD drive",
        })
    }
}

/// What a boot changes at the BMC beside the boot override, with what is needed to undo it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "changed")]
pub enum BootChange {
    /// A BIOS attribute holds the URL. It is emptied afterwards.
    BiosUrl {
        /// The path of the BIOS settings resource.
        settings: String,
        /// The attribute.
        attribute: String,
    },
    /// A boot order. It is restored afterwards.
    Order {
        /// The path of the resource.
        resource: String,
        /// `BootOrder`, or HPE's `PersistentBootConfigOrder`.
        property: String,
        /// The order before.
        before: Vec<String>,
    },
    /// An image is inserted. It is ejected afterwards.
    Media {
        /// The path of the `VirtualMedia` resource.
        drive: String,
    },
}

impl BootChange {
    /// The path of the changed resource.
    #[must_use]
    pub fn place(&self) -> &str {
        match self {
            Self::BiosUrl { settings, .. } => settings,
            Self::Order { resource, .. } => resource,
            Self::Media { drive } => drive,
        }
    }
}

/// What the BMC holds until the change is undone.
impl fmt::Display for BootChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BiosUrl { settings, attribute } => {
                write!(f, "a boot URL in the BIOS attribute {attribute} at {settings}")
            }
            Self::Order { resource, property, before } => {
                write!(f, "another {property} at {resource} (before: {})", before.join(", "))
            }
            Self::Media { drive } => write!(f, "an image in the virtual drive {drive}"),
        }
    }
}
