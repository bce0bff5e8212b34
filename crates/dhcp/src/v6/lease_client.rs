//! The DHCPv6 client of the ramdisk agent (RFC 8415 §18.2).
//!
//! Pure: the caller passes the time, random numbers and received packets, and gets packets to send and the time of
//! the next wake-up. Packets go from port 546 to `ff02::1:2`, port 547.

use std::net::Ipv6Addr;

use super::options as code;
use super::packet::{Message, MessageType, Options, Packet, address};
use crate::client::AGENT_USER_CLASS;
use crate::limits::Millis;

const SECOND: Millis = 1_000;
/// Never.
const NEVER: Millis = Millis::MAX;
/// RFC 8415 §7.7: an infinite lifetime.
const FOR_EVER: u32 = u32::MAX;
/// REQUESTs for one advertisement (`REQ_MAX_RC`).
const REQUESTS: u32 = 10;
/// RELEASEs and DECLINEs (`REL_MAX_RC`, `DEC_MAX_RC`).
const GOODBYES: u32 = 4;
/// Refresh time of settings in seconds: the default, and the minimum (RFC 8415 §21.23).
const REFRESH: u32 = 86_400;
const SOONEST_REFRESH: u32 = 600;
/// A preference of 255 ends the wait for other servers (RFC 8415 §18.2.1).
const MOST_PREFERRED: u8 = 255;
/// Status codes (RFC 8415 §21.13).
const NO_ADDRESSES: u16 = 2;
const NO_BINDING: u16 = 3;
const NOT_ON_LINK: u16 = 4;
/// The suboption of an NTP server that holds its address (RFC 5908 §4.1).
const NTP_ADDRESS: u16 = 1;

/// The contents of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLease {
    /// The leased address. The link's prefix comes from the router, not from the server.
    pub address: Ipv6Addr,
    /// Preferred lifetime in seconds.
    pub preferred_secs: u32,
    /// Valid lifetime in seconds; all ones mean no end.
    pub valid_secs: u32,
    /// T1 in seconds: the client then renews with its server.
    pub renew_secs: u32,
    /// T2 in seconds: the client then rebinds with any server.
    pub rebind_secs: u32,
    /// Name servers.
    pub dns: Vec<Ipv6Addr>,
    /// Time servers.
    pub ntp: Vec<Ipv6Addr>,
    /// The server's identifier (DUID).
    pub server: Vec<u8>,
}

