//! Boot decisions for firmware and BMCs, and the kernel command line.

use std::borrow::Borrow;

use hardware::architecture::{CpuArch, X64_PXE};
use hardware::{ClientArchitecture, ClientKind, Mac};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::artifact::{Artifact, HttpLoader};
use crate::boot_interface::BootInterface;
use crate::image::{MachineImage, image_of};
use crate::node::{Attempt, Node, Port};
use crate::position::Position;
use crate::procedure::{Boots, Procedure, Stage};
use crate::state::ProvisionState;

/// Time from the kernel's fetch to the agent's first call, for a kernel with a server's drivers.
pub(crate) const KERNEL_START: SignedDuration = SignedDuration::from_mins(3);

/// The boot method of an attempt, which decides what its trace must show.
#[derive(Clone, Copy, Debug)]
pub struct BootMethod {
    /// The procedure that boots the machine.
    pub procedure: Procedure,
    /// The source of the URL.
    pub interface: BootInterface,
    /// The first loader of `http`.
    pub loader: HttpLoader,
}

impl BootMethod {
    /// The boot method of an attempt.
    #[must_use]
    pub fn of(attempt: &Attempt, loader: HttpLoader) -> Self {
        Self { procedure: attempt.procedure, interface: attempt.boot_interface, loader }
    }

    /// The kind of image.
    #[must_use]
    pub fn boots(&self) -> Boots {
        self.procedure.row().boots
    }
}

/// The boot answer for a DHCP client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhcpBoot {
    /// An address and the URL of this artifact.
    Url(Artifact),
    /// An address and the file name of this artifact, for TFTP.
    Tftp(Artifact),
    /// An address alone: the client has its URL from elsewhere, or needs none.
    Address,
}

/// The available means to boot machines.
#[derive(Clone, Copy, Debug)]
pub struct Means<'a> {
    /// The architectures with a boot set. x64 may be missing: without a set for the node's architecture the daemon
    /// begins no boot.
    pub boot_sets: &'a [CpuArch],
    /// Whether PXE firmware can fetch iPXE over TFTP on its network.
    pub tftp: bool,
}

/// The reason for giving a DHCP client no boot answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum NoBoot {
    /// The port is not enabled for booting.
    #[error("the port is not enabled for booting (pxe_enabled is false)")]
    PortNotEnabled,
    /// The node has no boot under way.
    #[error("the node is in state \"{state}\" and should not boot now")]
    NotNow {
        /// The node's state.
        state: ProvisionState,
    },
    /// The boot has served its purpose.
    #[error("the node has booted: its agent has called already")]
    AgentHasCalled,
    /// The firmware uses PXE, but the node must boot over HTTP.
    #[error(
        "the firmware asked for PXE, not HTTP: switch HTTP boot on, and PXE off, in its set-up"
    )]
    PxeNotHttp,
    /// There is no loader for its architecture.
    #[error("there is no boot loader for the architecture {}", architecture)]
    Architecture {
        /// The architecture in option 93.
        architecture: ClientArchitecture,
    },
    /// No boot set exists for its architecture.
    #[error(
        "there is no boot set for {cpu_arch}: make one with `ferroboot image build --architecture \
         {cpu_arch}`, in the folder {cpu_arch} of the x64 one"
    )]
    NoBootSet {
        /// The machine's architecture.
        cpu_arch: CpuArch,
    },
    /// Its BMC got the URL of an image for another architecture.
    #[error("the machine is {cpu_arch}, and its BMC got an image for {image}")]
    OtherCpuArch {
        /// The machine's architecture.
        cpu_arch: CpuArch,
        /// The image's architecture.
        image: CpuArch,
    },
    /// The node must boot iPXE, which does not exist for its architecture.
    #[error("there is no iPXE for {cpu_arch}: set the node's boot_interface to http")]
    NoIpxe {
        /// The machine's architecture.
        cpu_arch: CpuArch,
    },
    /// Neither the firmware's request nor the node states the architecture.
    #[error(
        "the firmware did not say its architecture (option 93), and cpu_arch in the node's properties names none \
         that can be booted"
    )]
    ArchitectureUnknown,
}

