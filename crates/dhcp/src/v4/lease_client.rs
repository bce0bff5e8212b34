//! The DHCPv4 client of the ramdisk agent (RFC 2131 §4.4).
//!
//! Pure: the caller passes the time and received packets, and gets packets to send and the time of the next wake-up.

use std::net::Ipv4Addr;

use hardware::Mac;

use super::options as code;
use super::packet::{Hardware, MessageType, Op, Packet};
use crate::client::AGENT_USER_CLASS;
use crate::limits::Millis;

/// The contents of an acknowledged lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLease {
    /// Our address.
    pub address: Ipv4Addr,
    /// The length of its network's prefix, in bits.
    pub prefix: u8,
    /// The default router.
    pub router: Option<Ipv4Addr>,
    /// Further routes: destination, prefix length, router (RFC 3442). If there are any, `router` is ignored (ibid.).
    pub routes: Vec<(Ipv4Addr, u8, Ipv4Addr)>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Time servers.
    pub ntp: Vec<Ipv4Addr>,
    /// The link's MTU.
    pub mtu: Option<u16>,
    /// The server identifier of the lease.
    pub server: Ipv4Addr,
    /// The lease time in seconds.
    pub secs: u32,
    /// T1 in seconds: the client then renews with its server.
    pub renew_secs: u32,
    /// T2 in seconds: the client then rebinds with any server.
    pub rebind_secs: u32,
}

/// The DHCP client of one link.
#[derive(Clone, Debug)]
pub struct LeaseClient {
    mac: Mac,
    xid: u32,
    began: Millis,
    state: LeaseState,
    tries: u32,
    wake: Millis,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum LeaseState {
    Discovering,
    Requesting { address: Ipv4Addr, server: Ipv4Addr },
    Bound { lease: ClientLease, since: Millis },
}

/// The first retransmission delay, doubled each time (RFC 2131 §4.1) up to the maximum below.
const FIRST_WAIT: Millis = 1_000;
const LONGEST_WAIT: Millis = 8_000;
/// REQUESTs for one offer before it is given up.
const REQUESTS: u32 = 4;
/// Least delay between two renewals (RFC 2131 §4.4.5); an eighth of the lease if the lease is short.
const RENEWAL_WAIT: Millis = 60_000;
/// Lease time in seconds if the server sends none.
const UNSAID_LEASE: u32 = 3_600;
/// Delay after a DECLINE (RFC 2131 §3.1).
const AFTER_DECLINE: Millis = 10_000;

impl LeaseClient {
    /// A client that sends at once. `xid` is random.
    #[must_use]
    pub fn new(mac: Mac, xid: u32, now: Millis) -> Self {
        Self { mac, xid, began: now, state: LeaseState::Discovering, tries: 0, wake: now }
    }

    /// The time at which [`LeaseClient::due`] is to be called.
    #[must_use]
    pub fn wake(&self) -> Millis {
        self.wake
    }

    /// The current lease.
    #[must_use]
    pub fn lease(&self) -> Option<&ClientLease> {
        match &self.state {
            LeaseState::Bound { lease, .. } => Some(lease),
            LeaseState::Discovering | LeaseState::Requesting { .. } => None,
        }
    }

    /// The packet to send now, if one is due, to [`LeaseClient::server`].
    pub fn due(&mut self, now: Millis) -> Option<Vec<u8>> {
        if now < self.wake {
            return None;
        }
        self.give_up_what_is_over(now);
        self.wake = match &self.state {
            LeaseState::Discovering | LeaseState::Requesting { .. } => {
                now + (FIRST_WAIT << self.tries.min(3)).min(LONGEST_WAIT)
            }
            LeaseState::Bound { lease, since } => lease.next_try(*since, now),
        };
        self.tries += 1;
        Some(self.message(now).emit())
    }

    /// The destination of the packet: broadcast, or the server that can renew the lease.
    #[must_use]
    pub fn server(&self, now: Millis) -> Ipv4Addr {
        match &self.state {
            LeaseState::Bound { lease, since }
                if now < later(*since, lease.rebind_secs) && !lease.server.is_unspecified() =>
            {
                lease.server
            }
            LeaseState::Discovering | LeaseState::Requesting { .. } | LeaseState::Bound { .. } => {
                Ipv4Addr::BROADCAST
            }
        }
    }

