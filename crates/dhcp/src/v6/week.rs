//! A simulated week of a data hall over IPv6, in memory: machines with another identifier at each boot stage, systems
//! with one identifier on hidden cards, floods of invented clients, forged and damaged messages, and a server that is
//! killed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::Ipv6Addr;

use hardware::Mac;
use ipnet::Ipv6Net;
use proptest::prelude::*;

use super::client_identity::{Client, of_card};
use super::decide::{Decision, decide};
use super::options as code;
use super::packet::tests::relayed;
use super::packet::{Message, MessageType, Options, Packet, Relay, address};
use super::reply::Network;
use crate::answer::Answer;
use crate::journal::read;
use crate::leases::{LeaseClaim, LeaseHolder, LeasePool, LeaseTable, Seconds};
use crate::limits::{RateLimits, Rates};

const WEEK: Seconds = 7 * 24 * 3_600;
const LEASE: u32 = 6 * 3_600;
/// Number of machines in each subnet.
const MACHINES: u16 = 150;
const POOL: u128 = 300;
/// Number of addresses kept for known machines.
const KEPT: usize = 75;
/// Number of invented clients in one flood.
const FLOOD: u32 = 600;
const SERVER: [u8; 4] = [0, 2, 1, 2];
/// A bit in the fourth byte of a hidden MAC address.
const HIDES: u8 = 0x80;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2, ..ProptestConfig::default() })]

    #[test]
    fn in_a_week_no_address_has_two_users_and_none_is_lost(seed: u64) {
        let mut hall = Hall::new(seed);

        hall.live_until(WEEK);

        prop_assert!(hall.leased > 10_000, "only {} leases were given", hall.leased);
        prop_assert!(hall.in_vain > 1_000, "the floods were not felt");
        hall.everything_can_be_had_again(2 * WEEK);
    }
}

/// The state of the simulation.
struct Hall {
    dice: Dice,
    subnets: Vec<Subnet>,
    limits: RateLimits,
    machines: Vec<Machine>,
    /// Future events, the next one first.
    agenda: BinaryHeap<Reverse<(Seconds, Event)>>,
    /// The leases as the clients see them.
    uses: HashMap<Ipv6Addr, Vec<Use>>,
    leased: u32,
    /// Number of flood clients that got no address.
    in_vain: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Machine(usize),
    Flood,
    Forgery,
    Noise,
    Restart,
}

struct Use {
    /// The machine, by its card, visible or hidden.
    user: Mac,
    duid: Vec<u8>,
    ia: u32,
    until: Seconds,
}

struct Machine {
    mac: Mac,
    subnet: usize,
    /// The current or last address, with its DUID and IAID.
    last: Option<(Vec<u8>, u32, Ipv6Addr)>,
    is_on: bool,
    /// Whether the running software hides the card.
    hides: bool,
}

struct Subnet {
    leases: LeaseTable<Ipv6Addr>,
    network: Network,
    /// The relay of its requests, if it is not on the link itself.
    relay: Option<Ipv6Addr>,
    journal: Vec<u8>,
}

/// A message before its encoding.
struct Said<'a> {
    mac: Mac,
    kind: MessageType,
    duid: &'a [u8],
    ia: u32,
    address: Option<Ipv6Addr>,
}

