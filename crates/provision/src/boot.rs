//! What a firmware or a BMC is told to boot, and with which kernel command line.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::mac::Mac;
use crate::node::{Attempt, Node};
use crate::state::ProvisionState;
use crate::trace::DhcpClient;

/// The boot interfaces of Ironic that Ferroboot has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BootInterface {
    /// The BMC is told the URL of an ISO image (`redfish-https`, the spec's `redfish-http-url`).
    #[default]
    RedfishHttps,
    /// DHCP tells the firmware the URL of a UKI or of GRUB (`http`, the spec's `httpboot`).
    Http,
    /// DHCP tells the firmware the URL of iPXE, and iPXE that of its script (`http-ipxe`).
    HttpIpxe,
}

impl BootInterface {
    /// All of them, in the order of preference.
    pub const ALL: [Self; 3] = [Self::RedfishHttps, Self::Http, Self::HttpIpxe];

    /// Upstream's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RedfishHttps => "redfish-https",
            Self::Http => "http",
            Self::HttpIpxe => "http-ipxe",
        }
    }

    /// What the BMC is given as `HttpBootUri`; `None` where DHCP gives the URL.
    #[must_use]
    pub fn http_boot_uri(self) -> Option<Artifact> {
        match self {
            Self::RedfishHttps => Some(Artifact::Iso),
            Self::Http | Self::HttpIpxe => None,
        }
    }
}

/// The text names no boot interface of ours.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "could not find the boot interface {0:?}; there are redfish-https, http and http-ipxe \
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

/// A file under a ticket: `/boot/{ticket}/{file name}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Artifact {
    /// `bootx64.efi`: what `http` starts, a UKI for this node or GRUB.
    BootLoader,
    /// `snponly.efi`: iPXE.
    Ipxe,
    /// `boot.ipxe`: iPXE's script.
    IpxeScript,
    /// `boot.iso`: the node's ISO image.
    Iso,
    /// `grub.cfg`: GRUB's configuration.
    GrubConfig,
    /// `kernel`.
    Kernel,
    /// `initramfs`.
    Initramfs,
}

impl Artifact {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::BootLoader,
        Self::Ipxe,
        Self::IpxeScript,
        Self::Iso,
        Self::GrubConfig,
        Self::Kernel,
        Self::Initramfs,
    ];

    /// The last part of its URL.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::BootLoader => "bootx64.efi",
            Self::Ipxe => "snponly.efi",
            Self::IpxeScript => "boot.ipxe",
            Self::Iso => "boot.iso",
            Self::GrubConfig => "grub.cfg",
            Self::Kernel => "kernel",
            Self::Initramfs => "initramfs",
        }
    }

    /// The artifact of that name.
    #[must_use]
    pub fn of_file_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|artifact| artifact.file_name() == name)
    }

    /// Whether the operating system is in it, so that having all of it means it can start.
    #[must_use]
    pub fn holds_ramdisk(self, loader: HttpLoader) -> bool {
        match self {
            Self::Iso | Self::Initramfs => true,
            Self::BootLoader => loader == HttpLoader::Uki,
            Self::Ipxe | Self::IpxeScript | Self::GrubConfig | Self::Kernel => false,
        }
    }
}

/// What the `http` boot interface starts first, by configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpLoader {
    /// A UKI composed for the node: one file, one fetch.
    #[default]
    Uki,
    /// GRUB, which fetches `grub.cfg`, kernel and initramfs.
    Grub,
}

/// What a DHCP client is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhcpBoot {
    /// An address and the URL of this artifact.
    Url(Artifact),
    /// An address alone: somebody else told it the URL, or it needs none.
    Address,
}

/// Why a DHCP client is told nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum NoBoot {
    /// The port is not one to boot from.
    #[error("the port is not enabled for booting (pxe_enabled is false)")]
    PortNotEnabled,
    /// The node has no boot under way.
    #[error("the node is in state \"{state}\" and should not boot now")]
    NotNow {
        /// Its state.
        state: ProvisionState,
    },
    /// It speaks PXE, and the node must boot over HTTP.
    #[error(
        "the firmware asked for PXE, not HTTP: switch HTTP boot on, and PXE off, in its set-up"
    )]
    PxeNotHttp,
    /// There is no loader for its architecture.
    #[error("there is no loader for a machine that is {}", architecture_name(*architecture))]
    Architecture {
        /// Option 93.
        architecture: u16,
    },
    /// A firmware that did not say which architecture it is.
    #[error("the firmware did not say its architecture (option 93)")]
    ArchitectureUnknown,
}

/// `x64 UEFI HTTP` of IANA's processor architecture types.
pub const X64_HTTP: u16 = 0x10;

