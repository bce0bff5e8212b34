//! What the service would answer, with its settings, nodes and leases as they are, and without a socket:
//! nothing is sent, and nothing is written.

mod place;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use dhcp::address_family::AddressFamily;
use dhcp::leases::LeaseTable;
use dhcp::limits::{Limits, Rate, Rates};
use dhcp::v4::destination::CLIENT;
use dhcp::v4::proxy::ProxyPort;
use hardware::{ClientArchitecture, Mac};
use ipnet::IpNet;
use netboot::network_settings::NetworkSettings;
use nodes::{FoundPort, NodeIndex, Nodes};
use provision::boot::{Artifact, bootable};
use provision::{BootInterface, Node, ProvisionState, What};
use store::{Store, StoreError};

pub use self::place::Place;
use self::place::{Known4, Known6};
use super::counter::{Desk as _, now, now_secs};
use super::heard::{Heard, UNREADABLE};
use super::journal::{PoolPlan, look};
use super::machines::Machines;
use super::questions::{self, Question};
use super::{interface, plan, proxy, socket, v4, v6};
use crate::artifacts::BootSets;
use crate::config::{Config, Provider};

/// The way that a packet comes from whoever has no address yet (RFC 2131 §4.1).
const ANEW: v4::Way =
    v4::Way { from: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT), to: Ipv4Addr::BROADCAST };

/// The desks of all networks, with copies of their leases.
#[derive(Debug)]
pub struct Rehearsal {
    networks: Vec<Desks>,
    machines: Machines,
    provider: Provider,
    store: Store,
    notes: Vec<String>,
}

#[derive(Debug)]
struct Desks {
    interface: String,
    v4: Option<v4::Desk>,
    proxy: Option<proxy::Desk>,
    /// What a proxy says on its other port.
    pxe: Option<proxy::Desk>,
    v6: Option<v6::Desk>,
    /// Whether what we are called there is not known, so that we are who a client asks.
    nameless4: bool,
    nameless6: bool,
}

/// A packet that was sent to a DHCP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Whose address it came from.
    pub from: IpAddr,
    /// The address it was sent to.
    pub to: IpAddr,
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
    /// What the firmware makes of it, where it is known, or what keeps it from going on.
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
        /// How it boots: now, or when it is to.
        boot_interface: BootInterface,
        /// Whether the port is one to boot from.
        pxe_enabled: bool,
        /// How far its boot is.
        boot: BootStage,
    },
    /// Nobody registered it.
    Stranger,
}

/// How far a boot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootStage {
    /// There is none.
    None,
    /// It may fetch what it boots.
    Booting,
    /// Its agent has called, and it may fetch nothing any more.
    Booted,
}

impl Rehearsal {
    /// Reads settings, nodes and leases. `places` are our addresses on interfaces that this host does not
    /// have, or not as the service has them.
    ///
    /// # Errors
    /// In words: the database cannot be read, or it is not known how any of the networks is numbered.
    pub async fn open(config: &Config, places: &[Place]) -> Result<Self> {
        let (store, index) = database(config).await?;
        let mut notes = Vec::new();
        let mut networks = Vec::new();
        for network in &config.dhcp.networks {
            match Desks::open(network, config, places, &mut notes) {
                Ok(desks) => networks.push(desks),
                Err(error) if config.dhcp.networks.len() == 1 => return Err(error),
                Err(error) => notes.push(format!("{}: left out: {error:#}", network.interface)),
            }
        }
        let urls = config.urls(networks.iter().find_map(Desks::address));
        let boot_sets = BootSets::look(&config.boot_sets_in(&config.state_dir()?));
        let machines = Machines { index, urls, boot_sets, tftp: config.dhcp.tftp };
        Ok(Self { networks, machines, provider: config.dhcp.provider, store, notes })
    }