/// The DHCPv6 client of one link.
#[derive(Clone, Debug)]
pub struct LeaseClient {
    duid: Vec<u8>,
    ia: u32,
    phase: LeasePhase,
    lease: Option<(ClientLease, Millis)>,
    settings: Option<LinkSettings>,
    transaction: [u8; 3],
    began: Millis,
    tries: u32,
    wait: Millis,
    wake: Millis,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum LeasePhase {
    Soliciting { best: Option<AdvertisedAddress> },
    Requesting(AdvertisedAddress),
    Bound,
    Renewing,
    Rebinding,
    Leaving { address: Ipv6Addr, server: Vec<u8>, why: Leave },
    Informing,
    Informed,
    Gone,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct AdvertisedAddress {
    address: Ipv6Addr,
    server: Vec<u8>,
    preference: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    Release,
    Decline,
}

/// The part of a message about our association.
enum AssociationAnswer {
    Granted(ClientLease),
    Refused(u16),
    Nothing,
}

impl LeaseClient {
    /// A client that requests an address. `duid` identifies the machine; `ia` (IAID) identifies the association
    /// within the machine, and stays the same for the link.
    #[must_use]
    pub fn new(duid: Vec<u8>, ia: u32, random: u32, now: Millis) -> Self {
        Self::starting(LeasePhase::Soliciting { best: None }, duid, ia, random, now)
    }

    /// A client that requests only settings: for links whose routers advertise O without M.
    #[must_use]
    pub fn for_settings(duid: Vec<u8>, random: u32, now: Millis) -> Self {
        Self::starting(LeasePhase::Informing, duid, 0, random, now)
    }

    fn starting(phase: LeasePhase, duid: Vec<u8>, ia: u32, random: u32, now: Millis) -> Self {
        Self {
            duid,
            ia,
            phase,
            lease: None,
            settings: None,
            transaction: [0; 3],
            began: now,
            tries: 0,
            wait: 0,
            // A random delay keeps the machines of a hall from sending at once (`SOL_MAX_DELAY`, `INF_MAX_DELAY`).
            wake: now + Millis::from(random) % SECOND,
        }
    }

    /// The time at which [`LeaseClient::due`] is to be called.
    #[must_use]
    pub fn wake(&self) -> Millis {
        self.wake
    }

    /// The current lease.
    #[must_use]
    pub fn lease(&self) -> Option<&ClientLease> {
        self.lease.as_ref().map(|(lease, _)| lease)
    }

    /// The name servers from the last REPLY, with or without a lease.
    #[must_use]
    pub fn name_servers(&self) -> Option<&[Ipv6Addr]> {
        self.settings.as_ref().map(|settings| &settings.dns[..])
    }

    /// The time servers from the last REPLY, with or without a lease.
    #[must_use]
    pub fn time_servers(&self) -> Option<&[Ipv6Addr]> {
        self.settings.as_ref().map(|settings| &settings.ntp[..])
    }

    /// Releases the address, and requests no other.
    pub fn release(&mut self, now: Millis) {
        self.leave(Leave::Release, now);
    }

    /// Declines the address, since another host uses it, and requests another.
    pub fn decline(&mut self, now: Millis) {
        self.leave(Leave::Decline, now);
    }

    fn leave(&mut self, why: Leave, now: Millis) {
        match self.lease.take() {
            Some((ClientLease { address, server, .. }, _)) => {
                self.begin(LeasePhase::Leaving { address, server, why }, now);
            }
            None => self.left(why, now),
        }
    }

    /// The message to send to all servers now, if one is due.
    pub fn due(&mut self, random: u32, now: Millis) -> Option<Vec<u8>> {
        if now < self.wake {
            return None;
        }
        self.move_on(now);
        if now < self.wake {
            return None;
        }
        if self.tries == 0 {
            let [transaction @ .., _] = random.to_be_bytes();
            (self.transaction, self.began) = (transaction, now);
        }
        self.wait = self.next_wait(random);
        self.tries += 1;
        self.wake = (now + self.wait).min(self.deadline());
        let message = self.message(now)?;
        Some(Packet { relays: Vec::new(), message }.emit())
    }

    /// Phase changes that depend only on the time.
    fn move_on(&mut self, now: Millis) {
        if now >= self.end() {
            self.start_over(now);
            return;
        }
        let to_any_server = now >= self.rebind_at();
        match &mut self.phase {
            LeasePhase::Soliciting { best } => {
                if let Some(best) = best.take() {
                    self.begin(LeasePhase::Requesting(best), now);
                }
            }
            LeasePhase::Requesting(_) if self.tries >= REQUESTS => self.start_over(now),
            // T1 and T2 may be equal.
            LeasePhase::Bound | LeasePhase::Renewing if to_any_server => {
                self.begin(LeasePhase::Rebinding, now)
            }
            LeasePhase::Bound => self.begin(LeasePhase::Renewing, now),
            LeasePhase::Leaving { why, .. } if self.tries >= GOODBYES => {
                let why = *why;
                self.left(why, now);
            }
            LeasePhase::Informed => self.begin(LeasePhase::Informing, now),
            LeasePhase::Requesting(_)
            | LeasePhase::Renewing
            | LeasePhase::Rebinding
            | LeasePhase::Leaving { .. }
            | LeasePhase::Informing
            | LeasePhase::Gone => {}
        }
    }

    /// Handles a received packet. True if it brought a lease, or settings.
    pub fn receive(&mut self, bytes: &[u8], now: Millis) -> bool {
        let Ok(Packet { relays, message }) = Packet::parse(bytes) else { return false };
        // RFC 8415 §16.3, §16.10. Before its first message the client expects no answer.
        let is_ours = relays.is_empty()
            && self.tries > 0
            && message.transaction == self.transaction
            && message.options.get(code::CLIENT_ID) == Some(&self.duid);
        let Some(server) = message.options.get(code::SERVER_ID).filter(|_| is_ours) else {
            return false;
        };
        match message.kind {
            MessageType::Advertise => {
                self.take_offer(&message, server, now);
                false
            }
            MessageType::Reply => self.take_reply(&message, server, now),
            MessageType::Solicit
            | MessageType::Request
            | MessageType::Confirm
            | MessageType::Renew
            | MessageType::Rebind
            | MessageType::Release
            | MessageType::Decline
            | MessageType::Reconfigure
            | MessageType::InformationRequest => false,
        }
    }

    /// Accepts an offer: at the end of the first wait the one with the highest preference, or at once one with
    /// preference 255; later, the first to arrive (RFC 8415 §18.2.1).
    fn take_offer(&mut self, message: &Message, server: &[u8], now: Millis) {
        let AssociationAnswer::Granted(ClientLease { address, .. }) = self.verdict(message, server)
        else {
            return;
        };
        let LeasePhase::Soliciting { best } = &mut self.phase else { return };
        let preference = message.options.get(code::PREFERENCE).and_then(|value| value.first());
        let preference = preference.copied().unwrap_or_default();
        if best.as_ref().is_none_or(|best| best.preference < preference) {
            *best = Some(AdvertisedAddress { address, server: server.to_vec(), preference });
        }
        if preference == MOST_PREFERRED || self.tries > 1 {
            self.wake = now;
        }
    }

    fn take_reply(&mut self, message: &Message, server: &[u8], now: Millis) -> bool {
        let rapid = message.options.get(code::RAPID_COMMIT).is_some();
        match &self.phase {
            LeasePhase::Soliciting { .. } if !rapid => false,
            LeasePhase::Soliciting { .. }
            | LeasePhase::Requesting(_)
            | LeasePhase::Renewing
            | LeasePhase::Rebinding => {
                match self.verdict(message, server) {
                    AssociationAnswer::Granted(lease) => self.take_lease(lease, now),
                    AssociationAnswer::Refused(status) => self.take_refusal(status, server, now),
                    AssociationAnswer::Nothing => {}
                }
                self.phase == LeasePhase::Bound
            }
            LeasePhase::Leaving { why, .. } => {
                self.left(*why, now);
                false
            }
            LeasePhase::Informing => {
                self.settings = Some(LinkSettings::of(message));
                let secs =
                    message.options.get(code::REFRESH_TIME).and_then(|value| number(value, 0));
                let secs = secs.unwrap_or(REFRESH).max(SOONEST_REFRESH);
                self.begin(LeasePhase::Informed, later(now, secs));
                true
            }
            LeasePhase::Bound | LeasePhase::Informed | LeasePhase::Gone => false,
        }
    }

    fn take_lease(&mut self, lease: ClientLease, now: Millis) {
        // A lifetime below a second would make the client send without a pause.
        let until = lease.renew_secs.min(lease.valid_secs).max(1);
        self.begin(LeasePhase::Bound, later(now, until));
        self.settings = Some(LinkSettings { dns: lease.dns.clone(), ntp: lease.ntp.clone() });
        self.lease = Some((lease, now));
    }

    /// RFC 8415 §18.2.10.1.
    fn take_refusal(&mut self, status: u16, server: &[u8], now: Millis) {
        let address = self.lease().map(|lease| lease.address);
        match (&self.phase, status, address) {
            (LeasePhase::Renewing | LeasePhase::Rebinding, NO_BINDING, Some(address)) => {
                let again = AdvertisedAddress { address, server: server.to_vec(), preference: 0 };
                self.begin(LeasePhase::Requesting(again), now);
            }
            // After a second: a server that offers and then refuses would make the client send without a pause.
            (_, NO_ADDRESSES | NO_BINDING | NOT_ON_LINK, _) => self.start_over(now + SECOND),
            _ => {}
        }
    }

    fn verdict(&self, message: &Message, server: &[u8]) -> AssociationAnswer {
        let mut refusal = status(&message.options);
        for value in message.options.all(code::IA_NA) {
            let Some(association) = Association::parse(value).filter(|found| found.ia == self.ia)
            else {
                continue;
            };
            refusal = refusal.or(association.refusal);
            if let Some(lease) = association.lease(LinkSettings::of(message), server) {
                return AssociationAnswer::Granted(lease);
            }
        }
        refusal.map_or(AssociationAnswer::Nothing, AssociationAnswer::Refused)
    }

    fn begin(&mut self, phase: LeasePhase, at: Millis) {
        (self.phase, self.tries, self.wake) = (phase, 0, at);
    }

    fn start_over(&mut self, at: Millis) {
        self.lease = None;
        self.begin(LeasePhase::Soliciting { best: None }, at);
    }

    fn left(&mut self, why: Leave, now: Millis) {
        match why {
            Leave::Release => self.begin(LeasePhase::Gone, NEVER),
            Leave::Decline => self.start_over(now),
        }
    }

    /// RFC 8415 §15: the delay doubles each time, randomized by a tenth.
    fn next_wait(&self, random: u32) -> Millis {
        let (first, most) = self.rhythm();
        let (wait, of) = match self.tries {
            0 => (first, first),
            _ if 2 * self.wait > most => (most, most),
            _ => (2 * self.wait, self.wait),
        };
        let tenth = of / 10;
        // The first wait for advertisements is no shorter than a second (RFC 8415 §18.2.1).
        let soliciting = matches!(self.phase, LeasePhase::Soliciting { .. });
        let least = if soliciting && self.tries == 0 { wait + 1 } else { wait - tenth };
        least + Millis::from(random) % (wait + tenth + 1 - least)
    }

    /// The first and the longest retransmission delay (RFC 8415 §7.6).
    fn rhythm(&self) -> (Millis, Millis) {
        match self.phase {
            // The RFC allows an hour between SOLICITs, too long for somebody who waits for a machine. Two minutes are
            // RFC 3315's limit.
            LeasePhase::Soliciting { .. } | LeasePhase::Informing => (SECOND, 120 * SECOND),
            LeasePhase::Requesting(_) => (SECOND, 30 * SECOND),
            LeasePhase::Renewing | LeasePhase::Rebinding => (10 * SECOND, 600 * SECOND),
            LeasePhase::Leaving { .. } => (SECOND, 16 * SECOND),
            LeasePhase::Bound | LeasePhase::Informed | LeasePhase::Gone => (NEVER / 2, NEVER / 2),
        }
    }

    /// The end of this phase if no answer comes.
    fn deadline(&self) -> Millis {
        match self.phase {
            LeasePhase::Renewing => self.rebind_at(),
            LeasePhase::Soliciting { .. }
            | LeasePhase::Requesting(_)
            | LeasePhase::Bound
            | LeasePhase::Rebinding
            | LeasePhase::Leaving { .. }
            | LeasePhase::Informing
            | LeasePhase::Informed
            | LeasePhase::Gone => self.end(),
        }
    }

    fn rebind_at(&self) -> Millis {
        self.lease.as_ref().map_or(NEVER, |(lease, since)| later(*since, lease.rebind_secs))
    }

    /// The end of the lease.
    fn end(&self) -> Millis {
        self.lease.as_ref().map_or(NEVER, |(lease, since)| later(*since, lease.valid_secs))
    }

    /// The message of this phase.
    fn message(&self, now: Millis) -> Option<Message> {
        let held = self.lease();
        let (kind, server, address) = match &self.phase {
            LeasePhase::Soliciting { .. } => (MessageType::Solicit, None, None),
            LeasePhase::Requesting(AdvertisedAddress { address, server, .. }) => {
                (MessageType::Request, Some(server), Some(*address))
            }
            LeasePhase::Renewing => (MessageType::Renew, Some(&held?.server), Some(held?.address)),
            LeasePhase::Rebinding => (MessageType::Rebind, None, Some(held?.address)),
            LeasePhase::Leaving { address, server, why: Leave::Release } => {
                (MessageType::Release, Some(server), Some(*address))
            }
            LeasePhase::Leaving { address, server, why: Leave::Decline } => {
                (MessageType::Decline, Some(server), Some(*address))
            }
            LeasePhase::Informing => (MessageType::InformationRequest, None, None),
            LeasePhase::Bound | LeasePhase::Informed | LeasePhase::Gone => return None,
        };
        let mut options = Options::default();
        options.put(code::CLIENT_ID, self.duid.clone());
        if let Some(server) = server {
            options.put(code::SERVER_ID, server.clone());
        }
        if kind == MessageType::Solicit {
            options.put(code::RAPID_COMMIT, []);
        }
        // In hundredths of a second (RFC 8415 §21.9).
        let elapsed = u16::try_from((now - self.began) / 10).unwrap_or(u16::MAX);
        options.put(code::ELAPSED_TIME, elapsed.to_be_bytes());
        options.put(code::USER_CLASS, user_class());
        options.put(
            code::OPTION_REQUEST,
            [code::DNS, code::SNTP, code::REFRESH_TIME, code::NTP].map(u16::to_be_bytes).concat(),
        );
        if kind != MessageType::InformationRequest {
            options.put(code::IA_NA, association(self.ia, address));
        }
        Some(Message { kind, transaction: self.transaction, options })
    }
}

/// A server's settings for the link, with or without a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LinkSettings {
    dns: Vec<Ipv6Addr>,
    ntp: Vec<Ipv6Addr>,
}

impl LinkSettings {
    fn of(message: &Message) -> Self {
        Self { dns: name_servers(message), ntp: time_servers(message) }
    }
}

/// An identity association from a server.
struct Association {
    ia: u32,
    renew_secs: u32,
    rebind_secs: u32,
    /// Address, preferred lifetime, valid lifetime.
    address: Option<(Ipv6Addr, u32, u32)>,
    refusal: Option<u16>,
}

impl Association {
    fn parse(value: &[u8]) -> Option<Self> {
        let (head, rest) = value.split_at_checked(12)?;
        let options = Options::parse(rest);
        let lifetimes = |value: &[u8]| {
            let found = (address(value, 0)?, number(value, 16)?, number(value, 20)?);
            // RFC 8415 §21.6.
            (found.1 <= found.2).then_some(found)
        };
        let (good, ended): (Vec<_>, Vec<_>) = options
            .all(code::IA_ADDRESS)
            .filter_map(lifetimes)
            .partition(|(_, _, valid_secs)| *valid_secs > 0);
        // A lifetime of zero withdraws the address.
        let withdrawn = ended.first().map(|_| NO_BINDING);
        Some(Self {
            ia: number(head, 0)?,
            renew_secs: number(head, 4)?,
            rebind_secs: number(head, 8)?,
            address: good.first().copied(),
            refusal: status(&options).or(withdrawn),
        })
    }

