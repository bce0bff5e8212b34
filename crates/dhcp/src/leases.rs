//! Who has which address: one pool, one table, changed only by what a journal can repeat.
//!
//! Nothing here takes longer the more leases there are, but for a logarithm.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

use crate::journal::{Record, State, leases_by_this_clock};

/// Seconds since the Unix epoch.
pub type Seconds = u64;

/// How long an address stays set aside for a known node it was offered to. EDK2 takes an offer after
/// four seconds, and asks again for a minute.
const OFFER: Seconds = 60;
/// How long for a guest: whoever makes up clients holds few addresses with it.
const OFFER_TO_GUEST: Seconds = 10;
/// How long an address is left alone at least after a client found somebody else using it.
const QUARANTINE: Seconds = 600;
/// How long a client has, once it is told an address, to find somebody else using it. It looks before it uses the
/// address, which takes some seven seconds (RFC 5227 §2.1.1).
pub(crate) const TO_DECLINE: Seconds = 60;
/// How many addresses one client can have left alone. One that finds more of them in use is broken, or
/// means harm.
const QUARANTINES: usize = 3;

/// The addresses to give out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The first.
    pub first: Ipv4Addr,
    /// The last, included.
    pub last: Ipv4Addr,
}

impl Pool {
    /// Whether an address is one of them.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        let (first, last) = (u32::from(self.first), u32::from(self.last));
        usize::try_from(last.saturating_sub(first)).map_or(usize::MAX, |more| more + 1)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first > self.last
    }
}

/// One address and who has it, until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The client.
    pub mac: [u8; 6],
    /// The address.
    pub address: Ipv4Addr,
    /// The second at which it ends.
    pub until: Seconds,
    /// Offered or bound, or set aside.
    pub state: State,
    /// What the client was when it last asked.
    pub holder: Holder,
}

/// What a client is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A machine that somebody registered.
    Known,
    /// Anybody else.
    Guest,
}

/// What a client may claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// Any address that is free.
    Known,
    /// Any address that is free and was not last a known node's, as long as every known node can have
    /// one too.
    Guest {
        /// How many addresses are known nodes': those that they have, and those that are kept for them.
        keep: usize,
    },
}

impl Claim {
    /// A stranger's, to an address of a pool of that size, where so many machines are registered: one address is kept
    /// for each of them, but a quarter of the pool at least, since more of them may come.
    #[must_use]
    pub fn guest(pool: usize, known: usize) -> Self {
        Self::Guest { keep: known.max(pool / 4).min(pool) }
    }

    /// Whose it is.
    #[must_use]
    pub fn holder(self) -> Holder {
        match self {
            Self::Known => Holder::Known,
            Self::Guest { .. } => Holder::Guest,
        }
    }

    pub(crate) fn patience(self) -> Seconds {
        match self {
            Self::Known => OFFER,
            Self::Guest { .. } => OFFER_TO_GUEST,
        }
    }
}

/// The table.
///
/// A client keeps its address for as long as nobody else needs it: one that comes back, even long
/// after its lease ended, gets the address it had. Reserved addresses, in the pool or not, are their
/// clients' alone, and those that are kept back nobody's.
#[derive(Clone, Debug)]
pub struct Leases {
    pool: Pool,
    reservations: HashMap<[u8; 6], Ipv4Addr>,
    /// By whom; by nobody, where they are kept back.
    reserved: HashMap<Ipv4Addr, Option<[u8; 6]>>,
    by_address: HashMap<Ipv4Addr, Entry>,
    by_mac: HashMap<[u8; 6], Ipv4Addr>,
    /// Leases that have not ended, when last looked at.
    running: Ends,
    /// What guests were offered and have not taken.
    offered_to_guests: Ends,
    /// Addresses left alone, reserved ones not among them.
    quarantined: Ends,
    /// By whom, reserved ones not among them.
    declined: HashMap<[u8; 6], Vec<Ipv4Addr>>,
    /// Those that are free again, by who had them last; reserved ones not among them.
    left_by_guests: Ends,
    left_by_known: Ends,
    /// How many addresses of the pool can be given out, how many of them are in `running`,
    /// `offered_to_guests` or `quarantined`, and how many of those known nodes have.
    size: usize,
    taken: usize,
    taken_by_known: usize,
    /// The lowest address that was never given out.
    unused: Option<Ipv4Addr>,
    /// How many got another client in this run.
    given: u64,
}

/// Addresses by when they end or ended.
type Ends = BTreeSet<(Seconds, Ipv4Addr)>;

#[derive(Clone, Copy, Debug)]
struct Entry {
    lease: Lease,
    place: Place,
    /// The how many-th it was of those that got another client in this run; 0 before it.
    order: u64,
    /// The second in which the client was last told that this is its address; 0 before this run.
    told: Seconds,
}

/// In which set an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Running,
    /// The same, but its client has another address now.
    Left,
    OfferedToGuest,
    Quarantined,
    LeftByGuest,
    LeftByKnown,
    /// In none: its reservation keeps it.
    Reserved,
}

impl Leases {
    /// An empty table. Where an address or a client comes twice among the reservations, the first holds.
    #[must_use]
    pub fn new(pool: Pool, reservations: impl IntoIterator<Item = ([u8; 6], Ipv4Addr)>) -> Self {
        let (mut by_mac, mut by_address) = (HashMap::new(), HashMap::new());
        for (mac, address) in reservations {
            if !by_address.contains_key(&address) && !by_mac.contains_key(&mac) {
                by_mac.insert(mac, address);
                by_address.insert(address, Some(mac));
            }
        }
        let in_pool = by_address.keys().filter(|address| pool.contains(**address)).count();
        Self {
            pool,
            size: if pool.is_empty() { 0 } else { pool.len() - in_pool },
            reservations: by_mac,
            reserved: by_address,
            by_address: HashMap::new(),
            by_mac: HashMap::new(),
            running: Ends::new(),
            offered_to_guests: Ends::new(),
            quarantined: Ends::new(),
            declined: HashMap::new(),
            left_by_guests: Ends::new(),
            left_by_known: Ends::new(),
            taken: 0,
            taken_by_known: 0,
            unused: (!pool.is_empty()).then_some(pool.first),
            given: 0,
        }
    }

