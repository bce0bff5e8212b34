//! Admission to a port's connections: a decision without sockets about new, evicted and overdue connections.
//!
//! Connections are counted per peer: an IPv4 address, or an IPv6 /64, since a host with one address of it can use any
//! other. A connection with a valid ticket is counted for its node: behind NAT, all machines of a site share one
//! address. A new connection replaces one that fetches nothing, of its own peer first, so that idle connections keep
//! nobody out. A connection with an answer under way is never evicted.
//!
//! Where the service expects a machine, its address is known: its connections evict those of strangers first, and at
//! once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use uuid::Uuid;

/// Time for a new connection to send its request before it can be evicted: concurrent connections of one client must
/// not evict each other.
const GRACE: Duration = Duration::from_millis(250);

/// The same where another connection of the same peer waits. Behind NAT that is another machine: its first segment may be lost,
/// and comes again after TCP's time-out of 1 s (RFC 6298 §2), or the processor may be busy with its neighbours.
const GRACE_OF_PEER: Duration = Duration::from_millis(1500);

/// The same for a TLS handshake that the client has begun: the time for which the client's part was due, in all of its
/// turns. A lost segment comes again after 200 ms, and firmware checks certificates without haste; if it loses a handshake,
/// it gives up the boot. While the handshake waits for the processor, as hundreds do in a storm, it keeps its place.
const HANDSHAKE_GRACE: Duration = Duration::from_millis(750);

/// The same where another connection of the same peer waits: on a path with delay and loss, each flight of a handshake may be late by several retransmissions.
const HANDSHAKE_GRACE_OF_PEER: Duration = Duration::from_secs(3);

/// Limits of a port: number of connections, and their durations.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Number of connections.
    pub connections: usize,
    /// Number of further connections that wait for a place.
    pub waiting: usize,
    /// Number of connections per peer, or per node.
    pub per_peer: usize,
    /// Peers without a limit of their own: proxies, and NAT in front of many machines.
    pub exempt: Vec<IpNet>,
    /// Time from the start, or from the end of an answer, until the first byte of a request or of a TLS handshake.
    pub idle: Duration,
    /// Time from the first byte of a request until the end of its head; with TLS, also from the first byte of the
    /// handshake until the first byte of a request.
    pub head: Duration,
    /// Time from the end of a request's head until the end of its body.
    pub body: Duration,
    /// Time without progress while an answer is sent.
    pub stall: Duration,
    /// Time without a useful answer, since the connection's start or its last useful answer.
    pub fruitless: Duration,
    /// Time for current answers when the daemon ends.
    pub end: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            waiting: 256,
            per_peer: 256,
            exempt: Vec::new(),
            idle: Duration::from_secs(60),
            head: Duration::from_secs(30),
            body: Duration::from_secs(30),
            stall: Duration::from_secs(60),
            fruitless: Duration::from_secs(120),
            end: Duration::from_secs(20),
        }
    }
}

/// A connection's ID; IDs increase in the order of acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnectionId(u64);

/// The phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// No byte of a request has arrived.
    Idle,
    /// The client has begun a TLS handshake, and sent no byte of a request.
    Handshake,
    /// The head of a request is arriving.
    Head,
    /// The body of a request is arriving.
    Body,
    /// The request is complete; its answer is prepared or sent.
    Answer,
}

impl Phase {
    pub(super) const ALL: [Self; 5] =
        [Self::Idle, Self::Handshake, Self::Head, Self::Body, Self::Answer];

    /// The time for which a client may keep the service waiting in the phase before the connection can be evicted,
    /// perhaps for another one `of_its_peer`; `None` if it never can.
    fn grace(self, of_its_peer: bool) -> Option<Duration> {
        match self {
            Self::Idle if of_its_peer => Some(GRACE_OF_PEER),
            Self::Idle | Self::Head | Self::Body => Some(GRACE),
            Self::Handshake if of_its_peer => Some(HANDSHAKE_GRACE_OF_PEER),
            Self::Handshake => Some(HANDSHAKE_GRACE),
            Self::Answer => None,
        }
    }
}