    fn lease(&self, LinkSettings { dns, ntp }: LinkSettings, server: &[u8]) -> Option<ClientLease> {
        let (address, preferred_secs, valid_secs) = self.address?;
        // RFC 8415 §21.4: zero leaves T1 and T2 to the client, which takes a half and four fifths.
        let chosen = |secs, of: u32| match (secs, preferred_secs) {
            (0, FOR_EVER) => FOR_EVER,
            (0, preferred) => preferred / 10 * of,
            (secs, _) => secs,
        };
        let (renew_secs, rebind_secs) = (chosen(self.renew_secs, 5), chosen(self.rebind_secs, 8));
        (renew_secs <= rebind_secs).then(|| ClientLease {
            address,
            preferred_secs,
            valid_secs,
            renew_secs,
            rebind_secs,
            dns,
            ntp,
            server: server.to_vec(),
        })
    }
}

fn association(ia: u32, address: Option<Ipv6Addr>) -> Vec<u8> {
    let mut value = [ia, 0, 0].map(u32::to_be_bytes).concat();
    let mut options = Options::default();
    if let Some(address) = address {
        options.put(code::IA_ADDRESS, [&address.octets()[..], &[0; 8]].concat());
    }
    options.emit_into(&mut value);
    value
}

/// The user class. RFC 8415 §21.15: two bytes of length before the class.
fn user_class() -> Vec<u8> {
    let len = u16::try_from(AGENT_USER_CLASS.len()).expect("the class is short");
    [&len.to_be_bytes(), AGENT_USER_CLASS].concat()
}

/// The status, unless it is success.
fn status(options: &Options) -> Option<u16> {
    let (code, _) = options.get(code::STATUS)?.split_first_chunk()?;
    Some(u16::from_be_bytes(*code)).filter(|code| *code != 0)
}

fn name_servers(message: &Message) -> Vec<Ipv6Addr> {
    addresses(message.options.get(code::DNS).unwrap_or_default()).collect()
}

/// Time servers that are named by address, from the NTP option, otherwise from the older SNTP option.
fn time_servers(message: &Message) -> Vec<Ipv6Addr> {
    let servers = message.options.all(code::NTP).map(Options::parse);
    let servers: Vec<_> = servers
        .flat_map(|servers| {
            let values = servers.all(NTP_ADDRESS).flat_map(addresses);
            values.collect::<Vec<_>>()
        })
        .collect();
    if servers.is_empty() {
        return addresses(message.options.get(code::SNTP).unwrap_or_default()).collect();
    }
    servers
}

fn addresses(value: &[u8]) -> impl Iterator<Item = Ipv6Addr> {
    let (addresses, _) = value.as_chunks::<16>();
    addresses.iter().copied().map(Ipv6Addr::from)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn later(now: Millis, secs: u32) -> Millis {
    if secs == FOR_EVER { NEVER } else { now + Millis::from(secs) * SECOND }
}

#[cfg(test)]
mod tests {
    use hardware::{ClientKind, Mac};
    use proptest::prelude::*;

    use super::super::client_identity::{Client, of_card};
    use super::super::decide::{Decision, decide};
    use super::super::reply::Network;
    use super::*;
    use crate::answer::Answer;
    use crate::leases::{LeaseClaim, LeasePool, LeaseTable};

    const DUID: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 7];
    const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 7);

