//! Providers: DHCP services that get the boot answers of machines, either embedded or external.
//!
//! [`Providers`] decides when a service is configured, for all services alike. A [`Provider`] implements how.

pub mod dnsmasq;
pub mod kea;
pub mod metrics;
pub mod neutron;
mod no_announcements;
pub mod provider;
pub mod settings;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result};
use artifacts::BootSets;
use futures::StreamExt as _;
use futures::stream;
use netboot::providers::announced_boots::AnnouncedBoots;
use netboot::providers::announcement::Announcement;
use netboot::providers::picture::Picture;
use netboot::urls::Urls;
use nodes::{Nodes, Recorder};
use provision::trace::{AnnouncementCause, BootAnnouncement, DhcpService};
use provision::{BootEventKind, Node, Port};
use store::log_store_failure;
use tokio::sync::RwLock;
use tracing::{debug, info, warn};
use uuid::Uuid;

use self::dnsmasq::Dnsmasq;
use self::kea::Kea;
use self::metrics::{ProviderCallLabels, ProviderMetrics};
use self::neutron::Neutron;
use self::no_announcements::NoAnnouncements;
use self::provider::{But, Provider};
use self::settings::{DnsmasqConfig, KeaConfig, NeutronConfig};

/// Number of boots withdrawn at a time.
const AT_ONCE: usize = 16;