    /// What is taken to be so, since this host does not tell.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Which other service answers DHCP, if it is not ours.
    #[must_use]
    pub fn other_server(&self) -> Option<&'static str> {
        match self.provider {
            Provider::Embedded => None,
            Provider::Dnsmasq => Some("dnsmasq"),
            Provider::Kea => Some("Kea"),
            Provider::Neutron => Some("Neutron"),
            Provider::None => Some("another server"),
        }
    }

    /// What that service was told of the machine's latest boot, in words.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub async fn told(&self, mac: Mac) -> Result<String> {
        if self.provider == Provider::None {
            return Ok("is told nothing by this service (provider = \"none\")".to_owned());
        }
        let nothing = "was told nothing of this machine: it is told when a boot of it begins";
        let Some(FoundPort { node, .. }) = self.machines.index.by_mac(mac) else {
            return Ok(nothing.to_owned());
        };
        let Some(attempt) = &node.attempt else { return Ok(nothing.to_owned()) };
        let trace = self.store.events(node.uuid, Some(attempt.id)).await?;
        let last = trace.iter().rfind(|event| matches!(event.what, What::Provider { .. }));
        Ok(match last.map(|event| &event.what) {
            Some(What::Provider { told, error: None, .. }) => format!("was told {told}"),
            Some(What::Provider { told, error: Some(error), .. }) => {
                format!("could not be told {told} ({error})")
            }
            Some(_) | None if attempt.boot_interface == BootInterface::RedfishHttps => {
                "was told nothing of this boot: the BMC tells the machine what to boot".to_owned()
            }
            Some(_) | None => nothing.to_owned(),
        })
    }

    /// What firmware of the machine is, by its node's properties.
    #[must_use]
    pub fn architecture(&self, mac: Mac) -> ClientArchitecture {
        let found = self.machines.index.by_mac(mac);
        let cpu_arch = found.and_then(|found| found.node.cpu_arch().ok());
        cpu_arch.unwrap_or_default().http_client()
    }

    /// The interfaces that are answered on.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        self.networks.iter().map(|network| network.interface.as_str())
    }

    /// Who the machine is.
    #[must_use]
    pub fn known(&self, mac: Mac) -> Known {
        let Some(FoundPort { node, port }) = self.machines.index.by_mac(mac) else {
            return Known::Stranger;
        };
        let live = node.live_attempt();
        Known::Port {
            node: node.name.clone().unwrap_or_else(|| node.uuid.to_string()),
            state: node.provision_state,
            boot_interface: live.map_or(node.boot_interface, |attempt| attempt.boot_interface),
            pxe_enabled: port.pxe_enabled,
            boot: match (bootable(&node), live) {
                (Some(_), _) => BootStage::Booting,
                (None, Some(attempt)) if attempt.agent.is_some() => BootStage::Booted,
                (None, Some(_) | None) => BootStage::None,
            },
        }
    }

    /// What each sort of client at this address would get now, on each network; firmware as one of
    /// `architecture`.
    #[must_use]
    pub fn explain(&self, mac: Mac, architecture: ClientArchitecture) -> Vec<Explained> {
        let mut all = Vec::new();
        for network in &self.networks {
            for question in questions::all(mac, architecture) {
                // Each is the first that is asked: what one is offered must not change the next.
                let asked4 = question.is_of_v4().then(|| question.v4());
                all.extend(network.v4.clone().zip(asked4.as_ref()).map(|(mut desk, asked)| {
                    let heard = desk.hear(asked, ANEW, &self.machines, now());
                    let verdict = question.verdict4(asked, heard.reply.as_ref());
                    self.explained(network, "IPv4", &question, &heard, verdict)
                }));
                all.extend(network.proxy.clone().zip(asked4.as_ref()).map(|(mut desk, asked)| {
                    let heard = desk.hear(asked, ANEW, &self.machines, now());
                    let verdict = question.verdict4(asked, heard.reply.as_ref());
                    self.explained(network, "IPv4", &question, &heard, verdict)
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
                    self.explained(network, "IPv6", &question, &heard, verdict)
                }));
            }
        }
        all.sort_by_key(|explained| (explained.interface.clone(), explained.family));
        all
    }

    fn explained<Reply, Record>(
        &self,
        network: &Desks,
        family: &'static str,
        question: &Question,
        heard: &Heard<Reply, Record>,
        verdict: Option<String>,
    ) -> Explained {
        let lacks = heard
            .story
            .as_ref()
            .and_then(|story| self.lacks(&story.asked.found.as_ref()?.node, story.told.artifact?));
        Explained {
            interface: network.interface.clone(),
            family,
            client: question.to_string(),
            answer: said(heard),
            verdict: lacks.or(verdict),
        }
    }

    /// Why there is nothing to serve of what the machine is told to fetch.
    fn lacks(&self, node: &Node, artifact: Artifact) -> Option<String> {
        let cpu_arch = artifact.cpu_arch().or_else(|| node.cpu_arch().ok())?;
        let boot_sets = &self.machines.boot_sets;
        (!boot_sets.there().contains(&cpu_arch)).then(|| {
            format!(
                "which cannot be served: there is no boot set for {cpu_arch} in {}; `ferroboot image \
                 build` makes one",
                boot_sets.folder().display()
            )
        })
    }

    /// What the service says to a packet, `after` that many seconds; what it gives stays given for the
    /// packets that follow. `None` if nobody answers on that port of the interface.
    pub fn hear(&mut self, interface: &str, packet: &Captured, after: u64) -> Option<String> {
        let network = self.networks.iter_mut().find(|network| network.interface == interface)?;
        let Captured { from, to, port, payload } = packet;
        let (machines, now) = (&self.machines, now() + 1_000 * after);
        match *from {
            IpAddr::V4(from) => {
                let to = if let IpAddr::V4(to) = *to { to } else { Ipv4Addr::BROADCAST };
                let way = v4::Way { from: SocketAddrV4::new(from, *port), to };
                let called = network.nameless4.then(|| questions::server4(payload)).flatten();
                let beside = match *port {
                    socket::PXE => &mut network.pxe,
                    _ => &mut network.proxy,
                };
                if let Some(desk) = beside {
                    called.into_iter().for_each(|server| desk.is_called(server));
                    return Some(told(&desk.hear(payload, way, machines, now)));
                }
                let desk = network.v4.as_mut().filter(|_| *port != socket::PXE)?;
                called.into_iter().for_each(|server| desk.is_called(server));
                Some(told(&desk.hear(payload, way, machines, now)))
            }
            IpAddr::V6(from) => {
                let called = network.nameless6.then(|| questions::server6(payload)).flatten();
                let desk = network.v6.as_mut()?;
                called.into_iter().for_each(|duid| desk.is_called(&duid));
                let to = if let IpAddr::V6(to) = *to { to } else { socket::SERVERS6 };
                let way = v6::Way { to, ..to_all(from) };
                Some(told(&desk.hear(payload, way, machines, now)))
            }
        }
    }
}

