//! DHCP services, told what machines are to boot: our own, or one that is there already.
//!
//! [`Providers`] decides when a service is told, and is the same for all. A [`Provider`] knows how.

pub mod announcement;
pub mod dnsmasq;
mod embedded;
pub mod kea;
pub mod neutron;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use futures::future::BoxFuture;
use provision::boot::bootable;
use provision::{Node, Port, What};
use tokio::sync::RwLock;
use tracing::{info, warn};
use uuid::Uuid;

use self::announcement::Announcement;
use self::dnsmasq::Dnsmasq;
use self::embedded::{Embedded, SomebodyElse};
use self::kea::Kea;
use self::neutron::Neutron;
use crate::artifacts::BootSets;
use crate::config::{self, Config};
use crate::nodes::Index;
use crate::trace::Recorder;
use crate::urls::Urls;

/// A DHCP service that can be told what machines are to boot.
///
/// Telling it the same again changes nothing, and takes back nothing that others told it.
pub trait Provider: fmt::Debug + Send + Sync {
    /// Lets the service answer the ports of a node as `told` says, before its machine is switched on.
    fn announce<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<()>>;

    /// Lets the service forget that.
    fn withdraw<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<()>>;

    /// At start: lets the service answer as all of `told` say, and forget what else we ever told it.
    fn reconcile<'a>(&'a self, told: &'a [Announcement]) -> BoxFuture<'a, Result<()>>;
}

/// What the DHCP service has been told; clones share it.
#[derive(Clone, Debug)]
pub struct Providers {
    provider: Arc<dyn Provider>,
    /// What the trace calls it, where it is told anything.
    name: Option<&'static str>,
    urls: Urls,
    boot_sets: BootSets,
    recorder: Recorder,
    told: Arc<Mutex<HashMap<Uuid, Announcement>>>,
    /// Whether the service knows what it should. Held for writing while that is put right, so that a
    /// boot that begins meanwhile is not taken for one that is gone.
    right: Arc<RwLock<bool>>,
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
        recorder: Recorder,
    ) -> Result<Self> {
        let dhcp = &config.dhcp;
        let (name, provider): (_, Arc<dyn Provider>) = match dhcp.provider {
            config::Provider::Embedded => {
                (None, Arc::new(Embedded { answers: !dhcp.networks.is_empty() }))
            }
            config::Provider::Kea => (Some("Kea"), Arc::new(Kea::new(&dhcp.kea))),
            config::Provider::Neutron => (Some("Neutron"), Arc::new(Neutron::new(&dhcp.neutron)?)),
            config::Provider::None => (None, Arc::new(SomebodyElse)),
            config::Provider::Dnsmasq => (Some("dnsmasq"), Arc::new(Dnsmasq::open(&dhcp.dnsmasq)?)),
        };
        let (told, right) = (Arc::default(), Arc::default());
        Ok(Self { provider, name, urls, boot_sets, recorder, told, right })
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
        self.told().insert(node.uuid, told.clone());
        let done = self.provider.announce(&told).await;
        if let Some(name) = self.name {
            let error = done.as_ref().err().map(|error| format!("{error:#}"));
            let told = told.in_words();
            self.recorder.record(node, What::Provider { name: name.to_owned(), told, error });
            return done.with_context(|| format!("{name} could not be told what to boot"));
        }
        done
    }

    /// Lets the service forget the boot of a node, if it was told of one. What fails is tried again by
    /// [`Providers::tidy`].
    pub async fn withdraw(&self, node: Uuid) {
        let Some(told) = self.told().get(&node).cloned() else { return };
        let _not_put_right = self.right.read().await;
        if let Err(failed) = self.provider.withdraw(&told).await {
            warn!(node.uuid = %node, "the DHCP service still has an old boot: {failed:#}");
            return;
        }
        let mut all = self.told();
        // Another boot of it may have begun in between.
        if all.get(&node).is_some_and(|now| now.attempt == told.attempt) {
            all.remove(&node);
        }
    }

    /// Lets the service forget all boots that are over, whichever way they ended.
    pub async fn tidy(&self, index: &Index) {
        if !*self.right.read().await {
            self.put_right(index).await;
        }
        let over: Vec<_> =
            self.told().values().filter(|told| is_over(told, index)).cloned().collect();
        for told in over {
            self.withdraw(told.node).await;
        }
    }

    /// At start: makes the service know what it should, after whatever became of us. What fails is
    /// tried again by [`Providers::tidy`].
    pub async fn put_right(&self, index: &Index) {
        let mut right = self.right.write().await;
        let under_way = |node: &Arc<Node>| {
            bootable(node)?;
            let (node, ports) = index.by_uuid(node.uuid)?;
            self.announcement(&node, &ports)
        };
        let all: Vec<_> = index.booting().iter().filter_map(under_way).collect();
        match self.provider.reconcile(&all).await {
            Ok(()) => {
                *right = true;
                if let (Some(name), false) = (self.name, all.is_empty()) {
                    info!(boots = all.len(), "{name} knows of the boots under way");
                }
            }
            Err(failed) => warn!("the DHCP service cannot be told what boots: {failed:#}"),
        }
        self.told().extend(all.into_iter().map(|told| (told.node, told)));
    }

    fn announcement(&self, node: &Node, ports: &[Arc<Port>]) -> Option<Announcement> {
        Announcement::of(node, ports, &self.urls, &self.boot_sets.there())
    }

    // A panic elsewhere cannot leave the map half-changed.
    fn told(&self) -> MutexGuard<'_, HashMap<Uuid, Announcement>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Once the ramdisk has called, its machine needs no URL; and if it is started anew, it is told again.
fn is_over(told: &Announcement, index: &Index) -> bool {
    let Some((node, _)) = index.by_uuid(told.node) else { return true };
    let Some(attempt) = &node.attempt else { return true };
    // The index may not have heard of this attempt yet.
    let same = attempt.id == told.attempt;
    (same && bootable(&node).is_none()) || (!same && attempt.started_at > told.started_at)
}