    struct Server {
        leases: LeaseTable<Ipv6Addr>,
        network: Network,
    }

    impl Server {
        fn new(sole: bool) -> Self {
            let pool =
                LeasePool { first: "fd00::10".parse().unwrap(), last: "fd00::11".parse().unwrap() };
            let dns = vec!["fd00::53".parse().unwrap()];
            let network = Network {
                net: "fd00::/64".parse().unwrap(),
                duid: vec![0, 2, 1],
                sole,
                dns,
                domain: None,
                ntp: Vec::new(),
                lease_secs: 600,
                foreign_pools: std::sync::Arc::default(),
            };
            Self { leases: LeaseTable::new(pool, []), network }
        }

        /// The server's answer to a message that was sent at this time.
        fn answer(&mut self, sent: &[u8], now: Millis) -> Message {
            let request = Packet::parse(sent).unwrap().message;
            let client = Client::identify(&Packet::parse(sent).unwrap(), LINK_LOCAL);
            assert_eq!(client.kind, ClientKind::Agent);
            let (leases, now) = (&mut self.leases, now / SECOND);
            let to = &Answer::Address;
            match decide(&request, &client, to, LeaseClaim::Known, leases, &self.network, now) {
                Decision::Send { reply, .. } => reply,
                Decision::Silent(why) => panic!("{why}"),
            }
        }
    }

