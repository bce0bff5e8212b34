//! Router advertisements: to whoever solicits at once, and to all every few minutes (RFC 4861 §6.2).

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use anyhow::Result;
use dhcp::v6::advertisement::{Advertisement, is_solicitation, prefix};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::socket::{self, Icmp6, Link};

/// RFC 4861 §6.2.1: between a third of it and the whole of `MaxRtrAdvInterval`, which is 600 s.
const EVERY: Duration = Duration::from_secs(200);
/// RFC 4861 §6.2.6, `MIN_DELAY_BETWEEN_RAS`: no more often to all.
const NO_SOONER: Duration = Duration::from_secs(3);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

#[derive(Debug)]
pub(super) struct Advertiser {
    link: Link,
    socket: Icmp6,
    advertisement: Advertisement,
}

impl Advertiser {
    pub(super) fn open(link: &Link, dns: Vec<Ipv6Addr>) -> Result<Self> {
        let advertisement = Advertisement {
            prefix: prefix(link.address, link.prefix_len),
            prefix_len: link.prefix_len,
            // A router with a lifetime of 0 is none, and firmware then waits 10 s for one.
            router_secs: 1_800,
            prefix_secs: 3_600,
            mac: link.mac,
            dns,
        };
        Ok(Self { link: link.clone(), socket: Icmp6::open(link)?, advertisement })
    }

    pub(super) async fn run(self, end: &CancellationToken) {
        let Advertisement { prefix, prefix_len, .. } = self.advertisement;
        info!("advertising {prefix}/{prefix_len} on {}", self.link.name);
        let mut every = interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now().checked_sub(NO_SOONER);
        loop {
            tokio::select! {
                _ = every.tick() => self.to_all(&mut last).await,
                came = self.socket.receive() => match came {
                    Ok((bytes, hops, from)) if is_solicitation(&bytes, hops) => {
                        self.answer(from, &mut last).await;
                    }
                    Ok(_) => {}
                    Err(error) => {
                        warn!(%error, "solicitations on {} cannot be received", self.link.name);
                        tokio::time::sleep(socket::AFTER_ERROR).await;
                    }
                },
                () = end.cancelled() => break,
            }
        }
        // Clients stop to use a router that says that it is none any more (RFC 4861 §6.2.5).
        let goodbye = Advertisement { router_secs: 0, ..self.advertisement.clone() };
        self.send(&goodbye, ALL_NODES).await;
    }

    /// To the one that asked, unless it has no address yet.
    async fn answer(&self, from: Ipv6Addr, last: &mut Option<Instant>) {
        debug!("{from} solicits on {}", self.link.name);
        if from.is_unspecified() {
            self.to_all(last).await;
        } else {
            self.send(&self.advertisement, from).await;
        }
    }

    async fn to_all(&self, last: &mut Option<Instant>) {
        if last.is_none_or(|last| last.elapsed() >= NO_SOONER) {
            *last = Some(Instant::now());
            self.send(&self.advertisement, ALL_NODES).await;
        }
    }

    async fn send(&self, advertisement: &Advertisement, to: Ipv6Addr) {
        let to = SocketAddr::V6(SocketAddrV6::new(to, 0, 0, self.link.index));
        let sent: io::Result<()> = self.socket.send(&advertisement.emit(), to).await;
        if let Err(error) = sent {
            warn!(%error, "cannot advertise on {}", self.link.name);
        }
    }
}
