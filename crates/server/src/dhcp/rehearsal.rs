//! What the service would answer, with its settings, nodes and leases as they are, and without a socket:
//! nothing is sent, and nothing is written.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::path::Path;

use anyhow::{Context as _, Result};
use dhcp::architecture::Architecture;
use dhcp::limits::{Limits, Rate, Rates};
use dhcp::v4::destination::CLIENT;
use dhcp::v4::proxy::Port;
use provision::{BootInterface, Mac, ProvisionState};
use store::Store;

use super::counter::{Desk as _, now};
use super::heard::Story;
use super::journal::{Table, look};
use super::machines::Machines;
use super::questions::{self, Question};
use super::{plan, proxy, socket, v4, v6};
use crate::artifacts::BootSets;
use crate::change::Nodes;
use crate::config::{self, Config};
use crate::nodes::{Found, Index};
use crate::urls::Urls;

/// Whoever asks for an address has none yet (RFC 2131 §4.1).
const FROM: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT);

/// The desks of all networks, with copies of their leases.
#[derive(Debug)]
pub struct Rehearsal {
    networks: Vec<Desks>,
    machines: Machines,
}

#[derive(Debug)]
struct Desks {
    interface: String,
    v4: Option<v4::Desk>,
    proxy: Option<proxy::Desk>,
    /// What a proxy says on its other port.
    pxe: Option<proxy::Desk>,
    v6: Option<v6::Desk>,
}

/// A packet that was sent to a DHCP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Whose address it came from.
    pub from: IpAddr,
    /// The port it was sent to.
    pub port: u16,
    /// What was in the UDP datagram.
    pub payload: Vec<u8>,
}

/// What one sort of client would get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// On which interface.
    pub interface: String,
    /// `IPv4`, `IPv6`.
    pub family: &'static str,
    /// `UEFI HTTP boot, x64 UEFI HTTP (0x0010)`.
    pub client: String,
    /// `offered 192.0.2.100, to boot bootx64.efi`, or why not.
    pub answer: String,
    /// What the firmware makes of it, where it is known.
    pub verdict: Option<String>,
}

/// What is known of a machine before it asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is a port of a node.
    Port {
        /// The node's name or UUID.
        node: String,
        /// Its state.
        state: ProvisionState,
        /// How it boots.
        boot_interface: BootInterface,
        /// Whether the port is one to boot from.
        pxe_enabled: bool,
        /// Whether a boot is under way.
        booting: bool,
    },
    /// Nobody registered it.
    Stranger,
}

impl Rehearsal {
    /// Reads settings, nodes and leases.
    ///
    /// # Errors
    /// In words: the database cannot be read, an interface is missing.
    pub async fn open(config: &Config) -> Result<Self> {
        let index = index(config).await?;
        let networks: Vec<_> = config
            .dhcp
            .networks
            .iter()
            .map(|network| Desks::open(network, config))
            .collect::<Result<_>>()?;
        let urls = Urls::new(config, networks.iter().find_map(Desks::address));
        let boot_sets = BootSets::look(&config.boot_sets_in(&config.state_dir()?));
        let machines = Machines { index, urls, boot_sets, tftp: config.dhcp.tftp };
        Ok(Self { networks, machines })
    }

    /// The interfaces that are answered on.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        self.networks.iter().map(|network| network.interface.as_str())
    }

    /// Who the machine is.
    #[must_use]
    pub fn known(&self, mac: Mac) -> Known {
        let Some(Found { node, port }) = self.machines.index.by_mac(mac) else {
            return Known::Stranger;
        };
        Known::Port {
            node: node.name.clone().unwrap_or_else(|| node.uuid.to_string()),
            state: node.provision_state,
            boot_interface: node.boot_interface,
            pxe_enabled: port.pxe_enabled,
            booting: node.live_attempt().is_some(),
        }
    }

    /// What each sort of client at this address would get now, on each network; firmware as one of
    /// `architecture`.
    #[must_use]
    pub fn explain(&self, mac: Mac, architecture: Architecture) -> Vec<Explained> {
        let mut all = Vec::new();
        for network in &self.networks {
            for question in questions::all(mac, architecture) {
                // Each is the first that is asked: what one is offered must not change the next.
                all.extend(network.v4.clone().map(|mut desk| {
                    let asked = question.v4();
                    let heard = desk.hear(&asked, FROM, &self.machines, now());
                    let verdict = question.verdict4(&asked, heard.reply.as_ref());
                    explained(network, "IPv4", &question, heard.story.as_ref(), verdict)
                }));
                all.extend(network.proxy.clone().map(|mut desk| {
                    let asked = question.v4();
                    let heard = desk.hear(&asked, FROM, &self.machines, now());
                    let verdict = question.verdict4(&asked, heard.reply.as_ref());
                    explained(network, "IPv4", &question, heard.story.as_ref(), verdict)
                }));
                all.extend(network.v6.clone().map(|mut desk| {
                    let asked = question.v6();
                    let heard = desk.hear(
                        &asked,
                        to_all(questions::link_local(mac)),
                        &self.machines,
                        now(),
                    );
                    let verdict = question.verdict6(&asked, heard.reply.as_ref());
                    explained(network, "IPv6", &question, heard.story.as_ref(), verdict)
                }));
            }
        }
        all.sort_by_key(|explained| (explained.interface.clone(), explained.family));
        all
    }

    /// What the service says to a packet, `after` that many seconds; what it gives stays given for the
    /// packets that follow. `None` if nobody answers that family on the interface.
    pub fn hear(&mut self, interface: &str, packet: &Captured, after: u64) -> Option<String> {
        let network = self.networks.iter_mut().find(|network| network.interface == interface)?;
        let now = now() + 1_000 * after;
        let story = match packet.from {
            IpAddr::V4(from) => {
                let from = SocketAddrV4::new(from, packet.port);
                let beside = match packet.port {
                    socket::PXE => network.pxe.as_mut(),
                    _ => network.proxy.as_mut(),
                };
                match beside {
                    Some(desk) => desk.hear(&packet.payload, from, &self.machines, now).story,
                    None => {
                        network.v4.as_mut()?.hear(&packet.payload, from, &self.machines, now).story
                    }
                }
            }
            IpAddr::V6(from) => {
                network.v6.as_mut()?.hear(&packet.payload, to_all(from), &self.machines, now).story
            }
        };
        Some(match story {
            None => "this is no DHCP message that can be read".to_owned(),
            Some(story) => format!("{}: {}", story.asked, said(&story)),
        })
    }
}

