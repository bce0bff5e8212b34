//! DHCP services, told what machines are to boot: our own, or one that is there already.
//!
//! [`Providers`] decides when a service is told, and is the same for all. A [`Provider`] knows how.

pub mod announcement;
pub mod dnsmasq;
pub mod kea;
pub mod neutron;
mod untold;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result};
use futures::future::BoxFuture;
use provision::boot::bootable;
use provision::{Node, Port, What};
use tokio::sync::RwLock;
use tracing::{debug, info, warn};
use uuid::Uuid;

use self::announcement::Announcement;
use self::dnsmasq::Dnsmasq;
use self::kea::Kea;
use self::neutron::Neutron;
use self::untold::Untold;
use crate::artifacts::BootSets;
use crate::change::Nodes;
use crate::config::{self, Config};
use crate::dhcp::Witness;
use crate::metrics::Telling;
use crate::urls::Urls;

/// A DHCP service that can be told what machines are to boot.
///
/// Telling it the same again changes nothing, and takes back nothing that others told it.
pub trait Provider: fmt::Debug + Send + Sync {
    /// Lets the service answer the ports of a node as `told` says, before its machine is switched on.
    fn announce<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<()>>;

    /// Lets the service forget that.
    fn withdraw<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<()>>;

    /// Lets the service answer as all of `told` say, and forget what else we ever told it: `over` are the
    /// latest boots of all machines that boot no more.
    fn reconcile<'a>(
        &'a self,
        told: &'a [Announcement],
        over: &'a [Announcement],
    ) -> BoxFuture<'a, Result<()>>;

    /// Whether the service knows some of `told` no more: it was started anew, or somebody else has
    /// changed it.
    fn has_forgotten<'a>(&'a self, told: &'a [Announcement]) -> BoxFuture<'a, Result<bool>>;
}

/// What the DHCP service has been told; clones share it.
#[derive(Clone, Debug)]
pub struct Providers {
    provider: Arc<dyn Provider>,
    /// What the trace calls it, where it is told anything.
    name: Option<&'static str>,
    urls: Urls,
    boot_sets: BootSets,
    witness: Witness,
    told: Arc<Mutex<HashMap<Uuid, Announcement>>>,
    /// Whether the service knows what it should. Held for writing while that is put right, so that a
    /// boot that begins meanwhile is not taken for one that is gone.
    right: Arc<RwLock<bool>>,
    /// What was last said of its silence, so that it is said once.
    said: Arc<Mutex<Option<String>>>,
}

impl Providers {
    /// The service that the settings name.
    ///
    /// # Errors
    /// In words, where the service cannot be told anything.
    pub fn open(
        config: &Config,
        urls: Urls,
        boot_sets: BootSets,
        witness: Witness,
    ) -> Result<Self> {
        let dhcp = &config.dhcp;
        let (name, provider): (_, Arc<dyn Provider>) = match dhcp.provider {
            config::Provider::Embedded => {
                (None, Arc::new(Untold { answers: !dhcp.networks.is_empty() }))
            }
            config::Provider::Kea => (Some("Kea"), Arc::new(Kea::new(&dhcp.kea))),
            config::Provider::Neutron => (Some("Neutron"), Arc::new(Neutron::new(&dhcp.neutron)?)),
            config::Provider::None => (None, Arc::new(Untold { answers: true })),
            config::Provider::Dnsmasq => (Some("dnsmasq"), Arc::new(Dnsmasq::open(&dhcp.dnsmasq)?)),
        };
        let (told, right, said) = (Arc::default(), Arc::default(), Arc::default());
        Ok(Self { provider, name, urls, boot_sets, witness, told, right, said })
    }

    /// Tells the service of the boot of a node that is about to be switched on.
    ///
    /// # Errors
    /// In words, where it cannot be told, or no URL is known that machines could be given.
    pub async fn announce(&self, node: &Node, ports: &[Arc<Port>]) -> Result<()> {
        self.boot_sets.look_again();
        let Some(told) = self.announcement(node, ports) else { return Ok(()) };
        let _not_put_right = self.right.read().await;
        // Before the service is told: what came of an attempt to tell it is withdrawn as well.
        if self.name.is_some() {
            self.told().insert(node.uuid, told.clone());
        }
        let done = self.timed("announce", self.provider.announce(&told)).await;
        self.record(node, told.in_words(), done.as_ref().err());
        match self.name {
            Some(name) => done.with_context(|| format!("{name} could not be told what to boot")),
            None => done,
        }
    }

    /// Lets the service forget the boot of a node, if we told it of one. What fails is tried again by
    /// [`Providers::tidy`].
    pub async fn withdraw(&self, node: Uuid) {
        let told = self.told().get(&node).cloned();
        if let Some(told) = told {
            self.forget(&told).await;
        }
    }

