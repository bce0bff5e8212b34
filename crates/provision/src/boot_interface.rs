//! The boot interfaces: the source of a machine's boot URL.

use std::fmt;
use std::str::FromStr;

use hardware::CpuArch;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::artifact::{Artifact, HttpLoader};

/// The supported boot interfaces of Ironic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BootInterface {
    /// The BMC gets the URL of an ISO image (`redfish-https`, the spec's `redfish-http-url`).
    #[default]
    RedfishHttps,
    /// The firmware gets the URL of a UKI or of GRUB from DHCP (`http`, the spec's `httpboot`).
    Http,
    /// The firmware gets the URL of iPXE from DHCP, and iPXE the URL of its script (`http-ipxe`).
    HttpIpxe,
    /// The BMC gets the URL of an ISO image for its virtual CD drive (`redfish-virtual-media`).
    RedfishVirtualMedia,
}

impl BootInterface {
    /// All boot interfaces, in the order of preference.
    pub const ALL: [Self; 4] =
        [Self::RedfishHttps, Self::Http, Self::HttpIpxe, Self::RedfishVirtualMedia];

    /// Ironic's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RedfishHttps => "redfish-https",
            Self::Http => "http",
            Self::HttpIpxe => "http-ipxe",
            Self::RedfishVirtualMedia => "redfish-virtual-media",
        }
    }

    /// The artifact whose URL the BMC gets, for the firmware or for its virtual CD drive; `None` if DHCP gives the URL.
    #[must_use]
    pub fn bmc_artifact(self) -> Option<Artifact> {
        match self {
            Self::RedfishHttps | Self::RedfishVirtualMedia => Some(Artifact::Iso),
            Self::Http | Self::HttpIpxe => None,
        }
    }

    /// Whether a boot begins with shim if `loader` is the first loader in the settings: over HTTP, and in an ISO image for
    /// an architecture that has signed loaders.
    #[must_use]
    pub fn begins_with_shim(self, loader: HttpLoader, cpu_arch: CpuArch) -> bool {
        match self {
            Self::HttpIpxe => false,
            Self::Http => loader.is_shim(),
            Self::RedfishHttps | Self::RedfishVirtualMedia => loader.in_image(cpu_arch).is_shim(),
        }
    }
}

/// The text is not a supported boot interface.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "could not find the boot interface {0:?}; there are redfish-https, http, http-ipxe and redfish-virtual-media \
     (redfish-http-url and httpboot are other names of the first two)"
)]
pub struct NoSuchBootInterface(pub String);

impl FromStr for BootInterface {
    type Err = NoSuchBootInterface;

    fn from_str(text: &str) -> Result<Self, NoSuchBootInterface> {
        match text {
            "redfish-https" | "redfish-http-url" => Ok(Self::RedfishHttps),
            "http" | "httpboot" => Ok(Self::Http),
            "http-ipxe" => Ok(Self::HttpIpxe),
            "redfish-virtual-media" => Ok(Self::RedfishVirtualMedia),
            _ => Err(NoSuchBootInterface(text.to_owned())),
        }
    }
}

impl TryFrom<String> for BootInterface {
    type Error = NoSuchBootInterface;

    fn try_from(text: String) -> Result<Self, NoSuchBootInterface> {
        text.parse()
    }
}

impl From<BootInterface> for String {
    fn from(boot_interface: BootInterface) -> Self {
        boot_interface.name().to_owned()
    }
}

impl fmt::Display for BootInterface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