impl NoBoot {
    /// A short name, for metrics.
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

/// The boot answer for a DHCP client on a known port of `node`.
///
/// # Errors
/// [`NoBoot`], the reason for giving no boot answer, which is also in the trace.
pub fn boot_for(
    node: &Node,
    client: ClientKind,
    architecture: Option<ClientArchitecture>,
    means: Means<'_>,
) -> Result<DhcpBoot, NoBoot> {
    let Some(attempt) = bootable(node) else {
        // A running system may have its address; firmware without an answer goes on to its disk.
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
        // EDK2 makes a RAM disk of an ISO image, whatever the source of its URL. iPXE would read the image block by
        // block while the system runs, and the trace would never show a complete fetch.
        (ClientKind::HttpClient, BootInterface::Http | BootInterface::HttpIpxe)
            if boots_iso(node, attempt) =>
        {
            Ok(DhcpBoot::Url(Artifact::Iso))
        }
        (ClientKind::PxeClient, _) if boots_iso(node, attempt) => Err(NoBoot::PxeNotHttp),
        (ClientKind::Ipxe, _) if boots_iso(node, attempt) => Ok(DhcpBoot::Address),
        // iPXE then sends its own request, and goes on over HTTP.
        (ClientKind::PxeClient, BootInterface::Http | BootInterface::HttpIpxe)
            if means.tftp && architecture.is_some_and(|code| X64_PXE.contains(&code)) =>
        {
            Ok(DhcpBoot::Tftp(Artifact::Ipxe))
        }
        (ClientKind::PxeClient, _) => Err(NoBoot::PxeNotHttp),
        // The BMC gives the URL; a second URL from DHCP could take precedence, in particular if the network card's
        // ROM has iPXE: firmware prefers that to load a URL.
        (
            ClientKind::HttpClient,
            BootInterface::RedfishHttps | BootInterface::RedfishVirtualMedia,
        ) => runs_its_iso(node, attempt, architecture).map(|()| DhcpBoot::Address),
        (ClientKind::Ipxe, BootInterface::RedfishHttps | BootInterface::RedfishVirtualMedia) => {
            Ok(DhcpBoot::Address)
        }
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

/// The architecture that selects the loader, among those in a request (RFC 4578 §2.1): the first with a boot answer,
/// otherwise the first.
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

/// The script names the boot set's kernel; an iPXE without an architecture gets the kernel for the node's.
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

/// Whether the attempt boots an ISO image that the daemon did not compose.
#[must_use]
pub fn boots_iso(node: &Node, attempt: &Attempt) -> bool {
    let image = image_of(node, attempt.boots(), attempt.boot_interface);
    matches!(image, Ok(MachineImage::Iso(_)))
}

/// A foreign ISO image may be for any architecture, or for several.
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

/// Firmware that does not state its architecture is assumed to have its node's: it refuses a loader for another one.
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

/// The attempt whose images may be fetched now: from the decision to boot until its agent calls, or until its
/// instance is removed.
#[must_use]
pub fn bootable(node: &Node) -> Option<&Attempt> {
    let state = node.provision_state;
    node.live_attempt().filter(|attempt| match (state.position(), attempt.boots()) {
        (Position::In(procedure, Stage::AtWork | Stage::Waiting), boots) => {
            procedure == attempt.procedure
                && match boots {
                    // A step of the daemon's own resets the machine, which then boots as usual.
                    Boots::Ramdisk => {
                        let run = &attempt.run;
                        let is_due = !run.is_at_bmc_step() && !run.is_over_without_agent();
                        attempt.agent.is_none() && is_due
                    }
                    Boots::Instance => true,
                    Boots::Nothing => false,
                }
        }
        (Position::Rest, Boots::Instance) => state == ProvisionState::Active,
        (Position::In(_, Stage::Held | Stage::Failed) | Position::Rest, _) => false,
    })
}

/// A kernel argument contains a control character.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("kernel_append_params holds the control character {0:?}; give one line of arguments")]
pub struct BadArguments(pub char);

/// The operator's kernel arguments for a node.
///
/// `append` is the service's `kernel_append_params`. The node's own in `driver_info` replaces it; for an instance,
/// the one in `instance_info` comes first. `%default%` in it stands for the service's (as in Ironic).
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

/// The boot port of a machine, if there is exactly one.
#[must_use]
pub fn boot_mac(ports: &[impl Borrow<Port>]) -> Option<Mac> {
    let mut bootable = ports.iter().map(Borrow::borrow).filter(|port| port.pxe_enabled);
    match (bootable.next(), bootable.next()) {
        (Some(only), None) => Some(only.address),
        (None, _) | (Some(_), Some(_)) => None,
    }
}

/// The kernel command line of an attempt: with its [arguments](kernel_arguments), for which `append` is the
/// service's. `boot_mac` is the [boot port](boot_mac). Only a ramdisk with an agent gets the agent URL and the token.
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
    // PXELINUX's form: the hardware type (01 is Ethernet) before the MAC address.
    let boot_mac = boot_mac.map(|mac| format!("BOOTIF=01-{}", mac.dashed())).unwrap_or_default();
    let mut parts = vec![call_home.as_str(), &boot_mac, &append];
    parts.retain(|part| !part.is_empty());
    Ok(parts.join(" "))
}

/// The attempt of an active node's instance, which its machine boots at every power-on; `None` for other nodes.
#[must_use]
pub fn instance_attempt(node: &Node) -> Option<&Attempt> {
    bootable(node).filter(|_| node.provision_state == ProvisionState::Active)
}
