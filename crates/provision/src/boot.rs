//! What a firmware or a BMC is told to boot, and with which kernel command line.

use std::fmt;
use std::str::FromStr;

use hardware::architecture::{CpuArch, X64_PXE};
use hardware::{ClientArchitecture, ClientKind, Mac};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::image::{MachineImage, image_of};
use crate::node::{Attempt, Node};
use crate::procedure::{Boots, Stage};
use crate::state::{Position, ProvisionState};

/// How long a kernel with a server's drivers may take from its fetch to the agent's first call.
pub(crate) const KERNEL_START: SignedDuration = SignedDuration::from_mins(3);

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Artifact {
    /// `bootx64.efi`: what `http` starts, a UKI for this node or GRUB.
    BootLoader,
    /// `bootaa64.efi`: the same for arm64.
    BootLoaderArm64,
    /// `bootriscv64.efi`: the same for riscv64.
    BootLoaderRiscv64,
    /// `snponly.efi`: iPXE.
    Ipxe,
    /// `snponly-arm64.efi`: iPXE for arm64.
    IpxeArm64,
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
    pub const ALL: [Self; 10] = [
        Self::BootLoader,
        Self::BootLoaderArm64,
        Self::BootLoaderRiscv64,
        Self::Ipxe,
        Self::IpxeArm64,
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
            Self::BootLoaderArm64 => "bootaa64.efi",
            Self::BootLoaderRiscv64 => "bootriscv64.efi",
            Self::Ipxe => "snponly.efi",
            Self::IpxeArm64 => "snponly-arm64.efi",
            Self::IpxeScript => "boot.ipxe",
            Self::Iso => "boot.iso",
            Self::GrubConfig => "grub.cfg",
            Self::Kernel => "kernel",
            Self::Initramfs => "initramfs",
        }
    }

    /// What `http` starts on machines of an architecture.
    #[must_use]
    pub fn boot_loader(cpu_arch: CpuArch) -> Self {
        match cpu_arch {
            CpuArch::X64 => Self::BootLoader,
            CpuArch::Arm64 => Self::BootLoaderArm64,
            CpuArch::Riscv64 => Self::BootLoaderRiscv64,
        }
    }

    /// iPXE for machines of an architecture, where there is one.
    #[must_use]
    pub fn ipxe(cpu_arch: CpuArch) -> Option<Self> {
        match cpu_arch {
            CpuArch::X64 => Some(Self::Ipxe),
            CpuArch::Arm64 => Some(Self::IpxeArm64),
            CpuArch::Riscv64 => None,
        }
    }

    /// Which architecture alone can run it; `None` for what each has one of by the same name.
    #[must_use]
    pub fn cpu_arch(self) -> Option<CpuArch> {
        match self {
            Self::BootLoader | Self::Ipxe => Some(CpuArch::X64),
            Self::BootLoaderArm64 | Self::IpxeArm64 => Some(CpuArch::Arm64),
            Self::BootLoaderRiscv64 => Some(CpuArch::Riscv64),
            Self::IpxeScript | Self::Iso | Self::GrubConfig | Self::Kernel | Self::Initramfs => {
                None
            }
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
            Self::BootLoader | Self::BootLoaderArm64 | Self::BootLoaderRiscv64 => {
                loader == HttpLoader::Uki
            }
            Self::Ipxe | Self::IpxeArm64 | Self::IpxeScript | Self::GrubConfig | Self::Kernel => {
                false
            }
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

/// How a machine boots in one attempt: what the trace of it must show.
#[derive(Clone, Copy, Debug)]
pub struct BootMethod {
    /// What it boots.
    pub boots: Boots,
    /// Who tells it the URL.
    pub interface: BootInterface,
    /// What `http` starts first.
    pub loader: HttpLoader,
}

impl BootMethod {
    /// That of an attempt.
    #[must_use]
    pub fn of(attempt: &Attempt, loader: HttpLoader) -> Self {
        Self { boots: attempt.boots(), interface: attempt.boot_interface, loader }
    }
}

/// What a DHCP client is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhcpBoot {
    /// An address and the URL of this artifact.
    Url(Artifact),
    /// An address and the name of this artifact, to be fetched over TFTP.
    Tftp(Artifact),
    /// An address alone: somebody else told it the URL, or it needs none.
    Address,
}

/// What there is to boot machines with.
#[derive(Clone, Copy, Debug)]
pub struct Means<'a> {
    /// The architectures that have a boot set. x64 need not be among them: without a set of its own the
    /// daemon does not begin a boot.
    pub boot_sets: &'a [CpuArch],
    /// Whether firmware that asks for PXE can fetch iPXE over TFTP from where it is.
    pub tftp: bool,
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
    /// The node's boot has done what it was for.
    #[error("the node has booted: its agent has called already")]
    AgentHasCalled,
    /// It speaks PXE, and the node must boot over HTTP.
    #[error(
        "the firmware asked for PXE, not HTTP: switch HTTP boot on, and PXE off, in its set-up"
    )]
    PxeNotHttp,
    /// There is no loader for its architecture.
    #[error("there is no loader for a machine that is {}", architecture)]
    Architecture {
        /// Option 93.
        architecture: ClientArchitecture,
    },
    /// Nobody has made a boot set for its architecture.
    #[error(
        "there is no boot set for {cpu_arch}: make one with `ferroboot image build --architecture \
         {cpu_arch}`, in the folder {cpu_arch} of the x64 one"
    )]
    NoBootSet {
        /// Its architecture.
        cpu_arch: CpuArch,
    },
    /// Its BMC was told the URL of an image that it cannot run.
    #[error("the machine is {cpu_arch}, and its BMC was told an image for {image}")]
    OtherCpuArch {
        /// Its architecture.
        cpu_arch: CpuArch,
        /// That of the image.
        image: CpuArch,
    },
    /// It must boot iPXE, which there is none of for its architecture.
    #[error("there is no iPXE for {cpu_arch}: set the node's boot_interface to http")]
    NoIpxe {
        /// Its architecture.
        cpu_arch: CpuArch,
    },
    /// A firmware that did not say which architecture it is, of a node of which it is not known either.
    #[error(
        "the firmware did not say its architecture (option 93), and cpu_arch in the node's properties names none \
         that can be booted"
    )]
    ArchitectureUnknown,
}