/// The decision about a new connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AdmissionVerdict {
    /// It is served; the connections in `evicted` are to be closed.
    Admitted { id: ConnectionId, evicted: Vec<ConnectionId> },
    /// It waits: its peer has its full share, and each of the peer's connections has an answer under way or is new.
    PeerFull,
    /// It waits: every connection of the port has an answer under way or is new.
    PortFull,
}

/// The reason for ending an admitted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It fetched nothing, and its place was needed.
    Evicted,
    /// No request arrived.
    Idle,
    /// The head of its request was not completed.
    Head,
    /// The body of its request was not completed.
    Body,
    /// Its requests failed for too long.
    Fruitless,
}

impl Ended {
    /// Its label in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Idle => "idle",
            Self::Head => "slow_head",
            Self::Body => "slow_body",
            Self::Fruitless => "fetches_nothing",
        }
    }
}

/// The account of a connection. The order is the order of eviction: a node's connection comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Account {
    /// A machine with a valid ticket or token.
    Node(Uuid),
    /// An address without a limit of its own.
    Exempt(IpAddr),
    /// Any other peer: one IPv4 address, or an IPv6 /64.
    Peer(IpNet),
}

/// Whether the service expects a machine at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acquaintance {
    /// It does.
    Known,
    /// The address may be anybody's.
    Stranger,
}

#[derive(Clone, Copy, Debug)]
struct AdmittedConnection {
    address: IpAddr,
    account: Account,
    acquaintance: Acquaintance,
    phase: Phase,
    since: Instant,
    turns: ClientTurns,
    useful_at: Instant,
}

/// The turns of a handshake's client.
#[derive(Clone, Copy, Debug, Default)]
struct ClientTurns {
    /// Duration of its ended turns.
    ended: Duration,
    /// The begin of its current turn; `None` in a turn of the service.
    since: Option<Instant>,
}

impl AdmittedConnection {
    /// The time for which its client has kept the service waiting in the phase; `None` if it is the service's turn.
    fn kept_waiting(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Handshake => {
                let current = now.saturating_duration_since(self.turns.since?);
                Some(self.turns.ended + current)
            }
            Phase::Idle | Phase::Head | Phase::Body => {
                Some(now.saturating_duration_since(self.since))
            }
            Phase::Answer => None,
        }
    }

    /// The order of eviction, the last class first.
    fn class(&self) -> u8 {
        match (self.account, self.acquaintance) {
            (Account::Node(_), _) => 0,
            (Account::Exempt(_), _) => 1,
            (Account::Peer(_), Acquaintance::Known) => 2,
            (Account::Peer(_), Acquaintance::Stranger) => 3,
        }
    }

    /// Whether it is a stranger's without an answer under way.
    fn is_idle_stranger(&self) -> bool {
        self.class() == 3 && self.phase != Phase::Answer
    }
}

/// The connections of a port.
#[derive(Debug)]
pub(super) struct Admission {
    limits: ConnectionLimits,
    held: BTreeMap<ConnectionId, AdmittedConnection>,
    accounts: HashMap<Account, usize>,
    addresses: HashMap<IpAddr, usize>,
    next: u64,
}

impl Admission {
    pub(super) fn new(limits: ConnectionLimits) -> Self {
        Self {
            limits,
            held: BTreeMap::new(),
            accounts: HashMap::new(),
            addresses: HashMap::new(),
            next: 0,
        }
    }

    /// Decides about a new connection; evicted connections are removed.
    pub(super) fn admit(
        &mut self,
        address: IpAddr,
        acquaintance: Acquaintance,
        now: Instant,
    ) -> AdmissionVerdict {
        let account = self.account_of(address);
        let has_limit = !matches!(account, Account::Exempt(_));
        let evicted = if has_limit && count(&self.accounts, &account) >= self.limits.per_peer {
            let victims = self.victims(Some(account), now);
            if victims.is_empty() {
                return AdmissionVerdict::PeerFull;
            }
            victims
        } else if self.held.len() >= self.limits.connections {
            let mut victims = self.victims(None, now);
            if victims.is_empty() && acquaintance == Acquaintance::Known {
                victims = self.victims_of(AdmittedConnection::is_idle_stranger);
            }
            if victims.is_empty() {
                return AdmissionVerdict::PortFull;
            }
            victims
        } else {
            Vec::new()
        };
        evicted.iter().for_each(|victim| self.remove(*victim));
        let id = ConnectionId(self.next);
        self.next += 1;
        let held = AdmittedConnection {
            address,
            account,
            acquaintance,
            phase: Phase::Idle,
            since: now,
            turns: ClientTurns::default(),
            useful_at: now,
        };
        self.held.insert(id, held);
        *self.accounts.entry(account).or_default() += 1;
        *self.addresses.entry(address).or_default() += 1;
        AdmissionVerdict::Admitted { id, evicted }
    }