impl Desks {
    fn open(
        settings: &NetworkSettings,
        config: &Config,
        places: &[Place],
        notes: &mut Vec<String>,
    ) -> Result<Self> {
        let state_dir = config.state_dir()?;
        let secs = config.dhcp.lease_secs;
        let interface = settings.interface.clone();
        // Another host's interface of that name is of no concern.
        let ours = |own: IpNet| {
            let here = interface::addresses(&settings.interface).unwrap_or_default();
            if here.contains(&own) { here } else { vec![own] }
        };
        let mut desks = Self {
            interface,
            v4: None,
            proxy: None,
            pxe: None,
            v6: None,
            nameless4: false,
            nameless6: false,
        };
        if settings.pool.is_some() || settings.proxy {
            let Known4 { own, guessed } = Known4::find(settings, &config.boot, places)?;
            desks.nameless4 = guessed.is_some();
            notes.extend(guessed);
            let keeper = |name: &str, pool| found(&state_dir, name, pool);
            desks.v4 = plan::desk4_at(settings, own, &ours(own.into()), secs, unlimited(), keeper)?;
            let beside = |port| plan::beside_at(own, secs, port, unlimited());
            desks.proxy = settings.proxy.then(|| beside(ProxyPort::Dhcp));
            desks.pxe = settings.proxy.then(|| beside(ProxyPort::Pxe));
        }
        if settings.pool6.is_some() {
            let Known6 { link, nameless, guessed } = Known6::find(settings, &config.boot, places)?;
            desks.nameless6 = nameless;
            notes.extend(guessed);
            let keeper = |name: &str, pool| found(&state_dir, name, pool);
            let ours = ours(link.net()?.into());
            desks.v6 = plan::desk6_at(settings, &link, &ours, secs, unlimited(), keeper)?;
        }
        Ok(desks)
    }

    fn address(&self) -> Option<IpAddr> {
        let v4 = self.v4.as_ref().map(v4::Desk::address);
        let v4 = v4.or_else(|| self.proxy.as_ref().map(|desk| desk.about().server));
        v4.map(IpAddr::from).or_else(|| self.v6.as_ref().map(|desk| desk.address().into()))
    }
}

