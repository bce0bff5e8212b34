//! Network setup: finds the link that leads to Ironic's API, and keeps its addresses.
//!
//! IPv4 and IPv6 are requested at the same time, on every candidate link. The first address from which the API is
//! reached is used, so that a network with one family causes no delay.

mod gained;
pub mod kernel;
pub mod links;
mod names;
mod v4;
mod v6;
mod way;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, interval, interval_at};
use tracing::{debug, info, warn};
use url::Url;

use self::gained::{Family, GainedSettings};
use self::kernel::{KernelNetwork, NetworkSnapshot, set_ipv6};
use self::links::{NetworkLink, WantedLinks};

/// Time limit for reaching the API; a failure is then reported, since the cabling is wrong or the server is down.
const PATIENCE: Duration = Duration::from_secs(300);

/// Interval of bringing up a link without a carrier again.
const RAISE: Duration = Duration::from_secs(2);

/// Interval of progress lines on the console.
const TELL: Duration = Duration::from_secs(15);

/// A working network.
#[derive(Debug)]
pub struct ConfiguredNetwork {
    /// The local address on the way to the API.
    pub address: IpAddr,
    /// Time servers of the network.
    pub ntp: Vec<IpAddr>,
    link: NetworkLink,
    present: watch::Receiver<NetworkSnapshot>,
    gained: Gains,
    told: mpsc::Receiver<GainedSettings>,
    asking: JoinSet<(Ask, Error)>,
}

/// One address family on one link.
type Ask = (u32, Family);

type Gains = BTreeMap<Ask, GainedSettings>;

/// Sets up the network: by a wanted link, otherwise by the first one that leads to the API.
///
/// # Errors
///
/// No link leads to the API; with the state of each.
pub async fn up(wanted: &WantedLinks, api: &Url) -> Result<ConfiguredNetwork> {
    let kernel = KernelNetwork::open()?;
    kernel.set_up(1).await.context("setting up the loopback")?;
    let present = kernel.watch().await?;
    Search::new(kernel, wanted, api, present).run().await
}

impl ConfiguredNetwork {
    /// Keeps the addresses for the agent's lifetime.
    ///
    /// # Errors
    ///
    /// The local address is gone: everything that depends on it must start over.
    pub async fn keep(mut self) -> Result<Infallible> {
        let NetworkLink { name, index, .. } = &self.link;
        loop {
            if self.present.borrow_and_update().state(*index, self.address).is_none() {
                bail!("{name} no longer has {}", self.address);
            }
            tokio::select! {
                changed = self.present.changed() => changed.context("the kernel sends no more events")?,
                Some(gained) = self.told.recv() => note(&mut self.gained, gained)?,
                // An aborted task needs no attention.
                Some(ended) = self.asking.join_next() => if let Ok(((_, family), error)) = ended {
                    if family == Family::of(self.address) {
                        return Err(error.context("renewing"));
                    }
                    warn!("{name} keeps only its other addresses: {error:#}");
                },
            }
        }
    }
}

/// A search for the network.
struct Search<'a> {
    kernel: KernelNetwork,
    wanted: &'a WantedLinks,
    api: &'a Url,
    started: Instant,
    present: watch::Receiver<NetworkSnapshot>,
    raised: BTreeMap<u32, Instant>,
    vlans: BTreeSet<String>,
    asking: JoinSet<(Ask, Error)>,
    asked: BTreeMap<Ask, AbortHandle>,
    tell: mpsc::Sender<GainedSettings>,
    told: mpsc::Receiver<GainedSettings>,
    gained: Gains,
    ways: JoinSet<(NetworkLink, IpAddr)>,
    trying: BTreeMap<u32, AbortHandle>,
}

impl<'a> Search<'a> {
    fn new(
        kernel: KernelNetwork,
        wanted: &'a WantedLinks,
        api: &'a Url,
        present: watch::Receiver<NetworkSnapshot>,
    ) -> Self {
        let (tell, told) = mpsc::channel(16);
        Self {
            kernel,
            wanted,
            api,
            started: Instant::now(),
            present,
            raised: BTreeMap::new(),
            vlans: BTreeSet::new(),
            asking: JoinSet::new(),
            asked: BTreeMap::new(),
            tell,
            told,
            gained: BTreeMap::new(),
            ways: JoinSet::new(),
            trying: BTreeMap::new(),
        }
    }

    async fn run(mut self) -> Result<ConfiguredNetwork> {
        let mut look = interval(RAISE);
        let mut tell = interval_at(self.started + TELL, TELL);
        loop {
            tokio::select! {
                _ = look.tick() => {}
                _ = tell.tick() => info!("no route to {} yet: {}", self.api, seen(&self.present.borrow())),
                changed = self.present.changed() => changed.context("the kernel sends no more events")?,
                Some(gained) = self.told.recv() => {
                    self.try_way(&gained.link);
                    note(&mut self.gained, gained)?;
                }
                Some(ended) = self.asking.join_next() => {
                    let (ask, error) = ended.context("asking for an address")?;
                    warn!("asking for an address: {error:#}");
                    self.asked.remove(&ask);
                }
                Some(found) = self.ways.join_next() => {
                    // The other tasks were aborted in favour of a newer one.
                    if let Ok((link, address)) = found {
                        return Ok(self.settle(link, address).await);
                    }
                }
            }
            let present = self.present.borrow_and_update().clone();
            self.go_on(&present).await;
            if self.started.elapsed() > PATIENCE {
                bail!(
                    "no route to {} after {} s: {}",
                    self.api,
                    PATIENCE.as_secs(),
                    seen(&present)
                );
            }
        }
    }

