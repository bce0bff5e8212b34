//! Where packets are taken in and answers handed out: sockets, journals and the clock around a desk.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::path::Path;

use anyhow::{Context as _, Result};
use dhcp::v4::reply;
use dhcp::{leases, v6 as six};
use ipnet::IpNet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::advertise::Advertiser;
use super::heard::{Done, Heard};
use super::journal::{self, Journal, Table};
use super::socket::{self, Link, Socket4, Socket6};
use super::{Machines, now, v4, v6};
use crate::config::{self, AnyRange, Relayed};

/// Packets that are decided about together: one write to the journal serves them all.
const BATCH: usize = 64;

/// DHCPv4 on one interface.
#[derive(Debug)]
pub(super) struct Counter4 {
    interface: String,
    socket: Socket4,
    desk: v4::Desk,
    /// One for each of the desk's subnets.
    journals: Vec<Journal<leases::Leases>>,
}

/// DHCPv6 on one interface, and its router advertisements.
#[derive(Debug)]
pub(super) struct Counter6 {
    link: Link,
    socket: Socket6,
    advertiser: Option<Advertiser>,
    desk: v6::Desk,
    /// One for each of the desk's subnets.
    journals: Vec<Journal<six::leases::Leases>>,
}

impl Counter4 {
    pub(super) fn open(
        settings: &config::Network,
        pool: leases::Pool,
        lease_secs: u32,
        state_dir: &Path,
    ) -> Result<Self> {
        let interface = &settings.interface;
        let (server, mask) = socket::address_of(interface)?;
        let about = |mask, router| reply::Network {
            server,
            mask,
            router,
            dns: settings.dns4(),
            lease_secs,
        };
        let mut subnets = Vec::new();
        let mut journals = Vec::new();
        let mut add = |base, name: String, pool, about| -> Result<()> {
            let path = state_dir.join(name);
            let (journal, leases) = Journal::open(&path, pool)
                .with_context(|| format!("cannot keep leases in {}", path.display()))?;
            subnets.push(v4::Subnet { base, leases, about });
            journals.push(journal);
            Ok(())
        };
        let local = about(mask, settings.router);
        add(server, format!("leases-{interface}.journal"), pool, local)?;
        for Relayed { subnet, pool, router } in &settings.relayed {
            let (IpNet::V4(subnet), AnyRange::V4(pool)) = (subnet, pool) else { continue };
            let (base, about) = (subnet.network(), about(subnet.netmask(), *router));
            add(base, format!("leases-{interface}-{base}.journal"), *pool, about)?;
        }
        let socket = Socket4::open(interface)?;
        Ok(Self { interface: interface.clone(), socket, desk: v4::Desk::new(subnets), journals })
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.desk.address()
    }

    pub(super) async fn run(mut self, machines: &Machines, end: &CancellationToken) {
        for subnet in self.desk.subnets() {
            let leases::Pool { first, last } = subnet.pool();
            info!("answering DHCP on {}, addresses {first} to {last}", self.interface);
        }
        let mut sync = interval(journal::SYNC_EVERY);
        sync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut packets = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                received = self.socket.receive(&mut packets, BATCH) => match received {
                    Ok(()) => self.take(&mut packets, machines).await,
                    Err(error) => {
                        // ENETDOWN and its like: the interface may come back.
                        warn!(%error, "DHCP on {} cannot receive", self.interface);
                        tokio::time::sleep(socket::AFTER_ERROR).await;
                    }
                },
                _ = sync.tick() => {
                    for (journal, subnet) in self.journals.iter_mut().zip(self.desk.subnets()) {
                        journal.sync(&subnet.leases).await;
                    }
                }
                () = end.cancelled() => break,
            }
        }
        for journal in self.journals {
            journal.close().await;
        }
    }

    async fn take(&mut self, packets: &mut Vec<Vec<u8>>, machines: &Machines) {
        let now = now();
        let mut all: Vec<_> =
            packets.drain(..).map(|bytes| self.desk.hear(&bytes, machines, now)).collect();
        write_down(&mut self.journals, &mut all);
        for Heard { reply, counted, mut story, .. } in all {
            machines.metrics.dhcp(&counted);
            if let Some(v4::Reply { request, reply }) = reply
                && let Err(error) = self.socket.send(&request, &reply).await
            {
                warn!(%error, "DHCP on {} cannot send", self.interface);
                let because = format!("the answer could not be sent: {error}");
                story.iter_mut().for_each(|story| story.done = Done::Silent(because.clone()));
            }
            story.into_iter().for_each(|story| machines.record(story));
        }
    }
}

