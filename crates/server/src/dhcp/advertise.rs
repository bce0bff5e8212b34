//! Router advertisements: in answer to solicitations, and periodically to all (RFC 4861 §6.2).

use std::fmt::Display;
use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use anyhow::Result;
use dhcp::v6::advertisement::{
    Advertisement, NameServer, Prefix, SearchDomain, is_solicitation, prefix,
};
use netboot::network_settings::NetworkSettings;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::socket::{self, Icmp6, Ipv6Link};

/// RFC 4861 §6.2.1: at a random time, so that routers of a link do not synchronize; here between three quarters and
/// the whole of `MaxRtrAdvInterval`, which may be 1,800 s.
const AT_LEAST: Duration = Duration::from_secs(150);
const AT_MOST: Duration = Duration::from_secs(200);
/// RFC 4861 §6.2.4: the first ones follow each other sooner, since some may be lost.
const FIRST: u32 = 3;
const BETWEEN_FIRST: Duration = Duration::from_secs(16);
/// RFC 4861 §6.2.6, `MIN_DELAY_BETWEEN_RAS`: least interval of multicast advertisements.
const NO_SOONER: Duration = Duration::from_secs(3);
/// Number of unicast answers per second. A flood of invented senders would fill the kernel's neighbour table; further
/// solicitations are answered by multicast.
const ALONE: u32 = 20;
const PREFIX_SECS: u32 = 3_600;
/// Least MTU of an IPv6 link (RFC 8200 §5).
const LEAST_MTU: u16 = 1_280;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

#[derive(Debug)]
pub(super) struct Advertiser {
    link: Ipv6Link,
    socket: Icmp6,
    advertisement: Advertisement,
    /// Machines ignore advertisements from other than link-local addresses (RFC 4861 §6.1.2).
    source: Option<Ipv6Addr>,
    trouble: Trouble,
}

impl Advertiser {
    pub(super) fn open(link: &Ipv6Link, settings: &NetworkSettings) -> Result<Self> {
        let advertisement = advertisement(link, settings);
        let socket = Icmp6::open(link)?;
        let (link, trouble) = (link.clone(), Trouble::default());
        Ok(Self { link, socket, advertisement, source: None, trouble })
    }

    pub(super) async fn run(mut self, end: &CancellationToken) {
        for Prefix { address, len, .. } in &self.advertisement.prefixes {
            info!("advertising {address}/{len} on {}", self.link.name);
        }
        let advertisement = self.advertisement.emit();
        let mut to_all = ToAll::starting(Instant::now());
        let mut alone = Alone::starting(Instant::now());
        loop {
            tokio::select! {
                () = sleep_until(to_all.next) => match self.send(&advertisement, ALL_NODES).await {
                    true => to_all.done(Instant::now(), rand::random()),
                    false => to_all.failed(Instant::now()),
                },
                came = self.socket.receive() => match came {
                    Ok((bytes, hops, from)) if is_solicitation(&bytes, hops, from) => {
                        debug!("{from} solicits on {}", self.link.name);
                        // The sender may have no address yet, or an invented one.
                        let now = Instant::now();
                        let by_itself = !from.is_unspecified() && alone.admits(now);
                        if !by_itself || !self.send(&advertisement, from).await {
                            to_all.ask(now);
                        }
                    }
                    Ok(_) => {}
                    Err(error) => {
                        self.say(&error);
                        tokio::time::sleep(socket::AFTER_ERROR).await;
                    }
                },
                () = end.cancelled() => break,
            }
        }
        let goodbye = goodbye(self.advertisement.clone()).emit();
        self.send(&goodbye, ALL_NODES).await;
    }

    /// Sends an advertisement; returns whether it was sent.
    async fn send(&mut self, advertisement: &[u8], to: Ipv6Addr) -> bool {
        self.source = self.source.or_else(|| self.link.local());
        let Some(source) = self.source else {
            self.say(&"it has no link-local address that is ready");
            return false;
        };
        let to = SocketAddrV6::new(to, 0, 0, self.link.index);
        let sent: io::Result<()> = self.socket.send_from(advertisement, source, to).await;
        match &sent {
            Ok(()) => self.trouble.ends(),
            Err(error) if to.ip().is_multicast() => {
                // The source address may have changed.
                self.source = None;
                self.say(error);
            }
            // The sender of the solicitation determines the destination.
            Err(error) => debug!("cannot advertise to {to}: {error}"),
        }
        sent.is_ok()
    }

