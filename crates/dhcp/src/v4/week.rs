//! A simulated week of a data hall, in memory: machines that boot, renew and vanish, strangers, floods of invented
//! clients, forged messages, and a server that is killed at times.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::Ipv4Addr;

use hardware::Mac;
use proptest::prelude::*;

use super::decide::{Decision, decide};
use super::options as code;
use super::packet::tests::discover;
use super::packet::{MessageType, Packet};
use super::reply::Network;
use crate::answer::Answer;
use crate::journal::LeaseRecord;
use crate::leases::{LeaseClaim, LeaseHolder, LeasePool, LeaseTable, Seconds};
use crate::limits::{RateLimits, Rates};

const WEEK: Seconds = 7 * 24 * 3_600;
const LEASE: u32 = 6 * 3_600;
/// Number of known machines, and of strangers, in each subnet. The pool has room for both and little more: over half
/// of it is for known machines.
const KNOWN: u16 = 150;
const STRANGERS: u16 = 60;
const POOL: u16 = 220;
/// Number of known machines with a reservation, the first of them inside of the pool.
const RESERVED: u16 = 10;
const RESERVED_IN_POOL: u16 = 5;
/// Number of invented clients in one flood.
const FLOOD: u32 = 600;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2, ..ProptestConfig::default() })]

    #[test]
    fn in_a_week_no_address_is_given_twice_none_is_lost_and_known_machines_always_get_one(
        seed: u64,
    ) {
        let mut hall = Hall::new(seed);

        hall.live_until(WEEK);

        prop_assert!(hall.acks > 10_000, "only {} leases were given", hall.acks);
        prop_assert!(hall.refused_guests > 1_000, "the floods were not felt");
        hall.everything_can_be_had_again(2 * WEEK);
    }
}

/// The state of the simulation.
struct Hall {
    dice: Dice,
    server: Server,
    machines: Vec<Machine>,
    /// Future events, the next one first.
    agenda: BinaryHeap<Reverse<(Seconds, Event)>>,
    /// The leases as the clients see them, with their ends.
    held: HashMap<Ipv4Addr, (Mac, Seconds)>,
    acks: u32,
    refused_guests: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Machine(usize),
    Flood,
    Forgery,
    Restart,
}

struct Machine {
    mac: Mac,
    subnet: usize,
    holder: LeaseHolder,
    /// The current or last address.
    address: Option<Ipv4Addr>,
    is_on: bool,
}

struct Server {
    subnets: Vec<Subnet>,
    limits: RateLimits,
    answer: Answer,
}

struct Subnet {
    leases: LeaseTable<Ipv4Addr>,
    pool: LeasePool<Ipv4Addr>,
    reservations: Vec<(Mac, Ipv4Addr)>,
    network: Network,
    /// The relay of its requests, if it is not on the link itself.
    relay: Ipv4Addr,
    journal: Vec<LeaseRecord<Ipv4Addr>>,
}