    async fn go_on(&mut self, present: &NetworkSnapshot) {
        for link in &present.links {
            self.raise(link).await;
        }
        for link in self.wanted.candidates(&present.links, self.started.elapsed()) {
            self.ask(link, Family::V4);
            self.ask(link, Family::V6);
        }
    }

    /// Brings a link up, again at intervals while it has no carrier, and creates its VLANs.
    async fn raise(&mut self, link: &NetworkLink) {
        match self.raised.insert(link.index, Instant::now()) {
            None => {
                info!("found {} {link}", link.kind);
                // Ignore routers on links that are not candidates.
                set_ipv6(&link.name, "accept_ra", "0");
            }
            Some(last) if last.elapsed() < RAISE => {
                self.raised.insert(link.index, last);
                return;
            }
            Some(_) => {}
        }
        if link.carrier {
            for (name, id) in self.wanted.vlans_of(link) {
                self.make_vlan(&name, link, id).await;
            }
        } else if let Err(error) = self.kernel.set_up(link.index).await {
            // Some drivers refuse until their firmware runs.
            debug!("{} does not come up yet: {error:#}", link.name);
        }
    }

    async fn make_vlan(&mut self, name: &str, on: &NetworkLink, id: u16) {
        let present = self.present.borrow().links.iter().any(|link| link.name == name);
        if present || !self.vlans.insert(name.to_owned()) {
            return;
        }
        if let Err(error) = self.kernel.add_vlan(name, on.index, id).await {
            warn!("VLAN {id} of {} cannot be used: {error:#}", on.name);
        }
    }

    fn ask(&mut self, link: &NetworkLink, family: Family) {
        let ask = (link.index, family);
        if self.asked.contains_key(&ask) {
            return;
        }
        let (link, tell) = (link.clone(), self.tell.clone());
        let handle = match family {
            Family::V4 => {
                info!("requesting an address on {}", link.name);
                let asking = v4::run(self.kernel.clone(), link, tell);
                self.asking.spawn(async move { (ask, end(asking.await)) })
            }
            Family::V6 => {
                let asking = v6::run(self.kernel.clone(), link, self.present.clone(), tell);
                self.asking.spawn(async move { (ask, end(asking.await)) })
            }
        };
        self.asked.insert(ask, handle);
    }

    /// Starts checking whether a link leads to the API.
    fn try_way(&mut self, link: &NetworkLink) {
        let (api, link) = (self.api.clone(), link.clone());
        let index = link.index;
        let trying = self.ways.spawn(async move {
            let address = way::find(&api, &link.name).await;
            (link, address)
        });
        if let Some(before) = self.trying.insert(index, trying) {
            before.abort();
        }
    }

    /// Keeps only this link and its results.
    async fn settle(mut self, link: NetworkLink, address: IpAddr) -> ConfiguredNetwork {
        info!("{} leads to {} from {address}", link.name, self.api);
        let is_kept = |(index, _): &Ask| *index == link.index;
        for (ask, asked) in &self.asked {
            if !(is_kept(ask) && self.gained.contains_key(ask)) {
                asked.abort();
            }
        }
        self.gained.retain(|ask, _| is_kept(ask));
        let present = self.present.borrow().links.clone();
        let left = |other: &&NetworkLink| {
            other.index != link.index && self.asked.keys().any(|(index, _)| *index == other.index)
        };
        for other in present.iter().filter(left) {
            self.kernel.forget(other).await;
        }
        let ntp = self.gained.values().flat_map(|gained| gained.ntp.iter().copied()).collect();
        let Self { present, gained, told, asking, .. } = self;
        ConfiguredNetwork { address, ntp, link, present, gained, told, asking }
    }
}

fn end(ended: Result<Infallible>) -> Error {
    match ended {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn note(gained: &mut Gains, new: GainedSettings) -> Result<()> {
    gained.insert((new.link.index, new.family), new);
    let servers = |it: &'_ GainedSettings| {
        it.dns.iter().map(|server| (*server, it.link.name.clone())).collect::<Vec<_>>()
    };
    let servers: Vec<_> = gained.values().flat_map(servers).collect();
    let servers: Vec<_> = servers.iter().map(|(server, link)| (*server, link.as_str())).collect();
    names::set(&servers)
}

/// The state of all links, for the console.
fn seen(present: &NetworkSnapshot) -> String {
    let words = |link: &NetworkLink| {
        let addresses: Vec<_> = present.reachable(link.index).map(|it| it.to_string()).collect();
        match (link.carrier, &addresses[..]) {
            (false, _) => format!("{link} has no carrier"),
            (true, []) => format!("no server answered on {link}"),
            (true, addresses) => format!("{link} has {}", addresses.join(" and ")),
        }
    };
    match &present.links[..] {
        [] => "this ramdisk has a driver for none of the network cards".to_owned(),
        links => links.iter().map(words).collect::<Vec<_>>().join(", "),
    }
}