    /// The table that a journal leads to by `now`. Addresses outside the pool are left out, and those that are
    /// reserved for another client, so both may be changed between two runs. The time between two runs does not count.
    #[must_use]
    pub fn replay(
        pool: Pool,
        reservations: impl IntoIterator<Item = ([u8; 6], Ipv4Addr)>,
        records: impl IntoIterator<Item = Record>,
        now: Seconds,
    ) -> Self {
        let mut leases = Self::new(pool, reservations);
        for Record(lease) in leases_by_this_clock(records, now) {
            let fits = match leases.reserved.get(&lease.address) {
                Some(mac) => *mac == Some(lease.mac),
                None => pool.contains(lease.address),
            };
            if fits {
                leases.put(lease, 0);
                leases.end_leases(now);
            }
        }
        // A journal that was written anew does not say what came first.
        leases.by_address.values_mut().for_each(|entry| entry.order = 0);
        leases
    }

    /// Takes addresses out of the pool for good, and from whoever has them: somebody has them who never asks here.
    pub fn keep_back(&mut self, addresses: impl IntoIterator<Item = Ipv4Addr>) {
        for address in addresses {
            self.forget(address);
            match self.reserved.insert(address, None) {
                Some(Some(mac)) => drop(self.reservations.remove(&mac)),
                Some(None) => {}
                None => self.size -= usize::from(self.pool.contains(address)),
            }
        }
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> Pool {
        self.pool
    }

    /// The address that is this client's alone.
    #[must_use]
    pub fn reserved(&self, mac: [u8; 6]) -> Option<Ipv4Addr> {
        self.reservations.get(&mac).copied()
    }

    /// All clients with an address that is theirs alone.
    pub fn reserved_clients(&self) -> impl Iterator<Item = [u8; 6]> {
        self.reservations.keys().copied()
    }

    /// How many addresses have or had a client.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_address.len()
    }

    /// What a client has, ended or not.
    #[must_use]
    pub fn of(&self, mac: [u8; 6]) -> Option<Lease> {
        self.by_address.get(self.by_mac.get(&mac)?).map(|entry| entry.lease)
    }

    /// Whether an address is given out here, to whomever.
    #[must_use]
    pub fn gives(&self, address: Ipv4Addr) -> bool {
        self.pool.contains(address) || self.reserved.contains_key(&address)
    }

    /// Sets an address aside for a client, which then has a while to ask for it.
    ///
    /// `None` when none is left for it.
    pub fn offer(
        &mut self,
        mac: [u8; 6],
        wanted: Option<Ipv4Addr>,
        claim: Claim,
        now: Seconds,
    ) -> Option<Ipv4Addr> {
        self.end_leases(now);
        let reserved = self.reservation(mac);
        let until = now + claim.patience();
        let last = self.of(mac).filter(|last| reserved.is_none_or(|own| own == last.address));
        if let Some(last) = last {
            if !self.may_have(last.address, claim) {
                return None;
            }
            // A running lease must not be made shorter by a client that starts over.
            let until = last.until.max(until);
            self.put(Lease { until, holder: claim.holder(), ..last }, now);
            return Some(last.address);
        }
        let address = match reserved {
            Some(reserved) => reserved,
            None if self.left_for(claim) => {
                wanted.filter(|wanted| self.is_nobodys(*wanted)).or_else(|| self.any_free(claim))?
            }
            None => return None,
        };
        let holder = claim.holder();
        self.put(Lease { mac, address, until, state: State::Offered, holder }, now);
        Some(address)
    }

    /// Gives a client the address it was offered or has, or that is reserved for it, for `secs`. `None`
    /// if it has not.
    ///
    /// One that it declined is among those, as long as nobody else has it: whoever asks for it to last longer uses it,
    /// and it was somebody else who declined it.
    pub fn bind(
        &mut self,
        mac: [u8; 6],
        address: Ipv4Addr,
        secs: u32,
        claim: Claim,
        now: Seconds,
    ) -> Option<Record> {
        self.end_leases(now);
        let has = self.by_address.get(&address).is_some_and(|entry| entry.lease.mac == mac);
        let own = has || self.reservation(mac) == Some(address);
        if !own || !self.may_have(address, claim) {
            return None;
        }
        let until = now + Seconds::from(secs);
        let holder = claim.holder();
        Some(self.record(Lease { mac, address, until, state: State::Bound, holder }, now))
    }

    /// Gives a client that has no address one which nobody else has, as if it had been offered. `None` if somebody
    /// may have it.
    pub fn bind_unoffered(
        &mut self,
        mac: [u8; 6],
        address: Ipv4Addr,
        secs: u32,
        claim: Claim,
        now: Seconds,
    ) -> Option<Record> {
        self.end_leases(now);
        // Whoever has one could else collect as many as there are.
        let has_none = self.of(mac).is_none() && self.reservation(mac).is_none();
        if !has_none || !self.is_nobodys(address) || !self.left_for(claim) {
            return None;
        }
        let until = now + Seconds::from(secs);
        let holder = claim.holder();
        Some(self.record(Lease { mac, address, until, state: State::Bound, holder }, now))
    }