    fn client() -> LeaseClient {
        LeaseClient::new(DUID.to_vec(), 5, 0, 0)
    }

    fn bytes(message: Message) -> Vec<u8> {
        Packet { relays: Vec::new(), message }.emit()
    }

    /// Sends the next due message, and handles the server's answer at once.
    fn exchange(client: &mut LeaseClient, server: &mut Server) -> (Message, bool) {
        let now = client.wake();
        let sent = client.due(7, now).unwrap();
        let answer = server.answer(&sent, now);
        let brought = client.receive(&bytes(answer), now);
        (Packet::parse(&sent).unwrap().message, brought)
    }

    fn kinds(client: &mut LeaseClient, until: Millis) -> Vec<MessageType> {
        let mut kinds = Vec::new();
        while client.wake() < until {
            let sent = client.due(7, client.wake()).unwrap();
            kinds.push(Packet::parse(&sent).unwrap().message.kind);
        }
        kinds.dedup();
        kinds
    }

    #[test]
    fn a_server_that_is_alone_gives_an_address_in_two_messages() {
        let (mut client, mut server) = (client(), Server::new(true));

        let (sent, brought) = exchange(&mut client, &mut server);

        assert!(brought && sent.kind == MessageType::Solicit);
        let lease = client.lease().unwrap();
        assert_eq!(lease.address, server.leases.pool().first);
        assert_eq!((lease.renew_secs, lease.rebind_secs, lease.valid_secs), (300, 480, 600));
        assert_eq!(client.name_servers(), Some(&["fd00::53".parse().unwrap()][..]));
    }