impl Hall {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed | 1);
        let mut machines = Vec::new();
        for subnet in 0..2 {
            for number in 0..KNOWN + STRANGERS {
                let holder = if number < KNOWN { LeaseHolder::Known } else { LeaseHolder::Guest };
                let mac = mac(subnet, number);
                machines.push(Machine { mac, subnet, holder, address: None, is_on: false });
            }
        }
        let mut agenda = BinaryHeap::new();
        for at in 0..machines.len() {
            agenda.push(Reverse((dice.below(3_600), Event::Machine(at))));
        }
        // The first flood finds the pools empty.
        for event in [Event::Flood, Event::Forgery, Event::Restart] {
            agenda.push(Reverse((0, event)));
        }
        let server = Server::new(seed);
        let held = HashMap::new();
        Self { dice, server, machines, agenda, held, acks: 0, refused_guests: 0 }
    }

    fn live_until(&mut self, end: Seconds) {
        while let Some(Reverse((now, event))) = self.agenda.pop()
            && now < end
        {
            let wait = match event {
                Event::Machine(at) => self.machine(at, now),
                Event::Flood => self.flood(now),
                Event::Forgery => self.forgery(now),
                Event::Restart => self.restart(now),
            };
            self.agenda.push(Reverse((now + wait, event)));
        }
    }

    /// A machine's next action; returns the seconds until the one after.
    fn machine(&mut self, at: usize, now: Seconds) -> Seconds {
        let chance = self.dice.below(100);
        let is_on = self.machines[at].is_on;
        match chance {
            0..80 if is_on => self.renew(at, now),
            _ if is_on => self.turn_off(at, now),
            0..30 => self.come_back(at, now),
            _ => self.boot(at, now),
        }
    }

    /// Firmware, then a loader, then a system: each requests an address.
    fn boot(&mut self, at: usize, now: Seconds) -> Seconds {
        for _ in 0..3 {
            let Some(address) = self.four_messages(at, now) else {
                let Machine { mac, holder, .. } = self.machines[at];
                assert_eq!(holder, LeaseHolder::Guest, "{mac:x?} got no address at {now}");
                return 600;
            };
            if self.dice.below(100) < 3 {
                let mut decline = self.packet(at, MessageType::Decline);
                put(&mut decline, code::REQUESTED_ADDRESS, address);
                self.give_up(at);
                self.say(at, &decline, now);
            }
        }
        let has_one = self.machines[at].address.is_some() || self.four_messages(at, now).is_some();
        self.machines[at].is_on = has_one;
        u64::from(LEASE) / 2
    }

    fn four_messages(&mut self, at: usize, now: Seconds) -> Option<Ipv4Addr> {
        let discover = self.packet(at, MessageType::Discover);
        let offer = self.say(at, &discover, now)?;
        assert_eq!(offer.message, MessageType::Offer);
        let mut request = self.packet(at, MessageType::Request);
        put(&mut request, code::REQUESTED_ADDRESS, offer.yiaddr);
        put(&mut request, code::SERVER_ID, offer.option_address(code::SERVER_ID).unwrap());
        let ack = self.say(at, &request, now)?;
        self.take(at, &ack, now)
    }

    fn come_back(&mut self, at: usize, now: Seconds) -> Seconds {
        let Some(address) = self.machines[at].address else { return self.boot(at, now) };
        let mut request = self.packet(at, MessageType::Request);
        put(&mut request, code::REQUESTED_ADDRESS, address);
        self.ask_for_what_it_had(at, &request, now)
    }

    fn renew(&mut self, at: usize, now: Seconds) -> Seconds {
        let Some(address) = self.machines[at].address else { return self.boot(at, now) };
        let mut request = self.packet(at, MessageType::Request);
        request.ciaddr = address;
        // Half of the renewals are too late for unicast (T2), and are broadcast.
        if self.dice.below(2) == 0 {
            request.giaddr = Ipv4Addr::UNSPECIFIED;
        }
        self.ask_for_what_it_had(at, &request, now)
    }

    fn ask_for_what_it_had(&mut self, at: usize, request: &Packet, now: Seconds) -> Seconds {
        let taken = self.say(at, request, now).and_then(|reply| self.take(at, &reply, now));
        if taken.is_none() {
            return self.boot(at, now);
        }
        self.machines[at].is_on = true;
        u64::from(LEASE) / 2
    }

    /// A machine is switched off, with or without a RELEASE.
    fn turn_off(&mut self, at: usize, now: Seconds) -> Seconds {
        self.machines[at].is_on = false;
        if self.dice.below(2) == 0
            && let Some(address) = self.machines[at].address
        {
            let mut release = self.packet(at, MessageType::Release);
            release.ciaddr = address;
            self.held.remove(&address);
            self.say(at, &release, now);
        }
        self.dice.below(48 * 3_600)
    }

    /// A flood of invented clients, as many as the limits admit.
    fn flood(&mut self, now: Seconds) -> Seconds {
        for _ in 0..FLOOD {
            let mac = mac(9, u16::try_from(self.dice.below(60_000)).unwrap());
            let subnet = usize::try_from(self.dice.below(2)).unwrap();
            let mut discover = Packet { chaddr: mac, ..discover(mac) };
            discover.giaddr = self.server.subnets[subnet].relay;
            let Some(offer) = self.server.hear(subnet, &discover, LeaseHolder::Guest, now) else {
                self.refused_guests += 1;
                continue;
            };
            let mut next = Packet { message: MessageType::Request, ..discover };
            put(&mut next, code::REQUESTED_ADDRESS, offer.yiaddr);
            let said = self.dice.below(10);
            if said < 5 {
                continue;
            }
            put(&mut next, code::SERVER_ID, offer.option_address(code::SERVER_ID).unwrap());
            if let Some(ack) = self.server.hear(subnet, &next, LeaseHolder::Guest, now) {
                self.note(mac, &ack, now);
            }
            if said < 8 {
                continue;
            }
            next.message = MessageType::Decline;
            self.held.remove(&offer.yiaddr);
            self.server.hear(subnet, &next, LeaseHolder::Guest, now);
        }
        1_800 + self.dice.below(12 * 3_600)
    }

    /// Forged messages about other machines' leases.
    fn forgery(&mut self, now: Seconds) -> Seconds {
        let victim = usize::try_from(self.dice.below(self.machines.len() as u64)).unwrap();
        let Machine { mac: theirs, subnet, address, holder, .. } = self.machines[victim];
        let Some(address) = address else { return 60 };
        let has_it = |(mac, until): &(Mac, Seconds)| *mac == theirs && *until > now;
        let is_theirs = self.held.get(&address).is_some_and(has_it);
        for message in MessageType::ALL {
            let mut forged = self.packet(victim, message);
            forged.chaddr = mac(8, u16::try_from(self.dice.below(200)).unwrap());
            forged.ciaddr = address;
            put(&mut forged, code::REQUESTED_ADDRESS, address);
            let said = self.server.hear(subnet, &forged, LeaseHolder::Guest, now);
            let got_it = said.is_some_and(|reply| reply.yiaddr == address);
            assert!(!(got_it && is_theirs && message != MessageType::Inform), "{message:?}");
        }
        // With the victim's own MAC address the message is equal to the victim's, as long as it releases nothing.
        let discover = Packet { chaddr: theirs, ..self.packet(victim, MessageType::Discover) };
        for _ in 0..5 {
            self.server.hear(subnet, &discover, holder, now);
        }
        300 + self.dice.below(3_600)
    }

    /// Restarts the server from its journal, which is compacted at times.
    fn restart(&mut self, now: Seconds) -> Seconds {
        for subnet in &mut self.server.subnets {
            if self.dice.below(2) == 0 {
                subnet.journal = subnet.leases.records();
            }
            let records = subnet.journal.iter().copied();
            subnet.leases =
                LeaseTable::replay(subnet.pool, subnet.reservations.iter().copied(), records, now);
        }
        self.dice.below(24 * 3_600)
    }

    /// A machine's message, as its relay forwards it.
    fn packet(&self, at: usize, message: MessageType) -> Packet {
        let Machine { mac, subnet, .. } = self.machines[at];
        Packet { message, giaddr: self.server.subnets[subnet].relay, ..discover(mac) }
    }

    fn say(&mut self, at: usize, packet: &Packet, now: Seconds) -> Option<Packet> {
        let Machine { subnet, holder, .. } = self.machines[at];
        self.server.hear(subnet, packet, holder, now)
    }

    fn take(&mut self, at: usize, reply: &Packet, now: Seconds) -> Option<Ipv4Addr> {
        self.give_up(at);
        if reply.message != MessageType::Ack {
            assert_eq!(reply.message, MessageType::Nak);
            return None;
        }
        self.machines[at].address = Some(reply.yiaddr);
        self.note(self.machines[at].mac, reply, now);
        Some(reply.yiaddr)
    }

    fn give_up(&mut self, at: usize) {
        let mac = self.machines[at].mac;
        if let Some(address) = self.machines[at].address.take()
            && self.held.get(&address).is_some_and(|(holder, _)| *holder == mac)
        {
            self.held.remove(&address);
        }
    }

    /// Checks the main property: no two machines have the same address.
    fn note(&mut self, mac: Mac, ack: &Packet, now: Seconds) {
        if ack.message != MessageType::Ack {
            return;
        }
        self.acks += 1;
        let until = now + u64::from(ack.option_u32(code::LEASE_TIME).unwrap());
        let before = self.held.insert(ack.yiaddr, (mac, until));
        if let Some((other, until)) = before
            && other != mac
        {
            assert!(until <= now, "{} is {mac}'s and {other}'s at {now}", ack.yiaddr);
        }
    }

    fn everything_can_be_had_again(&mut self, now: Seconds) {
        for subnet in &mut self.server.subnets {
            let newcomers = (0..).map(|number| mac(7, number));
            let had = newcomers
                .map_while(|mac| subnet.leases.offer(mac, None, LeaseClaim::Known, now))
                .count();
            assert_eq!(had, usize::from(POOL - RESERVED_IN_POOL));
        }
    }
}

