//! The service's answers with its current settings, nodes and leases, without a socket: nothing is sent or written.

use anyhow::{Context as _, Result, bail};
use artifacts::BootSets;
use dhcp::limits::{Rate, RateLimits, Rates};
use hardware::{ClientArchitecture, Mac};
use netboot::dry_run::last_announcement::last_announcement;
use netboot::dry_run::vantage::{InterfaceAddress, NetworkVantage};
use netboot::dry_run::{CapturedPacket, Explained, KnownMachine, NetworkDryRun};
use netboot::network_plan::NetworkResponders;
use netboot::network_settings::NetworkSettings;
use netboot::node_view::NodeView as _;
use nodes::{NodeIndex, Nodes};
use providers::settings::DhcpProvider;
use store::{Clock, Store, StoreError};
use tokio::sync::watch;

use super::boot_sources::{BootSources, IndexView};
use super::interface;
use super::ipv6_link::Ipv6Link;
use super::journal::look;
use super::listener::{now, now_secs};
use super::own_addresses::own4;
use crate::config::Config;
use crate::daemons;

/// The responders of all networks, with copies of their leases, and the nodes.
#[derive(Debug)]
pub struct DryRun {
    networks: Vec<NetworkDryRun>,
    sources: BootSources,
    provider: DhcpProvider,
    store: Store,
    notes: Vec<String>,
}

impl DryRun {
    /// Reads settings, nodes and leases. `given` are the service's addresses on interfaces that this host lacks, or
    /// that have other addresses here.
    ///
    /// # Errors
    /// The database cannot be read, or the addresses of a network are unknown.
    pub async fn open(config: &Config, given: &[InterfaceAddress]) -> Result<Self> {
        let (store, index) = database(config).await?;
        // With the pools of this daemon itself, whose addresses are given here first of all.
        let leased = store.leased_ranges(&config.dhcp.site, Clock::process().now()).await?;
        let mut notes = Vec::new();
        let mut networks = Vec::new();
        for network in &config.dhcp.networks {
            match open_network(network, config, given, &mut notes) {
                Ok(network) => networks.push(network),
                Err(error) if config.dhcp.networks.len() == 1 => return Err(error),
                Err(error) => notes.push(format!("{}: left out: {error:#}", network.interface)),
            }
        }
        let urls =
            config.urls(networks.iter().find_map(|network| network.responders.addresses().next()));
        let boot_sets = BootSets::look(&config.boot.boot_sets_in(&config.state_dir()?));
        let nodes = IndexView(index);
        let foreign_pools = daemons::foreign(&leased);
        networks
            .iter_mut()
            .for_each(|network| network.responders.set_foreign_pools(&foreign_pools));
        let (_, foreign_pools) = watch::channel(foreign_pools);
        let tftp = config.dhcp.tftp;
        let sources = BootSources { nodes, urls, boot_sets, tftp, foreign_pools };
        Ok(Self { networks, sources, provider: config.dhcp.provider, store, notes })
    }

    /// Assumptions, since this host does not have the information.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The external DHCP service, if there is one.
    #[must_use]
    pub fn other_server(&self) -> Option<&'static str> {
        match self.provider {
            DhcpProvider::Embedded => None,
            DhcpProvider::Dnsmasq => Some("dnsmasq"),
            DhcpProvider::Kea => Some("Kea"),
            DhcpProvider::Neutron => Some("Neutron"),
            DhcpProvider::None => Some("another server"),
        }
    }

    /// The last announcement of the machine's latest boot to that service, in words.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub async fn last_announcement(&self, mac: Mac) -> Result<String> {
        if self.provider == DhcpProvider::None {
            return Ok("is told nothing by this service (provider = \"none\")".to_owned());
        }
        let registered = self.sources.nodes.by_mac(mac);
        let Some((node, attempt)) = registered
            .as_ref()
            .and_then(|port| Some((port.node.uuid, port.node.attempt.as_ref()?)))
        else {
            return Ok(last_announcement(None));
        };
        let trace = self.store.events(node, Some(attempt.id)).await?;
        Ok(last_announcement(Some((attempt, &trace))))
    }

    /// The architecture of the machine's firmware, from its node's properties.
    #[must_use]
    pub fn architecture(&self, mac: Mac) -> ClientArchitecture {
        let found = self.sources.nodes.by_mac(mac);
        let cpu_arch = found.and_then(|found| found.node.cpu_arch().ok());
        cpu_arch.unwrap_or_default().http_client()
    }

    /// The served interfaces.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        self.networks.iter().map(|network| network.interface.as_str())
    }

    /// The record of the machine.
    #[must_use]
    pub fn known(&self, mac: Mac) -> KnownMachine {
        KnownMachine::find(mac, &self.sources.nodes)
    }

    /// The current answers to each kind of client with this MAC address, on each network; firmware has
    /// `architecture`.
    #[must_use]
    pub fn explain(&self, mac: Mac, architecture: ClientArchitecture) -> Vec<Explained> {
        let boot_sets = self.sources.boot_sets.there();
        let (context, folder) = (self.sources.context(&boot_sets), self.sources.boot_sets.folder());
        let explain =
            |network: &NetworkDryRun| network.explain(mac, architecture, &context, folder, now());
        let mut all: Vec<_> = self.networks.iter().flat_map(explain).collect();
        all.sort_by_key(|explained| (explained.interface.clone(), explained.family));
        all
    }

    /// The service's answer to a packet, `after` this many seconds. A lease stays for the packets that follow. `None`
    /// if no responder listens on that port of the interface.
    pub fn replay(
        &mut self,
        interface: &str,
        packet: &CapturedPacket,
        after: u64,
    ) -> Option<String> {
        let network = self.networks.iter_mut().find(|network| network.interface == interface)?;
        let boot_sets = self.sources.boot_sets.there();
        network.replay(packet, &self.sources.context(&boot_sets), now() + 1_000 * after)
    }
}