    #[test]
    fn beside_other_servers_it_waits_a_second_for_the_best_offer() {
        let (mut client, mut server) = (client(), Server::new(false));

        let (_, brought) = exchange(&mut client, &mut server);
        assert!(!brought && client.wake() > SECOND, "it waits for other servers");
        let (sent, brought) = exchange(&mut client, &mut server);

        assert!(brought && sent.kind == MessageType::Request);
        assert_eq!(sent.options.get(code::SERVER_ID), Some(&[0, 2, 1][..]));
        assert!(client.lease().is_some());
    }

    #[test]
    fn a_preference_of_255_is_taken_at_once_and_the_higher_of_others_later() {
        let (mut client, mut server) = (client(), Server::new(false));
        let sent = client.due(7, 0).unwrap();
        let mut offer = |preference, duid| {
            server.network.duid = vec![duid];
            let mut offer = server.answer(&sent, 0);
            offer.options.put(code::PREFERENCE, [preference]);
            bytes(offer)
        };
        for (preference, duid) in [(3, 1), (9, 2), (4, 3)] {
            client.receive(&offer(preference, duid), 1);
        }
        let mut hasty = client.clone();
        hasty.receive(&offer(255, 4), 2);

        let chosen = |client: &mut LeaseClient, now| {
            let request = Packet::parse(&client.due(7, now).unwrap()).unwrap().message;
            request.options.get(code::SERVER_ID).unwrap().to_vec()
        };
        assert_eq!(chosen(&mut hasty, 2), [4]);
        assert_eq!(client.due(7, 2), None);
        let when = client.wake();
        assert_eq!(chosen(&mut client, when), [2]);
    }

