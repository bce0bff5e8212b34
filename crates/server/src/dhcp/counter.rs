//! Where packets are taken in and answers handed out: socket, journals and the clock around a desk.

use std::io;

use dhcp::address_family::AddressFamily;
use dhcp::journal::LeaseRecord;
use dhcp::leases::{LeaseTable, Seconds};
use dhcp::limits::Millis;
use store::Clock;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::diary::Diary;
use super::heard::Heard;
use super::journal::{self, Journal};
use super::{Machines, Witness, socket};

/// Packets that are decided about together: one write to the journal serves them all.
const BATCH: usize = 64;

/// Decides about what comes in on one port, and touches nothing outside of memory.
pub(super) trait Desk {
    /// Whoever a packet comes from.
    type From;
    /// An answer on its way.
    type Reply;
    /// The addresses that are leased.
    type Address: AddressFamily;
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
    fn leases(&self) -> impl Iterator<Item = &LeaseTable<Self::Address>>;
}

/// What a desk heard.
pub(super) type HeardAt<D> = Heard<<D as Desk>::Reply, LeaseRecord<<D as Desk>::Address>>;

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
    journals: Vec<Journal<D::Address>>,
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
        journals: Vec<Journal<D::Address>>,
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
                        journal.sync(leases, now_secs()).await;
                    }
                }
                () = end.cancelled() => break,
            }
        }
        for journal in self.journals {
            journal.close(now_secs()).await;
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
        let journals = self.journals.iter_mut().zip(self.desk.leases());
        write_down(journals, &mut all, now / 1_000);
        for mut heard in all {
            if let Some(reply) = heard.reply.take()
                && let Err(error) = self.socket.send(&reply).await
            {
                heard.keep_back("not_sent", &format!("the answer could not be sent: {error}"));
            }
            let Heard { counted, story, unreadable, .. } = heard;
            self.diary.note(&counted, story, unreadable.as_deref(), witness, now);
        }
    }
}

/// An address that was acknowledged must still be taken after a crash: so an answer leaves only when
/// what it rests on is in its journal.
fn write_down<'a, A: AddressFamily + 'a, R>(
    journals: impl Iterator<Item = (&'a mut Journal<A>, &'a LeaseTable<A>)>,
    all: &mut [Heard<R, LeaseRecord<A>>],
    now: Seconds,
) {
    for (at, (journal, leases)) in journals.enumerate() {
        let of_this = |(subnet, _): &&(usize, LeaseRecord<A>)| *subnet == at;
        let records = all.iter().flat_map(|heard| heard.records.iter().filter(of_this));
        let done = journal.append(records.map(|(_, record)| record), leases, now);
        let is_news = journal.has_changed(done.is_err());
        let Err(error) = done else {
            if is_news {
                info!("a lease journal can be written again");
            }
            continue;
        };
        if is_news {
            error!(%error, "a lease journal cannot be written, so nobody gets an address from it until it can");
        }
        let because = format!("its lease cannot be written down: {error}");
        for heard in all.iter_mut().filter(|heard| heard.records.iter().any(|r| of_this(&r))) {
            heard.keep_back("not_written", &because);
        }
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn now() -> Millis {
    Clock::process().now().as_millisecond().try_into().unwrap_or_default()
}

/// Seconds since the Unix epoch.
pub(super) fn now_secs() -> Seconds {
    now() / 1_000
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use dhcp::client::Features;
    use hardware::ClientKind;
    use nodes::{NodeIndex, Recorder};

    use super::*;
    use crate::artifacts::BootSets;
    use crate::config::Config;
    use crate::dhcp::BootingStrangers;
    use crate::dhcp::heard::{Asked, Done, Story, Told};
    use crate::dhcp::metrics::DhcpMetrics;

    /// Nobody can be reached.
    struct Unplugged;

    impl Socket for Unplugged {
        type From = ();
        type Reply = ();

        async fn receive(&self, _: &mut Vec<(Vec<u8>, ())>, _: usize) -> io::Result<()> {
            std::future::pending().await
        }

        async fn send(&self, (): &()) -> io::Result<()> {
            Err(io::ErrorKind::NetworkUnreachable.into())
        }
    }

    /// Answers all.
    struct Obliging;

    impl Desk for Obliging {
        type From = ();
        type Reply = ();
        type Address = Ipv4Addr;
        const FAMILY: &'static str = "ipv4";

        fn hear(&mut self, _: &[u8], (): (), _: &Machines, _: Millis) -> HeardAt<Self> {
            let client = ClientKind::System;
            let asked = Asked {
                found: None,
                message: "DISCOVER",
                mac: None,
                client,
                architecture: None,
                features: Features::default(),
            };
            let told = Told { answer: dhcp::Answer::Address, artifact: None, because: None };
            Heard {
                reply: Some(()),
                records: Vec::new(),
                counted: asked.counted(Self::FAMILY, "offer"),
                story: Some(Story {
                    asked,
                    told,
                    done: Done::Offered(IpAddr::from([192, 0, 2, 1])),
                }),
                unreadable: None,
            }
        }

        fn leases(&self) -> impl Iterator<Item = &LeaseTable<Ipv4Addr>> {
            std::iter::empty()
        }
    }

    #[tokio::test]
    async fn what_could_not_be_sent_is_counted_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let machines = Machines {
            index: NodeIndex::default(),
            urls: Config::default().urls(None),
            tftp: false,
            boot_sets: BootSets::look(folder.path()),
        };
        let (recorder, _backlog) = Recorder::new();
        let witness = Witness {
            recorder,
            metrics: DhcpMetrics::default(),
            strangers: BootingStrangers::default(),
        };
        let mut counter = Counter::new("eth1", Unplugged, Obliging, Vec::new());

        counter.take(&mut vec![(Vec::new(), ())], &machines, &witness).await;

        let text = witness.metrics.text();
        assert!(text.contains("decision=\"not_sent\"} 1\n"), "{text}");
        assert!(!text.contains("decision=\"offer\""), "{text}");
    }
}
