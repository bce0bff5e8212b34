//! The responders' answers without a socket: for `ferroboot explain` and `ferroboot replay`.

pub mod last_announcement;
pub mod sample_requests;
pub mod vantage;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::path::Path;

use dhcp::limits::Millis;
use dhcp::v4::destination::CLIENT;
use dhcp::v4::proxy::PXE_PORT;
use dhcp::v6::ports::ALL_SERVERS;
use hardware::{ClientArchitecture, Mac};
use provision::artifact::Artifact;
use provision::boot::bootable;
use provision::{BootInterface, Node, ProvisionState};

use self::sample_requests::SampleRequest;
use crate::boot_answer::BootContext;
use crate::interface_addresses::link_local_of;
use crate::network_plan::NetworkResponders;
use crate::node_view::{NodeView, RegisteredPort};
use crate::respond::{Responder, respond};
use crate::v4::{V4Arrival, V4Reply};
use crate::v6::{V6Arrival, V6Reply};

/// The addresses of a packet from a client without an address (RFC 2131 §4.1).
const FROM_NO_ADDRESS: V4Arrival =
    V4Arrival { from: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT), to: Ipv4Addr::BROADCAST };

/// The responders of one network, with copies of their leases.
#[derive(Debug)]
pub struct NetworkDryRun {
    /// The interface.
    pub interface: String,
    /// The responders.
    pub responders: NetworkResponders,
    /// Whether our server identifier is unknown, so that any identifier in a request is accepted as ours.
    pub accepts_any_v4_server_id: bool,
    /// The same for DHCPv6.
    pub accepts_any_v6_server_id: bool,
}

/// A packet to a DHCP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedPacket {
    /// The source address.
    pub from: IpAddr,
    /// The destination address.
    pub to: IpAddr,
    /// The destination port.
    pub port: u16,
    /// The UDP payload.
    pub payload: Vec<u8>,
}

/// The predicted answer to one kind of client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The interface.
    pub interface: String,
    /// `IPv4`, `IPv6`.
    pub family: &'static str,
    /// `UEFI HTTP boot, x64 UEFI HTTP (0x0010)`.
    pub client: String,
    /// `offered 192.0.2.100, to boot bootx64.efi`, or the reason for no offer.
    pub answer: String,
    /// The firmware's reaction where it is known, or the next obstacle.
    pub verdict: Option<String>,
}

/// The record of a machine, before it sends a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KnownMachine {
    /// The MAC address belongs to a port of a node.
    Port {
        /// The node's name or UUID.
        node: String,
        /// Its state.
        state: ProvisionState,
        /// The boot interface of the current or next boot.
        boot_interface: BootInterface,
        /// Whether the port is enabled for booting.
        pxe_enabled: bool,
        /// The stage of its boot.
        boot: DryRunBootStage,
    },
    /// No node has this MAC address.
    Stranger,
}

/// The stage of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DryRunBootStage {
    /// No boot is under way.
    None,
    /// The machine may fetch its boot files.
    Booting,
    /// The agent has called, and the machine may fetch nothing any more.
    Booted,
}

impl NetworkDryRun {
    /// The answers to each kind of client with this MAC address and firmware of `architecture`. `boot_set_folder`
    /// holds the boot sets.
    #[must_use]
    pub fn explain<N: NodeView>(
        &self,
        mac: Mac,
        architecture: ClientArchitecture,
        context: &BootContext<'_, N>,
        boot_set_folder: &Path,
        now: Millis,
    ) -> Vec<Explained> {
        let responders = &self.responders;
        let mut all = Vec::new();
        for sample in sample_requests::all(mac, architecture) {
            let asking = SampleDryRun {
                interface: &self.interface,
                sample: &sample,
                context,
                boot_set_folder,
                now,
            };
            if sample.is_of_v4() {
                let request = sample.v4();
                let verdict = |reply: Option<&V4Reply>| sample.verdict4(&request, reply);
                all.extend(asking.explain(
                    "IPv4",
                    &responders.v4,
                    &request,
                    FROM_NO_ADDRESS,
                    verdict,
                ));
                all.extend(asking.explain(
                    "IPv4",
                    &responders.proxy,
                    &request,
                    FROM_NO_ADDRESS,
                    verdict,
                ));
            }
            let (request, arrival) = (sample.v6(), V6Arrival::to_all(link_local_of(mac)));
            let verdict = |reply: Option<&V6Reply>| sample.verdict6(&request, reply);
            all.extend(asking.explain("IPv6", &responders.v6, &request, arrival, verdict));
        }
        all
    }

