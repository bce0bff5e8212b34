//! The DHCP listener: socket, journals and the clock around a responder.

use dhcp::address_family::AddressFamily;
use dhcp::journal::LeaseRecord;
use dhcp::leases::{LeaseTable, Seconds};
use dhcp::limits::Millis;
use netboot::dhcp_decision::DhcpDecision;
use netboot::exchange::DhcpExchange;
use netboot::respond::{Responder, respond};
use store::Clock;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::boot_sources::BootSources;
use super::dhcp_socket::DhcpSocket;
use super::exchange_log::ExchangeLog;
use super::journal::{self, Journal};
use super::observers::Observers;
use super::socket;

/// Number of packets in one batch, which needs one write to the journal.
const BATCH: usize = 64;

/// A responder with its socket and journals, on one interface.
#[derive(Debug)]
pub(super) struct DhcpListener<S, R: Responder> {
    interface: String,
    socket: S,
    responder: R,
    /// One journal for each of the responder's subnets.
    journals: Vec<Journal<R::Address>>,
    log: ExchangeLog,
}

impl<S, R> DhcpListener<S, R>
where
    R: Responder,
    S: DhcpSocket<Arrival = R::Arrival, Reply = R::Reply>,
{
    pub(super) fn new(
        interface: &str,
        socket: S,
        responder: R,
        journals: Vec<Journal<R::Address>>,
    ) -> Self {
        let (interface, log) = (interface.to_owned(), ExchangeLog::new(interface));
        Self { interface, socket, responder, journals, log }
    }

    pub(super) fn interface(&self) -> &str {
        &self.interface
    }

    pub(super) fn responder(&self) -> &R {
        &self.responder
    }

    /// Answers until `end`.
    pub(super) async fn run(
        mut self,
        sources: &BootSources,
        observers: &Observers,
        end: &CancellationToken,
    ) {
        let mut sync = interval(journal::SYNC_EVERY);
        sync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut packets = Vec::with_capacity(BATCH);
        let mut foreign_pools = sources.foreign_pools.clone();
        self.responder.set_foreign_pools(&foreign_pools.borrow_and_update());
        loop {
            tokio::select! {
                // So no packet waits for them.
                Ok(()) = foreign_pools.changed() => {
                    self.responder.set_foreign_pools(&foreign_pools.borrow_and_update());
                }
                received = self.socket.receive(&mut packets, BATCH) => match received {
                    Ok(()) => self.take(&mut packets, sources, observers).await,
                    Err(error) => {
                        // ENETDOWN and similar errors: the interface may come back.
                        warn!(%error, "DHCP ({}) on {} cannot receive", R::FAMILY, self.interface);
                        tokio::time::sleep(socket::AFTER_ERROR).await;
                    }
                },
                _ = sync.tick() => {
                    for (journal, leases) in self.journals.iter_mut().zip(self.responder.leases()) {
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
        packets: &mut Vec<(Vec<u8>, R::Arrival)>,
        sources: &BootSources,
        observers: &Observers,
    ) {
        let now = now();
        let (boot_sets, responder) = (sources.boot_sets.there(), &mut self.responder);
        let context = sources.context(&boot_sets);
        let answer =
            |(bytes, arrival): (Vec<u8>, _)| respond(responder, &bytes, arrival, &context, now);
        let mut all: Vec<_> = packets.drain(..).map(answer).collect();
        let journals = self.journals.iter_mut().zip(self.responder.leases());
        write_down(journals, &mut all, now / 1_000);
        for mut exchange in all {
            if let Some(reply) = exchange.reply.take()
                && let Err(error) = self.socket.send(&reply).await
            {
                exchange.keep_back(
                    DhcpDecision::NotSent,
                    &format!("the answer could not be sent: {error}"),
                );
            }
            let DhcpExchange { labels, outcome, .. } = exchange;
            self.log.note(labels, outcome, observers, now);
        }
    }
}

/// Writes the records of answers to their journals. An acknowledged address must still be taken after a crash, so an
/// answer is sent only after this.
fn write_down<'a, A: AddressFamily + 'a, R>(
    journals: impl Iterator<Item = (&'a mut Journal<A>, &'a LeaseTable<A>)>,
    all: &mut [DhcpExchange<R, LeaseRecord<A>>],
    now: Seconds,
) {
    for (at, (journal, leases)) in journals.enumerate() {
        let of_this = |(subnet, _): &&(usize, LeaseRecord<A>)| *subnet == at;
        let records = all.iter().flat_map(|exchange| exchange.records.iter().filter(of_this));
        let done = journal.append(records.map(|(_, record)| record), leases, now);
        let is_news = journal.has_changed(done.is_err());
        let Err(error) = done else {
            if is_news {
                info!("a lease journal can be written again");
            }
            continue;
        };
        if is_news {
            error!(%error, "a lease journal cannot be written: no address is leased from it until it can");
        }
        let because = format!("its lease cannot be written: {error}");
        for exchange in
            all.iter_mut().filter(|exchange| exchange.records.iter().any(|r| of_this(&r)))
        {
            exchange.keep_back(DhcpDecision::NotWritten, &because);
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
    use std::io;
    use std::net::Ipv4Addr;

    use artifacts::BootSets;
    use dhcp::limits::{RateLimits, Rates};
    use dhcp::v4::proxy::ProxyPort;
    use dhcp::v4::reply::Network;
    use hardware::Mac;
    use netboot::dry_run::sample_requests;
    use netboot::foreign_pools::ForeignPools;
    use netboot::proxy::ProxyResponder;
    use netboot::v4::{V4Arrival, V4Reply};
    use nodes::{NodeIndex, Recorder};
    use provision::test_nodes::{boot_port, booting_node};
    use tokio::sync::watch;

    use super::*;
    use crate::config::Config;
    use crate::dhcp::BootingStrangers;
    use crate::dhcp::boot_sources::IndexView;
    use crate::dhcp::metrics::DhcpMetrics;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    /// A socket whose network is unplugged.
    struct Unplugged;

    impl DhcpSocket for Unplugged {
        type Arrival = V4Arrival;
        type Reply = V4Reply;

        async fn receive(&self, _: &mut Vec<(Vec<u8>, V4Arrival)>, _: usize) -> io::Result<()> {
            std::future::pending().await
        }

        async fn send(&self, _: &V4Reply) -> io::Result<()> {
            Err(io::ErrorKind::NetworkUnreachable.into())
        }
    }

    #[tokio::test]
    async fn what_could_not_be_sent_is_counted_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let (index, node) = (NodeIndex::default(), booting_node());
        let port = boot_port(node.uuid, MAC);
        index.put_node(node);
        index.put_ports(port.node_uuid, vec![port]);
        let sources = BootSources {
            nodes: IndexView(index),
            urls: Config::default().urls(None),
            tftp: false,
            boot_sets: BootSets::look(folder.path()),
            foreign_pools: watch::channel(ForeignPools::default()).1,
        };
        let (recorder, _backlog) = Recorder::new();
        let observers = Observers {
            recorder,
            metrics: DhcpMetrics::default(),
            strangers: BootingStrangers::default(),
        };
        let about = Network::new([192, 0, 2, 1].into(), [255, 255, 255, 0].into(), 600);
        let limits = RateLimits::new(Rates::default(), 0);
        let responder = ProxyResponder::new(ProxyPort::Dhcp, about, limits);
        let mut listener = DhcpListener::new("eth1", Unplugged, responder, Vec::new());
        let discover = &sample_requests::all(MAC, hardware::architecture::X64_HTTP)[0];
        let from = std::net::SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
        let arrival = V4Arrival { from, to: Ipv4Addr::BROADCAST };

        listener.take(&mut vec![(discover.v4(), arrival)], &sources, &observers).await;

        let text = observers.metrics.text();
        assert!(text.contains("decision=\"not_sent\"} 1\n"), "{text}");
        assert!(!text.contains("decision=\"beside\""), "{text}");
    }
}