impl Hall {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed | 1);
        let mut machines = Vec::new();
        for subnet in 0..2 {
            for number in 0..MACHINES {
                let mac = mac(u8::try_from(subnet).unwrap(), number);
                machines.push(Machine { mac, subnet, last: None, is_on: false, hides: false });
            }
        }
        let mut agenda = BinaryHeap::new();
        for at in 0..machines.len() {
            agenda.push(Reverse((dice.below(3_600), Event::Machine(at))));
        }
        for event in [Event::Flood, Event::Forgery, Event::Noise, Event::Restart] {
            agenda.push(Reverse((0, event)));
        }
        let relay = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1);
        Self {
            dice,
            subnets: vec![Subnet::new(0, None), Subnet::new(1, Some(relay))],
            limits: RateLimits::new(Rates::default(), seed),
            machines,
            agenda,
            uses: HashMap::new(),
            leased: 0,
            in_vain: 0,
        }
    }

    fn live_until(&mut self, end: Seconds) {
        while let Some(Reverse((now, event))) = self.agenda.pop()
            && now < end
        {
            let wait = match event {
                Event::Machine(at) => self.machine(at, now),
                Event::Flood => self.flood(now),
                Event::Forgery => self.forgery(now),
                Event::Noise => self.noise(now),
                Event::Restart => self.restart(now),
            };
            self.agenda.push(Reverse((now + wait, event)));
        }
    }

    /// A machine's next action; returns the seconds until the one after.
    fn machine(&mut self, at: usize, now: Seconds) -> Seconds {
        let chance = self.dice.below(100);
        match self.machines[at].is_on {
            true if chance < 80 => self.renew(at, now),
            true => self.turn_off(at, now),
            false => self.boot(at, now),
        }
    }

    /// Firmware with a new IAID each time, then a loader, then a system, reinstalled or not.
    fn boot(&mut self, at: usize, now: Seconds) -> Seconds {
        let Machine { mac, .. } = self.machines[at];
        let firmware = [&[0, 4][..], &[7; 10], &mac.0].concat();
        let loader = [&[0, 3, 0, 1][..], &mac.0].concat();
        let installed = [0, 0, 0, u8::try_from(self.dice.below(3)).unwrap()];
        let system = [&[0, 1, 0, 1][..], &installed, &mac.0].concat();
        // A DUID that all boards of one vendor share.
        let twin = [&[0, 4][..], &[3; 16]].concat();
        let hides = mac.0[5] % 3 == 0;
        let system = if hides { twin } else { system };
        let ia = u32::try_from(self.dice.below(u32::MAX.into())).unwrap();
        for (duid, ia) in [(firmware, ia), (loader, 1), (system, 2)] {
            self.machines[at].hides = hides && ia == 2;
            let Some(address) = self.ask(at, &duid, ia, now) else { return 600 };
            match self.dice.below(100) {
                0..3 => {
                    self.say(at, MessageType::Decline, &duid, ia, Some(address), now);
                    self.machines[at].last = None;
                    return 60;
                }
                // EDK2 releases its address before it starts the loader.
                3..50 if duid[1] == 4 => {
                    self.say(at, MessageType::Release, &duid, ia, Some(address), now);
                }
                _ => self.machines[at].last = Some((duid, ia, address)),
            }
        }
        self.machines[at].is_on = true;
        u64::from(LEASE) / 2
    }

    fn ask(&mut self, at: usize, duid: &[u8], ia: u32, now: Seconds) -> Option<Ipv6Addr> {
        let hint = self.machines[at].last.as_ref().map(|(_, _, address)| *address);
        let advertise = self.say(at, MessageType::Solicit, duid, ia, hint, now)?;
        assert_eq!(advertise.kind, MessageType::Advertise);
        let (offered, _) = granted(&advertise)?;
        let reply = self.say(at, MessageType::Request, duid, ia, Some(offered), now)?;
        let (address, _) = granted(&reply)?;
        Some(address)
    }

    fn renew(&mut self, at: usize, now: Seconds) -> Seconds {
        let Some((duid, ia, had)) = self.machines[at].last.clone() else {
            return self.boot(at, now);
        };
        let kind = match self.dice.below(4) {
            0 => MessageType::Rebind,
            1 => MessageType::Confirm,
            _ => MessageType::Renew,
        };
        let reply = self.say(at, kind, &duid, ia, Some(had), now);
        if kind == MessageType::Confirm {
            let status = reply.as_ref().and_then(|reply| reply.options.get(code::STATUS));
            assert!(status.is_none_or(|status| status.starts_with(&[0, 0])), "it is on its link");
            return 600;
        }
        match reply.as_ref().and_then(granted) {
            Some((address, _)) => {
                self.machines[at].last = Some((duid, ia, address));
                u64::from(LEASE) / 2
            }
            None => self.boot(at, now),
        }
    }

    /// A machine is switched off, with or without a RELEASE.
    fn turn_off(&mut self, at: usize, now: Seconds) -> Seconds {
        self.machines[at].is_on = false;
        if self.dice.below(2) == 0
            && let Some((duid, ia, address)) = self.machines[at].last.clone()
        {
            self.say(at, MessageType::Release, &duid, ia, Some(address), now);
        }
        self.dice.below(48 * 3_600)
    }

    /// A flood of invented clients, as many as the limits admit.
    fn flood(&mut self, now: Seconds) -> Seconds {
        for _ in 0..FLOOD {
            let mac = mac(9, u16::try_from(self.dice.below(60_000)).unwrap());
            let subnet = usize::try_from(self.dice.below(2)).unwrap();
            let duid = [&[0, 3, 0, 1][..], &mac.0].concat();
            let said = |kind, address| Said { mac, kind, duid: &duid, ia: 0, address };
            let solicit = said(MessageType::Solicit, None).emit(&self.subnets[subnet]);
            let advertise = self.hear(subnet, &solicit, mac, LeaseHolder::Guest, now);
            let Some((offered, _)) = advertise.as_ref().and_then(granted) else {
                self.in_vain += 1;
                continue;
            };
            let next: &[_] = match self.dice.below(10) {
                0..5 => &[],
                5..8 => &[MessageType::Request],
                8 => &[MessageType::Request, MessageType::Release],
                _ => &[MessageType::Decline],
            };
            for kind in next {
                let bytes = said(*kind, Some(offered)).emit(&self.subnets[subnet]);
                self.hear(subnet, &bytes, mac, LeaseHolder::Guest, now);
            }
        }
        1_800 + self.dice.below(12 * 3_600)
    }

    /// Forged messages about other machines' leases, with their DUIDs but from another card.
    fn forgery(&mut self, now: Seconds) -> Seconds {
        let victim = usize::try_from(self.dice.below(self.machines.len() as u64)).unwrap();
        let Machine { subnet, last, .. } = &self.machines[victim];
        let (subnet, Some((duid, ia, address))) = (*subnet, last.clone()) else { return 60 };
        for kind in MessageType::ALL {
            let mac = mac(8, u16::try_from(self.dice.below(200)).unwrap());
            let said = Said { mac, kind, duid: &duid, ia, address: Some(address) };
            let bytes = said.emit(&self.subnets[subnet]);
            self.hear(subnet, &bytes, mac, LeaseHolder::Guest, now);
        }
        300 + self.dice.below(3_600)
    }

    /// Messages damaged in transit.
    fn noise(&mut self, now: Seconds) -> Seconds {
        for kind in MessageType::ALL {
            let mac = mac(7, u16::try_from(self.dice.below(200)).unwrap());
            let subnet = usize::try_from(self.dice.below(2)).unwrap();
            let first = u128::from(self.subnets[subnet].leases.pool().first);
            let address = Some(Ipv6Addr::from(first + u128::from(self.dice.below(700))));
            let said = Said { mac, kind, duid: &[0, 2, 9, 9], ia: 3, address };
            let mut bytes = said.emit(&self.subnets[subnet]);
            for _ in 0..self.dice.below(4) {
                let at = usize::try_from(self.dice.below(bytes.len() as u64)).unwrap();
                bytes[at] = self.dice.below(256) as u8;
            }
            bytes.truncate(usize::try_from(self.dice.below(300)).unwrap());
            self.hear(subnet, &bytes, mac, LeaseHolder::Guest, now);
        }
        60 + self.dice.below(1_800)
    }

    /// Restarts the server from its journal, which is compacted at times, or torn within a record that no client has
    /// an answer for.
    fn restart(&mut self, now: Seconds) -> Seconds {
        for subnet in &mut self.subnets {
            if self.dice.below(2) == 0 {
                subnet.journal.clear();
                let records = subnet.leases.records();
                records.iter().for_each(|record| record.encode(&mut subnet.journal));
            }
            let torn = usize::try_from(self.dice.below(52)).unwrap();
            subnet.journal.resize(subnet.journal.len() + torn, 1);
            let records = read(&subnet.journal);
            subnet.journal.clear();
            records.iter().for_each(|record| record.encode(&mut subnet.journal));
            subnet.leases = LeaseTable::replay(subnet.leases.pool(), [], records, now);
        }
        self.dice.below(24 * 3_600)
    }

    fn say(
        &mut self,
        at: usize,
        kind: MessageType,
        duid: &[u8],
        ia: u32,
        address: Option<Ipv6Addr>,
        now: Seconds,
    ) -> Option<Message> {
        let Machine { mac, subnet, hides, .. } = self.machines[at];
        let mac = if hides { hidden(mac) } else { mac };
        let said = Said { mac, kind, duid, ia, address };
        let bytes = said.emit(&self.subnets[subnet]);
        self.hear(subnet, &bytes, mac, LeaseHolder::Known, now)
    }

    /// The server's answer, as the client parses it. A client that releases an address stops using it; a client that
    /// gets an address uses it.
    fn hear(
        &mut self,
        subnet: usize,
        bytes: &[u8],
        from: Mac,
        holder: LeaseHolder,
        now: Seconds,
    ) -> Option<Message> {
        let packet = Packet::parse(bytes).ok()?;
        let client = Client::identify(&packet, link_local(from));
        let user = client.card.unwrap_or_else(|| seen(from));
        let request = &packet.message;
        if matches!(request.kind, MessageType::Release | MessageType::Decline) {
            self.stop_using(request, user, &client.duid);
        }
        self.limits.admit(&client.owner().identity(), holder, now * 1_000).ok()?;
        let Subnet { leases, network, journal, .. } = &mut self.subnets[subnet];
        let answer = Answer::Boot("http://[fd00::1]:8080/boot/x/bootx64.efi".to_owned());
        let claim = match holder {
            LeaseHolder::Known => LeaseClaim::Known,
            LeaseHolder::Guest => LeaseClaim::Guest { keep: KEPT },
        };
        let decision = decide(request, &client, &answer, claim, leases, network, now);
        let Decision::Send { reply, records, .. } = decision else { return None };
        records.iter().for_each(|record| record.encode(journal));
        let back = packet.answered_by(reply);
        assert_eq!(Packet::parse(&back.emit()).as_ref(), Ok(&back));
        if back.message.kind == MessageType::Reply {
            self.note(&back.message, user, &client.duid, now);
        }
        Some(back.message)
    }

    fn stop_using(&mut self, request: &Message, user: Mac, duid: &[u8]) {
        let declines = request.kind == MessageType::Decline;
        for ia in request.ias() {
            for address in &ia.addresses {
                let Some(uses) = self.uses.get_mut(address) else { continue };
                let ends = |one: &Use| declines || (one.ia == ia.id && one.duid == duid);
                uses.retain(|one| one.user != user || !ends(one));
            }
        }
    }

    /// Checks the main property: no two machines use the same address.
    fn note(&mut self, reply: &Message, user: Mac, duid: &[u8], now: Seconds) {
        for (ia, address, secs) in grants(reply) {
            let uses = self.uses.entry(address).or_default();
            uses.retain(|one| one.until > now);
            if secs == 0 {
                uses.retain(|one| one.user != user);
                continue;
            }
            self.leased += 1;
            let other = uses.iter().find(|one| one.user != user);
            assert!(other.is_none(), "{address} is given to {user:x?} while another uses it");
            uses.retain(|one| one.ia != ia || one.duid != duid);
            let until = now + u64::from(secs);
            uses.push(Use { user, duid: duid.to_vec(), ia, until });
        }
    }

    fn everything_can_be_had_again(&mut self, now: Seconds) {
        for Subnet { leases, .. } in &mut self.subnets {
            let newcomers = (0..).map(|number| of_card(mac(6, number)));
            let had: Vec<_> = newcomers
                .map_while(|identity| leases.offer(identity, None, LeaseClaim::Known, now))
                .collect();
            assert_eq!(had.len() as u128, POOL);
        }
    }
}