    /// The answer to a packet. A lease stays for the packets that follow. `None` if no responder listens on that
    /// port.
    pub fn replay<N: NodeView>(
        &mut self,
        packet: &CapturedPacket,
        context: &BootContext<'_, N>,
        now: Millis,
    ) -> Option<String> {
        let CapturedPacket { from, to, port, payload } = packet;
        let responders = &mut self.responders;
        match *from {
            IpAddr::V4(from) => {
                let to = if let IpAddr::V4(to) = *to { to } else { Ipv4Addr::BROADCAST };
                let arrival = V4Arrival { from: SocketAddrV4::new(from, *port), to };
                let named =
                    self.accepts_any_v4_server_id.then(|| sample_requests::server4(payload));
                let named = named.flatten();
                let beside = match *port {
                    PXE_PORT => &mut responders.pxe,
                    _ => &mut responders.proxy,
                };
                if let Some(proxy) = beside {
                    named.into_iter().for_each(|server| proxy.accept_server_id(server));
                    return Some(respond(proxy, payload, arrival, context, now).in_words());
                }
                let v4 = responders.v4.as_mut().filter(|_| *port != PXE_PORT)?;
                named.into_iter().for_each(|server| v4.accept_server_id(server));
                Some(respond(v4, payload, arrival, context, now).in_words())
            }
            IpAddr::V6(from) => {
                let named =
                    self.accepts_any_v6_server_id.then(|| sample_requests::server6(payload));
                let v6 = responders.v6.as_mut()?;
                named.flatten().into_iter().for_each(|duid| v6.accept_server_id(&duid));
                let to = if let IpAddr::V6(to) = *to { to } else { ALL_SERVERS };
                let arrival = V6Arrival { to, ..V6Arrival::to_all(from) };
                Some(respond(v6, payload, arrival, context, now).in_words())
            }
        }
    }
}

/// One sample client, which asks each responder of a network.
struct SampleDryRun<'a, N> {
    interface: &'a str,
    sample: &'a SampleRequest,
    context: &'a BootContext<'a, N>,
    boot_set_folder: &'a Path,
    now: Millis,
}

impl<N: NodeView> SampleDryRun<'_, N> {
    /// The answer of a responder, if there is one. Each sample starts from a copy of the leases: an offer to one must not
    /// change the next answer.
    fn explain<R: Responder + Clone>(
        &self,
        family: &'static str,
        responder: &Option<R>,
        request: &[u8],
        arrival: R::Arrival,
        verdict: impl Fn(Option<&R::Reply>) -> Option<String>,
    ) -> Option<Explained> {
        let mut responder = responder.clone()?;
        let exchange = respond(&mut responder, request, arrival, self.context, self.now);
        let fetched = exchange.outcome.as_ref().ok().and_then(|outcome| {
            Some((&outcome.request.registered.as_ref()?.node, outcome.answer.artifact?))
        });
        let lacks = fetched
            .and_then(|(node, artifact)| lacks(node, artifact, self.context, self.boot_set_folder));
        Some(Explained {
            interface: self.interface.to_owned(),
            family,
            client: self.sample.to_string(),
            answer: exchange.answer_in_words(),
            verdict: lacks.or_else(|| verdict(exchange.reply.as_ref())),
        })
    }
}

/// The reason why an artifact in the answer cannot be served.
fn lacks<N>(
    node: &Node,
    artifact: Artifact,
    context: &BootContext<'_, N>,
    boot_set_folder: &Path,
) -> Option<String> {
    let cpu_arch = artifact.cpu_arch().or_else(|| node.cpu_arch().ok())?;
    (!context.boot_sets.contains(&cpu_arch)).then(|| {
        format!(
            "which cannot be served: there is no boot set for {cpu_arch} in {}; `ferroboot image build` makes one",
            boot_set_folder.display()
        )
    })
}

impl KnownMachine {
    /// The record of the machine with this MAC address.
    #[must_use]
    pub fn find(mac: Mac, nodes: &impl NodeView) -> Self {
        let Some(RegisteredPort { node, port }) = nodes.by_mac(mac) else {
            return Self::Stranger;
        };
        let live = node.live_attempt();
        Self::Port {
            node: node.name.clone().unwrap_or_else(|| node.uuid.to_string()),
            state: node.provision_state,
            boot_interface: live.map_or(node.boot_interface, |attempt| attempt.boot_interface),
            pxe_enabled: port.pxe_enabled,
            boot: match (bootable(&node), live) {
                (Some(_), _) => DryRunBootStage::Booting,
                (None, Some(attempt)) if attempt.agent.is_some() => DryRunBootStage::Booted,
                (None, Some(_) | None) => DryRunBootStage::None,
            },
        }
    }
}

impl fmt::Display for KnownMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stranger => {
                f.write_str("is not a port of any node: `baremetal port create` adds one")
            }
            Self::Port { node, state, boot_interface, pxe_enabled, boot } => {
                write!(f, "is a port of node {node}, which is in state \"{state}\", ")?;
                match boot {
                    DryRunBootStage::None => write!(f, "is not booting (by {boot_interface}), ")?,
                    DryRunBootStage::Booting => write!(f, "is booting (by {boot_interface}), ")?,
                    DryRunBootStage::Booted => {
                        write!(f, "has booted (by {boot_interface}; its agent has called), ")?;
                    }
                }
                f.write_str(match pxe_enabled {
                    true => "and may boot from it",
                    false => "and may not boot from it (pxe_enabled is false)",
                })
            }
        }
    }
}