impl Server {
    fn new(seed: u64) -> Self {
        let relays = [Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(10, 1, 0, 1)];
        let subnets = (0..2).zip(relays).map(|(number, relay)| Subnet::new(number, relay));
        Self {
            subnets: subnets.collect(),
            limits: RateLimits::new(Rates::default(), seed),
            answer: Answer::Boot("http://10.0.0.1:8080/boot/x/bootx64.efi".to_owned()),
        }
    }

    /// The server's answer, as the client parses it.
    fn hear(
        &mut self,
        subnet: usize,
        packet: &Packet,
        holder: LeaseHolder,
        now: Seconds,
    ) -> Option<Packet> {
        self.limits.admit(&packet.chaddr.0, holder, now * 1_000).ok()?;
        let packet = Packet::parse(&packet.emit()).unwrap();
        let Subnet { leases, network, journal, .. } = &mut self.subnets[subnet];
        let claim = match holder {
            LeaseHolder::Known => LeaseClaim::Known,
            LeaseHolder::Guest => LeaseClaim::guest(usize::from(POOL), usize::from(KNOWN)),
        };
        match decide(&packet, &self.answer, claim, leases, network, now) {
            Decision::Send { reply, record } => {
                journal.extend(record);
                let read = Packet::parse(&reply.emit());
                assert_eq!(read.as_ref(), Ok(&reply));
                Some(reply)
            }
            Decision::Note { records } => {
                journal.extend(records);
                None
            }
            Decision::Silent(_) => None,
        }
    }
}