impl NoBoot {
    /// A short name, for counters.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PortNotEnabled => "port_not_enabled",
            Self::NotNow { .. } => "not_now",
            Self::AgentHasCalled => "agent_has_called",
            Self::PxeNotHttp => "pxe_not_http",
            Self::Architecture { .. } => "architecture",
            Self::NoBootSet { .. } => "no_boot_set",
            Self::OtherCpuArch { .. } => "other_cpu_arch",
            Self::NoIpxe { .. } => "no_ipxe",
            Self::ArchitectureUnknown => "architecture_unknown",
        }
    }
}

/// What a DHCP client on a known port of `node` is told to boot.
///
/// # Errors
/// [`NoBoot`] where it should be told nothing, which is also what the trace says.
pub fn boot_for(
    node: &Node,
    client: ClientKind,
    architecture: Option<ClientArchitecture>,
    means: Means<'_>,
) -> Result<DhcpBoot, NoBoot> {
    let Some(attempt) = bootable(node) else {
        // A running system may have its address; firmware that hears nothing goes on to its disk.
        return match client {
            ClientKind::Agent | ClientKind::Firmware | ClientKind::System => Ok(DhcpBoot::Address),
            ClientKind::HttpClient
            | ClientKind::PxeClient
            | ClientKind::Ipxe
            | ClientKind::Grub => Err(not_now(node)),
        };
    };
    match (client, attempt.boot_interface) {
        (ClientKind::Agent | ClientKind::Firmware | ClientKind::System | ClientKind::Grub, _) => {
            Ok(DhcpBoot::Address)
        }
        // EDK2 makes a RAM disk of an ISO image, whoever told it the URL. iPXE would read it block by block as the
        // system goes, and nothing would show that the machine has all of it.
        (ClientKind::HttpClient, BootInterface::Http | BootInterface::HttpIpxe)
            if boots_iso(node, attempt) =>
        {
            Ok(DhcpBoot::Url(Artifact::Iso))
        }
        (ClientKind::PxeClient, _) if boots_iso(node, attempt) => Err(NoBoot::PxeNotHttp),
        (ClientKind::Ipxe, _) if boots_iso(node, attempt) => Ok(DhcpBoot::Address),
        // iPXE then asks again, and goes on over HTTP.
        (ClientKind::PxeClient, BootInterface::Http | BootInterface::HttpIpxe)
            if means.tftp && architecture.is_some_and(|code| X64_PXE.contains(&code)) =>
        {
            Ok(DhcpBoot::Tftp(Artifact::Ipxe))
        }
        (ClientKind::PxeClient, _) => Err(NoBoot::PxeNotHttp),
        // The URL is the BMC's to tell; a second one from here could win over it, all the more if iPXE lies
        // in the network card's ROM: firmware that looks for who can load a URL starts that first.
        (ClientKind::HttpClient, BootInterface::RedfishHttps) => {
            runs_its_iso(node, attempt, architecture).map(|()| DhcpBoot::Address)
        }
        (ClientKind::Ipxe, BootInterface::RedfishHttps) => Ok(DhcpBoot::Address),
        (ClientKind::HttpClient, BootInterface::Http) => {
            let cpu_arch = cpu_arch_of(node, architecture, means.boot_sets)?;
            Ok(DhcpBoot::Url(Artifact::boot_loader(cpu_arch)))
        }
        (ClientKind::HttpClient, BootInterface::HttpIpxe) => {
            let cpu_arch = cpu_arch_of(node, architecture, means.boot_sets)?;
            let ipxe = Artifact::ipxe(cpu_arch).ok_or(NoBoot::NoIpxe { cpu_arch })?;
            Ok(DhcpBoot::Url(ipxe))
        }
        (ClientKind::Ipxe, BootInterface::Http | BootInterface::HttpIpxe) => {
            runs_its_script(architecture, means.boot_sets)?;
            Ok(DhcpBoot::Url(Artifact::IpxeScript))
        }
    }
}