impl Subnet {
    fn new(number: u16, relay: Option<Ipv6Addr>) -> Self {
        let first = Ipv6Addr::new(0xfd00, number, 0, 0, 0, 0, 1, 0);
        let last = Ipv6Addr::from(u128::from(first) + POOL - 1);
        let dns = vec![Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x53)];
        Self {
            leases: LeaseTable::new(LeasePool { first, last }, []),
            network: Network {
                net: Ipv6Net::new(first, 64).unwrap().trunc(),
                duid: SERVER.to_vec(),
                sole: true,
                dns,
                domain: None,
                ntp: Vec::new(),
                lease_secs: LEASE,
                foreign_pools: std::sync::Arc::default(),
            },
            relay,
            journal: Vec::new(),
        }
    }
}

impl Said<'_> {
    /// The bytes that reach the server, through the subnet's relay if there is one.
    fn emit(&self, subnet: &Subnet) -> Vec<u8> {
        let Self { mac, kind, duid, ia, address, .. } = *self;
        let mut options = Options::default();
        options.put(code::CLIENT_ID, duid);
        let to_any = [MessageType::Solicit, MessageType::Confirm, MessageType::Rebind];
        if !to_any.contains(&kind) {
            options.put(code::SERVER_ID, SERVER);
        }
        let mut association = [ia, 0, 0].map(u32::to_be_bytes).concat();
        let mut inner = Options::default();
        if let Some(address) = address {
            inner.put(code::IA_ADDRESS, [&address.octets()[..], &[0; 8]].concat());
        }
        inner.emit_into(&mut association);
        options.put(code::IA_NA, association);
        let message = Message { kind, transaction: [1, 2, 3], options };
        let relay = subnet.relay.map(|link| Relay {
            hops: 0,
            link,
            peer: link_local(mac),
            options: Options(vec![(code::INTERFACE_ID, b"port 7".to_vec())]),
        });
        let seen = (code::CLIENT_LINK_LAYER, [&[0, 1][..], &mac.0].concat());
        let relay = relay.map(|mut relay| {
            relay.options.0.extend((mac.0[3] & HIDES == 0).then_some(seen));
            relay
        });
        relayed(relay.as_slice(), &message)
    }
}