    /// Lets the service forget all boots that are over, whichever way they ended and whoever saw it; and
    /// tells it again what it has forgotten. At first, all that it should know: it may have to be waited for.
    pub async fn tidy(&self, nodes: &Nodes) {
        if self.name.is_none() {
            // Our own DHCP server knows the nodes themselves.
            return;
        }
        if !*self.right.read().await {
            self.put_right(nodes).await;
        }
        // Before the store is asked, which then knows all of them.
        let told: Vec<_> = self.told().values().cloned().collect();
        if told.is_empty() {
            return;
        }
        let under_way = match nodes.under_way().await {
            Ok(under_way) => under_way,
            Err(failed) => return warn!(error = %failed, "it is not known which boots are over"),
        };
        let (told, over): (Vec<_>, Vec<_>) =
            told.into_iter().partition(|told| under_way.contains(&(told.node, told.attempt)));
        let mut well = true;
        for told in over {
            well &= self.forget(&told).await;
        }
        match self.provider.has_forgotten(&told).await {
            Ok(true) => self.tell_again(nodes, &told).await,
            Ok(false) if well => *self.said() = None,
            Ok(false) => {}
            Err(failed) => self.complain("the DHCP service does not answer", &failed),
        }
    }

    /// Makes the service know what it should, after whatever became of us or of it.
    async fn put_right(&self, nodes: &Nodes) {
        let mut right = self.right.write().await;
        // Several daemons may boot machines.
        if let Err(failed) = nodes.load().await {
            return warn!(error = %failed, "it is not known which machines boot");
        }
        let index = nodes.index();
        let (mut told, mut over) = (Vec::new(), Vec::new());
        for (node, ports) in index.all().iter().filter_map(|node| index.by_uuid(node.uuid)) {
            let list = if bootable(&node).is_some() { &mut told } else { &mut over };
            list.extend(self.announcement(&node, &ports));
        }
        match self.timed("reconcile", self.provider.reconcile(&told, &over)).await {
            Ok(()) => {
                *right = true;
                *self.said() = None;
                if let (Some(name), false) = (self.name, told.is_empty()) {
                    info!(boots = told.len(), "{name} knows of the boots under way");
                }
            }
            Err(failed) => {
                *right = false;
                self.complain("the DHCP service cannot be told what boots", &failed);
            }
        }
        self.told().extend(told.into_iter().map(|told| (told.node, told)));
    }

    async fn tell_again(&self, nodes: &Nodes, told: &[Announcement]) {
        warn!(
            "{} has forgotten what boots: telling it again",
            self.name.unwrap_or("the DHCP service")
        );
        self.put_right(nodes).await;
        if !*self.right.read().await {
            return;
        }
        for told in told {
            if let Some((node, _)) = nodes.index().by_uuid(told.node) {
                self.record(
                    &node,
                    format!("again, which it had forgotten, {}", told.in_words()),
                    None,
                );
            }
        }
    }

    /// Whether it did.
    async fn forget(&self, told: &Announcement) -> bool {
        let _not_put_right = self.right.read().await;
        if let Err(failed) = self.timed("withdraw", self.provider.withdraw(told)).await {
            self.complain("the DHCP service still has an old boot", &failed);
            return false;
        }
        let mut all = self.told();
        // Another boot of it may have begun in between.
        if all.get(&told.node).is_some_and(|now| now.attempt == told.attempt) {
            all.remove(&told.node);
        }
        true
    }

    async fn timed(
        &self,
        what: &'static str,
        telling: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let began = Instant::now();
        let done = telling.await;
        if let Some(provider) = self.name {
            let outcome = if done.is_ok() { "ok" } else { "failed" };
            let telling = Telling { provider, what, outcome };
            self.witness.metrics.telling(&telling, began.elapsed());
        }
        done
    }

    fn record(&self, node: &Node, told: String, failed: Option<&anyhow::Error>) {
        if let Some(name) = self.name {
            let error = failed.map(|failed| format!("{failed:#}"));
            self.witness
                .recorder
                .record(node, What::Provider { name: name.to_owned(), told, error });
        }
    }

    fn complain(&self, what: &str, failed: &anyhow::Error) {
        let words = format!("{what}: {failed:#}");
        let mut said = self.said();
        if said.as_ref() == Some(&words) {
            return debug!("{words}");
        }
        warn!("{words}");
        *said = Some(words);
    }

    fn announcement(&self, node: &Node, ports: &[Arc<Port>]) -> Option<Announcement> {
        Announcement::of(node, ports, &self.urls, &self.boot_sets.there())
    }

    // A panic elsewhere cannot leave the map half-changed.
    fn told(&self) -> MutexGuard<'_, HashMap<Uuid, Announcement>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn said(&self) -> MutexGuard<'_, Option<String>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