impl Desks {
    fn open(settings: &config::Network, config: &Config) -> Result<Self> {
        let state_dir = config.state_dir()?;
        let secs = config.dhcp.lease_secs;
        let beside = |port| plan::beside(settings, secs, port, unlimited());
        Ok(Self {
            interface: settings.interface.clone(),
            v4: plan::desk4(settings, secs, unlimited(), |name, pool| {
                found(&state_dir, name, pool)
            })?,
            proxy: beside(Port::Dhcp)?,
            pxe: beside(Port::Pxe)?,
            v6: plan::desk6(settings, secs, unlimited(), |name, pool| {
                found(&state_dir, name, pool)
            })?,
        })
    }

    fn address(&self) -> Option<IpAddr> {
        let v4 = self.v4.as_ref().map(v4::Desk::address);
        let v4 = v4.or_else(|| self.proxy.as_ref().map(|desk| desk.about().server));
        v4.map(IpAddr::from).or_else(|| self.v6.as_ref().map(|desk| desk.address().into()))
    }
}

/// As clients send, whatever a capture has of that.
fn to_all(from: Ipv6Addr) -> v6::Way {
    v6::Way { from: SocketAddrV6::new(from, socket::CLIENT6, 0, 0), to: socket::SERVERS6 }
}

/// What was captured in a second may be gone through in less.
fn unlimited() -> Limits {
    let (each, known, guests) = (Rate::ANY, Rate::ANY, Rate::ANY);
    Limits::new(Rates { each, known, guests }, 0)
}

/// A subnet's leases, as they are.
fn found<T: Table>(state_dir: &Path, name: &str, pool: T::Pool) -> Result<T> {
    let path = state_dir.join(name);
    look(&path, pool).with_context(|| format!("cannot read the leases in {}", path.display()))
}

/// The nodes; none, where there is no database yet.
async fn index(config: &Config) -> Result<Index> {
    let state_dir = config.state_dir()?;
    let url = config.database_url(&state_dir);
    if config.database.url.is_none() && !state_dir.join("ferroboot.db").exists() {
        return Ok(Index::default());
    }
    let store = Store::open(&url).await.context("cannot open the database")?;
    let nodes = Nodes::new(store.clone(), Index::default(), config.policy());
    nodes.load().await.context("cannot read the nodes")?;
    store.close().await;
    Ok(nodes.index().clone())
}

fn explained(
    network: &Desks,
    family: &'static str,
    question: &Question,
    story: Option<&Story>,
    verdict: Option<String>,
) -> Explained {
    Explained {
        interface: network.interface.clone(),
        family,
        client: question.to_string(),
        answer: story.map_or_else(|| "cannot be read".to_owned(), said),
        verdict,
    }
}

fn said(story: &Story) -> String {
    story.answer().map_or_else(|| "noted".to_owned(), |answer| answer.to_string())
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stranger => {
                f.write_str("is no port of any node: `baremetal port create` adds one")
            }
            Self::Port { node, state, boot_interface, pxe_enabled, booting } => {
                write!(f, "is a port of node {node}, which is in state \"{state}\", ")?;
                f.write_str(if *booting { "is booting" } else { "is not booting" })?;
                write!(f, " (by {boot_interface}), ")?;
                f.write_str(match pxe_enabled {
                    true => "and may boot from it",
                    false => "and may not boot from it (pxe_enabled is false)",
                })
            }
        }
    }
}
