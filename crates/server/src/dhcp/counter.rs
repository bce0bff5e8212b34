//! Where packets are taken in and answers handed out: sockets, journals and the clock around a desk.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::path::Path;

use anyhow::{Context as _, Result};
use dhcp::v4::destination::SERVER;
use dhcp::v4::proxy::Port;
use dhcp::{leases, v6 as six};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::advertise::Advertiser;
use super::diary::Diary;
use super::heard::{Done, Heard};
use super::journal::{self, Journal, Table};
use super::socket::{self, Link, Socket4, Socket6};
use super::{Machines, Witness, limits, now, plan, proxy, v4, v6};
use crate::config;

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
    diary: Diary,
}

/// DHCPv4 on one interface where another server gives the addresses.
#[derive(Debug)]
pub(super) struct ProxyCounter {
    interface: String,
    dhcp: Socket4,
    pxe: Socket4,
    desk: proxy::Desk,
    diary: Diary,
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
    diary: Diary,
}

impl Counter4 {
    pub(super) fn open(
        settings: &config::Network,
        dhcp: &config::Dhcp,
        state_dir: &Path,
    ) -> Result<Self> {
        let mut subnets = Vec::new();
        let mut journals = Vec::new();
        for planned in plan::subnets4(settings, dhcp.lease_secs, state_dir)? {
            let (journal, leases) =
                open_journal(&planned.journal, (planned.pool, planned.reservations))?;
            subnets.push(v4::Subnet { net: planned.net, leases, about: planned.about });
            journals.push(journal);
        }
        let interface = settings.interface.clone();
        let socket = Socket4::open(&interface, SERVER)?;
        let diary = Diary::new(&interface);
        Ok(Self {
            interface,
            socket,
            desk: v4::Desk::new(subnets, settings.strangers, limits(dhcp)),
            journals,
            diary,
        })
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.desk.address()
    }

    pub(super) async fn run(
        mut self,
        machines: &Machines,
        witness: &Witness,
        end: &CancellationToken,
    ) {
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
                    Ok(()) => self.take(&mut packets, machines, witness).await,
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

    async fn take(
        &mut self,
        packets: &mut Vec<(Vec<u8>, SocketAddrV4)>,
        machines: &Machines,
        witness: &Witness,
    ) {
        let now = now();
        let hear = |(bytes, _): (Vec<u8>, _)| self.desk.hear(&bytes, machines, now);
        let mut all: Vec<_> = packets.drain(..).map(hear).collect();
        write_down(&mut self.journals, &mut all);
        for Heard { reply, counted, mut story, unreadable, .. } in all {
            if let Some(v4::Reply { request, reply }) = reply
                && let Err(error) = self.socket.send(&request, &reply).await
            {
                warn!(%error, "DHCP on {} cannot send", self.interface);
                let because = format!("the answer could not be sent: {error}");
                story.iter_mut().for_each(|story| story.done = Done::Silent(because.clone()));
            }
            self.diary.note(&counted, story, unreadable.as_deref(), witness, now);
        }
    }
}

impl ProxyCounter {
    pub(super) fn open(settings: &config::Network, dhcp: &config::Dhcp) -> Result<Self> {
        let interface = settings.interface.clone();
        Ok(Self {
            dhcp: Socket4::open(&interface, SERVER)?,
            pxe: Socket4::open(&interface, socket::PXE)?,
            desk: proxy::Desk::new(plan::beside(settings, dhcp.lease_secs)?, limits(dhcp)),
            diary: Diary::new(&interface),
            interface,
        })
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.desk.about().server
    }

    pub(super) async fn run(
        mut self,
        machines: &Machines,
        witness: &Witness,
        end: &CancellationToken,
    ) {
        info!("saying on {} what to boot, beside another DHCP server", self.interface);
        let (mut asked, mut asked_again) = (Vec::new(), Vec::new());
        loop {
            let (received, port) = tokio::select! {
                received = self.dhcp.receive(&mut asked, BATCH) => (received, Port::Dhcp),
                received = self.pxe.receive(&mut asked_again, BATCH) => (received, Port::Pxe),
                () = end.cancelled() => return,
            };
            if let Err(error) = received {
                warn!(%error, "DHCP on {} cannot receive", self.interface);
                tokio::time::sleep(socket::AFTER_ERROR).await;
            }
            let packets = match port {
                Port::Dhcp => std::mem::take(&mut asked),
                Port::Pxe => std::mem::take(&mut asked_again),
            };
            for (bytes, from) in packets {
                self.take(&bytes, from, port, machines, witness).await;
            }
        }
    }