    fn say(&mut self, why: &dyn Display) {
        if self.trouble.begins() {
            warn!("cannot advertise on {} for now: {why}", self.link.name);
        }
    }
}

/// Whether a failure was logged already: a link may be down for days.
#[derive(Debug, Default)]
struct Trouble(bool);

impl Trouble {
    fn begins(&mut self) -> bool {
        !std::mem::replace(&mut self.0, true)
    }

    fn ends(&mut self) {
        self.0 = false;
    }
}

/// The advertisement for a link.
fn advertisement(link: &Ipv6Link, settings: &NetworkSettings) -> Advertisement {
    let own = Prefix {
        address: prefix(link.address, link.prefix_len),
        len: link.prefix_len,
        on_link: true,
        // A machine with a self-chosen address could not be identified by it.
        autonomous: false,
        valid_secs: PREFIX_SECS,
        preferred_secs: PREFIX_SECS,
    };
    let server = |address| NameServer { address, secs: PREFIX_SECS };
    let domain = |name: &String| SearchDomain { name: name.clone(), secs: PREFIX_SECS };
    Advertisement {
        managed: true,
        other: true,
        // A lifetime of 0 means no default router, and firmware then waits 10 s for one.
        router_secs: 1_800,
        mac: link.mac,
        mtu: settings.mtu.filter(|mtu| *mtu >= LEAST_MTU).map(u32::from),
        prefixes: vec![own],
        dns: settings.dns6().into_iter().map(server).collect(),
        search: settings.domain.iter().map(domain).collect(),
    }
}

/// Advertises the end of this router: clients stop using it and its settings (RFC 4861 §6.2.5, RFC 8106 §5.1).
fn goodbye(mut advertisement: Advertisement) -> Advertisement {
    advertisement.router_secs = 0;
    advertisement.dns.iter_mut().for_each(|server| server.secs = 0);
    advertisement.search.iter_mut().for_each(|domain| domain.secs = 0);
    advertisement
}

/// The time of the next multicast advertisement: at once on a request, but limited in rate.
#[derive(Debug)]
struct ToAll {
    last: Option<Instant>,
    next: Instant,
    sent: u32,
}

impl ToAll {
    fn starting(now: Instant) -> Self {
        Self { last: None, next: now, sent: 0 }
    }

    /// A sender that solicits soon after the last advertisement has not received it, and must not wait for its own
    /// retry.
    fn ask(&mut self, now: Instant) {
        let soonest = self.last.map_or(now, |last| now.max(last + NO_SOONER));
        self.next = self.next.min(soonest);
    }

    fn done(&mut self, now: Instant, random: u64) {
        self.sent = self.sent.saturating_add(1);
        self.last = Some(now);
        self.next = now + pause(self.sent, random);
    }

    /// A link-local address becomes ready within a second or two, and a link that is down may come up.
    fn failed(&mut self, now: Instant) {
        self.next = now + socket::AFTER_ERROR;
    }
}

fn pause(sent: u32, random: u64) -> Duration {
    if sent < FIRST {
        return BETWEEN_FIRST;
    }
    let spread = (AT_MOST - AT_LEAST).as_secs() * 1_000;
    AT_LEAST + Duration::from_millis(random % (spread + 1))
}

/// Number of unicast answers in the current second.
#[derive(Debug)]
struct Alone {
    since: Instant,
    answered: u32,
}

impl Alone {
    fn starting(now: Instant) -> Self {
        Self { since: now, answered: 0 }
    }