    /// Evicts the least important connection for a new one for which the process has no file descriptor.
    pub(super) fn evict_one(&mut self, now: Instant) -> Option<ConnectionId> {
        let victim = self.victims(None, now).into_iter().next()?;
        self.remove(victim);
        Some(victim)
    }

    /// A connection enters its next phase.
    pub(super) fn enter(&mut self, id: ConnectionId, phase: Phase, now: Instant) {
        if let Some(held) = self.held.get_mut(&id) {
            (held.phase, held.since, held.turns) = (phase, now, ClientTurns::default());
        }
    }

    /// In a handshake, the client's turn begins.
    pub(super) fn begin_client_turn(&mut self, id: ConnectionId, now: Instant) {
        if let Some(held) = self.held.get_mut(&id) {
            held.turns.since.get_or_insert(now);
        }
    }

    /// In a handshake, the client's turn ends.
    pub(super) fn end_client_turn(&mut self, id: ConnectionId, now: Instant) {
        if let Some(held) = self.held.get_mut(&id)
            && let Some(since) = held.turns.since.take()
        {
            held.turns.ended += now.saturating_duration_since(since);
        }
    }

    /// A connection got what it requested.
    pub(super) fn was_useful(&mut self, id: ConnectionId, now: Instant) {
        if let Some(held) = self.held.get_mut(&id) {
            held.useful_at = now;
        }
    }

    /// Counts a connection for a node from now on. Returns a connection of this node to evict, if the node has too
    /// many. If all of them have an answer under way, this one stays with its address.
    pub(super) fn count_for_node(
        &mut self,
        id: ConnectionId,
        node: Uuid,
        now: Instant,
    ) -> Option<ConnectionId> {
        let to = Account::Node(node);
        let from = self.held.get(&id)?.account;
        if from == to {
            return None;
        }
        let mut evicted = None;
        if count(&self.accounts, &to) >= self.limits.per_peer {
            evicted = Some(self.victims(Some(to), now).into_iter().next()?);
        }
        if let Some(victim) = evicted {
            self.remove(victim);
        }
        take_one(&mut self.accounts, &from);
        *self.accounts.entry(to).or_default() += 1;
        if let Some(held) = self.held.get_mut(&id) {
            held.account = to;
        }
        evicted
    }

    /// Whether a connection had no useful answer for too long.
    pub(super) fn is_fruitless(&self, id: ConnectionId, now: Instant) -> bool {
        self.held.get(&id).is_some_and(|held| self.has_been_fruitless(held, now))
    }

    /// The account of a connection.
    pub(super) fn account(&self, id: ConnectionId) -> Option<Account> {
        self.held.get(&id).map(|held| held.account)
    }

    /// Removes a connection that has ended.
    pub(super) fn remove(&mut self, id: ConnectionId) {
        let Some(held) = self.held.remove(&id) else { return };
        take_one(&mut self.accounts, &held.account);
        take_one(&mut self.addresses, &held.address);
    }

    /// The connections that exceed a time limit; they are removed.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<(ConnectionId, Ended)> {
        let ended =
            |(id, held): (&ConnectionId, &AdmittedConnection)| Some((*id, self.end_of(held, now)?));
        let overdue: Vec<_> = self.held.iter().filter_map(ended).collect();
        for (id, _) in &overdue {
            self.remove(*id);
        }
        overdue
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    fn end_of(&self, held: &AdmittedConnection, now: Instant) -> Option<Ended> {
        let limits = &self.limits;
        let (limit, ended) = match held.phase {
            Phase::Idle => (limits.idle, Ended::Idle),
            Phase::Handshake | Phase::Head => (limits.head, Ended::Head),
            // The reader of the body answers first, with an error text.
            Phase::Body => (limits.body * 2, Ended::Body),
            // The socket itself gives up on a peer that takes nothing.
            Phase::Answer => return None,
        };
        let past = |since| now.saturating_duration_since(since);
        if past(held.since) > limit {
            return Some(ended);
        }
        self.has_been_fruitless(held, now).then_some(Ended::Fruitless)
    }