    async fn take(
        &mut self,
        bytes: &[u8],
        from: SocketAddrV4,
        port: Port,
        machines: &Machines,
        witness: &Witness,
    ) {
        let now = now();
        let Heard { reply, counted, mut story, unreadable, .. } =
            self.desk.hear(bytes, port, machines, now);
        if let Some(v4::Reply { request, reply }) = reply {
            let sent = match port {
                Port::Dhcp => self.dhcp.send(&request, &reply).await,
                Port::Pxe => self.pxe.send_back(&reply, from).await,
            };
            if let Err(error) = sent {
                warn!(%error, "DHCP on {} cannot send", self.interface);
                let because = format!("the answer could not be sent: {error}");
                story.iter_mut().for_each(|story| story.done = Done::Silent(because.clone()));
            }
        }
        self.diary.note(&counted, story, unreadable.as_deref(), witness, now);
    }
}

impl Counter6 {
    pub(super) fn open(
        settings: &config::Network,
        dhcp: &config::Dhcp,
        state_dir: &Path,
    ) -> Result<Self> {
        let link = Link::find(&settings.interface)?;
        let mut subnets = Vec::new();
        let mut journals = Vec::new();
        for planned in plan::subnets6(settings, &link, dhcp.lease_secs, state_dir)? {
            let kept = (planned.pool, planned.reservations);
            let (journal, leases) = open_journal(&planned.journal, kept)?;
            subnets.push(v6::Subnet { net: planned.net, leases, about: planned.about });
            journals.push(journal);
        }
        let advertiser = settings
            .advertise
            .then(|| Advertiser::open(&link, settings.dns6()))
            .transpose()
            .with_context(|| format!("cannot advertise on {}", link.name))?;
        let socket = Socket6::open(&link)?;
        let diary = Diary::new(&link.name);
        let desk = v6::Desk::new(link.address, subnets, settings.strangers, limits(dhcp));
        Ok(Self { socket, advertiser, desk, journals, diary, link })
    }

    pub(super) fn address(&self) -> Ipv6Addr {
        self.link.address
    }

    pub(super) async fn run(
        mut self,
        machines: &Machines,
        witness: &Witness,
        end: &CancellationToken,
    ) {
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
        tokio::join!(advertising, self.answer(machines, witness, end));
    }

    async fn answer(mut self, machines: &Machines, witness: &Witness, end: &CancellationToken) {
        let mut sync = interval(journal::SYNC_EVERY);
        sync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut packets = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                received = self.socket.receive(&mut packets, BATCH) => match received {
                    Ok(()) => self.take(&mut packets, machines, witness).await,
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

    async fn take(
        &mut self,
        packets: &mut Vec<(Vec<u8>, SocketAddrV6)>,
        machines: &Machines,
        witness: &Witness,
    ) {
        let now = now();
        let hear = |(bytes, from): (Vec<u8>, _)| self.desk.hear(&bytes, from, machines, now);
        let mut all: Vec<_> = packets.drain(..).map(hear).collect();
        write_down(&mut self.journals, &mut all);
        for Heard { reply, counted, mut story, unreadable, .. } in all {
            if let Some(v6::Reply { bytes, to, relayed }) = reply
                && let Err(error) = self.socket.send(&bytes, to, relayed).await
            {
                warn!(%error, "DHCPv6 on {} cannot send", self.link.name);
                let because = format!("the answer could not be sent: {error}");
                story.iter_mut().for_each(|story| story.done = Done::Silent(because.clone()));
            }
            self.diary.note(&counted, story, unreadable.as_deref(), witness, now);
        }
    }
}

fn open_journal<T: Table>(path: &Path, pool: T::Pool) -> Result<(Journal<T>, T)> {
    Journal::open(path, pool).with_context(|| format!("cannot keep leases in {}", path.display()))
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