    /// The DECLINE to broadcast if another host uses the leased address; the client starts over later.
    pub fn decline(&mut self, now: Millis) -> Option<Vec<u8>> {
        let ClientLease { address, server, .. } = self.lease()?.clone();
        self.start_over(now + AFTER_DECLINE);
        let mut decline = self.message(now);
        decline.message = MessageType::Decline;
        // RFC 2131 §4.4.1, table 5: a DECLINE has no parameter request list.
        decline.options = vec![
            (code::REQUESTED_ADDRESS, address.octets().to_vec()),
            (code::SERVER_ID, server.octets().to_vec()),
        ];
        Some(decline.emit())
    }

    /// Handles a received packet. True if it brought a new or longer lease.
    pub fn receive(&mut self, bytes: &[u8], now: Millis) -> bool {
        let Ok(packet) = Packet::parse(bytes) else { return false };
        if packet.op != Op::Reply || packet.xid != self.xid || packet.chaddr != self.mac {
            return false;
        }
        match (packet.message, &self.state) {
            (MessageType::Offer, LeaseState::Discovering) => {
                self.take_offer(&packet, now);
                false
            }
            (MessageType::Ack, LeaseState::Requesting { .. } | LeaseState::Bound { .. }) => {
                self.take_lease(&packet, now)
            }
            (MessageType::Nak, LeaseState::Requesting { .. } | LeaseState::Bound { .. }) => {
                self.start_over(now);
                false
            }
            _ => false,
        }
    }

    fn take_offer(&mut self, offer: &Packet, now: Millis) {
        let Some(server) = offer.option_address(code::SERVER_ID) else { return };
        if offer.yiaddr.is_unspecified() {
            return;
        }
        self.state = LeaseState::Requesting { address: offer.yiaddr, server };
        self.tries = 0;
        self.wake = now;
    }

    fn take_lease(&mut self, ack: &Packet, now: Millis) -> bool {
        let Some(lease) = self.chosen().and_then(|chosen| lease(ack, chosen)) else { return false };
        self.wake = later(now, lease.renew_secs);
        self.tries = 0;
        self.state = LeaseState::Bound { lease, since: now };
        true
    }

    /// The server of the accepted offer.
    fn chosen(&self) -> Option<Ipv4Addr> {
        match &self.state {
            LeaseState::Discovering => None,
            LeaseState::Requesting { server, .. } => Some(*server),
            LeaseState::Bound { lease, .. } => Some(lease.server),
        }
    }

    fn give_up_what_is_over(&mut self, now: Millis) {
        let over = match &self.state {
            LeaseState::Discovering => false,
            LeaseState::Requesting { .. } => self.tries >= REQUESTS,
            LeaseState::Bound { lease, since } => now >= later(*since, lease.secs),
        };
        if over {
            self.start_over(now);
        }
    }

    fn start_over(&mut self, now: Millis) {
        self.state = LeaseState::Discovering;
        self.tries = 0;
        self.wake = now;
    }