    fn admits(&mut self, now: Instant) -> bool {
        if now >= self.since + Duration::from_secs(1) {
            *self = Self::starting(now);
        }
        self.answered = self.answered.saturating_add(1);
        self.answered <= ALONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Ipv6Link {
        Ipv6Link {
            name: "eth0".to_owned(),
            index: 1,
            address: "fd00::1".parse().unwrap(),
            prefix_len: 64,
            mac: None,
        }
    }

    fn settings() -> NetworkSettings {
        let mut settings: NetworkSettings = "eth0=fd00::10-fd00::1f".parse().unwrap();
        settings.dns = vec!["192.0.2.53".parse().unwrap(), "fd00::53".parse().unwrap()];
        settings.domain = Some("hall.example".to_owned());
        settings.mtu = Some(1_400);
        settings
    }

    fn heard(advertisement: &Advertisement) -> Advertisement {
        let router = "fe80::1".parse().unwrap();
        Advertisement::parse(&advertisement.emit(), 255, router).unwrap()
    }

    #[test]
    fn firmware_is_sent_to_dhcp_for_its_address_and_need_not_wait_for_a_router() {
        let told = heard(&advertisement(&link(), &settings()));

        assert!(told.managed && told.router_secs > 0);
        let [own] = &told.prefixes[..] else { panic!("{told:?}") };
        assert!(own.on_link && !own.autonomous);
        assert_eq!((own.address, own.len), ("fd00::".parse().unwrap(), 64));
    }

    #[test]
    fn machines_hear_of_mtu_domain_and_name_servers_and_at_the_end_that_they_are_none() {
        let advertisement = advertisement(&link(), &settings());

        let told = heard(&advertisement);
        let last = heard(&goodbye(advertisement));

        assert_eq!(told.mtu, Some(1_400));
        let named = |told: &Advertisement| {
            let [server] = told.dns[..] else { panic!("{told:?}") };
            let [domain] = &told.search[..] else { panic!("{told:?}") };
            assert_eq!(server.address, "fd00::53".parse::<Ipv6Addr>().unwrap());
            assert_eq!(domain.name, "hall.example");
            [server.secs, domain.secs, told.router_secs.into()]
        };
        assert_eq!(named(&told), [3_600, 3_600, 1_800]);
        assert_eq!(named(&last), [0; 3]);
    }

    #[test]
    fn no_mtu_is_advertised_that_ipv6_does_not_allow() {
        let small = NetworkSettings { mtu: Some(1_000), ..settings() };

        assert_eq!(advertisement(&link(), &small).mtu, None);
    }

    #[test]
    fn who_solicits_just_after_an_advertisement_still_gets_one() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut to_all = ToAll::starting(start);
        assert_eq!(to_all.next, start);

        to_all.done(start, 0);
        to_all.ask(after(500));
        to_all.ask(after(800));
        assert_eq!(to_all.next, after(3_000));

        to_all.done(after(3_000), 0);
        to_all.ask(after(9_000));
        assert_eq!(to_all.next, after(9_000));
    }

    #[test]
    fn the_first_advertisements_follow_each_other_soon_and_later_ones_at_random() {
        let start = Instant::now();
        let mut to_all = ToAll::starting(start);
        let mut pauses = Vec::new();
        for random in [7, 7, 0, 50_000, 25_000] {
            to_all.done(start, random);
            pauses.push((to_all.next - start).as_secs());
        }

        assert_eq!(pauses, [16, 16, 150, 200, 175]);
    }

    #[test]
    fn what_could_not_be_sent_is_tried_again_soon() {
        let start = Instant::now();
        let mut to_all = ToAll::starting(start);

        to_all.failed(start);

        assert_eq!(to_all.next, start + Duration::from_secs(1));
    }

    #[test]
    fn what_goes_on_failing_is_said_once() {
        let mut trouble = Trouble::default();

        assert_eq!([trouble.begins(), trouble.begins()], [true, false]);
        trouble.ends();
        assert!(trouble.begins());
    }

    #[test]
    fn a_flood_of_solicitations_is_answered_to_all_at_once() {
        let start = Instant::now();
        let mut alone = Alone::starting(start);

        let answered = (0..1_000).filter(|_| alone.admits(start)).count();

        assert_eq!(answered, 20);
        assert!(alone.admits(start + Duration::from_secs(1)));
    }
}