    fn has_been_fruitless(&self, held: &AdmittedConnection, now: Instant) -> bool {
        now.saturating_duration_since(held.useful_at) > self.limits.fruitless
    }

    /// The connections to evict, among all or among one account's. Connections with an answer under way and new ones
    /// are exempt.
    fn victims(&self, of: Option<Account>, now: Instant) -> Vec<ConnectionId> {
        self.victims_of(|held| {
            held.phase
                .grace(of.is_some())
                .zip(held.kept_waiting(now))
                .is_some_and(|(grace, waited)| waited >= grace)
                && of.is_none_or(|account| account == held.account)
        })
    }

    /// Of the account with the most connections among the candidates, those without a useful answer for the longest
    /// time.
    ///
    /// An eighth of that account's connections is evicted at once, or, of many accounts with a few each, a sixteenth of
    /// all their candidates: a flood must not search all connections for each new one.
    fn victims_of(&self, is_candidate: impl Fn(&AdmittedConnection) -> bool) -> Vec<ConnectionId> {
        let mut ranked: Vec<_> = self
            .held
            .iter()
            .filter(|(_, held)| is_candidate(held))
            .map(|(id, held)| {
                let of_account = count(&self.accounts, &held.account);
                let of_address = count(&self.addresses, &held.address);
                let rank = (held.class(), of_account, of_address);
                (Reverse(rank), held.useful_at, *id, held.account)
            })
            .collect();
        let Some(&(rank, _, _, account)) = ranked.iter().min() else { return Vec::new() };
        ranked.retain(|other| other.0 == rank);
        let Reverse((_, of_account, _)) = rank;
        let of_all = ranked.len() / 16;
        if of_all <= of_account {
            ranked.retain(|other| other.3 == account);
        }
        ranked.sort_unstable();
        let most = if of_all <= of_account { of_account / 8 } else { of_all };
        ranked.into_iter().take(most.max(1)).map(|(_, _, id, _)| id).collect()
    }

    fn account_of(&self, address: IpAddr) -> Account {
        if self.limits.exempt.iter().any(|net| net.contains(&address)) {
            return Account::Exempt(address);
        }
        Account::Peer(match address {
            IpAddr::V4(v4) => Ipv4Net::from(v4).into(),
            IpAddr::V6(v6) => Ipv6Net::new_assert(v6, 64).trunc().into(),
        })
    }
}

fn count<K: Eq + std::hash::Hash>(counts: &HashMap<K, usize>, key: &K) -> usize {
    counts.get(key).copied().unwrap_or(0)
}