/// The responders of a network, and the assumptions about it.
fn open_network(
    settings: &NetworkSettings,
    config: &Config,
    given: &[InterfaceAddress],
    notes: &mut Vec<String>,
) -> Result<NetworkDryRun> {
    let (state_dir, urls) = (config.state_dir()?, config.url_settings());
    let name = &settings.interface;
    let here = interface::addresses(name).unwrap_or_default();
    let seen4 = || own4(settings).map_err(Into::into);
    let seen6 = |pool| {
        let link = Ipv6Link::of_pool(name, pool)?;
        Ok((link.net()?, link.duid()))
    };
    let vantage = NetworkVantage::find(settings, &urls, given, &here, seen4, seen6)?;
    notes.extend(vantage.guessed);
    let responders = NetworkResponders::plan(
        settings,
        &vantage.own,
        config.dhcp.lease_secs,
        // Packets captured within a second may be replayed faster.
        || RateLimits::new(Rates { each: Rate::ANY, known: Rate::ANY, guests: Rate::ANY }, 0),
        |journal, pool| look(&state_dir.join(journal), pool, now_secs()),
        |journal, pool| look(&state_dir.join(journal), pool, now_secs()),
    )?;
    Ok(NetworkDryRun {
        interface: name.clone(),
        responders,
        accepts_any_v4_server_id: vantage.accepts_any_v4_server_id,
        accepts_any_v6_server_id: vantage.accepts_any_v6_server_id,
    })
}