impl Subnet {
    fn new(number: u8, relay: Ipv4Addr) -> Self {
        let address = |last: u16| {
            let [high, low] = last.to_be_bytes();
            Ipv4Addr::new(10, number, high, low)
        };
        let pool = LeasePool { first: address(256), last: address(256 + POOL - 1) };
        // The first reservations are inside of the pool, the rest behind it.
        let reserved = |machine: u16| {
            let at = if machine < RESERVED_IN_POOL { 256 + 3 * machine } else { 1_000 + machine };
            (mac(number.into(), machine), address(at))
        };
        let reservations: Vec<_> = (0..RESERVED).map(reserved).collect();
        let mask = Ipv4Addr::new(255, 255, 0, 0);
        Self {
            leases: LeaseTable::new(pool, reservations.iter().copied()),
            pool,
            reservations,
            network: Network::new(Ipv4Addr::new(10, 0, 0, 1), mask, LEASE),
            relay,
            journal: Vec::new(),
        }
    }
}

fn mac(subnet: usize, number: u16) -> Mac {
    let [high, low] = number.to_be_bytes();
    Mac([2, 0, 0, u8::try_from(subnet).unwrap(), high, low])
}

fn put(packet: &mut Packet, code: u8, address: Ipv4Addr) {
    packet.options.push((code, address.octets().to_vec()));
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