    #[test]
    fn a_lease_is_renewed_then_rebound_then_lost() {
        let (mut client, mut server) = (client(), Server::new(true));
        exchange(&mut client, &mut server);
        assert_eq!(client.wake(), 300 * SECOND);
        let (sent, renewed) = exchange(&mut client, &mut server);
        assert!(renewed && sent.kind == MessageType::Renew);
        assert_eq!(client.wake(), 600 * SECOND);

        let asked = kinds(&mut client, 2_000 * SECOND);

        assert_eq!(asked, [MessageType::Renew, MessageType::Rebind, MessageType::Solicit]);
        assert_eq!(client.lease(), None);
    }

    #[test]
    fn a_lease_without_a_time_to_renew_it_is_rebound() {
        let (mut client, mut server) = (client(), Server::new(true));
        let mut reply = server.answer(&client.due(7, 0).unwrap(), 0);
        let ia = reply.options.0.iter_mut().find(|(code, _)| *code == code::IA_NA).unwrap();
        // T1, T2 and preferred lifetime of zero.
        ia.1[4..12].fill(0);
        ia.1[32..36].fill(0);
        assert!(client.receive(&bytes(reply), 0));

        assert_eq!(client.wake(), SECOND);
        assert_eq!(kinds(&mut client, 20 * SECOND), [MessageType::Rebind]);
    }

    #[test]
    fn a_server_that_forgot_the_binding_is_asked_for_it_anew() {
        let (mut client, mut server) = (client(), Server::new(true));
        exchange(&mut client, &mut server);
        let now = client.wake();
        let renew = client.due(7, now).unwrap();
        let mut refusal = server.answer(&renew, now);
        let ia = refusal.options.0.iter_mut().find(|(code, _)| *code == code::IA_NA).unwrap();
        ia.1.truncate(12);
        ia.1.extend([0, 13, 0, 2, 0, 3]);

        client.receive(&bytes(refusal), now);

        let (sent, brought) = exchange(&mut client, &mut server);
        assert!(brought && sent.kind == MessageType::Request);
    }

    #[test]
    fn an_address_is_given_back_and_nothing_said_after_that() {
        let (mut client, mut server) = (client(), Server::new(true));
        exchange(&mut client, &mut server);

        client.release(SECOND);
        let (sent, _) = exchange(&mut client, &mut server);

        assert_eq!((sent.kind, client.lease()), (MessageType::Release, None));
        assert_eq!(client.wake(), NEVER);
        assert!(server.leases.of(&of_card(Mac([2, 0, 0, 0, 0, 7]))).unwrap().until() <= 1);
    }

    #[test]
    fn an_answer_whose_last_option_is_cut_off_still_brings_an_address() {
        let (mut client, mut server) = (client(), Server::new(true));
        let now = client.wake();
        let sent = client.due(7, now).unwrap();
        let reply = bytes(server.answer(&sent, now));

        assert!(client.receive(&[&reply[..], &[0, 24, 0, 9, 4]].concat(), now));

        assert!(client.lease().is_some());
    }

    #[test]
    fn an_address_that_another_uses_is_declined_for_another_one() {
        let (mut client, mut server) = (client(), Server::new(true));
        exchange(&mut client, &mut server);
        let first = client.lease().unwrap().address;

        client.decline(SECOND);
        let (sent, _) = exchange(&mut client, &mut server);
        exchange(&mut client, &mut server);

        assert_eq!(sent.kind, MessageType::Decline);
        assert_ne!(client.lease().unwrap().address, first);
    }