    fn message(&self, now: Millis) -> Packet {
        let mut options = vec![
            (code::USER_CLASS, user_class()),
            (code::MAX_SIZE, 1_472_u16.to_be_bytes().to_vec()),
            (
                code::PARAMETER_LIST,
                vec![
                    code::SUBNET_MASK,
                    code::CLASSLESS_ROUTES,
                    code::ROUTER,
                    code::DNS,
                    code::MTU,
                    code::NTP,
                ],
            ),
        ];
        let (message, ciaddr) = match &self.state {
            LeaseState::Discovering => (MessageType::Discover, Ipv4Addr::UNSPECIFIED),
            LeaseState::Requesting { address, server } => {
                options.push((code::REQUESTED_ADDRESS, address.octets().to_vec()));
                options.push((code::SERVER_ID, server.octets().to_vec()));
                (MessageType::Request, Ipv4Addr::UNSPECIFIED)
            }
            LeaseState::Bound { lease, .. } => (MessageType::Request, lease.address),
        };
        let secs = u16::try_from((now - self.began) / 1_000).unwrap_or(u16::MAX);
        Packet {
            op: Op::Request,
            hardware: Hardware::ETHERNET,
            hops: 0,
            xid: self.xid,
            secs,
            // Linux receives only broadcasts while the interface has no address.
            broadcast: ciaddr.is_unspecified(),
            ciaddr,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            chaddr: self.mac,
            file: Vec::new(),
            message,
            options,
        }
    }
}

/// The user class. RFC 3004 puts a length before it.
fn user_class() -> Vec<u8> {
    let len = u8::try_from(AGENT_USER_CLASS.len()).expect("the class is short");
    [&[len], AGENT_USER_CLASS].concat()
}

impl ClientLease {
    /// The delay to the next renewal: half of the time that is left until T2, or until the end (RFC 2131 §4.4.5).
    fn next_try(&self, since: Millis, now: Millis) -> Millis {
        let [rebind, end] = [self.rebind_secs, self.secs].map(|secs| later(since, secs));
        let until = if now < rebind { rebind } else { end };
        let least = (Millis::from(self.secs) * 125).clamp(FIRST_WAIT, RENEWAL_WAIT);
        let left = until.saturating_sub(now);
        now + (left / 2).max(least).min(left)
    }
}

fn later(since: Millis, secs: u32) -> Millis {
    since + Millis::from(secs) * 1_000
}

/// The lease of an ACK, which may be truncated: an address is better than none. `chosen` is the server if the ACK has
/// no server identifier.
fn lease(ack: &Packet, chosen: Ipv4Addr) -> Option<ClientLease> {
    // A lease time of zero would make the client send without a pause.
    let secs = ack.option_u32(code::LEASE_TIME).unwrap_or(UNSAID_LEASE).max(1);
    let said = ack.option_u32(code::RENEWAL).zip(ack.option_u32(code::REBINDING));
    let makes_sense =
        |(renew, rebind): &(u32, u32)| 0 < *renew && renew <= rebind && *rebind <= secs;
    // RFC 2131 §4.4.5.
    let half_and_seven_eighths = (secs.div_ceil(2), secs - secs / 8);
    let (renew_secs, rebind_secs) = said.filter(makes_sense).unwrap_or(half_and_seven_eighths);
    let mask = ack.option_address(code::SUBNET_MASK).filter(|mask| !mask.is_unspecified());
    let mask = mask.unwrap_or_else(|| mask_of_class(ack.yiaddr));
    let mtu: Option<[u8; 2]> = ack.option(code::MTU).and_then(|value| value.try_into().ok());
    Some(ClientLease {
        address: ack.yiaddr,
        prefix: u8::try_from(u32::from(mask).leading_ones()).ok()?,
        router: ack.option_addresses(code::ROUTER).first().copied(),
        routes: ack.option(code::CLASSLESS_ROUTES).map(routes).unwrap_or_default(),
        dns: ack.option_addresses(code::DNS),
        ntp: ack.option_addresses(code::NTP),
        // RFC 2132 §5.1: at least 68; Linux refuses less than that for IPv4.
        mtu: mtu.map(u16::from_be_bytes).filter(|mtu| *mtu >= 576),
        server: ack.option_address(code::SERVER_ID).unwrap_or(chosen),
        secs,
        renew_secs,
        rebind_secs,
    })
    .filter(|lease| !lease.address.is_unspecified())
}

/// The classful mask of an address (RFC 791 §3.2), for servers that send no subnet mask.
fn mask_of_class(address: Ipv4Addr) -> Ipv4Addr {
    match address.octets()[0] {
        0..128 => Ipv4Addr::new(255, 0, 0, 0),
        128..192 => Ipv4Addr::new(255, 255, 0, 0),
        192.. => Ipv4Addr::new(255, 255, 255, 0),
    }
}

/// RFC 3442: prefix length, significant bytes of the destination, router. Stops at the first invalid route.
fn routes(mut value: &[u8]) -> Vec<(Ipv4Addr, u8, Ipv4Addr)> {
    let mut routes = Vec::new();
    while let Some((width, rest)) = value.split_first().filter(|(width, _)| **width <= 32) {
        let significant = usize::from(width.div_ceil(8));
        let Some((destination, rest)) = rest.split_at_checked(significant) else { break };
        let Some((router, rest)) = rest.split_first_chunk::<4>() else { break };
        let mut octets = [0; 4];
        octets[..significant].copy_from_slice(destination);
        routes.push((Ipv4Addr::from(octets), *width, Ipv4Addr::from(*router)));
        value = rest;
    }
    routes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::decide::{Decision, decide};
    use ipnet::Ipv4Net;

    use super::super::reply::{Grant, Network, Route, reply};
    use super::*;
    use crate::answer::Answer;
    use crate::client::Client;
    use crate::leases::{LeaseClaim, LeasePool, LeaseTable};
    use hardware::ClientKind;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

    fn network() -> Network {
        Network {
            router: Some(Ipv4Addr::new(10, 0, 0, 254)),
            dns: vec![Ipv4Addr::new(10, 0, 0, 53)],
            ..Network::new(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(255, 255, 255, 0), 600)
        }
    }

    fn leases() -> LeaseTable<Ipv4Addr> {
        let first = Ipv4Addr::new(10, 0, 0, 100);
        LeaseTable::new(LeasePool { first, last: first }, [])
    }

    fn answered(sent: &[u8], leases: &mut LeaseTable<Ipv4Addr>) -> Vec<u8> {
        let request = Packet::parse(sent).unwrap();
        assert_eq!(Client::identify(&request).kind, ClientKind::Agent);
        match decide(&request, &Answer::Address, LeaseClaim::Known, leases, &network(), 0) {
            Decision::Send { reply, .. } => reply.emit(),
            other @ (Decision::Note { .. } | Decision::Silent(_)) => panic!("no answer: {other:?}"),
        }
    }

    #[test]
    fn client_and_server_agree_on_a_lease_and_renew_it() {
        let (mut client, mut leases) = (LeaseClient::new(MAC, 7, 0), leases());

        let offer = answered(&client.due(0).unwrap(), &mut leases);
        assert!(!client.receive(&offer, 1));
        let ack = answered(&client.due(1).unwrap(), &mut leases);
        assert!(client.receive(&ack, 2));

        let lease = client.lease().unwrap().clone();
        assert_eq!((lease.address, lease.prefix), (Ipv4Addr::new(10, 0, 0, 100), 24));
        assert_eq!(lease.router, Some(Ipv4Addr::new(10, 0, 0, 254)));
        assert_eq!(client.wake(), 300_002, "it renews at half of the lease");
        let renewed = answered(&client.due(300_002).unwrap(), &mut leases);
        assert!(client.receive(&renewed, 300_003));
    }

    #[test]
    fn an_unanswered_client_sends_again_with_growing_waits() {
        let mut client = LeaseClient::new(MAC, 7, 0);
        let mut waits = Vec::new();
        for _ in 0..6 {
            let now = client.wake();
            client.due(now).unwrap();
            waits.push(client.wake() - now);
        }

        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 8_000, 8_000]);
    }

    /// A client that has been bound since 2 ms, with this lease time.
    fn bound(secs: u32) -> (LeaseClient, LeaseTable<Ipv4Addr>) {
        let (mut client, mut leases) = (LeaseClient::new(MAC, 7, 0), leases());
        let network = Network::new(network().server, Ipv4Addr::new(255, 255, 255, 0), secs);
        for now in [0, 1] {
            let request = Packet::parse(&client.due(now).unwrap()).unwrap();
            let decision =
                decide(&request, &Answer::Address, LeaseClaim::Known, &mut leases, &network, 0);
            let Decision::Send { reply, .. } = decision else { panic!("no answer") };
            client.receive(&reply.emit(), now + 1);
        }
        (client, leases)
    }

    #[test]
    fn a_lease_is_asked_for_ever_more_often_first_of_its_server_and_then_of_all_until_it_ends() {
        let asked = |secs| {
            let (mut client, _) = bound(secs);
            let mut asked = Vec::new();
            while client.lease().is_some() {
                let now = client.wake();
                let (server, sent) = (client.server(now), client.due(now).unwrap());
                if client.lease().is_some() {
                    let sent = Packet::parse(&sent).unwrap();
                    assert_eq!(
                        (sent.ciaddr, sent.broadcast),
                        (Ipv4Addr::new(10, 0, 0, 100), false)
                    );
                    asked.push((now / 1_000, server == Ipv4Addr::BROADCAST));
                }
            }
            asked
        };

        assert_eq!(
            asked(3_600),
            [
                (1_800, false),
                (2_475, false),
                (2_812, false),
                (2_981, false),
                (3_065, false),
                (3_125, false),
                (3_150, true),
                (3_375, true),
                (3_487, true),
                (3_547, true),
            ]
        );
        let short = [(30, false), (39, false), (47, false), (49, true), (56, true)];
        assert_eq!(asked(60), short);
    }

    #[test]
    fn an_address_that_somebody_else_has_is_declined_and_another_asked_for_after_a_while() {
        let (mut client, mut leases) = bound(600);

        let decline = Packet::parse(&client.decline(50).unwrap()).unwrap();

        assert_eq!(decline.message, MessageType::Decline);
        assert_eq!(decline.option_address(code::REQUESTED_ADDRESS), Some([10, 0, 0, 100].into()));
        assert_eq!(decline.option_address(code::SERVER_ID), Some(network().server));
        assert!(decline.ciaddr.is_unspecified());
        decide(&decline, &Answer::Address, LeaseClaim::Known, &mut leases, &network(), 0);
        assert_eq!((client.lease(), client.wake()), (None, 10_050));
        let again = Packet::parse(&client.due(10_050).unwrap()).unwrap();
        assert_eq!(again.message, MessageType::Discover);
        assert_eq!(client.decline(10_051), None, "there is nothing to decline");
    }

    #[test]
    fn answers_to_somebody_else_are_not_taken() {
        let (mut client, mut leases) = (LeaseClient::new(MAC, 7, 0), leases());
        let offer = answered(&client.due(0).unwrap(), &mut leases);
        let mut other = LeaseClient::new(MAC, 8, 0);
        other.due(0);

        other.receive(&offer, 1);

        assert_eq!(other.wake(), 1_000, "it still waits for its own offer");
    }

    /// The options of a message up to the last of those named.
    fn cut_after(message: &[u8], last: &[u8]) -> Vec<u8> {
        let mut packet = Packet::parse(message).unwrap();
        packet.options.retain(|(code, _)| last.contains(code));
        let mut bytes = packet.emit();
        bytes.truncate(packet.len() - 1);
        bytes.extend([code::DOMAIN, 200, b'x']);
        bytes
    }

    #[test]
    fn an_answer_whose_last_option_is_cut_off_still_brings_an_address() {
        let (mut client, mut leases) = (LeaseClient::new(MAC, 7, 0), leases());
        let offer = answered(&client.due(0).unwrap(), &mut leases);
        client.receive(&cut_after(&offer, &[code::SERVER_ID]), 1);
        let ack = answered(&client.due(1).unwrap(), &mut leases);

        assert!(client.receive(&cut_after(&ack, &[]), 2));

        let lease = client.lease().unwrap();
        assert_eq!((lease.address, lease.prefix), (Ipv4Addr::new(10, 0, 0, 100), 8));
        assert_eq!((lease.server, lease.secs), (network().server, 3_600));
    }

    #[test]
    fn classless_routes_are_read_and_nonsense_ends_them() {
        let value = [24, 10, 1, 2, 10, 0, 0, 9, 0, 10, 0, 0, 8, 33, 1];

        assert_eq!(
            routes(&value),
            [
                (Ipv4Addr::new(10, 1, 2, 0), 24, Ipv4Addr::new(10, 0, 0, 9)),
                (Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::new(10, 0, 0, 8)),
            ]
        );
    }

    proptest! {
        #[test]
        fn the_routes_that_a_server_sends_are_the_ones_that_are_read(
            sent in prop::collection::vec((any::<u32>(), 0..=32_u8, any::<u32>()), 1..20),
        ) {
            let route = |(to, width, via): (u32, u8, u32)| Route {
                to: Ipv4Net::new(to.into(), width).unwrap().trunc(),
                via: via.into(),
            };
            let sent: Vec<_> = sent.into_iter().map(route).collect();
            let network = Network { router: None, routes: sent.clone(), ..network() };
            let mut client = LeaseClient::new(MAC, 7, 0);
            let request = Packet::parse(&client.due(0).unwrap()).unwrap();
            let grant = Grant::Lease(Ipv4Addr::new(10, 0, 0, 9));
            let ack = reply(&request, MessageType::Ack, grant, &Answer::Address, &network);

            let read = lease(&ack, network.server).unwrap().routes;

            let sent: Vec<_> =
                sent.iter().map(|sent| (sent.to.addr(), sent.to.prefix_len(), sent.via)).collect();
            prop_assert_eq!(read, sent);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, now in 0..1_000_000_u64) {
            let mut client = LeaseClient::new(MAC, 7, 0);
            client.due(0);
            client.receive(&bytes, now);
            let _ = routes(&bytes);
        }
    }
}
