//! The DHCP clients of a machine, during and after its boot.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of a DHCP client, from its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientKind {
    /// UEFI HTTP boot.
    HttpClient,
    /// PXE firmware.
    PxeClient,
    /// iPXE.
    Ipxe,
    /// GRUB.
    Grub,
    /// Our ramdisk agent.
    Agent,
    /// Firmware that requests an address beside its boot.
    Firmware,
    /// Anything else: a running system.
    System,
}

impl ClientKind {
    /// One word, for metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HttpClient => "http_client",
            Self::PxeClient => "pxe_client",
            Self::Ipxe => "ipxe",
            Self::Grub => "grub",
            Self::Agent => "agent",
            Self::Firmware => "firmware",
            Self::System => "system",
        }
    }
}

impl fmt::Display for ClientKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HttpClient => "UEFI HTTP boot",
            Self::PxeClient => "PXE firmware",
            Self::Ipxe => "iPXE",
            Self::Grub => "GRUB",
            Self::Agent => "the ramdisk agent",
            Self::Firmware => "the firmware itself",
            Self::System => "a running system",
        })
    }
}