    #[test]
    fn settings_alone_are_asked_for_again_when_the_server_says() {
        let mut client = LeaseClient::for_settings(DUID.to_vec(), 0, 0);
        let mut server = Server::new(true);

        let (sent, brought) = exchange(&mut client, &mut server);

        assert!(brought && sent.kind == MessageType::InformationRequest);
        assert_eq!(sent.options.get(code::IA_NA), None);
        assert_eq!(client.name_servers().unwrap().len(), 1);
        assert_eq!(client.wake(), 600 * SECOND);
        assert!(exchange(&mut client, &mut server).1);
    }

    #[test]
    fn settings_alone_are_asked_for_again_the_next_day_where_the_server_does_not_say_when() {
        let mut client = LeaseClient::for_settings(DUID.to_vec(), 0, 0);
        let mut answer = Server::new(true).answer(&client.due(7, 0).unwrap(), 0);
        answer.options.0.retain(|(code, _)| *code != code::REFRESH_TIME);

        assert!(client.receive(&bytes(answer), 0));

        assert_eq!(client.wake(), u64::from(REFRESH) * SECOND);
    }

    #[test]
    fn time_servers_are_those_with_an_address_in_the_newer_option_else_in_the_older_one() {
        let [new, old] = ["fd00::123", "fd00::124"].map(|it| it.parse::<Ipv6Addr>().unwrap());
        // One server by name, then one by address (RFC 5908 §4.3, §4.1).
        let named = [&[0, 3, 0, 3, 1, b'a', 0][..], &[0, 1, 0, 16], &new.octets()].concat();
        let told = |options: &[(u16, &[u8])]| {
            let (mut client, mut server) = (client(), Server::new(true));
            let mut answer = server.answer(&client.due(7, 0).unwrap(), 0);
            for (code, value) in options {
                answer.options.put(*code, *value);
            }
            assert!(client.receive(&bytes(answer), 0));
            assert_eq!(client.time_servers(), client.lease().map(|lease| &lease.ntp[..]));
            client.time_servers().unwrap().to_vec()
        };

        assert_eq!(told(&[]), Vec::<Ipv6Addr>::new());
        assert_eq!(told(&[(code::SNTP, &old.octets())]), [old]);
        assert_eq!(told(&[(code::SNTP, &old.octets()), (code::NTP, &named)]), [new]);
    }

    #[test]
    fn answers_to_somebody_else_are_not_taken() {
        let (mut client, mut server) = (client(), Server::new(true));
        let sent = client.due(7, 0).unwrap();
        let good = server.answer(&sent, 0);
        let mut others = good.clone();
        others.transaction = [9; 3];
        assert!(!client.receive(&bytes(others), 0));
        let mut others = good.clone();
        others.options.0[0].1 = vec![0, 3, 0, 1, 9];
        assert!(!client.receive(&bytes(others), 0));

        assert!(client.receive(&bytes(good), 0));
    }

    proptest! {
        #[test]
        fn waits_double_with_a_tenth_of_chance_up_to_the_longest(dice: [u32; 12]) {
            let mut client = LeaseClient::new(DUID.to_vec(), 5, dice[0], 0);
            prop_assert!(client.wake() < SECOND);
            let mut last = 0;
            for (sent, random) in dice.into_iter().enumerate() {
                let now = client.wake();
                client.due(random, now).unwrap();
                let wait = client.wake() - now;
                let (least, most) = match sent {
                    0 => (SECOND + 1, SECOND * 11 / 10),
                    _ if 2 * last > 120 * SECOND => (108 * SECOND, 132 * SECOND),
                    _ => (last * 19 / 10, last * 21 / 10),
                };
                prop_assert!((least..=most + 1).contains(&wait), "wait {sent} is {wait} ms");
                last = wait;
            }
        }

        #[test]
        fn no_bytes_panic_nor_stop_the_clock(
            came in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..20),
            random: u32,
        ) {
            let mut client = LeaseClient::new(DUID.to_vec(), 5, random, 0);
            for options in came {
                let now = client.wake();
                if now == NEVER {
                    break;
                }
                prop_assert!(client.due(random, now).is_some());
                prop_assert!(client.wake() > now);
                let mut reply = vec![7];
                reply.extend(client.transaction);
                reply.extend([0, 1, 0, 10].iter().chain(&DUID));
                reply.extend([0, 2, 0, 1, 9, 0, 14, 0, 0, 0, 3, 0, 12 + options.len() as u8]);
                reply.extend([0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0]);
                client.receive(&[reply, options].concat(), now);
            }
        }
    }
}
