//! Where packets are taken in and answers handed out: socket, journals and the clock around a desk.

use std::io;

use dhcp::limits::Millis;
use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::diary::Diary;
use super::heard::{Done, Heard};
use super::journal::{self, Journal, Table};
use super::{Machines, Witness, socket};

/// Packets that are decided about together: one write to the journal serves them all.
const BATCH: usize = 64;

/// Decides about what comes in on one port, and touches nothing outside of memory.
pub(super) trait Desk {
    /// Whoever a packet comes from.
    type From;
    /// An answer on its way.
    type Reply;
    /// Who has which address of a subnet.
    type Leases: Table;
    /// What it is called among counters: `ipv4`, `ipv6`.
    const FAMILY: &'static str;

    /// Decides about a packet. What changed of the leases must be in the journal of its subnet (by its
    /// place in [`leases`](Self::leases)) before the reply leaves.
    fn hear(
        &mut self,
        bytes: &[u8],
        from: Self::From,
        machines: &Machines,
        now: Millis,
    ) -> HeardAt<Self>;

    /// Those of its subnets: the interface's own, then those that are reached through relays.
    fn leases(&self) -> impl Iterator<Item = &Self::Leases>;
}

/// What a desk heard.
pub(super) type HeardAt<D> = Heard<<D as Desk>::Reply, <<D as Desk>::Leases as Table>::Record>;

/// Takes packets in, and sends answers.
pub(super) trait Socket {
    /// Whoever a packet comes from.
    type From;
    /// An answer.
    type Reply;

    /// Waits for packets and takes what is there, up to `most`, each with its sender.
    async fn receive(
        &self,
        packets: &mut Vec<(Vec<u8>, Self::From)>,
        most: usize,
    ) -> io::Result<()>;

    /// Sends one.
    async fn send(&self, reply: &Self::Reply) -> io::Result<()>;
}

/// A desk, and what it is served by, on one interface.
#[derive(Debug)]
pub(super) struct Counter<S, D: Desk> {
    interface: String,
    socket: S,
    desk: D,
    /// One for each of the desk's subnets.
    journals: Vec<Journal<D::Leases>>,
    diary: Diary,
}

impl<S, D> Counter<S, D>
where
    D: Desk,
    S: Socket<From = D::From, Reply = D::Reply>,
{
    pub(super) fn new(
        interface: &str,
        socket: S,
        desk: D,
        journals: Vec<Journal<D::Leases>>,
    ) -> Self {
        let (interface, diary) = (interface.to_owned(), Diary::new(interface));
        Self { interface, socket, desk, journals, diary }
    }

    pub(super) fn interface(&self) -> &str {
        &self.interface
    }

    pub(super) fn desk(&self) -> &D {
        &self.desk
    }

    /// Answers until `end`.
    pub(super) async fn run(
        mut self,
        machines: &Machines,
        witness: &Witness,
        end: &CancellationToken,
    ) {
        let mut sync = interval(journal::SYNC_EVERY);
        sync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut packets = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                received = self.socket.receive(&mut packets, BATCH) => match received {
                    Ok(()) => self.take(&mut packets, machines, witness).await,
                    Err(error) => {
                        // ENETDOWN and its like: the interface may come back.
                        warn!(%error, "DHCP ({}) on {} cannot receive", D::FAMILY, self.interface);
                        tokio::time::sleep(socket::AFTER_ERROR).await;
                    }
                },
                _ = sync.tick() => {
                    for (journal, leases) in self.journals.iter_mut().zip(self.desk.leases()) {
                        journal.sync(leases).await;
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
        packets: &mut Vec<(Vec<u8>, D::From)>,
        machines: &Machines,
        witness: &Witness,
    ) {
        let now = now();
        let hear = |(bytes, from): (Vec<u8>, _)| self.desk.hear(&bytes, from, machines, now);
        let mut all: Vec<_> = packets.drain(..).map(hear).collect();
        write_down(&mut self.journals, &mut all);
        for Heard { reply, counted, mut story, unreadable, .. } in all {
            if let Some(reply) = reply
                && let Err(error) = self.socket.send(&reply).await
            {
                warn!(%error, "DHCP ({}) on {} cannot send", D::FAMILY, self.interface);
                let because = format!("the answer could not be sent: {error}");
                story.iter_mut().for_each(|story| story.done = Done::Silent(because.clone()));
            }
            self.diary.note(&counted, story, unreadable.as_deref(), witness, now);
        }
    }
}

/// An address that was acknowledged must still be taken after a crash: so an answer leaves only when
/// what it rests on is in its journal.
fn write_down<T: Table, R>(journals: &mut [Journal<T>], all: &mut [Heard<R, T::Record>]) {
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

/// Milliseconds since the Unix epoch.
pub(super) fn now() -> Millis {
    Timestamp::now().as_millisecond().try_into().unwrap_or_default()
}