    /// A client is done with its address. It keeps its claim until somebody else needs it.
    ///
    /// Nothing is written of an address that was only offered: a journal has no form for that, and would be read up to
    /// such a record and no further.
    pub fn release(&mut self, mac: [u8; 6], address: Ipv4Addr, now: Seconds) -> Option<Record> {
        let lease = self.of(mac).filter(|lease| lease.address == address)?;
        if lease.state == State::Offered {
            self.withdraw(mac, now);
            return None;
        }
        Some(self.record(Lease { until: now, ..lease }, now))
    }

    /// A client found the address in use that it was just told: nobody gets it for ten minutes, as long as others are
    /// left. `None` if it was not told so just now; whoever finds out later is told it again if it starts over, and
    /// then may decline it.
    ///
    /// Anybody on the link can say so in a known machine's name. So what that machine had is kept for as long as it
    /// may use it, and is its own again after that if it has taken no other.
    ///
    /// A client that says so too often has to take another address, but of all that it declined it keeps from others
    /// only what it had first. So the records are of the address, and maybe of one that it declined before and that
    /// is free now.
    pub fn decline(
        &mut self,
        mac: [u8; 6],
        address: Ipv4Addr,
        now: Seconds,
    ) -> Option<Vec<Record>> {
        self.end_leases(now);
        let lease = self.of(mac).filter(|lease| lease.address == address && lease.until > now)?;
        self.by_address.get(&address).filter(|entry| now < entry.told + TO_DECLINE)?;
        let (until, state) = (left_alone_until(lease.holder, lease.until, now), State::Declined);
        let mut records = vec![self.record(Lease { until, state, ..lease }, now)];
        let last = self.declined_last(mac).and_then(|last| self.by_address.get(&last));
        if let Some(&Entry { lease: last, .. }) = last {
            let free = Lease { until: now, holder: Holder::Guest, ..last };
            records.push(self.record(free, now));
        }
        Some(records)
    }

    /// Of more declined addresses than a client may have, the one that it had last. It is unknown of those that it had
    /// before this run, which do not count.
    fn declined_last(&self, mac: [u8; 6]) -> Option<Ipv4Addr> {
        let order =
            |address: &Ipv4Addr| self.by_address.get(address).map_or(0, |entry| entry.order);
        let declined = self.declined.get(&mac)?.iter().copied();
        youngest_beyond(declined.map(|address| (order(&address), address)))
    }

    /// A client took another server's offer instead of ours.
    pub fn withdraw(&mut self, mac: [u8; 6], now: Seconds) {
        let offered = self.of(mac).filter(|lease| lease.state == State::Offered);
        if let Some(lease) = offered.filter(|lease| lease.until > now) {
            self.put(Lease { until: now, ..lease }, now);
        }
    }