impl Counter6 {
    pub(super) fn open(
        settings: &config::Network,
        pool: six::leases::Pool,
        lease_secs: u32,
        state_dir: &Path,
    ) -> Result<Self> {
        let link = Link::find(&settings.interface)?;
        let dns = settings.dns6();
        let advertiser = settings
            .advertise
            .then(|| Advertiser::open(&link, dns.clone()))
            .transpose()
            .with_context(|| format!("cannot advertise on {}", link.name))?;
        let about = six::reply::Network { duid: link.duid(), sole: settings.sole, dns, lease_secs };
        let mut subnets = Vec::new();
        let mut journals = Vec::new();
        let mut add = |base, prefix_len, name: String, pool| -> Result<()> {
            let path = state_dir.join(name);
            let (journal, leases) = Journal::open(&path, pool)
                .with_context(|| format!("cannot keep leases in {}", path.display()))?;
            subnets.push(v6::Subnet { base, prefix_len, leases, about: about.clone() });
            journals.push(journal);
            Ok(())
        };
        add(link.address, link.prefix_len, format!("leases6-{}.journal", link.name), pool)?;
        for Relayed { subnet, pool, .. } in &settings.relayed {
            let (IpNet::V6(subnet), AnyRange::V6(pool)) = (subnet, pool) else { continue };
            let base = subnet.network();
            let name = format!("leases6-{}-{base}.journal", link.name);
            add(base, subnet.prefix_len(), name, *pool)?;
        }
        Ok(Self {
            socket: Socket6::open(&link)?,
            advertiser,
            desk: v6::Desk::new(link.address, subnets),
            journals,
            link,
        })
    }

    pub(super) fn address(&self) -> Ipv6Addr {
        self.link.address
    }

    pub(super) async fn run(mut self, machines: &Machines, end: &CancellationToken) {
        for subnet in self.desk.subnets() {
            let six::leases::Pool { first, last } = subnet.pool();
            info!("answering DHCPv6 on {}, addresses {first} to {last}", self.link.name);
        }
        let advertiser = self.advertiser.take();
        let advertising = async {
            if let Some(advertiser) = advertiser {
                advertiser.run(end).await;
            }
        };
        tokio::join!(advertising, self.answer(machines, end));
    }

    async fn answer(mut self, machines: &Machines, end: &CancellationToken) {
        let mut sync = interval(journal::SYNC_EVERY);
        sync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut packets = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                received = self.socket.receive(&mut packets, BATCH) => match received {
                    Ok(()) => self.take(&mut packets, machines).await,
                    Err(error) => {
                        warn!(%error, "DHCPv6 on {} cannot receive", self.link.name);
                        tokio::time::sleep(socket::AFTER_ERROR).await;
                    }
                },
                _ = sync.tick() => {
                    for (journal, subnet) in self.journals.iter_mut().zip(self.desk.subnets()) {
                        journal.sync(&subnet.leases).await;
                    }
                }
                () = end.cancelled() => break,
            }
        }
        for journal in self.journals {
            journal.close().await;
        }
    }

    async fn take(&mut self, packets: &mut Vec<(Vec<u8>, SocketAddrV6)>, machines: &Machines) {
        let now = now();
        let hear = |(bytes, from): (Vec<u8>, _)| self.desk.hear(&bytes, from, machines, now);
        let mut all: Vec<_> = packets.drain(..).map(hear).collect();
        write_down(&mut self.journals, &mut all);
        for Heard { reply, counted, mut story, .. } in all {
            machines.metrics.dhcp(&counted);
            if let Some(v6::Reply { bytes, to, relayed }) = reply
                && let Err(error) = self.socket.send(&bytes, to, relayed).await
            {
                warn!(%error, "DHCPv6 on {} cannot send", self.link.name);
                let because = format!("the answer could not be sent: {error}");
                story.iter_mut().for_each(|story| story.done = Done::Silent(because.clone()));
            }
            story.into_iter().for_each(|story| machines.record(story));
        }
    }
}

/// An address that was acknowledged must still be taken after a crash: so an answer leaves only when
/// what it rests on is in its journal.
fn write_down<T: Table, R>(journals: &mut [Journal<T>], all: &mut [Heard<R, (usize, T::Record)>]) {
    for (at, journal) in journals.iter_mut().enumerate() {
        let of_this = |(subnet, _): &&(usize, T::Record)| *subnet == at;
        let records = all.iter().flat_map(|heard| heard.records.iter().filter(of_this));
        let Err(error) = journal.append(records.map(|(_, record)| record)) else { continue };
        error!(%error, "a lease journal cannot be written, so nobody gets an address");
        let because = format!("its lease cannot be written down: {error}");
        for heard in all.iter_mut().filter(|heard| heard.records.iter().any(|r| of_this(&r))) {
            heard.reply = None;
            heard.story.iter_mut().for_each(|story| story.done = Done::Silent(because.clone()));
        }
    }
}