/// As clients send.
fn to_all(from: Ipv6Addr) -> v6::Way {
    v6::Way { from: SocketAddrV6::new(from, socket::CLIENT6, 0, 0), to: socket::SERVERS6 }
}

/// What was captured in a second may be gone through in less.
fn unlimited() -> Limits {
    let (each, known, guests) = (Rate::ANY, Rate::ANY, Rate::ANY);
    Limits::new(Rates { each, known, guests }, 0)
}

/// A subnet's leases, as they are.
fn found<A: AddressFamily>(
    state_dir: &Path,
    name: &str,
    pool: PoolPlan<A>,
) -> Result<LeaseTable<A>> {
    let path = state_dir.join(name);
    look(&path, pool, now_secs())
        .with_context(|| format!("cannot read the leases in {}", path.display()))
}

/// The nodes, and where they and their traces are read.
async fn database(config: &Config) -> Result<(Store, NodeIndex)> {
    let state_dir = config.state_dir()?;
    // A database is named by its whole path.
    let state_dir = state_dir.canonicalize().unwrap_or(state_dir);
    let (url, key_file) = (config.database_url(&state_dir), config.key_file(&state_dir));
    let store = match Store::open_to_read(&url, &key_file).await {
        Ok(store) => store,
        Err(StoreError::Missing { .. }) if config.database.url.is_none() => bail!(
            "there is no database in {}: is that where the service keeps its state (--state-dir)?",
            state_dir.display()
        ),
        Err(error) => return Err(error).context("cannot read the database"),
    };
    let nodes = Nodes::new(store.clone(), NodeIndex::default(), config.policy());
    nodes.load().await.context("cannot read the nodes")?;
    Ok((store, nodes.index().clone()))
}

/// Who asks, and what is said to it.
fn told<Reply, Record>(heard: &Heard<Reply, Record>) -> String {
    match &heard.story {
        None => said(heard),
        Some(story) => format!("{}: {}", story.asked, said(heard)),
    }
}