/// The nodes, and the store of their traces.
async fn database(config: &Config) -> Result<(Store, NodeIndex)> {
    let state_dir = config.state_dir()?;
    // The database's URL needs an absolute path.
    let state_dir = state_dir.canonicalize().unwrap_or(state_dir);
    let (url, key_file) =
        (config.database.url_in(&state_dir), config.database.key_file_in(&state_dir));
    let store = match Store::open_to_read(&url, &key_file).await {
        Ok(store) => store,
        Err(StoreError::Missing { .. }) if config.database.url.is_none() => bail!(
            "there is no database in {}: is this the state directory of the service (--state-dir)?",
            state_dir.display()
        ),
        Err(error) => return Err(error).context("cannot read the database"),
    };
    let nodes = Nodes::new(store.clone(), NodeIndex::default(), config.policy());
    nodes.load().await.context("cannot read the nodes")?;
    Ok((store, nodes.index().clone()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use dhcp::v4::{MessageType, options};
    use hardware::architecture::X64_HTTP;
    use jiff::Timestamp;
    use netboot::dry_run::sample_requests::message4;
    use provision::artifact::Artifact;
    use provision::node::Agent;
    use provision::test_nodes::{boot_port, booting_node};
    use provision::trace::{AnnouncementCause, BootAnnouncement, DhcpService};
    use provision::{BootEvent, BootEventKind, BootInterface, Node};
    use serde_json::json;
    use store::{DaemonIdentity, DaemonPools, PoolRange};
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
    const POOL: &str =
        "[[dhcp.network]]\ninterface = \"nosuch0\"\npool = \"192.0.2.100-192.0.2.199\"";

    /// A state directory with one node, and settings.
    async fn state(node: &Node, settings: &str) -> (TempDir, Config) {
        let folder = tempfile::tempdir().unwrap();
        let config: Config = settings.parse().unwrap();
        let config = Config { state_dir: Some(folder.path().to_owned()), ..config };
        let store = Store::open(
            &config.database.url_in(folder.path()),
            &config.database.key_file_in(folder.path()),
        )
        .await
        .unwrap();
        store.create_node(node).await.unwrap();
        let port = boot_port(node.uuid, MAC);
        store.create_port(&port, Timestamp::UNIX_EPOCH).await.unwrap();
        store.close().await;
        (folder, config)
    }

    async fn dry_run(node: &Node, settings: &str) -> (TempDir, DryRun) {
        let (folder, config) = state(node, settings).await;
        (folder, DryRun::open(&config, &[]).await.unwrap())
    }

    /// The answer to a `client`.
    fn answer(dry_run: &DryRun, client: &str) -> Explained {
        let all = dry_run.explain(MAC, dry_run.architecture(MAC));
        all.into_iter().find(|explained| explained.client.starts_with(client)).unwrap()
    }

    /// Sends a DISCOVER, then a REQUEST for that address to that server; returns the answer.
    fn request(dry_run: &mut DryRun, server: [u8; 4]) -> String {
        let options = vec![
            (options::REQUESTED_ADDRESS, vec![192, 0, 2, 100]),
            (options::SERVER_ID, server.to_vec()),
        ];
        let mut said = |message, options| {
            let packet = message4(MAC, message, options).emit();
            dry_run.replay("nosuch0", &to(67, &packet), 0).unwrap()
        };
        said(MessageType::Discover, Vec::new());
        said(MessageType::Request, options)
    }

    fn to(port: u16, payload: &[u8]) -> CapturedPacket {
        let (from, to) = (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into());
        CapturedPacket { from, to, port, payload: payload.to_vec() }
    }

    #[tokio::test]
    async fn what_was_captured_on_another_host_is_replayed_as_there_and_what_is_guessed_is_said() {
        let (_folder, mut dry_run) = dry_run(&booting_node(), POOL).await;

        let said = request(&mut dry_run, [192, 0, 2, 77]);

        assert!(said.contains("given 192.0.2.100"), "{said}");
        assert!(dry_run.notes()[0].contains("192.0.2.0/24"), "{:?}", dry_run.notes());
    }

    #[tokio::test]
    async fn an_address_that_is_told_tells_this_server_from_another() {
        let (_folder, config) = state(&booting_node(), POOL).await;
        let place = "nosuch0=192.0.2.1/24".parse().unwrap();
        let mut dry_run = DryRun::open(&config, &[place]).await.unwrap();

        let other = request(&mut dry_run, [192, 0, 2, 77]);
        let own = request(&mut dry_run, [192, 0, 2, 1]);

        assert!(other.contains("another server, 192.0.2.77"), "{other}");
        assert!(own.contains("given 192.0.2.100"), "{own}");
    }

    #[tokio::test]
    async fn an_address_of_another_daemons_pool_is_said_to_be_left_to_that_daemon() {
        let (folder, config) = state(&booting_node(), POOL).await;
        let url = config.database.url_in(folder.path());
        let store = Store::open(&url, &config.database.key_file_in(folder.path())).await.unwrap();
        let [first, last] = ["192.0.2.200", "192.0.2.250"].map(|end| end.parse().unwrap());
        let ranges = vec![PoolRange { first, last }];
        let pools = DaemonPools { ranges, lease_secs: 600, ..DaemonPools::default() };
        let other = DaemonIdentity::new(Uuid::new_v4(), "other".to_owned());
        store.register_daemon(&other, &pools, Clock::process().now()).await.unwrap();
        store.close().await;
        let mut dry_run = DryRun::open(&config, &[]).await.unwrap();

        let options = vec![(options::REQUESTED_ADDRESS, vec![192, 0, 2, 222])];
        let comes_back = to(67, &message4(MAC, MessageType::Request, options).emit());
        let said = dry_run.replay("nosuch0", &comes_back, 0).unwrap();

        assert!(said.contains("the pool of another daemon"), "{said}");
    }

    #[tokio::test]
    async fn one_network_of_which_nothing_is_known_does_not_keep_the_others_from_being_explained() {
        let two = format!("{POOL}\n[[dhcp.network]]\ninterface = \"nosuch1\"\nproxy = true");
        let (_folder, dry_run) = dry_run(&booting_node(), &two).await;

        assert_eq!(dry_run.interfaces().collect::<Vec<_>>(), ["nosuch0"]);
        assert!(dry_run.notes().iter().any(|note| note.starts_with("nosuch1: left out")));
    }

    #[tokio::test]
    async fn a_state_directory_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for state_dir in [folder.path().to_owned(), folder.path().join("nosuch")] {
            let config = Config { state_dir: Some(state_dir.clone()), ..Config::default() };

            let refused = DryRun::open(&config, &[]).await.unwrap_err().to_string();

            assert!(refused.contains(&state_dir.display().to_string()), "{refused}");
            assert!(refused.contains("--state-dir"), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_machine_whose_agent_has_called_is_said_to_have_booted_wherever_it_is_spoken_of() {
        let mut node = booting_node();
        node.boot_interface = BootInterface::HttpIpxe;
        let (_folder, booting) = dry_run(&node, POOL).await;
        let agent = Agent {
            callback_url: "https://192.0.2.100:9999".parse().unwrap(),
            version: String::new(),
            verify_ca: None,
            channel_key: None,
            last_heartbeat: Timestamp::UNIX_EPOCH,
        };
        node.attempt.as_mut().unwrap().agent = Some(agent);
        let (_folder, booted) = dry_run(&node, POOL).await;

        let known = booting.known(MAC).to_string();
        assert!(known.contains("is booting (by http)"), "as the boot under way does: {known}");
        let known = booted.known(MAC).to_string();
        assert!(known.contains("its agent has called"), "{known}");
        let explained = answer(&booted, "UEFI HTTP boot");
        assert!(explained.answer.contains("its agent has called already"), "{explained:?}");
    }

    #[tokio::test]
    async fn what_cannot_be_served_is_not_said_to_be_taken() {
        let (folder, without) = dry_run(&booting_node(), POOL).await;
        let verdict = answer(&without, "UEFI HTTP boot").verdict.unwrap();
        assert!(verdict.contains("there is no boot set for x64"), "{verdict}");

        let ramdisk = folder.path().join("ramdisk");
        std::fs::create_dir(&ramdisk).unwrap();
        std::fs::write(ramdisk.join("manifest.json"), "{}").unwrap();
        let config: Config = POOL.parse().unwrap();
        let config = Config { state_dir: Some(folder.path().to_owned()), ..config };
        let with = DryRun::open(&config, &[]).await.unwrap();
        let verdict = answer(&with, "UEFI HTTP boot").verdict.unwrap();
        assert!(verdict.contains("takes"), "{verdict}");
    }

    #[tokio::test]
    async fn firmware_is_taken_to_be_of_the_architecture_that_the_node_has() {
        let mut node = booting_node();
        node.properties.insert("cpu_arch".to_owned(), json!("aarch64"));
        let (_folder, dry_run) = dry_run(&node, POOL).await;

        assert_eq!(dry_run.architecture(MAC), ClientArchitecture(0x13));
        assert_eq!(dry_run.architecture(Mac([2; 6])), X64_HTTP, "a stranger");
    }

    #[tokio::test]
    async fn what_cannot_be_read_and_what_nobody_listens_for_are_told_apart() {
        let (_folder, mut dry_run) = dry_run(&booting_node(), POOL).await;

        let unreadable = dry_run.replay("nosuch0", &to(67, b"\x01hello"), 0).unwrap();
        assert!(unreadable.len() > "unreadable DHCP message: ".len());
        assert!(unreadable.contains("DHCP message: "), "{unreadable}");
        assert_eq!(dry_run.replay("nosuch0", &to(4011, b"\x01hello"), 0), None);
    }

    #[tokio::test]
    async fn a_lease_query_is_said_to_be_one_and_not_to_be_answered() {
        let (_folder, mut dry_run) = dry_run(&booting_node(), POOL).await;
        let mut query = vec![0; 240];
        query[0] = 1;
        query[236..].copy_from_slice(&[99, 130, 83, 99]);
        query.extend([options::MESSAGE_TYPE, 1, 10, options::END]);

        let said = dry_run.replay("nosuch0", &to(67, &query), 0).unwrap();

        assert!(
            said.starts_with("not answered: it is a DHCPLEASEQUERY (message type 10)"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn another_service_is_named_with_what_it_was_told() {
        let (_folder, config) = state(&booting_node(), "[dhcp]\nprovider = \"dnsmasq\"").await;
        let before =
            DryRun::open(&config, &[]).await.unwrap().last_announcement(MAC).await.unwrap();
        let dir = config.state_dir().unwrap();
        let store = Store::open(&config.database.url_in(&dir), &config.database.key_file_in(&dir))
            .await
            .unwrap();
        let event = BootEvent {
            at: Timestamp::UNIX_EPOCH,
            attempt: booting_node().attempt.unwrap().id,
            what: BootEventKind::Provider {
                name: DhcpService::Dnsmasq,
                told: BootAnnouncement::Boot {
                    cause: AnnouncementCause::Begin,
                    ports: vec![MAC],
                    artifact: Some(Artifact::BootLoader),
                    warnings: Vec::new(),
                },
                error: None,
            },
        };
        store.append_events(&[(booting_node().uuid, event)]).await.unwrap();

        let dry_run = DryRun::open(&config, &[]).await.unwrap();

        assert_eq!(dry_run.other_server(), Some("dnsmasq"));
        assert!(before.contains("told nothing"), "{before}");
        assert_eq!(
            dry_run.last_announcement(MAC).await.unwrap(),
            format!("was told to let {MAC} boot bootx64.efi")
        );
    }
}