    /// Every lease that would have to be in a journal written anew. Where a client has several, the one that it has now
    /// is the last.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let leases = self.by_address.values().map(|entry| entry.lease);
        let mut leases: Vec<_> = leases.filter(|lease| lease.state != State::Offered).collect();
        let is_current = |lease: &Lease| self.by_mac.get(&lease.mac) == Some(&lease.address);
        leases.sort_unstable_by_key(|lease| (is_current(lease), lease.until, lease.address));
        leases.into_iter().map(Record).collect()
    }

    /// The address that is reserved for a client, unless somebody else was found to use it.
    fn reservation(&self, mac: [u8; 6]) -> Option<Ipv4Addr> {
        let address = self.reservations.get(&mac).copied()?;
        let entry = self.by_address.get(&address);
        let declined = entry.is_some_and(|entry| {
            entry.lease.state == State::Declined && entry.place == Place::Running
        });
        (!declined).then_some(address)
    }

    /// Whether a client that has a claim on an address may have it now, which counts for as much as a
    /// new one if its lease ended.
    fn may_have(&self, address: Ipv4Addr, claim: Claim) -> bool {
        let place = self.by_address.get(&address).map(|entry| entry.place);
        matches!(place, Some(Place::Running | Place::Left | Place::OfferedToGuest))
            || self.reserved.contains_key(&address)
            || self.left_for(claim)
    }

    /// Whether one more address may be taken.
    fn left_for(&self, claim: Claim) -> bool {
        match claim {
            Claim::Known => true,
            Claim::Guest { keep } => {
                let kept = keep.saturating_sub(self.taken_by_known);
                self.size.saturating_sub(self.taken) > kept
            }
        }
    }

    fn is_nobodys(&self, address: Ipv4Addr) -> bool {
        let place = self.by_address.get(&address).map(|entry| entry.place);
        self.pool.contains(address)
            && !self.reserved.contains_key(&address)
            && place.is_none_or(|place| place == Place::LeftByGuest)
    }

    /// One that nobody has a claim on. If there is none, known nodes take from guests what these were only offered, then
    /// what has been free for longest of what other known nodes had, and at last one that was found in use: whoever
    /// used it may be gone, or was never there.
    fn any_free(&mut self, claim: Claim) -> Option<Ipv4Addr> {
        let oldest = |ends: &Ends| ends.first().map(|(_, address)| *address);
        let free = self.next_unused().or_else(|| oldest(&self.left_by_guests));
        match claim {
            Claim::Known => free
                .or_else(|| oldest(&self.offered_to_guests))
                .or_else(|| oldest(&self.left_by_known))
                .or_else(|| oldest(&self.quarantined)),
            Claim::Guest { .. } => free,
        }
    }

    fn next_unused(&mut self) -> Option<Ipv4Addr> {
        while let Some(address) = self.unused {
            self.unused = next(address).filter(|next| self.pool.contains(*next));
            if !self.by_address.contains_key(&address) && !self.reserved.contains_key(&address) {
                return Some(address);
            }
        }
        None
    }

    fn record(&mut self, lease: Lease, now: Seconds) -> Record {
        self.put(lease, now);
        Record(lease)
    }

    /// Makes a lease the one of its address and of its client, which is told so in the second `told`.
    fn put(&mut self, lease: Lease, told: Seconds) {
        let Lease { mac, address, state, .. } = lease;
        let before = self.by_address.get(&address).filter(|before| before.lease.mac == mac);
        let order = before.map(|before| before.order).unwrap_or_else(|| {
            self.given += 1;
            self.given
        });
        self.forget(address);
        // A declined address is nobody's: the client that declined it must get another.
        if state != State::Declined
            && let Some(old) = self.by_mac.insert(mac, address)
        {
            self.leave(old);
        }
        let place = match (state, lease.holder) {
            _ if self.reserved.contains_key(&address) => Place::Running,
            (State::Declined, _) => Place::Quarantined,
            (State::Offered, Holder::Guest) => Place::OfferedToGuest,
            (State::Offered, Holder::Known) | (State::Bound, _) => Place::Running,
        };
        self.set(place, lease);
        if place == Place::Quarantined {
            self.declined.entry(mac).or_default().push(address);
        }
        self.by_address.insert(address, Entry { lease, place, order, told });
    }

    /// Its client is offered another address now. A lease that runs still ends only at its end: the
    /// client may stay with it, and whoever asks in its name must not make it anybody's.
    fn leave(&mut self, address: Ipv4Addr) {
        let entry = self.by_address.get(&address).copied();
        if let Some(entry) = entry.filter(|entry| entry.place == Place::Running) {
            self.unset(entry.place, entry.lease);
            self.set(Place::Left, entry.lease);
            self.by_address.insert(address, Entry { place: Place::Left, ..entry });
        }
    }

    fn forget(&mut self, address: Ipv4Addr) {
        let Some(Entry { lease, place, .. }) = self.by_address.remove(&address) else { return };
        self.unset(place, lease);
        if self.by_mac.get(&lease.mac) == Some(&address) {
            self.by_mac.remove(&lease.mac);
        }
    }

    /// Moves the leases that have ended to where others find their addresses.
    fn end_leases(&mut self, now: Seconds) {
        loop {
            let ended = |ends: &Ends| ends.first().filter(|(until, _)| *until <= now).copied();
            let all = [&self.running, &self.offered_to_guests, &self.quarantined];
            let Some((_, address)) = all.into_iter().find_map(ended) else { return };
            let entry =
                *self.by_address.get(&address).expect("every address in a set is in the table");
            let Entry { lease, place, .. } = entry;
            self.unset(place, lease);
            let lease = self.left(lease);
            let place = match lease.holder {
                _ if self.reserved.contains_key(&address) => Place::Reserved,
                Holder::Known => Place::LeftByKnown,
                Holder::Guest => Place::LeftByGuest,
            };
            self.set(place, lease);
            self.by_address.insert(address, Entry { lease, place, ..entry });
        }
    }

    /// What a lease is that has ended. An address that a known machine declined is its own again if it has taken no
    /// other.
    fn left(&mut self, lease: Lease) -> Lease {
        if lease.state != State::Declined || lease.holder == Holder::Guest {
            return lease;
        }
        self.by_mac.entry(lease.mac).or_insert(lease.address);
        Lease { state: State::Bound, ..lease }
    }

    fn set(&mut self, place: Place, Lease { address, until, holder, .. }: Lease) {
        let counts = self.counts(place, address);
        self.taken += usize::from(counts);
        self.taken_by_known += usize::from(counts && is_in_use_by_known(place, holder));
        if let Some(ends) = self.ends(place) {
            ends.insert((until, address));
        }
    }

    fn unset(&mut self, place: Place, Lease { mac, address, until, holder, .. }: Lease) {
        let counts = self.counts(place, address);
        self.taken -= usize::from(counts);
        self.taken_by_known -= usize::from(counts && is_in_use_by_known(place, holder));
        if let Some(ends) = self.ends(place) {
            ends.remove(&(until, address));
        }
        if place == Place::Quarantined
            && let Some(declined) = self.declined.get_mut(&mac)
        {
            declined.retain(|other| *other != address);
            if declined.is_empty() {
                self.declined.remove(&mac);
            }
        }
    }

    /// Whether an address of the pool that is there is one less for others.
    fn counts(&self, place: Place, address: Ipv4Addr) -> bool {
        match place {
            Place::Running | Place::Left | Place::OfferedToGuest | Place::Quarantined => {
                !self.reserved.contains_key(&address)
            }
            Place::LeftByGuest | Place::LeftByKnown | Place::Reserved => false,
        }
    }

    fn ends(&mut self, place: Place) -> Option<&mut Ends> {
        match place {
            Place::Running | Place::Left => Some(&mut self.running),
            Place::OfferedToGuest => Some(&mut self.offered_to_guests),
            Place::Quarantined => Some(&mut self.quarantined),
            Place::LeftByGuest => Some(&mut self.left_by_guests),
            Place::LeftByKnown => Some(&mut self.left_by_known),
            Place::Reserved => None,
        }
    }
}

/// Until when an address is left alone that its client declined, which might have used it `until` then.
pub(crate) fn left_alone_until(holder: Holder, until: Seconds, now: Seconds) -> Seconds {
    match holder {
        Holder::Known => until.max(now + QUARANTINE),
        Holder::Guest => now + QUARANTINE,
    }
}

/// The one that its client had last of more declined addresses than it may have, each with its place in the order in which
/// it had them, or 0.
///
/// Whoever speaks in a machine's name has it take addresses and declines them, but what the machine used before that
/// it had first.
pub(crate) fn youngest_beyond<A>(declined: impl Iterator<Item = (u64, A)>) -> Option<A> {
    let declined: Vec<_> = declined.filter(|(order, _)| *order > 0).collect();
    let is_beyond = declined.len() > QUARANTINES;
    let youngest = declined.into_iter().max_by_key(|(order, _)| *order);
    youngest.filter(|_| is_beyond).map(|(_, address)| address)
}