/// The architecture to choose by, of those that a client names (RFC 4578 §2.1): the first by which it is told
/// anything, else the first.
#[must_use]
pub fn architecture_for(
    node: &Node,
    client: ClientKind,
    named: &[ClientArchitecture],
    means: Means<'_>,
) -> Option<ClientArchitecture> {
    let mut named = named.iter().copied();
    let first = named.clone().next();
    named.find(|code| boot_for(node, client, Some(*code), means).is_ok()).or(first)
}

/// The script names a kernel, which is the boot set's; an iPXE that does not say what it is gets the one for the node's
/// architecture.
fn runs_its_script(
    architecture: Option<ClientArchitecture>,
    boot_sets: &[CpuArch],
) -> Result<(), NoBoot> {
    let Some(architecture) = architecture else { return Ok(()) };
    let cpu_arch = CpuArch::of_ipxe(architecture);
    has_boot_set(cpu_arch.ok_or(NoBoot::Architecture { architecture })?, boot_sets).map(drop)
}

fn not_now(node: &Node) -> NoBoot {
    match node.live_attempt().is_some_and(|attempt| attempt.agent.is_some()) {
        true => NoBoot::AgentHasCalled,
        false => NoBoot::NotNow { state: node.provision_state },
    }
}

/// Whether the attempt boots an ISO image that we did not compose.
#[must_use]
pub fn boots_iso(node: &Node, attempt: &Attempt) -> bool {
    let image = image_of(node, attempt.boots(), attempt.boot_interface);
    matches!(image, Ok(MachineImage::Iso(_)))
}

/// An image of somebody's own may be for any machine, or several.
fn runs_its_iso(
    node: &Node,
    attempt: &Attempt,
    architecture: Option<ClientArchitecture>,
) -> Result<(), NoBoot> {
    let composed = !boots_iso(node, attempt);
    match (architecture.and_then(CpuArch::of_http_client), node.cpu_arch()) {
        (Some(cpu_arch), Ok(image)) if composed && cpu_arch != image => {
            Err(NoBoot::OtherCpuArch { cpu_arch, image })
        }
        (Some(_) | None, Ok(_) | Err(_)) => Ok(()),
    }
}