/// The first address that an answer grants the client.
fn granted(reply: &Message) -> Option<(Ipv6Addr, u32)> {
    let (_, address, secs) = grants(reply).find(|(_, _, secs)| *secs > 0)?;
    Some((address, secs))
}

/// IAID, address and valid lifetime.
fn grants(reply: &Message) -> impl Iterator<Item = (u32, Ipv6Addr, u32)> {
    reply.options.all(code::IA_NA).flat_map(|value| {
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        let inner = Options::parse(&value[12..]);
        let lease = |lease: &[u8]| (address(lease, 0).unwrap(), number(&lease[20..24]));
        let leases: Vec<_> = inner.all(code::IA_ADDRESS).map(lease).collect();
        leases.into_iter().map(move |(address, secs)| (number(&value[..4]), address, secs))
    })
}

fn mac(kind: u8, number: u16) -> Mac {
    let [high, low] = number.to_be_bytes();
    Mac([2, 0, 0, kind, high, low])
}

/// The placeholder of a hidden card.
fn hidden(Mac([a, b, c, d, e, f]): Mac) -> Mac {
    Mac([a, b, c, d | HIDES, e, f])
}

/// The card behind the placeholder.
fn seen(Mac([a, b, c, d, e, f]): Mac) -> Mac {
    Mac([a, b, c, d & !HIDES, e, f])
}

/// RFC 4291, appendix A, or an address that contains no MAC address.
fn link_local(Mac([a, b, c, d, e, f]): Mac) -> Ipv6Addr {
    if d & HIDES != 0 {
        return Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a, b, c, d, 0, 0, e, f]);
    }
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 0b10, b, c, 0xff, 0xfe, d, e, f])
}

/// Marsaglia's xorshift.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