/// A client architecture in words, with its number (IANA, "Processor Architecture Types").
#[must_use]
pub fn architecture_name(architecture: u16) -> String {
    let name = match architecture {
        0x00 => "x86 BIOS",
        0x06 => "x86 UEFI, PXE",
        0x07 | 0x09 => "x64 UEFI, PXE",
        0x0A => "arm32 UEFI, PXE",
        0x0B => "arm64 UEFI, PXE",
        0x0F => "x86 UEFI, HTTP",
        X64_HTTP => "x64 UEFI, HTTP",
        0x12 => "arm32 UEFI, HTTP",
        0x13 => "arm64 UEFI, HTTP",
        0x1B => "riscv64 UEFI, PXE",
        0x1C => "riscv64 UEFI, HTTP",
        0x27 => "loongarch64 UEFI, PXE",
        0x28 => "loongarch64 UEFI, HTTP",
        _ => "of an unknown architecture",
    };
    format!("{name} ({architecture:#06x})")
}

/// What a DHCP client on a known port of `node` is told to boot.
///
/// # Errors
/// [`NoBoot`] where it should be told nothing, which is also what the trace says.
pub fn boot_for(
    node: &Node,
    client: DhcpClient,
    architecture: Option<u16>,
) -> Result<DhcpBoot, NoBoot> {
    let Some(attempt) = bootable(node) else {
        // A running system may have its address; firmware that hears nothing goes on to its disk.
        return match client {
            DhcpClient::Agent | DhcpClient::System => Ok(DhcpBoot::Address),
            DhcpClient::HttpClient
            | DhcpClient::PxeClient
            | DhcpClient::Ipxe
            | DhcpClient::Grub => Err(NoBoot::NotNow { state: node.provision_state }),
        };
    };
    match (client, attempt.boot_interface) {
        (DhcpClient::Agent | DhcpClient::System | DhcpClient::Grub, _) => Ok(DhcpBoot::Address),
        (DhcpClient::PxeClient, _) => Err(NoBoot::PxeNotHttp),
        // The URL is the BMC's to tell; a second one from here could win over it, all the more if iPXE lies
        // in the network card's ROM: firmware that looks for who can load a URL starts that first.
        (DhcpClient::HttpClient | DhcpClient::Ipxe, BootInterface::RedfishHttps) => {
            Ok(DhcpBoot::Address)
        }
        (DhcpClient::HttpClient, BootInterface::Http) => {
            for_x64(architecture, Artifact::BootLoader)
        }
        (DhcpClient::HttpClient, BootInterface::HttpIpxe) => for_x64(architecture, Artifact::Ipxe),
        (DhcpClient::Ipxe, BootInterface::Http | BootInterface::HttpIpxe) => {
            Ok(DhcpBoot::Url(Artifact::IpxeScript))
        }
    }
}

fn for_x64(architecture: Option<u16>, artifact: Artifact) -> Result<DhcpBoot, NoBoot> {
    match architecture {
        Some(X64_HTTP) => Ok(DhcpBoot::Url(artifact)),
        Some(architecture) => Err(NoBoot::Architecture { architecture }),
        None => Err(NoBoot::ArchitectureUnknown),
    }
}

/// The attempt whose images may be fetched now: from the decision to boot until its agent calls.
#[must_use]
pub fn bootable(node: &Node) -> Option<&Attempt> {
    node.live_attempt().filter(|attempt| match node.provision_state {
        ProvisionState::Cleaning | ProvisionState::CleanWait => attempt.agent.is_none(),
        ProvisionState::Enroll
        | ProvisionState::Verifying
        | ProvisionState::Manageable
        | ProvisionState::Available
        | ProvisionState::CleanFailed => false,
    })
}

/// A kernel argument that would be more than one argument.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("kernel_append_params holds the control character {0:?}; give one line of arguments")]
pub struct BadArguments(pub char);

/// The kernel command line of the ramdisk for one attempt of one node.
///
/// `append` is the service's `kernel_append_params`; the node's own, in `driver_info`, replaces it,
/// and `%default%` in it stands for the service's (as upstream). `boot_mac` is the port to boot
/// from, where there is exactly one.
///
/// # Errors
/// [`BadArguments`] for control characters in `kernel_append_params`.
pub fn kernel_command_line(
    node: &Node,
    attempt: &Attempt,
    api_url: &str,
    append: &str,
    boot_mac: Option<Mac>,
) -> Result<String, BadArguments> {
    let own = node.driver_text("kernel_append_params").unwrap_or("%default%");
    let append = own.replace("%default%", append);
    if let Some(odd) = append.chars().find(|c| c.is_control()) {
        return Err(BadArguments(odd));
    }
    let mut line = format!("ipa-api-url={api_url} ipa-agent-token={}", attempt.agent_token.0);
    if let Some(mac) = boot_mac {
        // PXELINUX's form: the hardware type (01 is Ethernet) before the address.
        line.push_str(&format!(" BOOTIF=01-{}", mac.dashed()));
    }
    if !append.is_empty() {
        line.push(' ');
        line.push_str(append.trim());
    }
    Ok(line)
}
