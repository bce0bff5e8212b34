//! Router advertisements of this service: their contents, and their times (RFC 4861 §6.2).

use std::net::Ipv6Addr;
use std::time::Duration;

use dhcp::v6::advertisement::{Advertisement, NameServer, Prefix, SearchDomain, prefix};
use hardware::Mac;

use crate::network_settings::NetworkSettings;

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
/// The interval until a failed advertisement is repeated.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
const PREFIX_SECS: u32 = 3_600;
/// Least MTU of an IPv6 link (RFC 8200 §5).
const LEAST_MTU: u16 = 1_280;

/// The advertisement for a link, where this service has the address and the MAC address.
#[must_use]
pub fn router_advertisement(
    address: Ipv6Addr,
    prefix_len: u8,
    mac: Option<Mac>,
    settings: &NetworkSettings,
) -> Advertisement {
    let own = Prefix {
        address: prefix(address, prefix_len),
        len: prefix_len,
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
        mac,
        mtu: settings.mtu.filter(|mtu| *mtu >= LEAST_MTU).map(u32::from),
        prefixes: vec![own],
        dns: settings.dns6().into_iter().map(server).collect(),
        search: settings.domain.iter().map(domain).collect(),
    }
}

/// Advertises the end of this router: clients stop using it and its settings (RFC 4861 §6.2.5, RFC 8106 §5.1).
#[must_use]
pub fn goodbye(mut advertisement: Advertisement) -> Advertisement {
    advertisement.router_secs = 0;
    advertisement.dns.iter_mut().for_each(|server| server.secs = 0);
    advertisement.search.iter_mut().for_each(|domain| domain.secs = 0);
    advertisement
}

/// The time of the next multicast advertisement: at once after a solicitation, but limited in rate. Times count from
/// its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct MulticastSchedule {
    last: Option<Duration>,
    next: Duration,
    sent: u32,
}

impl MulticastSchedule {
    /// The time of the next advertisement.
    #[must_use]
    pub fn next(&self) -> Duration {
        self.next
    }

    /// Schedules the answer to a solicitation. A sender that solicits soon after the last advertisement has not
    /// received it, and must not wait for its own retry.
    pub fn ask(&mut self, now: Duration) {
        let soonest = self.last.map_or(now, |last| now.max(last + NO_SOONER));
        self.next = self.next.min(soonest);
    }

    /// Records a sent advertisement, and schedules the next one.
    pub fn sent(&mut self, now: Duration, random: u64) {
        self.sent = self.sent.saturating_add(1);
        self.last = Some(now);
        self.next = now + pause(self.sent, random);
    }

    /// Schedules a retry after a failure. A link-local address becomes ready within a second or two, and a link that
    /// is down may come up.
    pub fn failed(&mut self, now: Duration) {
        self.next = now + AFTER_FAILURE;
    }
}

fn pause(sent: u32, random: u64) -> Duration {
    if sent < FIRST {
        return BETWEEN_FIRST;
    }
    let spread = (AT_MOST - AT_LEAST).as_secs() * 1_000;
    AT_LEAST + Duration::from_millis(random % (spread + 1))
}

/// The unicast answers of the current second. Times count from its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnicastBudget {
    since: Duration,
    answered: u32,
}

impl UnicastBudget {
    /// Counts one more; returns whether it is sent.
    pub fn admits(&mut self, now: Duration) -> bool {
        if now >= self.since + Duration::from_secs(1) {
            *self = Self { since: now, answered: 0 };
        }
        self.answered = self.answered.saturating_add(1);
        self.answered <= ALONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advertisement(settings: &NetworkSettings) -> Advertisement {
        router_advertisement("fd00::1".parse().unwrap(), 64, None, settings)
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
        let told = heard(&advertisement(&settings()));

        assert!(told.managed && told.router_secs > 0);
        let [own] = &told.prefixes[..] else { panic!("{told:?}") };
        assert!(own.on_link && !own.autonomous);
        assert_eq!((own.address, own.len), ("fd00::".parse().unwrap(), 64));
    }

    #[test]
    fn machines_hear_of_mtu_domain_and_name_servers_and_at_the_end_that_they_are_none() {
        let advertisement = advertisement(&settings());

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

        assert_eq!(advertisement(&small).mtu, None);
    }

    #[test]
    fn who_solicits_just_after_an_advertisement_still_gets_one() {
        let start = Duration::from_secs(7);
        let after = |millis| start + Duration::from_millis(millis);
        let mut to_all = MulticastSchedule::default();
        assert_eq!(to_all.next(), Duration::ZERO);

        to_all.sent(start, 0);
        to_all.ask(after(500));
        to_all.ask(after(800));
        assert_eq!(to_all.next(), after(3_000));

        to_all.sent(after(3_000), 0);
        to_all.ask(after(9_000));
        assert_eq!(to_all.next(), after(9_000));
    }

    #[test]
    fn the_first_advertisements_follow_each_other_soon_and_later_ones_at_random() {
        let start = Duration::from_secs(7);
        let mut to_all = MulticastSchedule::default();
        let mut pauses = Vec::new();
        for random in [7, 7, 0, 50_000, 25_000] {
            to_all.sent(start, random);
            pauses.push((to_all.next() - start).as_secs());
        }

        assert_eq!(pauses, [16, 16, 150, 200, 175]);
    }

    #[test]
    fn what_could_not_be_sent_is_tried_again_soon() {
        let start = Duration::from_secs(7);
        let mut to_all = MulticastSchedule::default();

        to_all.failed(start);

        assert_eq!(to_all.next(), start + Duration::from_secs(1));
    }

    #[test]
    fn a_flood_of_solicitations_is_answered_to_all_at_once() {
        let start = Duration::from_secs(7);
        let mut alone = UnicastBudget::default();

        let answered = (0..1_000).filter(|_| alone.admits(start)).count();

        assert_eq!(answered, 20);
        assert!(alone.admits(start + Duration::from_secs(1)));
    }
}