/// Firmware that does not say what it is, is taken for what its node is: it starts no loader that is not for it.
fn cpu_arch_of(
    node: &Node,
    architecture: Option<ClientArchitecture>,
    boot_sets: &[CpuArch],
) -> Result<CpuArch, NoBoot> {
    let cpu_arch = match architecture {
        Some(architecture) => {
            CpuArch::of_http_client(architecture).ok_or(NoBoot::Architecture { architecture })?
        }
        None => node.cpu_arch().map_err(|_| NoBoot::ArchitectureUnknown)?,
    };
    has_boot_set(cpu_arch, boot_sets)
}

fn has_boot_set(cpu_arch: CpuArch, boot_sets: &[CpuArch]) -> Result<CpuArch, NoBoot> {
    if cpu_arch != CpuArch::X64 && !boot_sets.contains(&cpu_arch) {
        return Err(NoBoot::NoBootSet { cpu_arch });
    }
    Ok(cpu_arch)
}

/// The attempt whose images may be fetched now: from the decision to boot until its agent calls, or until its instance
/// is taken away.
#[must_use]
pub fn bootable(node: &Node) -> Option<&Attempt> {
    let state = node.provision_state;
    node.live_attempt().filter(|attempt| match (state.position(), attempt.boots()) {
        (Position::In(procedure, Stage::AtWork | Stage::Waiting), boots) => {
            procedure == attempt.procedure
                && match boots {
                    Boots::Ramdisk => attempt.agent.is_none(),
                    Boots::Instance => true,
                    Boots::Nothing => false,
                }
        }
        (Position::Rest, Boots::Instance) => state == ProvisionState::Active,
        (Position::In(_, Stage::Held | Stage::Failed) | Position::Rest, _) => false,
    })
}

/// A kernel argument that would be more than one argument.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("kernel_append_params holds the control character {0:?}; give one line of arguments")]
pub struct BadArguments(pub char);

/// The kernel arguments that an operator wants for a node.
///
/// `append` is the service's `kernel_append_params`; the node's own, in `driver_info`, replaces it, and for an instance
/// its own, in `instance_info`, before that. `%default%` in it stands for the service's (as upstream).
///
/// # Errors
/// [`BadArguments`] for control characters.
pub fn kernel_arguments(node: &Node, boots: Boots, append: &str) -> Result<String, BadArguments> {
    const KEY: &str = "kernel_append_params";
    let of_instance = match boots {
        Boots::Instance => node.instance_text(KEY),
        Boots::Ramdisk | Boots::Nothing => None,
    };
    let own = of_instance.or_else(|| node.driver_text(KEY)).unwrap_or("%default%");
    let append = own.replace("%default%", append);
    match append.chars().find(|c| c.is_control()) {
        Some(odd) => Err(BadArguments(odd)),
        None => Ok(append.trim().to_owned()),
    }
}

/// The kernel command line for one attempt of one node: with its [arguments](kernel_arguments), for which `append` is
/// the service's. `boot_mac` is the port to boot from, where there is exactly one. Only a ramdisk with an agent is told
/// where to call, and the token.
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
    let append = kernel_arguments(node, attempt.boots(), append)?;
    let call_home = match attempt.boots() {
        Boots::Ramdisk | Boots::Nothing => {
            format!("ipa-api-url={api_url} ipa-agent-token={}", attempt.agent_token.0)
        }
        Boots::Instance => String::new(),
    };
    // PXELINUX's form: the hardware type (01 is Ethernet) before the address.
    let boot_mac = boot_mac.map(|mac| format!("BOOTIF=01-{}", mac.dashed())).unwrap_or_default();
    let mut parts = vec![call_home.as_str(), &boot_mac, &append];
    parts.retain(|part| !part.is_empty());
    Ok(parts.join(" "))
}