fn said<Reply, Record>(heard: &Heard<Reply, Record>) -> String {
    match &heard.story {
        None => {
            let why = heard.unreadable.as_deref().unwrap_or("nobody knows why");
            match heard.counted.decision {
                UNREADABLE => format!("this is no DHCP message that can be read: {why}"),
                _ => format!("not answered: {why}"),
            }
        }
        Some(story) => {
            story.answer().map_or_else(|| "noted".to_owned(), |answer| answer.to_string())
        }
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stranger => {
                f.write_str("is no port of any node: `baremetal port create` adds one")
            }
            Self::Port { node, state, boot_interface, pxe_enabled, boot } => {
                write!(f, "is a port of node {node}, which is in state \"{state}\", ")?;
                match boot {
                    BootStage::None => write!(f, "is not booting (by {boot_interface}), ")?,
                    BootStage::Booting => write!(f, "is booting (by {boot_interface}), ")?,
                    BootStage::Booted => {
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

#[cfg(test)]
mod tests {
    use dhcp::v4::options;
    use dhcp::v4::packet::{Hardware, MessageType, Op, Packet};
    use hardware::architecture::X64_HTTP;
    use jiff::Timestamp;
    use provision::node::Agent;
    use provision::test_nodes::booting_node;
    use provision::{BootEvent, Port};
    use serde_json::{Map, json};
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
    const POOL: &str =
        "[[dhcp.network]]\ninterface = \"nosuch0\"\npool = \"192.0.2.100-192.0.2.199\"";

    /// A state directory with one node in it, and settings.
    async fn state(node: &Node, settings: &str) -> (TempDir, Config) {
        let folder = tempfile::tempdir().unwrap();
        let config: Config = settings.parse().unwrap();
        let config = Config { state_dir: Some(folder.path().to_owned()), ..config };
        let store =
            Store::open(&config.database_url(folder.path()), &config.key_file(folder.path()))
                .await
                .unwrap();
        store.create_node(node).await.unwrap();
        let port = Port {
            uuid: Uuid::from_u128(2),
            node_uuid: node.uuid,
            address: MAC,
            pxe_enabled: true,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: None,
            extra: Map::new(),
            kept: Map::new(),
        };
        store.create_port(&port, Timestamp::UNIX_EPOCH).await.unwrap();
        store.close().await;
        (folder, config)
    }

    async fn rehearsal(node: &Node, settings: &str) -> (TempDir, Rehearsal) {
        let (folder, config) = state(node, settings).await;
        (folder, Rehearsal::open(&config, &[]).await.unwrap())
    }

    /// What it would be told as `client`.
    fn answer(rehearsal: &Rehearsal, client: &str) -> Explained {
        let all = rehearsal.explain(MAC, rehearsal.architecture(MAC));
        all.into_iter().find(|explained| explained.client.starts_with(client)).unwrap()
    }

    /// DISCOVER, then the REQUEST of that address from that server, and what is said to it.
    fn request(rehearsal: &mut Rehearsal, server: [u8; 4]) -> String {
        let options = vec![
            (options::REQUESTED_ADDRESS, vec![192, 0, 2, 100]),
            (options::SERVER_ID, server.to_vec()),
        ];
        let mut said = |message, options| {
            rehearsal.hear("nosuch0", &to(67, &packet(message, options)), 0).unwrap()
        };
        said(MessageType::Discover, Vec::new());
        said(MessageType::Request, options)
    }

    fn packet(message: MessageType, options: Vec<(u8, Vec<u8>)>) -> Vec<u8> {
        Packet {
            op: Op::Request,
            hardware: Hardware::ETHERNET,
            hops: 0,
            xid: 1,
            secs: 0,
            broadcast: true,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            chaddr: MAC,
            file: Vec::new(),
            message,
            options,
        }
        .emit()
    }

    fn to(port: u16, payload: &[u8]) -> Captured {
        let (from, to) = (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into());
        Captured { from, to, port, payload: payload.to_vec() }
    }

    #[tokio::test]
    async fn what_was_captured_on_another_host_is_replayed_as_there_and_what_is_guessed_is_said() {
        let (_folder, mut rehearsal) = rehearsal(&booting_node(), POOL).await;

        let said = request(&mut rehearsal, [192, 0, 2, 77]);

        assert!(said.contains("given 192.0.2.100"), "{said}");
        assert!(rehearsal.notes()[0].contains("192.0.2.0/24"), "{:?}", rehearsal.notes());
    }

    #[tokio::test]
    async fn an_address_that_is_told_tells_this_server_from_another() {
        let (_folder, config) = state(&booting_node(), POOL).await;
        let place = "nosuch0=192.0.2.1/24".parse().unwrap();
        let mut rehearsal = Rehearsal::open(&config, &[place]).await.unwrap();

        let other = request(&mut rehearsal, [192, 0, 2, 77]);
        let own = request(&mut rehearsal, [192, 0, 2, 1]);

        assert!(other.contains("another server, 192.0.2.77"), "{other}");
        assert!(own.contains("given 192.0.2.100"), "{own}");
    }

    #[tokio::test]
    async fn one_network_of_which_nothing_is_known_does_not_keep_the_others_from_being_explained() {
        let two = format!("{POOL}\n[[dhcp.network]]\ninterface = \"nosuch1\"\nproxy = true");
        let (_folder, rehearsal) = rehearsal(&booting_node(), &two).await;

        assert_eq!(rehearsal.interfaces().collect::<Vec<_>>(), ["nosuch0"]);
        assert!(rehearsal.notes().iter().any(|note| note.starts_with("nosuch1: left out")));
    }

    #[tokio::test]
    async fn a_state_directory_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for state_dir in [folder.path().to_owned(), folder.path().join("nosuch")] {
            let config = Config { state_dir: Some(state_dir.clone()), ..Config::default() };

            let refused = Rehearsal::open(&config, &[]).await.unwrap_err().to_string();

            assert!(refused.contains(&state_dir.display().to_string()), "{refused}");
            assert!(refused.contains("--state-dir"), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_machine_whose_agent_has_called_is_said_to_have_booted_wherever_it_is_spoken_of() {
        let mut node = booting_node();
        node.boot_interface = BootInterface::HttpIpxe;
        let (_folder, booting) = rehearsal(&node, POOL).await;
        let agent = Agent {
            callback_url: "https://192.0.2.100:9999".parse().unwrap(),
            version: String::new(),
            verify_ca: None,
            last_heartbeat: Timestamp::UNIX_EPOCH,
        };
        node.attempt.as_mut().unwrap().agent = Some(agent);
        let (_folder, booted) = rehearsal(&node, POOL).await;

        let known = booting.known(MAC).to_string();
        assert!(known.contains("is booting (by http)"), "as the boot under way does: {known}");
        let known = booted.known(MAC).to_string();
        assert!(known.contains("its agent has called"), "{known}");
        let explained = answer(&booted, "UEFI HTTP boot");
        assert!(explained.answer.contains("its agent has called already"), "{explained:?}");
    }

    #[tokio::test]
    async fn what_cannot_be_served_is_not_said_to_be_taken() {
        let (folder, without) = rehearsal(&booting_node(), POOL).await;
        let verdict = answer(&without, "UEFI HTTP boot").verdict.unwrap();
        assert!(verdict.contains("there is no boot set for x64"), "{verdict}");

        let ramdisk = folder.path().join("ramdisk");
        std::fs::create_dir(&ramdisk).unwrap();
        std::fs::write(ramdisk.join("manifest.json"), "{}").unwrap();
        let config: Config = POOL.parse().unwrap();
        let config = Config { state_dir: Some(folder.path().to_owned()), ..config };
        let with = Rehearsal::open(&config, &[]).await.unwrap();
        let verdict = answer(&with, "UEFI HTTP boot").verdict.unwrap();
        assert!(verdict.contains("takes"), "{verdict}");
    }

    #[tokio::test]
    async fn firmware_is_taken_to_be_of_the_architecture_that_the_node_has() {
        let mut node = booting_node();
        node.properties.insert("cpu_arch".to_owned(), json!("aarch64"));
        let (_folder, rehearsal) = rehearsal(&node, POOL).await;

        assert_eq!(rehearsal.architecture(MAC), ClientArchitecture(0x13));
        assert_eq!(rehearsal.architecture(Mac([2; 6])), X64_HTTP, "a stranger");
    }

    #[tokio::test]
    async fn what_cannot_be_read_and_what_nobody_listens_for_are_told_apart() {
        let (_folder, mut rehearsal) = rehearsal(&booting_node(), POOL).await;

        let unreadable = rehearsal.hear("nosuch0", &to(67, b"\x01hello"), 0).unwrap();
        assert!(unreadable.len() > "this is no DHCP message that can be read: ".len());
        assert!(unreadable.contains("can be read: "), "{unreadable}");
        assert_eq!(rehearsal.hear("nosuch0", &to(4011, b"\x01hello"), 0), None);
    }

    #[tokio::test]
    async fn a_lease_query_is_said_to_be_one_and_not_to_be_answered() {
        let (_folder, mut rehearsal) = rehearsal(&booting_node(), POOL).await;
        let mut query = vec![0; 240];
        query[0] = 1;
        query[236..].copy_from_slice(&[99, 130, 83, 99]);
        query.extend([options::MESSAGE_TYPE, 1, 10, options::END]);

        let said = rehearsal.hear("nosuch0", &to(67, &query), 0).unwrap();

        assert!(
            said.starts_with("not answered: it is a DHCPLEASEQUERY (message type 10)"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn another_service_is_named_with_what_it_was_told() {
        let (_folder, config) = state(&booting_node(), "[dhcp]\nprovider = \"dnsmasq\"").await;
        let before = Rehearsal::open(&config, &[]).await.unwrap().told(MAC).await.unwrap();
        let dir = config.state_dir().unwrap();
        let store = Store::open(&config.database_url(&dir), &config.key_file(&dir)).await.unwrap();
        let event = BootEvent {
            at: Timestamp::UNIX_EPOCH,
            attempt: booting_node().attempt.unwrap().id,
            what: What::Provider {
                name: "dnsmasq".to_owned(),
                told: "to let it boot bootx64.efi".to_owned(),
                error: None,
            },
        };
        store.append_events(&[(booting_node().uuid, event)]).await.unwrap();

        let rehearsal = Rehearsal::open(&config, &[]).await.unwrap();

        assert_eq!(rehearsal.other_server(), Some("dnsmasq"));
        assert!(before.contains("told nothing"), "{before}");
        assert_eq!(rehearsal.told(MAC).await.unwrap(), "was told to let it boot bootx64.efi");
    }
}