fn take_one<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STRANGER: &str = "192.0.2.66";
    const MACHINE: &str = "192.0.2.10";

    fn port(connections: usize, per_peer: usize) -> Admission {
        Admission::new(ConnectionLimits { connections, per_peer, ..ConnectionLimits::default() })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn admitted(verdict: AdmissionVerdict) -> (ConnectionId, Option<ConnectionId>) {
        match verdict {
            AdmissionVerdict::Admitted { id, evicted } => {
                assert!(evicted.len() <= 1, "few are held");
                (id, evicted.first().copied())
            }
            AdmissionVerdict::PeerFull | AdmissionVerdict::PortFull => {
                panic!("not admitted: {verdict:?}")
            }
        }
    }

    #[test]
    fn a_peer_that_holds_its_share_loses_its_oldest_silent_connection_to_its_newest() {
        let (mut port, mut now) = (port(100, 2), Instant::now());
        let (first, _) = admitted(port.admit(ip(STRANGER), Acquaintance::Stranger, now));
        let (second, _) = admitted(port.admit(ip(STRANGER), Acquaintance::Stranger, now));
        let (machine, _) = admitted(port.admit(ip(MACHINE), Acquaintance::Stranger, now));

        now += GRACE_OF_PEER;
        let (third, evicted) = admitted(port.admit(ip(STRANGER), Acquaintance::Stranger, now));

        assert_eq!(evicted, Some(first));
        assert_eq!(port.len(), 3);
        assert!([second, third, machine].iter().all(|id| port.account(*id).is_some()));
    }

    #[test]
    fn a_client_with_many_connections_at_once_pushes_none_of_its_own_out() {
        let (mut port, now) = (port(100, 2), Instant::now());
        for _ in 0..2 {
            admitted(port.admit(ip(MACHINE), Acquaintance::Stranger, now));
        }

        assert_eq!(
            port.admit(ip(MACHINE), Acquaintance::Stranger, now),
            AdmissionVerdict::PeerFull
        );
        assert!(matches!(
            port.admit(ip(MACHINE), Acquaintance::Stranger, now + GRACE_OF_PEER),
            AdmissionVerdict::Admitted { .. }
        ));
    }

    #[test]
    fn no_answer_is_broken_off_for_a_newcomer() {
        let (mut port, mut now) = (port(3, 2), Instant::now());
        for _ in 0..2 {
            let (id, _) = admitted(port.admit(ip(STRANGER), Acquaintance::Stranger, now));
            port.enter(id, Phase::Answer, now);
        }

        assert_eq!(
            port.admit(ip(STRANGER), Acquaintance::Stranger, now),
            AdmissionVerdict::PeerFull
        );
        let (machine, _) = admitted(port.admit(ip(MACHINE), Acquaintance::Stranger, now));
        port.enter(machine, Phase::Answer, now);
        assert_eq!(
            port.admit(ip("192.0.2.11"), Acquaintance::Stranger, now),
            AdmissionVerdict::PortFull
        );
        port.enter(machine, Phase::Idle, now);
        now += GRACE;
        assert_eq!(
            admitted(port.admit(ip("192.0.2.11"), Acquaintance::Stranger, now)).1,
            Some(machine)
        );
    }

    #[test]
    fn of_a_full_port_whoever_has_most_gives_way_and_not_the_lone_machine() {
        let (mut port, mut now) = (port(4, 3), Instant::now());
        let (machine, _) = admitted(port.admit(ip(MACHINE), Acquaintance::Stranger, now));
        let (first, _) = admitted(port.admit(ip(STRANGER), Acquaintance::Stranger, now));
        for _ in 0..2 {
            admitted(port.admit(ip(STRANGER), Acquaintance::Stranger, now));
        }

        now += GRACE;
        let (_, evicted) = admitted(port.admit(ip("192.0.2.11"), Acquaintance::Stranger, now));

        assert_eq!(evicted, Some(first));
        assert!(port.account(machine).is_some());
    }

    #[test]
    fn of_whoever_has_very_many_some_give_way_at_once() {
        let (mut port, mut now) = (port(101, 100), Instant::now());
        admitted(port.admit(ip(MACHINE), Acquaintance::Stranger, now));
        for _ in 0..100 {
            admitted(port.admit(ip(STRANGER), Acquaintance::Stranger, now));
        }
        now += GRACE;

        let AdmissionVerdict::Admitted { evicted, .. } =
            port.admit(ip("192.0.2.11"), Acquaintance::Stranger, now)
        else {
            panic!("not admitted")
        };

        assert_eq!(evicted, (1..13).map(ConnectionId).collect::<Vec<_>>());
    }

    #[test]
    fn of_many_strangers_with_one_connection_each_some_give_way_at_once() {
        let (mut port, mut now) = (port(160, 100), Instant::now());
        for last in 0..160 {
            admitted(port.admit([198, 51, 100, last].into(), Acquaintance::Stranger, now));
        }
        now += GRACE;

        let machine = port.admit(ip(MACHINE), Acquaintance::Stranger, now);

        let AdmissionVerdict::Admitted { evicted, .. } = machine else { panic!("not admitted") };
        assert_eq!(evicted, (0..10).map(ConnectionId).collect::<Vec<_>>());
    }

    #[test]
    fn a_known_machine_waits_for_no_stranger_and_is_not_pushed_out_by_any() {
        let (mut port, mut now) = (port(2, 2), Instant::now());
        let (first, _) = admitted(port.admit(ip(STRANGER), Acquaintance::Stranger, now));
        let (second, _) = admitted(port.admit(ip("192.0.2.67"), Acquaintance::Stranger, now));
        assert_eq!(
            port.admit(ip("192.0.2.68"), Acquaintance::Stranger, now),
            AdmissionVerdict::PortFull
        );

        let (machine, evicted) = admitted(port.admit(ip(MACHINE), Acquaintance::Known, now));
        assert_eq!(evicted, Some(first));

        now += GRACE;
        let (_, evicted) = admitted(port.admit(ip(STRANGER), Acquaintance::Stranger, now));
        assert_eq!(evicted, Some(second), "the machine's is as old");
        assert!(port.account(machine).is_some());
    }

    #[test]
    fn all_addresses_of_an_ipv6_network_are_one_peer_and_the_greedy_one_of_them_gives_way() {
        let (mut port, mut now) = (port(100, 3), Instant::now());
        let (machine, _) = admitted(port.admit(ip("2001:db8::10"), Acquaintance::Stranger, now));
        let (first, _) = admitted(port.admit(ip("2001:db8::66"), Acquaintance::Stranger, now));
        admitted(port.admit(ip("2001:db8::66"), Acquaintance::Stranger, now));

        now += GRACE_OF_PEER;
        let (_, evicted) = admitted(port.admit(ip("2001:db8::77"), Acquaintance::Stranger, now));

        assert_eq!(evicted, Some(first));
        assert!(port.account(machine).is_some());
        assert_eq!(
            admitted(port.admit(ip("2001:db8:0:1::66"), Acquaintance::Stranger, now)).1,
            None,
            "another network"
        );
    }

    #[test]
    fn machines_behind_one_address_are_counted_for_their_nodes() {
        let (mut port, now) = (port(100, 2), Instant::now());

        for node in 0..10 {
            let (id, evicted) = admitted(port.admit(ip(MACHINE), Acquaintance::Stranger, now));
            assert_eq!(evicted, None, "{node}");
            assert_eq!(port.count_for_node(id, Uuid::from_u128(node), now), None);
            port.enter(id, Phase::Answer, now);
        }

        assert_eq!(port.len(), 10);
    }

    #[test]
    fn a_node_has_no_more_than_a_peer() {
        let (mut port, mut now) = (port(100, 2), Instant::now());
        let node = Uuid::from_u128(1);
        let ids = [1, 2, 3].map(|last: u8| {
            now += GRACE_OF_PEER;
            let (id, _) =
                admitted(port.admit([192, 0, 2, last].into(), Acquaintance::Stranger, now));
            (id, port.count_for_node(id, node, now))
        });

        assert_eq!([ids[0].1, ids[1].1, ids[2].1], [None, None, Some(ids[0].0)]);
        for (id, _) in ids {
            port.enter(id, Phase::Answer, now);
        }
        let (fourth, _) = admitted(port.admit(ip(MACHINE), Acquaintance::Stranger, now));
        assert_eq!(port.count_for_node(fourth, node, now), None);
        assert!(matches!(port.account(fourth), Some(Account::Peer(_))), "it stays a stranger's");
    }

    #[test]
    fn an_exempt_peer_has_what_the_port_has_and_gives_way_after_strangers() {
        let limits = ConnectionLimits {
            connections: 6,
            per_peer: 2,
            exempt: vec!["192.0.2.0/28".parse().unwrap()],
            ..ConnectionLimits::default()
        };
        let (mut port, now) = (Admission::new(limits), Instant::now());
        for _ in 0..5 {
            assert_eq!(admitted(port.admit(ip(MACHINE), Acquaintance::Stranger, now)).1, None);
        }
        let (stranger, _) = admitted(port.admit(ip(STRANGER), Acquaintance::Stranger, now));

        assert_eq!(
            admitted(port.admit(ip(MACHINE), Acquaintance::Stranger, now + GRACE)).1,
            Some(stranger)
        );
    }

    /// All machines of a site connect at once through one NAT address, over TLS. Each handshake takes the only
    /// processor for a while; after it, the machine presents its ticket. Returns the time of the last ticket.
    fn storm_behind_nat(machines: u128, per_peer: usize, handshake: Duration) -> Duration {
        let (mut port, start) = (port(machines as usize, per_peer), Instant::now());
        let (mut now, mut node) = (start, 0);
        let mut shaking = std::collections::VecDeque::new();
        let mut waiting = machines;
        while node < machines {
            while waiting > 0 {
                let AdmissionVerdict::Admitted { id, evicted } =
                    port.admit(ip(MACHINE), Acquaintance::Stranger, now)
                else {
                    break;
                };
                assert_eq!(evicted, [], "a handshake is broken off");
                port.enter(id, Phase::Handshake, now);
                shaking.push_back(id);
                waiting -= 1;
            }
            now += handshake;
            let id = shaking.pop_front().expect("one is under way");
            port.enter(id, Phase::Idle, now);
            assert_eq!(port.count_for_node(id, Uuid::from_u128(node), now), None);
            port.enter(id, Phase::Answer, now);
            node += 1;
        }
        assert_eq!(port.len(), machines as usize);
        now - start
    }

    #[test]
    fn a_storm_behind_one_nat_address_loses_no_handshake() {
        // The daemon's limits; the slowest processor that serves the last machine within 4 s.
        let last = storm_behind_nat(1_000, 384, Duration::from_micros(3_900));

        assert!(last <= Duration::from_secs(4), "{last:?}");
    }

    #[test]
    fn a_connection_that_its_client_leaves_lying_gives_way_to_others_of_its_own_site_last() {
        for (phase, newcomer, full, grace) in [
            (Phase::Idle, MACHINE, AdmissionVerdict::PortFull, GRACE),
            (Phase::Idle, STRANGER, AdmissionVerdict::PeerFull, GRACE_OF_PEER),
            (Phase::Handshake, MACHINE, AdmissionVerdict::PortFull, HANDSHAKE_GRACE),
            (Phase::Handshake, STRANGER, AdmissionVerdict::PeerFull, HANDSHAKE_GRACE_OF_PEER),
        ] {
            let (mut port, start) = (port(1, 1), Instant::now());
            let (stranger, _) = admitted(port.admit(ip(STRANGER), Acquaintance::Stranger, start));
            port.enter(stranger, phase, start);
            port.begin_client_turn(stranger, start);

            let early = start + grace - Duration::from_millis(1);
            assert_eq!(port.admit(ip(newcomer), Acquaintance::Stranger, early), full);
            let late = port.admit(ip(newcomer), Acquaintance::Stranger, start + grace);
            assert_eq!(admitted(late).1, Some(stranger));
        }
    }

    #[test]
    fn a_handshake_gives_way_after_the_turns_of_its_client_and_not_while_it_waits_for_the_processor()
     {
        let (mut port, mut now) = (port(1, 1), Instant::now());
        let (shaking, _) = admitted(port.admit(ip(STRANGER), Acquaintance::Stranger, now));
        port.enter(shaking, Phase::Handshake, now);
        for _ in 0..3 {
            now += Duration::from_secs(5);
            port.begin_client_turn(shaking, now);
            let full = port.admit(ip(MACHINE), Acquaintance::Stranger, now);
            assert_eq!(full, AdmissionVerdict::PortFull);
            now += HANDSHAKE_GRACE / 3;
            port.end_client_turn(shaking, now);
        }
        let full = port.admit(ip(MACHINE), Acquaintance::Stranger, now);
        assert_eq!(full, AdmissionVerdict::PortFull, "it is the service's turn");

        port.begin_client_turn(shaking, now);

        let late = port.admit(ip(MACHINE), Acquaintance::Stranger, now);
        assert_eq!(admitted(late).1, Some(shaking));
    }

    #[test]
    fn each_phase_has_its_time() {
        let limits = ConnectionLimits::default();
        let now = Instant::now();
        let after = |phase, time| {
            let mut port = port(10, 10);
            let (id, _) = admitted(port.admit(ip(STRANGER), Acquaintance::Stranger, now));
            port.enter(id, phase, now);
            port.was_useful(id, now + time);
            let ended = port.overdue(now + time).pop().map(|(_, ended)| ended);
            assert_eq!(port.len(), usize::from(ended.is_none()));
            ended
        };
        let more = Duration::from_secs(1);

        assert_eq!(after(Phase::Idle, limits.idle), None);
        assert_eq!(after(Phase::Idle, limits.idle + more), Some(Ended::Idle));
        assert_eq!(after(Phase::Handshake, limits.head + more), Some(Ended::Head));
        assert_eq!(after(Phase::Head, limits.head), None);
        assert_eq!(after(Phase::Head, limits.head + more), Some(Ended::Head));
        assert_eq!(after(Phase::Body, limits.body * 2 + more), Some(Ended::Body));
        assert_eq!(after(Phase::Answer, limits.fruitless * 9), None);
    }

    #[test]
    fn a_connection_that_asks_on_and_on_for_what_is_not_there_comes_to_its_end() {
        let (mut port, start) = (port(10, 10), Instant::now());
        let (fruitless, _) = admitted(port.admit(ip(STRANGER), Acquaintance::Stranger, start));
        let (useful, _) = admitted(port.admit(ip(MACHINE), Acquaintance::Stranger, start));

        let mut ended = Vec::new();
        for secs in (0..200).step_by(20) {
            let now = start + Duration::from_secs(secs);
            for id in [fruitless, useful] {
                port.enter(id, Phase::Answer, now);
                port.enter(id, Phase::Idle, now);
            }
            port.was_useful(useful, now);
            ended.extend(port.overdue(now));
        }

        assert_eq!(ended, [(fruitless, Ended::Fruitless)]);
    }

    #[derive(Clone, Debug)]
    enum Action {
        Come(u8),
        Go(usize),
        Enter(usize, usize),
        Turn(usize, bool),
        Ticket(usize, u8),
        Wait(u64),
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            4 => (0..6_u8).prop_map(Action::Come),
            1 => (0..20_usize).prop_map(Action::Go),
            4 => (0..20_usize, 0..Phase::ALL.len()).prop_map(|(at, phase)| Action::Enter(at, phase)),
            2 => (0..20_usize, any::<bool>()).prop_map(|(at, begins)| Action::Turn(at, begins)),
            1 => (0..20_usize, 0..3_u8).prop_map(|(at, node)| Action::Ticket(at, node)),
            2 => (0..90_u64).prop_map(Action::Wait),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_no_limit_is_passed_and_the_counts_are_right(
            actions in prop::collection::vec(action(), 0..200),
        ) {
            let (mut port, mut now) = (port(12, 3), Instant::now());
            for action in actions {
                let ids: Vec<_> = port.held.keys().copied().collect();
                let at = |at: usize| ids.get(at % ids.len().max(1)).copied();
                match action {
                    Action::Come(last) => {
                        port.admit([192, 0, 2, last].into(), Acquaintance::Stranger, now);
                    }
                    Action::Go(n) => at(n).into_iter().for_each(|id| port.remove(id)),
                    Action::Enter(n, phase) => {
                        at(n).into_iter().for_each(|id| port.enter(id, Phase::ALL[phase], now));
                    }
                    Action::Turn(n, begins) => at(n).into_iter().for_each(|id| {
                        if begins { port.begin_client_turn(id, now) } else { port.end_client_turn(id, now) }
                    }),
                    Action::Ticket(n, node) => {
                        at(n).map(|id| port.count_for_node(id, Uuid::from_u128(node.into()), now));
                    }
                    Action::Wait(secs) => {
                        now += Duration::from_secs(secs);
                        port.overdue(now);
                    }
                }
                prop_assert!(port.len() <= 12);
                let mut accounts = HashMap::new();
                let mut addresses = HashMap::new();
                for held in port.held.values() {
                    *accounts.entry(held.account).or_insert(0) += 1;
                    *addresses.entry(held.address).or_insert(0) += 1;
                }
                prop_assert!(accounts.values().all(|count| *count <= 3), "{accounts:?}");
                prop_assert_eq!(&accounts, &port.accounts);
                prop_assert_eq!(&addresses, &port.addresses);
            }
        }
    }
}