/// The DHCP service that sends boot answers, with its settings.
#[derive(Clone, Copy, Debug)]
pub enum BootAnswerService<'a> {
    /// One that needs no announcements: the embedded server reads the nodes itself, and others configure a server of
    /// their own.
    NotTold {
        /// Whether it answers any machine.
        answers: bool,
    },
    /// dnsmasq.
    Dnsmasq(&'a DnsmasqConfig),
    /// Kea.
    Kea(&'a KeaConfig),
    /// Neutron.
    Neutron(&'a NeutronConfig),
}

/// The DHCP service and its announcements; clones share them.
#[derive(Clone, Debug)]
pub struct Providers {
    provider: Arc<dyn Provider>,
    /// Its name in the trace, if it is configured at all.
    name: Option<DhcpService>,
    urls: Urls,
    boot_sets: BootSets,
    recorder: Recorder,
    metrics: ProviderMetrics,
    announced: Arc<Mutex<AnnouncedBoots>>,
    /// Whether the service has the right configuration. Write-locked during a correction, so that a boot that begins
    /// meanwhile is not taken for one that is gone.
    right: Arc<RwLock<bool>>,
    /// The last complaints and their texts, each logged once.
    said: Arc<Mutex<HashMap<&'static str, String>>>,
}

impl Providers {
    /// The service in the settings.
    ///
    /// # Errors
    /// The service cannot be configured.
    pub fn open(
        service: BootAnswerService<'_>,
        urls: Urls,
        boot_sets: BootSets,
        recorder: Recorder,
        metrics: ProviderMetrics,
    ) -> Result<Self> {
        let (name, provider): (_, Arc<dyn Provider>) = match service {
            BootAnswerService::NotTold { answers } => (None, Arc::new(NoAnnouncements { answers })),
            BootAnswerService::Dnsmasq(settings) => {
                (Some(DhcpService::Dnsmasq), Arc::new(Dnsmasq::open(settings)?))
            }
            BootAnswerService::Kea(settings) => {
                (Some(DhcpService::Kea), Arc::new(Kea::new(settings)))
            }
            BootAnswerService::Neutron(settings) => {
                (Some(DhcpService::Neutron), Arc::new(Neutron::new(settings)?))
            }
        };
        let (announced, right, said) = (Arc::default(), Arc::default(), Arc::default());
        Ok(Self { provider, name, urls, boot_sets, recorder, metrics, announced, right, said })
    }

    /// Announces the boot of a node whose machine is about to be switched on.
    ///
    /// # Errors
    /// The service cannot be configured, or no URL for machines is known.
    pub async fn announce(&self, node: &Node, ports: &[Arc<Port>]) -> Result<()> {
        self.boot_sets.look_again();
        let Some(told) = self.announcement(node, ports) else { return Ok(()) };
        let _not_put_right = self.right.read().await;
        // Recorded before the announcement: the result of a failed one must also be withdrawn.
        if self.name.is_some() {
            self.announced().insert(told.clone());
        }
        let done = self.timed("announce", self.provider.announce(&told)).await;
        self.record_announcement(node, &told, AnnouncementCause::Begin, &done);
        match self.name {
            Some(name) => {
                done.map(drop).with_context(|| format!("{name} did not accept the boot settings"))
            }
            None => done.map(drop),
        }
    }

    /// Withdraws the boot of a node, if one was announced. [`Providers::tidy`] retries failures.
    pub async fn withdraw(&self, node: Uuid) {
        let told = self.announced().of_node(node);
        if let Some(told) = told {
            self.forget(&told).await;
        }
    }

    /// Withdraws all boots that have ended, however they ended and whichever daemon saw it, and repeats lost
    /// announcements. The first call announces everything, and may have to wait for the service.
    pub async fn tidy(&self, nodes: &Nodes) {
        if self.name.is_none() {
            // The embedded DHCP server reads the nodes itself.
            return;
        }
        if !*self.right.read().await {
            self.put_right(nodes).await;
        }
        // Before reading the store, which then has all of them.
        let told = self.announced().all();
        if told.is_empty() {
            return;
        }
        let under_way = match nodes.under_way().await {
            Ok(under_way) => under_way,
            Err(failed) => {
                return log_store_failure(&failed, "the ended boots could not be read");
            }
        };
        let (told, over): (Vec<_>, Vec<_>) =
            told.into_iter().partition(|told| under_way.contains(&(told.node, told.attempt)));
        // In parallel, so that they wait together for a service that does not answer.
        let forget = async |told| self.forget(&told).await;
        let forgotten: Vec<_> =
            stream::iter(over).map(forget).buffer_unordered(AT_ONCE).collect().await;
        let mut well = forgotten.into_iter().all(|forgotten| forgotten);
        let mut now = Vec::with_capacity(told.len());
        for told in told {
            let (told, amended) = self.follow(nodes, told).await;
            well &= amended;
            now.push(told);
        }
        match self.has_forgotten(&now).await {
            Ok(true) => self.announce_again(nodes, &now).await,
            Ok(false) if well && *self.right.read().await => self.said().clear(),
            Ok(false) => {}
            Err(failed) => self.complain("the DHCP service does not answer", &failed),
        }
    }

    async fn has_forgotten(&self, told: &[Announcement]) -> Result<bool> {
        if !self.provider.has_forgotten(told).await? {
            return Ok(false);
        }
        // Announcements and withdrawals under way have ended by now.
        let _nothing_is_told = self.right.write().await;
        let still = self.announced().still(told);
        self.provider.has_forgotten(&still).await
    }

    /// Announces changes of a boot since its announcement: ports, boot sets and URLs may change. Returns the wanted
    /// announcement, and whether the service has it.
    async fn follow(&self, nodes: &Nodes, told: Announcement) -> (Announcement, bool) {
        let Some((node, ports)) = nodes.index().by_uuid(told.node) else { return (told, true) };
        let Some(now) = self.announcement(&node, &ports) else { return (told, true) };
        if !told.is_changed(&now) {
            return (told, true);
        }
        let _not_put_right = self.right.read().await;
        let done = self.timed("announce", self.provider.amend(&told, &now)).await;
        self.record_announcement(&node, &now, AnnouncementCause::Change, &done);
        if let Err(failed) = done {
            self.complain("changes of a boot cannot be announced to the DHCP service", &failed);
            return (told, false);
        }
        self.announced().amend(&now);
        (now, true)
    }

    /// Restores the right configuration, whatever happened to the daemon or to the service.
    async fn put_right(&self, nodes: &Nodes) {
        let mut right = self.right.write().await;
        // Several daemons may boot machines.
        if let Err(failed) = nodes.follow().await {
            return log_store_failure(&failed, "the current boots could not be read");
        }
        let picture = self.picture(nodes);
        match self.timed("reconcile", self.provider.reconcile(&picture)).await {
            Ok(()) => {
                *right = true;
                self.said().clear();
                if let (Some(name), false) = (self.name, picture.told.is_empty()) {
                    info!(boots = picture.told.len(), "{name} has the current boots");
                }
            }
            Err(failed) => {
                *right = false;
                self.complain("the boots cannot be announced to the DHCP service", &failed);
            }
        }
        self.announced().extend(picture.told);
    }

    fn picture(&self, nodes: &Nodes) -> Picture {
        let index = nodes.index();
        let all = index.all();
        let all = all.iter().filter_map(|node| index.by_uuid(node.uuid));
        Picture::of(all, &self.urls, &self.boot_sets.there())
    }

    async fn announce_again(&self, nodes: &Nodes, told: &[Announcement]) {
        // Otherwise the cause of the loss is known, and was logged.
        if *self.right.read().await {
            let name = self.name.map_or("the DHCP service", DhcpService::name);
            warn!("{name} has lost the boots: announcing them again");
        }
        self.put_right(nodes).await;
        if !*self.right.read().await {
            return;
        }
        for told in told {
            if let Some((node, _)) = nodes.index().by_uuid(told.node) {
                self.record(&node, told.traced(AnnouncementCause::Forgotten, &[]), None);
            }
        }
    }

    /// Withdraws a boot; returns whether it succeeded.
    async fn forget(&self, told: &Announcement) -> bool {
        let _not_put_right = self.right.read().await;
        if let Err(failed) = self.timed("withdraw", self.provider.withdraw(told)).await {
            self.complain("the DHCP service still has an old boot", &failed);
            return false;
        }
        self.announced().remove(told);
        true
    }

    async fn timed<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let began = Instant::now();
        let done = call.await;
        if let Some(provider) = self.name.map(DhcpService::name) {
            let outcome = if done.is_ok() { "ok" } else { "failed" };
            let call = ProviderCallLabels { provider, what, outcome };
            self.metrics.count(&call, began.elapsed());
        }
        done
    }

    /// Failures are in the trace together with the announcement.
    fn record_announcement(
        &self,
        node: &Node,
        told: &Announcement,
        cause: AnnouncementCause,
        done: &Result<But>,
    ) {
        let warnings = done.as_deref().unwrap_or_default();
        for words in warnings {
            warn!(node.uuid = %node.uuid, "the machine may not get its boot answer: {words}");
        }
        self.record(node, told.traced(cause, warnings), done.as_ref().err());
    }

    fn record(&self, node: &Node, told: BootAnnouncement, failed: Option<&anyhow::Error>) {
        if let Some(name) = self.name {
            let error = failed.map(|failed| format!("{failed:#}"));
            self.recorder.record(node, BootEventKind::Provider { name, told, error });
        }
    }

    fn complain(&self, what: &'static str, failed: &anyhow::Error) {
        let words = format!("{failed:#}");
        let before = self.said().insert(what, words.clone());
        if before.as_ref() == Some(&words) {
            return debug!("{what}: {words}");
        }
        warn!("{what}: {words}");
    }

    fn announcement(&self, node: &Node, ports: &[Arc<Port>]) -> Option<Announcement> {
        Announcement::of(node, ports, &self.urls, &self.boot_sets.there())
    }

    // A panic elsewhere cannot leave the map half-changed.
    fn announced(&self) -> MutexGuard<'_, AnnouncedBoots> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn said(&self) -> MutexGuard<'_, HashMap<&'static str, String>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::fs;
    use std::path::PathBuf;

    use jiff::Timestamp;
    use netboot::providers::test_announcements::plain_port;
    use netboot::urls::UrlSettings;
    use nodes::{Backlog, NodeIndex};
    use provision::test_nodes::booting_node;
    use provision::{Policy, ProvisionState};
    use serde_json::Map;
    use store::Store;
    use tempfile::TempDir;

    use super::*;

    /// A node whose boot is announced to dnsmasq.
    struct World {
        dir: TempDir,
        nodes: Nodes,
        providers: Providers,
        _backlog: Backlog,
    }

    impl World {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().display();
            let [dhcp_hostsdir, dhcp_optsdir] =
                ["hosts", "options"].map(|name| dir.path().join(name));
            fs::create_dir(&dhcp_hostsdir).unwrap();
            fs::create_dir(&dhcp_optsdir).unwrap();
            let dnsmasq = DnsmasqConfig { dhcp_hostsdir, dhcp_optsdir };
            let (url, key) = (format!("sqlite://{path}/test.db"), dir.path().join("ferroboot.key"));
            let store = Store::open(&url, &key).await.unwrap();
            let nodes = Nodes::new(store, NodeIndex::default(), Policy::default());
            nodes.create(&booting_node()).await.unwrap();
            let (recorder, backlog) = Recorder::new();
            let metrics = ProviderMetrics::default();
            let boot_sets = BootSets::look(dir.path());
            let service = BootAnswerService::Dnsmasq(&dnsmasq);
            let urls = Urls::new(
                UrlSettings {
                    boot: Some("http://10.0.0.1".parse().unwrap()),
                    ..UrlSettings::default()
                },
                None,
            );
            let providers = Providers::open(service, urls, boot_sets, recorder, metrics).unwrap();
            let world = Self { dir, nodes, providers, _backlog: backlog };
            world.plug_in(1).await;
            world
        }

        async fn plug_in(&self, number: u8) {
            let port = Port {
                uuid: Uuid::from_u128(number.into()),
                node_uuid: Uuid::nil(),
                address: plain_port(number).mac,
                pxe_enabled: true,
                created_at: Timestamp::UNIX_EPOCH,
                updated_at: None,
                extra: Map::new(),
                kept: Map::new(),
            };
            self.nodes.create_port(&port).await.unwrap();
        }

        fn host(&self, number: u8) -> PathBuf {
            let mac = plain_port(number).mac;
            self.dir.path().join(format!("hosts/ironic-{mac}.conf"))
        }

        /// Whether dnsmasq is configured to boot a port.
        fn boots(&self, number: u8) -> bool {
            fs::read_to_string(self.host(number)).is_ok_and(|line| line.contains("ferroboot-boot"))
        }
    }

    #[tokio::test]
    async fn ports_that_a_node_gets_and_loses_in_the_middle_of_its_boot_are_told_and_forgotten() {
        let world = World::new().await;
        world.providers.tidy(&world.nodes).await;
        assert!(world.boots(1) && !world.boots(2));

        world.plug_in(2).await;
        world.nodes.delete_port(Uuid::from_u128(1), |_| Ok::<_, Infallible>(())).await.unwrap();
        world.providers.tidy(&world.nodes).await;

        assert!(!world.boots(1) && world.boots(2));
    }

    #[tokio::test]
    async fn a_boot_that_was_forgotten_is_told_again_and_one_that_is_over_never() {
        let world = World::new().await;
        let (node, ports) = world.nodes.index().by_uuid(Uuid::nil()).unwrap();
        world.providers.announce(&node, &ports).await.unwrap();
        world.providers.tidy(&world.nodes).await;

        fs::remove_file(world.host(1)).unwrap();
        world.providers.tidy(&world.nodes).await;
        assert!(world.boots(1));

        let over = |node: &Node| {
            let provision_state = ProvisionState::CleanFailed;
            Ok::<_, ()>(Node { provision_state, ..node.clone() })
        };
        world.nodes.set(node.uuid, over).await.unwrap();
        world.providers.tidy(&world.nodes).await;
        assert!(!world.boots(1));
        assert!(fs::read_dir(world.dir.path().join("options")).unwrap().next().is_none());
    }
}
