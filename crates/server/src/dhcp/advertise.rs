//! Router advertisements: to whoever solicits at once, and to all every few minutes (RFC 4861 §6.2).

use std::future::pending;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use anyhow::Result;
use dhcp::v6::advertisement::{Advertisement, NameServer, Prefix, is_solicitation, prefix};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::socket::{self, Icmp6, Link};

/// RFC 4861 §6.2.1: between a third of it and the whole of `MaxRtrAdvInterval`, which is 600 s.
const EVERY: Duration = Duration::from_secs(200);
/// RFC 4861 §6.2.6, `MIN_DELAY_BETWEEN_RAS`: no more often to all.
const NO_SOONER: Duration = Duration::from_secs(3);
const PREFIX_SECS: u32 = 3_600;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

#[derive(Debug)]
pub(super) struct Advertiser {
    link: Link,
    socket: Icmp6,
    advertisement: Advertisement,
}

impl Advertiser {
    pub(super) fn open(link: &Link, dns: Vec<Ipv6Addr>) -> Result<Self> {
        let advertisement = advertisement(link, dns);
        Ok(Self { link: link.clone(), socket: Icmp6::open(link)?, advertisement })
    }

    pub(super) async fn run(self, end: &CancellationToken) {
        for Prefix { address, len, .. } in &self.advertisement.prefixes {
            info!("advertising {address}/{len} on {}", self.link.name);
        }
        let mut every = interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut to_all = ToAll::default();
        loop {
            tokio::select! {
                _ = every.tick() => to_all.ask(Instant::now()),
                () = to_all.due() => {
                    self.send(&self.advertisement, ALL_NODES).await;
                    to_all.done(Instant::now());
                }
                came = self.socket.receive() => match came {
                    Ok((bytes, hops, from)) if is_solicitation(&bytes, hops) => {
                        self.answer(from, &mut to_all).await;
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

    /// To the one that asked; to all, if it has no address yet.
    async fn answer(&self, from: Ipv6Addr, to_all: &mut ToAll) {
        debug!("{from} solicits on {}", self.link.name);
        if from.is_unspecified() {
            to_all.ask(Instant::now());
        } else {
            self.send(&self.advertisement, from).await;
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

/// What machines on a link are told of it.
fn advertisement(link: &Link, dns: Vec<Ipv6Addr>) -> Advertisement {
    let own = Prefix {
        address: prefix(link.address, link.prefix_len),
        len: link.prefix_len,
        on_link: true,
        // Machines that chose an address of their own would not be known by it.
        autonomous: false,
        valid_secs: PREFIX_SECS,
        preferred_secs: PREFIX_SECS,
    };
    let server = |address| NameServer { address, secs: PREFIX_SECS };
    Advertisement {
        managed: true,
        other: true,
        // A router with a lifetime of 0 is none, and firmware then waits 10 s for one.
        router_secs: 1_800,
        mac: link.mac,
        mtu: None,
        prefixes: vec![own],
        dns: dns.into_iter().map(server).collect(),
    }
}

/// When the next advertisement to all is sent: at once when one is asked for, but not too often.
#[derive(Debug, Default)]
struct ToAll {
    last: Option<Instant>,
    next: Option<Instant>,
}

impl ToAll {
    /// Whoever asks soon after the last has not heard that one, and must not wait until it asks again.
    fn ask(&mut self, now: Instant) {
        let soonest = self.last.map_or(now, |last| now.max(last + NO_SOONER));
        self.next.get_or_insert(soonest);
    }

    async fn due(&self) {
        match self.next {
            Some(next) => sleep_until(next).await,
            None => pending().await,
        }
    }

    fn done(&mut self, now: Instant) {
        *self = Self { last: Some(now), next: None };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_is_sent_to_dhcp_for_its_address_and_need_not_wait_for_a_router() {
        let link = Link {
            name: "eth0".to_owned(),
            index: 1,
            address: "fd00::1".parse().unwrap(),
            prefix_len: 64,
            mac: None,
        };

        let bytes = advertisement(&link, Vec::new()).emit();
        let told = Advertisement::parse(&bytes, 255, "fe80::1".parse().unwrap()).unwrap();

        assert!(told.managed && told.router_secs > 0);
        let [own] = &told.prefixes[..] else { panic!("{told:?}") };
        assert!(own.on_link && !own.autonomous);
        assert_eq!((own.address, own.len), ("fd00::".parse().unwrap(), 64));
    }

    #[test]
    fn who_solicits_just_after_an_advertisement_still_gets_one() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut to_all = ToAll::default();

        to_all.ask(start);
        assert_eq!(to_all.next, Some(start));

        to_all.done(start);
        to_all.ask(after(500));
        to_all.ask(after(800));
        assert_eq!(to_all.next, Some(after(3_000)));

        to_all.done(after(3_000));
        to_all.ask(after(9_000));
        assert_eq!(to_all.next, Some(after(9_000)));
    }
}