/// Whoever declined an address needs another, and whoever left one has another.
fn is_in_use_by_known(place: Place, holder: Holder) -> bool {
    !matches!(place, Place::Quarantined | Place::Left) && holder == Holder::Known
}

fn next(address: Ipv4Addr) -> Option<Ipv4Addr> {
    u32::from(address).checked_add(1).map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::{TimeMark, read};

    const POOL: Pool = Pool { first: Ipv4Addr::new(10, 0, 0, 1), last: Ipv4Addr::new(10, 0, 0, 4) };
    const GUEST: Claim = Claim::Guest { keep: 0 };

    fn at(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    fn mac(last: u8) -> [u8; 6] {
        [2, 0, 0, 0, 0, last]
    }

    fn plain() -> Leases {
        Leases::new(POOL, [])
    }

    fn bound(leases: &mut Leases, last: u8, claim: Claim, now: Seconds) -> Ipv4Addr {
        let address = leases.offer(mac(last), None, claim, now).unwrap();
        leases.bind(mac(last), address, 100, claim, now).unwrap();
        address
    }

    fn offered(leases: &mut Leases, last: u8, now: Seconds) -> Option<Ipv4Addr> {
        leases.offer(mac(last), None, Claim::Known, now)
    }

    #[test]
    fn a_client_that_comes_back_gets_the_address_it_had() {
        let mut leases = plain();
        let first = bound(&mut leases, 1, Claim::Known, 0);
        bound(&mut leases, 2, Claim::Known, 0);

        assert_eq!(offered(&mut leases, 1, 1_000), Some(first));
    }

    #[test]
    fn a_clock_that_is_set_between_two_runs_neither_ends_a_lease_nor_brings_one_back() {
        let (mut before, begun) = (plain(), 1_000_000);
        let alive = bound(&mut before, 1, GUEST, begun);
        let ended = bound(&mut before, 2, GUEST, begun - 100);
        let records = [TimeMark::Started(begun - 100), TimeMark::Running(begun + 40)];
        let records = records.map(Record::mark).into_iter().chain(before.records());

        for now in [begun - 86_400, begun + 40, begun + 86_400] {
            let mut leases = Leases::replay(POOL, [], records.clone(), now);

            let wanted = |leases: &mut Leases, address, now| {
                leases.offer(mac(3), Some(address), Claim::Known, now) == Some(address)
            };
            assert!(!wanted(&mut leases.clone(), alive, now + 59), "60 of 100 seconds were left");
            assert!(wanted(&mut leases.clone(), alive, now + 60));
            assert!(wanted(&mut leases, ended, now), "{now}");
        }
    }

    #[test]
    fn who_gives_back_what_it_was_only_offered_leaves_nothing_in_the_journal() {
        let mut leases = plain();
        let address = leases.offer(mac(1), None, GUEST, 0).unwrap();

        assert_eq!(leases.release(mac(1), address, 1), None);
        assert_eq!(leases.offer(mac(2), Some(address), GUEST, 1), Some(address));
    }

    #[test]
    fn an_exhausted_pool_offers_nothing_until_a_lease_ends() {
        let mut leases = plain();
        for client in 1..=4 {
            bound(&mut leases, client, Claim::Known, 0);
        }

        assert_eq!(offered(&mut leases, 5, 99), None);
        assert!(offered(&mut leases, 5, 100).is_some());
    }

    #[test]
    fn an_address_that_is_in_use_is_not_offered_again_for_ten_minutes() {
        let mut leases = plain();
        let declined = bound(&mut leases, 1, GUEST, 0);
        leases.decline(mac(1), declined, 10).unwrap();

        let other = leases.offer(mac(1), Some(declined), GUEST, 11);

        assert!(other.is_some_and(|other| other != declined));
        assert!(leases.offer(mac(2), Some(declined), Claim::Known, 11) != Some(declined));
        assert_eq!(leases.offer(mac(3), Some(declined), Claim::Known, 610), Some(declined));
    }

    #[test]
    fn an_address_is_declined_right_after_it_was_told_or_not_at_all() {
        let mut leases = plain();
        let address = bound(&mut leases, 1, Claim::Known, 1_000);
        let mut again = Leases::replay(POOL, [], leases.records(), 0);

        assert_eq!(leases.decline(mac(1), address, 1_060), None, "a minute later");
        assert_eq!(leases.decline(mac(1), address, 1_100), None, "it has ended");
        assert_eq!(offered(&mut leases, 1, 1_101), Some(address));
        assert!(leases.decline(mac(1), address, 1_102).is_some(), "it was told it again");
        assert_eq!(again.decline(mac(1), address, 1_001), None, "who knows when it was told");
    }

    #[test]
    fn a_machine_that_has_its_lease_extended_did_not_decline_it_whatever_is_said_in_its_name() {
        for forged in 0..=2 {
            let mut leases = plain();
            let address = bound(&mut leases, 1, Claim::Known, 0);
            leases.decline(mac(1), address, 1).unwrap();
            if forged > 0 {
                let other = offered(&mut leases, 1, 2).unwrap();
                assert_ne!(other, address);
                if forged > 1 {
                    leases.bind(mac(1), other, 100, Claim::Known, 2).unwrap();
                }
            }
            for guest in 10..20 {
                leases.offer(mac(guest), Some(address), GUEST, 3);
            }

            assert!(leases.bind(mac(1), address, 100, Claim::Known, 50).is_some());
            assert_eq!(leases.of(mac(1)).map(|lease| lease.address), Some(address));
            is_sound(&leases).unwrap();
        }
    }

    #[test]
    fn what_a_known_machine_declined_is_its_own_again_later_or_another_machines_if_it_took_another()
    {
        let declined = |holder| {
            let mut leases = plain();
            let address = bound(&mut leases, 1, holder, 0);
            leases.decline(mac(1), address, 1).unwrap();
            (leases, address)
        };
        let (mut leases, address) = declined(Claim::Known);
        assert_eq!(
            leases.offer(mac(9), Some(address), GUEST, 601).filter(|at| *at == address),
            None
        );
        assert_eq!(offered(&mut leases, 1, 602), Some(address));

        let (mut leases, address) = declined(Claim::Known);
        let other = offered(&mut leases, 1, 2).unwrap();
        leases.bind(mac(1), other, 10_000, Claim::Known, 2).unwrap();
        let others: Vec<_> = (9..12).map(|who| leases.offer(mac(who), None, GUEST, 601)).collect();
        assert!(!others.contains(&Some(address)) && others.contains(&None));
        let others: Vec<_> = (2..5).map(|who| offered(&mut leases, who, 602)).collect();
        assert!(others.contains(&Some(address)));
        assert_eq!(offered(&mut leases, 1, 602), Some(other));

        let (mut leases, address) = declined(GUEST);
        assert_eq!(leases.offer(mac(9), Some(address), GUEST, 601), Some(address));
    }

    #[test]
    fn a_known_node_takes_what_a_guest_was_only_offered_before_what_another_node_had() {
        let mut leases = plain();
        let other = bound(&mut leases, 1, Claim::Known, 0);
        for client in 10..13 {
            leases.offer(mac(client), None, GUEST, 500).unwrap();
        }

        assert!(offered(&mut leases, 2, 501).is_some_and(|address| address != other));
    }

    #[test]
    fn an_address_that_was_in_use_is_better_than_none_for_a_known_node_only() {
        let mut leases = plain();
        let declined = bound(&mut leases, 1, Claim::Known, 0);
        leases.decline(mac(1), declined, 10).unwrap();
        for client in 2..=4 {
            bound(&mut leases, client, Claim::Known, 10);
        }

        assert_eq!(leases.offer(mac(5), None, GUEST, 11), None);
        assert_eq!(offered(&mut leases, 6, 11), Some(declined));
    }

    #[test]
    fn one_client_cannot_have_more_than_three_addresses_left_alone() {
        let mut leases = Leases::new(Pool { first: at(1), last: at(200) }, []);
        for now in 0..100 {
            let address = bound(&mut leases, 1, GUEST, now);
            leases.decline(mac(1), address, now).unwrap();
        }

        assert_eq!(leases.quarantined.len(), QUARANTINES + 1, "and the one just declined");
        offered(&mut leases, 2, 100);
        assert_eq!(leases.quarantined.len(), QUARANTINES);
    }

    #[test]
    fn nobody_binds_an_address_that_was_not_offered_to_him() {
        let mut leases = plain();
        let address = offered(&mut leases, 1, 0).unwrap();

        assert_eq!(leases.bind(mac(2), address, 100, Claim::Known, 0), None);
    }

    #[test]
    fn what_was_never_offered_is_bound_for_whoever_has_nothing_if_nobody_else_may_have_it() {
        let mut leases = Leases::new(POOL, [(mac(9), at(4))]);
        let taken = bound(&mut leases, 1, Claim::Known, 0);
        let bind = |leases: &mut Leases, last, address, claim, now| {
            leases.bind_unoffered(mac(last), address, 100, claim, now).map(|_| ())
        };

        assert_eq!(bind(&mut leases, 2, taken, Claim::Known, 0), None, "another's");
        assert_eq!(bind(&mut leases, 2, at(4), Claim::Known, 0), None, "reserved");
        assert_eq!(bind(&mut leases, 2, at(77), Claim::Known, 0), None, "not of the pool");
        assert_eq!(bind(&mut leases, 2, at(2), Claim::Guest { keep: 3 }, 0), None, "kept");
        assert_eq!(bind(&mut leases, 2, at(2), Claim::Known, 0), Some(()));
        assert_eq!(bind(&mut leases, 2, at(3), Claim::Known, 0), None, "it has one");
        assert_eq!(bind(&mut leases, 9, at(3), Claim::Known, 0), None, "it has one reserved");
        assert_eq!(bind(&mut leases, 3, taken, Claim::Known, 500), None, "a known node's before");
    }

    #[test]
    fn a_reserved_address_is_its_clients_whether_in_the_pool_or_not_and_nobody_elses() {
        let mut leases = Leases::new(POOL, [(mac(1), at(2)), (mac(2), at(9))]);

        let guests: Vec<_> =
            (10..20).map_while(|client| leases.offer(mac(client), Some(at(2)), GUEST, 0)).collect();

        assert_eq!(guests, [at(1), at(3), at(4)]);
        assert_eq!(offered(&mut leases, 1, 0), Some(at(2)));
        assert_eq!(offered(&mut leases, 2, 0), Some(at(9)));
        assert_eq!(offered(&mut leases, 3, 11), Some(at(1)), "the pool is all there again");
        assert!(leases.offer(mac(4), Some(at(9)), Claim::Known, 11) != Some(at(9)));
    }

    #[test]
    fn an_address_that_is_kept_back_is_given_to_nobody_whoever_had_it() {
        let mut leases = Leases::new(POOL, [(mac(9), at(3))]);
        let had = bound(&mut leases, 1, Claim::Known, 0);
        leases.keep_back([had, had, at(3), at(77)]);

        let given: Vec<_> = (1..9).map_while(|c| offered(&mut leases, c, 0)).collect();

        assert_eq!(given, [at(2), at(4)]);
        assert_eq!(leases.bind(mac(1), had, 100, Claim::Known, 0), None);
        assert_eq!(leases.bind(mac(9), at(3), 100, Claim::Known, 0), None);
        assert_eq!(leases.size, 2);
        is_sound(&leases).unwrap();
    }

    #[test]
    fn a_client_takes_its_reserved_address_without_an_offer_after_all_was_lost() {
        let mut leases = Leases::new(POOL, [(mac(1), at(9))]);

        assert!(leases.bind(mac(1), at(9), 100, Claim::Known, 0).is_some());
        assert_eq!(leases.bind(mac(2), at(9), 100, Claim::Known, 0), None);
    }

    #[test]
    fn a_reservation_that_came_later_moves_its_client_and_frees_the_address_it_had_for_other_nodes()
    {
        let mut before = plain();
        let record = {
            let address = offered(&mut before, 1, 0).unwrap();
            before.bind(mac(1), address, 100, Claim::Known, 0).unwrap()
        };
        let mut leases = Leases::replay(POOL, [(mac(1), at(9))], [record], 0);

        assert_eq!(offered(&mut leases, 1, 10), Some(at(9)));
        let guests = (2..9).map_while(|client| leases.offer(mac(client), None, GUEST, 100));
        assert_eq!(guests.count(), POOL.len() - 1);
        assert!(offered(&mut leases, 9, 200).is_some());
    }

    #[test]
    fn an_address_that_its_client_may_still_use_is_nobodys_while_it_is_offered_another() {
        let mut leases = Leases::new(POOL, [(mac(1), at(2))]);
        offered(&mut leases, 1, 0);
        leases.decline(mac(1), at(2), 0).unwrap();
        let second = offered(&mut leases, 1, 0).unwrap();
        leases.bind(mac(1), second, 5_000, Claim::Known, 0).unwrap();

        assert_eq!(offered(&mut leases, 1, 1_000), Some(at(2)));
        let others: Vec<_> =
            (2..9).map_while(|client| offered(&mut leases, client, 1_000)).collect();

        assert_eq!(others, [at(3), at(4)]);
    }

    #[test]
    fn a_reserved_address_that_is_in_use_is_replaced_by_another_until_it_is_free() {
        let mut leases = Leases::new(POOL, [(mac(1), at(2))]);
        offered(&mut leases, 1, 0);
        leases.decline(mac(1), at(2), 0).unwrap();

        assert_eq!(offered(&mut leases, 1, 1), Some(at(1)));
        assert_eq!(offered(&mut leases, 1, 600), Some(at(2)));
    }

    #[test]
    fn a_guest_never_takes_the_address_that_a_known_node_had() {
        let mut leases = plain();
        let known = bound(&mut leases, 1, Claim::Known, 0);

        let guests: Vec<_> =
            (2..9).map_while(|client| leases.offer(mac(client), Some(known), GUEST, 500)).collect();

        assert_eq!(guests.len(), 3);
        assert!(!guests.contains(&known));
        assert_eq!(offered(&mut leases, 1, 501), Some(known));
    }

    #[test]
    fn guests_leave_the_last_addresses_to_known_nodes() {
        let (mut leases, guest) = (plain(), Claim::Guest { keep: 2 });

        let served =
            (10..100).filter(|client| leases.offer(mac(*client), None, guest, 0).is_some()).count();

        assert_eq!(served, 2);
        assert!(offered(&mut leases, 1, 0).is_some() && offered(&mut leases, 2, 0).is_some());
    }

    #[test]
    fn what_a_guest_was_offered_and_does_not_take_is_free_after_ten_seconds() {
        let mut leases = plain();
        for client in 10..14 {
            leases.offer(mac(client), None, GUEST, 0).unwrap();
        }

        assert_eq!(leases.offer(mac(20), None, GUEST, 9), None);
        assert!(leases.offer(mac(20), None, GUEST, 10).is_some());
    }

    #[test]
    fn a_known_node_takes_what_a_guest_was_only_offered_but_not_what_it_has() {
        let mut leases = plain();
        for client in 10..13 {
            bound(&mut leases, client, GUEST, 0);
        }
        let lent = leases.offer(mac(13), None, GUEST, 0).unwrap();

        assert_eq!(offered(&mut leases, 1, 1), Some(lent));
        assert_eq!(leases.bind(mac(13), lent, 100, GUEST, 1), None, "it was taken from it");
        assert_eq!(offered(&mut leases, 2, 1), None);
    }

    #[test]
    fn every_known_machine_gets_an_address_however_many_strangers_came_before_it() {
        for known in 0..=100_u8 {
            let first = Ipv4Addr::new(10, 0, 0, 0);
            let mut leases = Leases::new(Pool { first, last: at(99) }, []);
            let guest = Claim::guest(100, known.into());
            let flood = |leases: &mut Leases| {
                for last in 0..=255 {
                    let stranger = [2, 0, 0, 0, 1, last];
                    if let Some(address) = leases.offer(stranger, None, guest, 0) {
                        leases.bind(stranger, address, 10_000, guest, 0).unwrap();
                    }
                }
            };
            for number in 0..known {
                flood(&mut leases);
                bound(&mut leases, number, Claim::Known, 0);
            }
            flood(&mut leases);

            let strangers = leases.by_address.len() - usize::from(known);
            let kept = usize::from(known).max(25);
            assert_eq!(strangers, 100 - kept, "and what is left over is for strangers");
        }
    }

    #[test]
    fn a_restart_remembers_who_was_a_guest() {
        let mut leases = plain();
        let mut records = Vec::new();
        for (client, claim) in [(1, Claim::Known), (2, GUEST)] {
            let address = leases.offer(mac(client), None, claim, 0).unwrap();
            records.extend(leases.bind(mac(client), address, 100, claim, 0));
        }
        let mut again = Leases::replay(POOL, [], records, 0);

        let free: Vec<_> = (3..9).map_while(|c| again.offer(mac(c), None, GUEST, 500)).collect();

        assert_eq!(free, [at(3), at(4), at(2)]);
    }

    #[test]
    fn a_declined_address_that_ends_late_takes_nothing_from_its_client_when_all_is_read_back() {
        let mut leases = plain();
        let first = bound(&mut leases, 1, Claim::Known, 0);
        leases.decline(mac(1), first, 0).unwrap();
        let second = bound(&mut leases, 1, Claim::Known, 0);

        let again = Leases::replay(POOL, [], leases.records(), 0);

        assert_eq!(again.of(mac(1)).map(|lease| lease.address), Some(second));
    }

    #[derive(Clone, Debug)]
    enum Deed {
        Offer(u8, Option<u8>),
        Bind(u8),
        BindUnoffered(u8, u8),
        Release(u8),
        Decline(u8),
        Wait(u8),
        Restart,
    }

    fn deeds() -> impl Strategy<Value = Vec<Deed>> {
        let who = 0..12_u8;
        prop::collection::vec(
            prop_oneof![
                (who.clone(), prop::option::of(0..16_u8)).prop_map(|(w, a)| Deed::Offer(w, a)),
                who.clone().prop_map(Deed::Bind),
                (who.clone(), 0..16_u8).prop_map(|(w, a)| Deed::BindUnoffered(w, a)),
                who.clone().prop_map(Deed::Release),
                who.prop_map(Deed::Decline),
                any::<u8>().prop_map(Deed::Wait),
                Just(Deed::Restart),
            ],
            0..300,
        )
    }

    /// Every fourth client is a guest; 0 and 1 have reservations.
    fn claim(who: u8) -> Claim {
        if who.is_multiple_of(4) && who > 0 { Claim::Guest { keep: 1 } } else { Claim::Known }
    }

    fn is_sound(leases: &Leases) -> Result<(), TestCaseError> {
        for (mac, address) in &leases.by_mac {
            prop_assert_eq!(leases.by_address[address].lease.mac, *mac);
        }
        let sets = [
            &leases.running,
            &leases.offered_to_guests,
            &leases.quarantined,
            &leases.left_by_guests,
            &leases.left_by_known,
        ];
        let resting = leases.by_address.values().filter(|e| e.place == Place::Reserved).count();
        let in_sets: usize = sets.iter().map(|set| set.len()).sum();
        prop_assert_eq!(in_sets + resting, leases.by_address.len());
        let taken = leases.by_address.iter().filter(|(address, entry)| {
            matches!(
                entry.place,
                Place::Running | Place::Left | Place::OfferedToGuest | Place::Quarantined
            ) && !leases.reserved.contains_key(address)
        });
        let by_known =
            taken.clone().filter(|(_, entry)| is_in_use_by_known(entry.place, entry.lease.holder));
        prop_assert_eq!(by_known.count(), leases.taken_by_known);
        prop_assert_eq!(taken.count(), leases.taken);
        let quarantined: usize = leases.declined.values().map(Vec::len).sum();
        prop_assert_eq!(quarantined, leases.quarantined.len());
        for (mac, address) in &leases.reservations {
            let holder = leases.by_address.get(address).map(|entry| entry.lease.mac);
            prop_assert!(holder.is_none_or(|holder| holder == *mac));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn no_address_is_ever_two_clients_none_is_lost_and_the_journal_repeats_the_table(
            deeds in deeds(),
        ) {
            let reservations = [(mac(0), at(3)), (mac(1), at(9))];
            let mut leases = Leases::new(POOL, reservations);
            let mut journal = Vec::new();
            let mut now = 1_000;
            for deed in deeds {
                let held = |leases: &Leases, who| leases.of(mac(who)).map(|lease| lease.address);
                match deed {
                    Deed::Offer(who, wanted) => {
                        leases.offer(mac(who), wanted.map(at), claim(who), now);
                    }
                    Deed::Bind(who) => journal.extend(
                        held(&leases, who)
                            .and_then(|own| leases.bind(mac(who), own, 50, claim(who), now)),
                    ),
                    Deed::BindUnoffered(who, address) => journal
                        .extend(leases.bind_unoffered(mac(who), at(address), 50, claim(who), now)),
                    Deed::Release(who) => journal.extend(
                        held(&leases, who).and_then(|own| leases.release(mac(who), own, now)),
                    ),
                    Deed::Decline(who) => journal.extend(
                        held(&leases, who)
                            .and_then(|own| leases.decline(mac(who), own, now))
                            .into_iter()
                            .flatten(),
                    ),
                    Deed::Wait(secs) => now += Seconds::from(secs),
                    Deed::Restart => {
                        let bytes: Vec<u8> = journal.iter().flat_map(Record::encode).collect();
                        prop_assert_eq!(read(&bytes), journal, "all of it can be read");
                        journal = leases.records();
                        leases = Leases::replay(POOL, reservations, journal.iter().copied(), now);
                    }
                }
                is_sound(&leases)?;
            }
            let replayed = Leases::replay(POOL, reservations, journal, now);
            for entry in leases.by_address.values() {
                if entry.lease.state == State::Bound {
                    let of = replayed.by_address.get(&entry.lease.address).map(|e| e.lease.mac);
                    prop_assert_eq!(of, Some(entry.lease.mac));
                }
            }
            // Once all has ended, every address of the pool but the reserved one can be had again.
            now += 10_000;
            let free = (100..200).map_while(|client| offered(&mut leases, client, now)).count();
            prop_assert_eq!(free, POOL.len() - 1);
        }
    }
}
