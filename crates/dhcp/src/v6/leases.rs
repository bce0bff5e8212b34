//! Which address is whose. A client here is a machine's port, not a DUID: firmware, iPXE and Linux
//! come with different DUIDs, and firmware with a new IAID at each boot (EDK2 `Dhcp6Dxe`), from one
//! card, and all get the one address. Each is a binding of it; it is free when the last has ended.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use crate::journal::{TimeMark, Timed, leases_by_this_clock};
use crate::leases::{Claim, Holder, Seconds, TO_DECLINE, left_alone_until, youngest_beyond};

/// Identifiers of each link that are reserved (RFC 2526 §2).
const ANYCASTS: u128 = 128;
/// The bit of a record's end that marks a guest's: no lease ends so late.
const GUEST: u64 = 1 << 63;
/// The binding of an address that is kept for a client, which does not use it.
const KEPT: u64 = 1;
/// The binding of the first time mark of a run.
const STARTED: u64 = 1;
/// Bindings of one client. A machine that comes with a new IAID at each boot, and whose bindings have
/// not ended yet, loses the oldest.
const MOST_BINDINGS: usize = 16;

/// The client that an address belongs to.
pub type Identity = [u8; 16];

/// Whose the addresses are that a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A card has one address, with whichever association it is asked for.
    Card(Identity),
    /// A running system whose card is not known has one for each association.
    System(Identity),
}

impl Owner {
    /// Who asks, whatever it asks for.
    #[must_use]
    pub fn identity(self) -> Identity {
        let (Self::Card(identity) | Self::System(identity)) = self;
        identity
    }

    /// Whose the address of an association (by its IAID) is.
    #[must_use]
    pub fn of_association(self, ia: u32) -> Identity {
        match self {
            Self::Card(identity) => identity,
            Self::System(mut identity) => {
                identity[4..8].copy_from_slice(&ia.to_be_bytes());
                identity
            }
        }
    }
}

/// The addresses to give out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The first.
    pub first: Ipv6Addr,
    /// The last, included.
    pub last: Ipv6Addr,
}

impl Pool {
    /// Whether an address is one of them.
    #[must_use]
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// Those of them that a machine on this link may have: neither the one that stands for all routers
    /// (RFC 4291 §2.6.1) nor any that other anycasts are made of (RFC 2526 §2), and none beyond those.
    #[must_use]
    pub fn on(self, net: Ipv6Net) -> Self {
        let host = u128::MAX.checked_shr(net.prefix_len().into()).unwrap_or(0);
        let link = u128::from(net.network());
        let (mut first, mut last) = (u128::from(self.first), u128::from(self.last));
        // Where there are but two addresses, each is a machine's (RFC 6164 §6).
        if host > 1 && first == link {
            first += 1;
        }
        // The last of those whose universal bit is 0, on links whose addresses have such a bit.
        let highest = if net.prefix_len() == 64 { host & !(1 << 57) } else { host };
        if host > ANYCASTS {
            let anycasts = link + highest - (ANYCASTS - 1)..=link + highest;
            if anycasts.contains(&first) {
                first = (link + highest).saturating_add(1);
            } else if first < *anycasts.start() {
                last = last.min(anycasts.start() - 1);
            }
        }
        Self { first: first.into(), last: last.into() }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u128 {
        match u128::from(self.last).checked_sub(u128::from(self.first)) {
            Some(more) => more.saturating_add(1),
            None => 0,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first > self.last
    }
}

/// One use of an address: a DUID and an IAID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Which, see [`binding_id`].
    pub id: u64,
    /// The second at which it ends.
    pub until: Seconds,
}

/// A binding's identity among those of its client; never 0.
#[must_use]
pub fn binding_id(duid: &[u8], ia: u32) -> u64 {
    (u64::from(crc32fast::hash(duid)) << 32 | u64::from(ia)).max(1)
}

/// An address and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The client.
    pub identity: Identity,
    /// The address.
    pub address: Ipv6Addr,
    /// Its uses, oldest first.
    pub bindings: Vec<Binding>,
    /// Set aside until then, for whoever it was advertised to or because it is in use elsewhere.
    pub aside_until: Seconds,
    /// What the client was when it last asked.
    pub holder: Holder,
}

impl Lease {
    /// The second from which it may be given to another.
    #[must_use]
    pub fn until(&self) -> Seconds {
        let bound = self.bindings.iter().map(|binding| binding.until).max();
        bound.unwrap_or_default().max(self.aside_until)
    }
}

/// What becomes of a binding, for the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The client; zeros for an address that nobody may have.
    pub identity: Identity,
    /// The address.
    pub address: Ipv6Addr,
    /// The binding, or 0 where the address is set aside: the client, if there is one, declined it or took another.
    pub binding: u64,
    /// The second at which it ends; at once, if it was given back.
    pub until: Seconds,
    /// What the client was.
    pub holder: Holder,
}

/// The size of a record, in bytes.
pub const RECORD: usize = 52;

impl Record {
    /// A time mark. It has the form of a record of `::`, which no pool has, so versions that know no marks leave it out.
    #[must_use]
    pub fn mark(mark: TimeMark) -> Self {
        let (until, binding) = match mark {
            TimeMark::Running(now) => (now, 0),
            TimeMark::Started(now) => (now, STARTED),
        };
        let (identity, address, holder) = (NOBODY, Ipv6Addr::UNSPECIFIED, Holder::Known);
        Self { identity, address, binding, until, holder }
    }

    /// Identity, address, binding, end (its highest bit is a guest's), CRC-32 of all before it; integers
    /// are big-endian.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[..16].copy_from_slice(&self.identity);
        bytes[16..32].copy_from_slice(&self.address.octets());
        bytes[32..40].copy_from_slice(&self.binding.to_be_bytes());
        let guest = if self.holder == Holder::Guest { GUEST } else { 0 };
        bytes[40..48].copy_from_slice(&(self.until & !GUEST | guest).to_be_bytes());
        let sum = crc32fast::hash(&bytes[..48]);
        bytes[48..].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// The record in these bytes, unless they are damaged.
    #[must_use]
    pub fn decode(bytes: &[u8; RECORD]) -> Option<Self> {
        let (body, sum) = bytes.split_at(48);
        if sum != crc32fast::hash(body).to_be_bytes() {
            return None;
        }
        let octets: [u8; 16] = body[16..32].try_into().ok()?;
        let end = u64::from_be_bytes(body[40..48].try_into().ok()?);
        Some(Self {
            identity: body[..16].try_into().ok()?,
            address: octets.into(),
            binding: u64::from_be_bytes(body[32..40].try_into().ok()?),
            until: end & !GUEST,
            holder: if end & GUEST == 0 { Holder::Known } else { Holder::Guest },
        })
    }
}

impl Timed for Record {
    fn time_mark(&self) -> Option<TimeMark> {
        let until = self.until;
        self.address.is_unspecified().then_some(match self.binding {
            STARTED => TimeMark::Started(until),
            _ => TimeMark::Running(until),
        })
    }

    fn end(&mut self) -> &mut Seconds {
        &mut self.until
    }
}

/// The records of a journal up to the first damaged one, which is where a crash cut it.
#[must_use]
pub fn read(bytes: &[u8]) -> Vec<Record> {
    let records = bytes.chunks_exact(RECORD).map_while(|chunk| {
        let chunk: &[u8; RECORD] = chunk.try_into().ok()?;
        Record::decode(chunk)
    });
    records.collect()
}

/// The table.
///
/// A client keeps its address for as long as nobody else needs it. Reserved addresses, in the pool or
/// not, are their clients' alone. Nothing takes longer the more leases or addresses there are, but for a
/// logarithm.
#[derive(Clone, Debug)]
pub struct Leases {
    pool: Pool,
    reservations: HashMap<Identity, Ipv6Addr>,
    reserved: HashMap<Ipv6Addr, Identity>,
    by_address: HashMap<Ipv6Addr, Entry>,
    by_identity: HashMap<Identity, Ipv6Addr>,
    /// Those that had not ended when last looked at; reserved ones are in none of these.
    running: Ends,
    /// How many of them known machines have.
    running_of_known: usize,
    left_by_guests: Ends,
    left_by_known: Ends,
    /// Those that are nobody's now, by whose they were.
    given_up: HashMap<Identity, Vec<Ipv6Addr>>,
    /// How many addresses of the pool are reserved for nobody.
    size: u128,
    /// The lowest address that was never given out.
    unused: Option<Ipv6Addr>,
    /// How many got another client in this run.
    given: u64,
}

/// Addresses by when they end or ended.
type Ends = BTreeSet<(Seconds, Ipv6Addr)>;

#[derive(Clone, Debug)]
struct Entry {
    lease: Lease,
    place: Place,
    /// Whose it was, if it is nobody's now: its client declined it or took another, which others may have said in its
    /// name. It is that client's again once the client has it extended.
    former: Option<Identity>,
    /// The how many-th it was of those that got another client in this run; 0 before it.
    order: u64,
    /// The second in which its client was last told that it has it; 0 before this run.
    told: Seconds,
}

/// In which of the sets an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Running,
    LeftByGuest,
    LeftByKnown,
    Reserved,
}

/// Of no client: addresses that were given up are kept under it.
const NOBODY: Identity = [0; 16];

impl Leases {
    /// An empty table. Where an address or a client comes twice among the reservations, the first holds.
    #[must_use]
    pub fn new(pool: Pool, reservations: impl IntoIterator<Item = (Identity, Ipv6Addr)>) -> Self {
        let (mut by_identity, mut by_address) = (HashMap::new(), HashMap::new());
        for (identity, address) in reservations {
            if !by_address.contains_key(&address) && !by_identity.contains_key(&identity) {
                by_identity.insert(identity, address);
                by_address.insert(address, identity);
            }
        }
        let in_pool = by_address.keys().filter(|address| pool.contains(**address)).count();
        Self {
            pool,
            size: pool.len().saturating_sub(in_pool as u128),
            reservations: by_identity,
            reserved: by_address,
            by_address: HashMap::new(),
            by_identity: HashMap::new(),
            running: Ends::new(),
            running_of_known: 0,
            left_by_guests: Ends::new(),
            left_by_known: Ends::new(),
            given_up: HashMap::new(),
            unused: (!pool.is_empty()).then_some(pool.first),
            given: 0,
        }
    }

    /// The table that a journal leads to by `now`, without addresses outside of the pool, and those that are
    /// reserved for another client. The time between two runs does not count.
    #[must_use]
    pub fn replay(
        pool: Pool,
        reservations: impl IntoIterator<Item = (Identity, Ipv6Addr)>,
        records: impl IntoIterator<Item = Record>,
        now: Seconds,
    ) -> Self {
        let mut leases = Self::new(pool, reservations);
        for record in leases_by_this_clock(records, now) {
            let fits = match leases.reserved.get(&record.address) {
                Some(own) => *own == record.identity || record.identity == NOBODY,
                None => pool.contains(record.address),
            };
            if fits {
                leases.apply(&record, 0);
                leases.end_leases(now);
            }
        }
        // A journal that was written anew does not say what came first.
        leases.by_address.values_mut().for_each(|entry| entry.order = 0);
        leases
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> Pool {
        self.pool
    }

    /// The address that is this client's alone.
    #[must_use]
    pub fn reserved(&self, identity: &Identity) -> Option<Ipv6Addr> {
        self.reservations.get(identity).copied()
    }

    /// How many addresses have or had a client.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_address.len()
    }

    /// What a client has, ended or not.
    #[must_use]
    pub fn of(&self, identity: &Identity) -> Option<&Lease> {
        Some(&self.by_address.get(self.by_identity.get(identity)?)?.lease)
    }

    /// The address that a binding is a use of, unless it has ended.
    #[must_use]
    pub fn bound(&self, identity: &Identity, binding: u64, now: Seconds) -> Option<Ipv6Addr> {
        let lease = self.of(identity)?;
        let mut live = lease.bindings.iter().filter(|have| have.until > now);
        live.any(|have| have.id == binding).then_some(lease.address)
    }

    /// Sets an address aside for a client; `None` when none is left for it.
    pub fn offer(
        &mut self,
        identity: Identity,
        wanted: Option<Ipv6Addr>,
        claim: Claim,
        now: Seconds,
    ) -> Option<Ipv6Addr> {
        self.end_leases(now);
        let (until, holder) = (now + claim.patience(), claim.holder());
        let reserved = self.reservation(&identity, now);
        let last = self.of(&identity).map(|lease| lease.address);
        if let Some(address) = last.filter(|last| reserved.is_none_or(|own| own == *last)) {
            if !self.may_have(address, claim) {
                return None;
            }
            self.change(address, |lease| {
                lease.aside_until = lease.aside_until.max(until);
                lease.holder = holder;
            });
            return Some(address);
        }
        let address = match reserved {
            Some(reserved) => reserved,
            None if self.left_for(claim) => {
                wanted.filter(|wanted| self.is_nobodys(*wanted)).or_else(|| self.any_free(claim))?
            }
            None => return None,
        };
        let bindings = Vec::new();
        self.put(Lease { identity, address, bindings, aside_until: until, holder }, None);
        Some(address)
    }

    /// Binds a client's address for `secs`. `None` if it is not the client's.
    pub fn bind(
        &mut self,
        identity: Identity,
        address: Ipv6Addr,
        binding: u64,
        secs: u32,
        now: Seconds,
    ) -> Option<Record> {
        let holder = self.of(&identity).filter(|lease| lease.address == address)?.holder;
        let until = now + Seconds::from(secs);
        let record = Record { identity, address, binding, until, holder };
        self.apply(&record, now);
        Some(record)
    }

    /// A client has an address extended that it gave up. So it uses it, and it was somebody else who declined it in its
    /// name or took another: it is the client's again.
    pub fn reclaim(&mut self, identity: Identity, address: Ipv6Addr, now: Seconds) {
        self.end_leases(now);
        let entry = self.by_address.get(&address);
        let given_up = entry.filter(|entry| entry.former == Some(identity));
        let Some(Entry { lease: Lease { holder, .. }, .. }) = given_up else { return };
        let (holder, bindings) = (*holder, Vec::new());
        self.put(Lease { identity, address, bindings, aside_until: now, holder }, None);
    }

    /// A client is done with a binding.
    pub fn release(
        &mut self,
        identity: Identity,
        address: Ipv6Addr,
        binding: u64,
        now: Seconds,
    ) -> Option<Record> {
        self.bound(&identity, binding, now).filter(|bound| *bound == address)?;
        let holder = self.of(&identity)?.holder;
        let record = Record { identity, address, binding, until: now, holder };
        self.apply(&record, now);
        Some(record)
    }

    /// A client found the address of a binding in use that it was just told: nobody gets it for ten minutes. `None` if
    /// that is not what the binding is of, or if it was not told so just now.
    ///
    /// Anybody on the link can say so in a known machine's name. So what that machine had is kept for as long as it
    /// may use it, and is its own again after that if it has taken no other.
    ///
    /// A client that says so too often has to take another address, but of all that it gave up it keeps from others
    /// only what it had first. So the records are of the address, and maybe of one that it gave up before and that
    /// is free now.
    pub fn decline(
        &mut self,
        identity: Identity,
        address: Ipv6Addr,
        binding: u64,
        now: Seconds,
    ) -> Option<Vec<Record>> {
        self.bound(&identity, binding, now).filter(|bound| *bound == address)?;
        self.end_leases(now);
        let entry = self.by_address.get(&address).filter(|entry| now < entry.told + TO_DECLINE)?;
        let Lease { holder, .. } = entry.lease;
        let until = left_alone_until(holder, entry.lease.until(), now);
        let mut records = vec![Record { identity, address, binding: 0, until, holder }];
        self.apply(&records[0], now);
        if let Some(address) = self.given_up_last(&identity) {
            let free = Record { address, until: now, holder: Holder::Guest, ..records[0] };
            self.apply(&free, now);
            records.push(free);
        }
        Some(records)
    }

    /// Of more addresses than a client may have given up, the one that it had last. It is unknown of those that it had
    /// before this run, which do not count.
    fn given_up_last(&self, identity: &Identity) -> Option<Ipv6Addr> {
        let order =
            |address: &Ipv6Addr| self.by_address.get(address).map_or(0, |entry| entry.order);
        let given_up = self.given_up.get(identity)?.iter().copied();
        youngest_beyond(given_up.map(|address| (order(&address), address)))
    }

    /// Every record that would have to be in a journal written anew. Where a client has several addresses, the one that it
    /// has now is the last.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let (current, others): (Vec<_>, Vec<_>) =
            self.by_address.values().partition(|entry| entry.lease.identity != NOBODY);
        others.into_iter().chain(current).flat_map(|Entry { lease, former, .. }| {
            let Lease { identity, address, aside_until, holder, .. } = *lease;
            let identity = former.unwrap_or(identity);
            let record = move |binding, until| Record { identity, address, binding, until, holder };
            let aside = (lease.identity == NOBODY).then(|| record(0, aside_until));
            let bound = lease.bindings.iter().map(move |bound| record(bound.id, bound.until));
            aside.into_iter().chain(bound)
        })
    }

    fn apply(&mut self, record: &Record, told: Seconds) {
        let Record { identity, address, binding, until, holder } = *record;
        if binding == 0 {
            let former = Some(identity).filter(|identity| *identity != NOBODY);
            self.put(Lease { holder, ..nobodys(address, until) }, former);
            return;
        }
        if self.of(&identity).is_none_or(|lease| lease.address != address) {
            let bindings = Vec::new();
            self.put(Lease { identity, address, bindings, aside_until: 0, holder }, None);
        }
        self.change(address, |lease| {
            lease.aside_until = 0;
            lease.holder = holder;
            lease.bindings.retain(|have| have.id != binding);
            if lease.bindings.len() == MOST_BINDINGS {
                lease.bindings.remove(0);
            }
            lease.bindings.push(Binding { id: binding, until });
        });
        if let Some(entry) = self.by_address.get_mut(&address) {
            entry.told = told;
        }
    }

    /// The address that is reserved for a client, unless somebody else was found to use it.
    fn reservation(&self, identity: &Identity, now: Seconds) -> Option<Ipv6Addr> {
        let address = self.reserved(identity)?;
        let lease = self.by_address.get(&address).map(|entry| &entry.lease);
        let declined = lease.is_some_and(|lease| lease.identity == NOBODY && lease.until() > now);
        (!declined).then_some(address)
    }

    /// Whether a client may have the address that is its own, which counts for as much as a new one if
    /// its lease ended.
    fn may_have(&self, address: Ipv6Addr, claim: Claim) -> bool {
        let place = self.by_address.get(&address).map(|entry| entry.place);
        matches!(place, Some(Place::Running | Place::Reserved)) || self.left_for(claim)
    }

    /// Whether one more address may be taken.
    fn left_for(&self, claim: Claim) -> bool {
        match claim {
            Claim::Known => true,
            Claim::Guest { keep } => {
                let kept = keep.saturating_sub(self.running_of_known);
                self.size.saturating_sub(self.running.len() as u128) > kept as u128
            }
        }
    }

    fn is_nobodys(&self, address: Ipv6Addr) -> bool {
        let place = self.by_address.get(&address).map(|entry| entry.place);
        self.pool.contains(address)
            && !self.reserved.contains_key(&address)
            && place.is_none_or(|place| place == Place::LeftByGuest)
    }

    /// One that nobody has a claim on, else the one that has been free for longest; those that known
    /// machines left are for these alone.
    fn any_free(&mut self, claim: Claim) -> Option<Ipv6Addr> {
        let oldest = |ends: &Ends| ends.first().map(|(_, address)| *address);
        let free = self.next_unused().or_else(|| oldest(&self.left_by_guests));
        match claim {
            Claim::Known => free.or_else(|| oldest(&self.left_by_known)),
            Claim::Guest { .. } => free,
        }
    }

    fn next_unused(&mut self) -> Option<Ipv6Addr> {
        while let Some(address) = self.unused {
            let next = u128::from(address).checked_add(1).map(Ipv6Addr::from);
            self.unused = next.filter(|next| self.pool.contains(*next));
            if !self.by_address.contains_key(&address) && !self.reserved.contains_key(&address) {
                return Some(address);
            }
        }
        None
    }

    /// Moves what has ended to where free addresses are looked for: each lease once.
    fn end_leases(&mut self, now: Seconds) {
        while let Some((until, address)) =
            self.running.first().copied().filter(|(end, _)| *end <= now)
        {
            self.running.pop_first();
            let Some(entry) = self.by_address.get_mut(&address) else { continue };
            self.running_of_known -= entry.of_known_running();
            let former = entry.former;
            let known = former.filter(|_| entry.lease.holder == Holder::Known);
            if let Some(identity) = known {
                // Its own again if it has taken no other.
                if *self.by_identity.entry(identity).or_insert(address) == address {
                    (entry.lease.identity, entry.former) = (identity, None);
                    entry.lease.bindings.push(Binding { id: KEPT, until });
                }
            }
            entry.place = match entry.lease.holder {
                Holder::Known => Place::LeftByKnown,
                Holder::Guest => Place::LeftByGuest,
            };
            let place = entry.place;
            self.ends(place).map(|ends| ends.insert((until, address)));
            self.forget_former(former, address);
        }
    }

    fn forget_former(&mut self, former: Option<Identity>, address: Ipv6Addr) {
        let Some(identity) = former else { return };
        if let Some(given_up) = self.given_up.get_mut(&identity) {
            given_up.retain(|other| *other != address);
            if given_up.is_empty() {
                self.given_up.remove(&identity);
            }
        }
    }

    fn ends(&mut self, place: Place) -> Option<&mut Ends> {
        match place {
            Place::Running => Some(&mut self.running),
            Place::LeftByGuest => Some(&mut self.left_by_guests),
            Place::LeftByKnown => Some(&mut self.left_by_known),
            Place::Reserved => None,
        }
    }

    fn change(&mut self, address: Ipv6Addr, change: impl FnOnce(&mut Lease)) {
        if let Some(mut entry) = self.take(address) {
            change(&mut entry.lease);
            self.insert(entry);
        }
    }

    /// Makes a lease the one of its address and of its client.
    fn put(&mut self, lease: Lease, former: Option<Identity>) {
        let owner = former.unwrap_or(lease.identity);
        let before = self.by_address.get(&lease.address).filter(|before| before.owner() == owner);
        let order = before.map(|before| before.order).unwrap_or_else(|| {
            self.given += 1;
            self.given
        });
        self.forget(lease.address);
        if lease.identity != NOBODY
            && let Some(old) = self.by_identity.insert(lease.identity, lease.address)
            && let Some(Entry { lease: old, order, .. }) = self.take(old)
        {
            // Its client may use it up to its end, whatever it is given now.
            let (former, holder) = (Some(old.identity), old.holder);
            let left = Lease { holder, ..nobodys(old.address, old.until()) };
            self.insert(Entry { lease: left, place: Place::Running, former, order, told: 0 });
        }
        self.insert(Entry { lease, place: Place::Running, former, order, told: 0 });
    }

    fn forget(&mut self, address: Ipv6Addr) {
        if let Some(Entry { lease, .. }) = self.take(address)
            && self.by_identity.get(&lease.identity) == Some(&address)
        {
            self.by_identity.remove(&lease.identity);
        }
    }

    fn take(&mut self, address: Ipv6Addr) -> Option<Entry> {
        let entry = self.by_address.remove(&address)?;
        self.forget_former(entry.former, address);
        self.running_of_known -= entry.of_known_running();
        let end = (entry.lease.until(), address);
        self.ends(entry.place).map(|ends| ends.remove(&end));
        Some(entry)
    }

    fn insert(&mut self, mut entry: Entry) {
        let (address, until) = (entry.lease.address, entry.lease.until());
        let is_reserved = self.reserved.contains_key(&address);
        entry.place = if is_reserved { Place::Reserved } else { Place::Running };
        self.ends(entry.place).map(|ends| ends.insert((until, address)));
        if let Some(identity) = entry.former {
            self.given_up.entry(identity).or_default().push(address);
        }
        self.running_of_known += entry.of_known_running();
        self.by_address.insert(address, entry);
    }
}

impl Entry {
    /// Whose it is or was.
    fn owner(&self) -> Identity {
        self.former.unwrap_or(self.lease.identity)
    }

    /// One, where it counts as an address that a known machine has.
    fn of_known_running(&self) -> usize {
        let has = self.place == Place::Running && self.lease.identity != NOBODY;
        usize::from(has && self.lease.holder == Holder::Known)
    }
}

/// An address that nobody may have for a while.
fn nobodys(address: Ipv6Addr, aside_until: Seconds) -> Lease {
    let (bindings, holder) = (Vec::new(), Holder::Guest);
    Lease { identity: NOBODY, address, bindings, aside_until, holder }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(addresses: u128) -> Pool {
        let first: Ipv6Addr = "fd00::10".parse().unwrap();
        Pool { first, last: Ipv6Addr::from(u128::from(first) + addresses - 1) }
    }

    fn client(last: u8) -> Identity {
        let mut identity = [1; 16];
        identity[15] = last;
        identity
    }

    #[test]
    fn no_machine_gets_an_address_that_stands_for_others() {
        let range = |net: &str, first: &str, last: &str| {
            let pool = Pool { first: first.parse().unwrap(), last: last.parse().unwrap() };
            let Pool { first, last } = pool.on(net.parse().unwrap());
            [first.to_string(), last.to_string()]
        };

        assert_eq!(range("fd00::/64", "fd00::", "fd00::f"), ["fd00::1", "fd00::f"]);
        assert_eq!(range("fd00::/64", "fd00::10", "fd00::1f"), ["fd00::10", "fd00::1f"]);
        let all = range("fd00::/64", "fd00::", "fd00::ffff:ffff:ffff:ffff");
        assert_eq!(all, ["fd00::1", "fd00::fdff:ffff:ffff:ff7f"]);
        let above = range("fd00::/64", "fd00::fdff:ffff:ffff:ff90", "fd00::fe00:0:0:5");
        assert_eq!(above, ["fd00::fe00:0:0:0", "fd00::fe00:0:0:5"]);
        let small = range("fd00::/112", "fd00::ff00", "fd00::ffff");
        assert_eq!(small, ["fd00::ff00", "fd00::ff7f"]);
        assert_eq!(range("fd00::/127", "fd00::", "fd00::1"), ["fd00::", "fd00::1"]);
        let none = Pool { first: "fd00::".parse().unwrap(), last: "fd00::".parse().unwrap() };
        assert!(none.on("fd00::/64".parse().unwrap()).is_empty());
    }

    #[test]
    fn firmware_loader_and_system_share_one_address_until_the_last_lets_go() {
        let mut leases = Leases::new(pool(1), []);
        let [firmware, system] = [binding_id(b"uuid", 7), binding_id(b"llt", 1)];
        let address = leases.offer(client(1), None, Claim::Known, 0).unwrap();
        leases.bind(client(1), address, firmware, 100, 0).unwrap();
        assert_eq!(leases.offer(client(1), None, Claim::Known, 1), Some(address));
        leases.bind(client(1), address, system, 100, 1).unwrap();

        leases.release(client(1), address, firmware, 2).unwrap();

        assert_eq!(
            leases.offer(client(2), None, Claim::Known, 3),
            None,
            "the system still uses it"
        );
        leases.release(client(1), address, system, 4).unwrap();
        assert_eq!(leases.offer(client(2), None, Claim::Known, 5), Some(address));
    }

    #[test]
    fn a_client_that_comes_back_gets_the_address_it_had() {
        let mut leases = Leases::new(pool(4), []);
        let address = leases.offer(client(1), None, Claim::Known, 0).unwrap();
        leases.bind(client(1), address, 1, 10, 0).unwrap();
        leases.offer(client(2), None, Claim::Known, 0).unwrap();

        assert_eq!(leases.offer(client(1), None, Claim::Known, 1_000), Some(address));
    }

    #[test]
    fn a_clock_that_is_set_between_two_runs_neither_ends_a_lease_nor_brings_one_back() {
        let (mut before, begun) = (Leases::new(pool(4), []), 1_000_000);
        let nobody = Claim::Guest { keep: 0 };
        let mut bind = |who, now| {
            let address = before.offer(client(who), None, nobody, now).unwrap();
            before.bind(client(who), address, 1, 100, now).unwrap();
            address
        };
        let (ended, alive) = (bind(2, begun - 100), bind(1, begun));
        let records = [TimeMark::Started(begun - 100), TimeMark::Running(begun + 40)];
        let records: Vec<_> =
            records.map(Record::mark).into_iter().chain(before.records()).collect();

        for now in [begun - 86_400, begun + 40, begun + 86_400] {
            let records = records.iter().map(|record| Record::decode(&record.encode()).unwrap());
            let mut leases = Leases::replay(pool(4), [], records, now);

            let wanted = |leases: &mut Leases, address, now| {
                leases.offer(client(3), Some(address), Claim::Known, now) == Some(address)
            };
            assert!(!wanted(&mut leases.clone(), alive, now + 59), "60 of 100 seconds were left");
            assert!(wanted(&mut leases.clone(), alive, now + 60));
            assert!(wanted(&mut leases, ended, now), "{now}");
        }
    }

    #[test]
    fn an_address_that_is_in_use_elsewhere_is_left_alone_even_by_who_found_out() {
        let mut leases = Leases::new(pool(2), []);
        let address = leases.offer(client(1), None, Claim::Known, 0).unwrap();
        leases.bind(client(1), address, 1, 100, 0).unwrap();

        leases.decline(client(1), address, 1, 1).unwrap();

        let other = leases.offer(client(1), Some(address), Claim::Known, 2).unwrap();
        assert_ne!(other, address);
        leases.bind(client(1), other, 1, 10_000, 2).unwrap();
        assert_eq!(leases.offer(client(2), None, Claim::Known, 2), None);
        assert_eq!(leases.offer(client(2), None, Claim::Known, 601), Some(address));
    }

    #[test]
    fn an_address_is_declined_right_after_it_was_told_or_not_at_all() {
        let mut leases = Leases::new(pool(4), []);
        let address = leases.offer(client(1), None, Claim::Known, 1_000).unwrap();
        leases.bind(client(1), address, 1, 100, 1_000).unwrap();
        let mut again = Leases::replay(pool(4), [], leases.records(), 0);

        assert_eq!(leases.decline(client(1), address, 1, 1_060), None, "a minute later");
        leases.bind(client(1), address, 1, 100, 1_070).unwrap();
        assert!(leases.decline(client(1), address, 1, 1_071).is_some(), "it was told it again");
        assert_eq!(again.decline(client(1), address, 1, 1_001), None, "who knows when it was told");
    }

    /// A known client whose address was declined, maybe by another in its name.
    fn declined(secs: u32) -> (Leases, Ipv6Addr) {
        let mut leases = Leases::new(pool(3), []);
        let address = leases.offer(client(1), None, Claim::Known, 0).unwrap();
        leases.bind(client(1), address, 1, secs, 0).unwrap();
        leases.decline(client(1), address, 1, 1).unwrap();
        (leases, address)
    }

    #[test]
    fn a_machine_that_has_its_lease_extended_did_not_decline_it_whatever_is_said_in_its_name() {
        for (takes_another, restarts) in [(false, false), (true, false), (true, true)] {
            let (mut leases, address) = declined(3_600);
            if takes_another {
                let other = leases.offer(client(1), None, Claim::Known, 2).unwrap();
                leases.bind(client(1), other, 1, 3_600, 2).unwrap();
            }
            if restarts {
                let records: Vec<_> = leases.records().collect();
                leases = Leases::replay(pool(3), [], records, 0);
            }
            assert_ne!(leases.offer(client(2), Some(address), GUEST, 1_700), Some(address));

            leases.reclaim(client(3), address, 1_800);
            assert_eq!(leases.bind(client(3), address, 1, 3_600, 1_800), None, "another's");
            leases.reclaim(client(1), address, 1_800);

            assert_eq!(leases.offer(client(1), None, Claim::Known, 1_800), Some(address));
            assert!(leases.bind(client(1), address, 1, 3_600, 1_800).is_some());
        }
    }

    #[test]
    fn what_a_known_machine_declined_is_its_own_again_later_or_another_machines_if_it_took_another()
    {
        let (mut leases, address) = declined(10);
        assert_ne!(leases.offer(client(2), Some(address), GUEST, 601), Some(address));
        assert_eq!(leases.offer(client(1), None, Claim::Known, 602), Some(address));

        let (mut leases, address) = declined(10);
        let other = leases.offer(client(1), None, Claim::Known, 2).unwrap();
        leases.bind(client(1), other, 1, 10_000, 2).unwrap();
        assert_ne!(leases.offer(client(2), Some(address), GUEST, 601), Some(address));
        assert_eq!(leases.offer(client(3), None, GUEST, 601), None);
        assert_eq!(leases.offer(client(3), None, Claim::Known, 602), Some(address));
        assert_eq!(leases.offer(client(1), None, Claim::Known, 602), Some(other));
    }

    #[test]
    fn a_new_iaid_at_each_boot_does_not_pile_up() {
        let mut leases = Leases::new(pool(1), []);
        let address = leases.offer(client(1), None, Claim::Known, 0).unwrap();
        for boot in 1..=100 {
            leases.bind(client(1), address, boot, 1_000, boot).unwrap();
        }

        assert_eq!(leases.of(&client(1)).unwrap().bindings.len(), MOST_BINDINGS);
        assert_eq!(leases.records().count(), MOST_BINDINGS);
    }

    const GUEST: Claim = Claim::Guest { keep: 1 };

    #[test]
    fn a_reserved_address_is_its_clients_alone_and_may_lie_outside_of_the_pool() {
        let own = "fd00::99".parse().unwrap();
        let first = pool(2).first;
        let mut leases = Leases::new(pool(2), [(client(1), own), (client(2), first)]);

        assert_eq!(leases.offer(client(1), None, Claim::Known, 0), Some(own));
        assert_eq!(leases.offer(client(3), Some(first), Claim::Known, 0), Some(pool(2).last));
        assert_eq!(leases.offer(client(4), Some(own), Claim::Known, 0), None);
        assert_eq!(leases.offer(client(2), None, Claim::Known, 0), Some(first));
        assert!(leases.bind(client(1), own, 1, 100, 0).is_some());
    }

    #[test]
    fn who_gets_a_reservation_while_a_lease_runs_keeps_that_from_others_until_it_ends() {
        let mut before = Leases::new(pool(1), []);
        let address = before.offer(client(1), None, Claim::Known, 0).unwrap();
        before.bind(client(1), address, 1, 100, 0).unwrap();
        let own: Ipv6Addr = "fd00::99".parse().unwrap();
        let mut leases = Leases::replay(pool(1), [(client(1), own)], before.records(), 0);

        assert_eq!(leases.offer(client(1), None, Claim::Known, 1), Some(own));
        assert_eq!(leases.offer(client(2), None, Claim::Known, 99), None);
        assert_eq!(leases.offer(client(2), None, Claim::Known, 100), Some(address));
    }

    #[test]
    fn a_guest_gets_neither_the_last_addresses_nor_one_that_a_known_machine_left() {
        let mut leases = Leases::new(pool(3), []);
        let known = leases.offer(client(1), None, Claim::Known, 0).unwrap();
        leases.bind(client(1), known, 1, 100, 0).unwrap();
        leases.release(client(1), known, 1, 10).unwrap();

        let guest = leases.offer(client(2), Some(known), GUEST, 20).unwrap();

        assert_ne!(guest, known);
        assert!(leases.offer(client(3), None, GUEST, 20).is_some());
        assert_eq!(leases.offer(client(4), None, GUEST, 20), None);
        assert_eq!(leases.offer(client(1), None, Claim::Known, 20), Some(known));
    }

    #[test]
    fn whose_an_address_was_last_is_known_after_a_restart() {
        let mut before = Leases::new(pool(2), []);
        let known = before.offer(client(1), None, Claim::Known, 0).unwrap();
        let guest = before.offer(client(2), None, Claim::Guest { keep: 0 }, 0).unwrap();
        before.bind(client(1), known, 1, 10, 0).unwrap();
        before.bind(client(2), guest, 1, 10, 0).unwrap();
        let journal: Vec<u8> = before.records().flat_map(|record| record.encode()).collect();
        let mut leases = Leases::replay(pool(2), [], read(&journal), 0);

        let nobody = Claim::Guest { keep: 0 };
        assert_eq!(leases.offer(client(3), Some(known), nobody, 20), Some(guest));
        assert_eq!(leases.offer(client(4), Some(known), nobody, 20), None);
    }

    #[test]
    fn a_client_that_declines_all_it_gets_keeps_few_addresses_from_others() {
        let mut leases = Leases::new(pool(8), []);
        for _ in 0..100 {
            let address = leases.offer(client(1), None, GUEST, 0).unwrap();
            leases.bind(client(1), address, 1, 100, 0).unwrap();
            leases.decline(client(1), address, 1, 0).unwrap();
        }

        let others = (2..20).filter_map(|who| leases.offer(client(who), None, Claim::Known, 1));
        assert_eq!(others.count(), 8 - 3);
    }

    #[test]
    fn a_pool_as_large_as_a_link_takes_no_longer_than_a_small_one() {
        let first: Ipv6Addr = "fd00::".parse().unwrap();
        let last: Ipv6Addr = "fd00::ffff:ffff:ffff:ffff".parse().unwrap();
        let mut leases = Leases::new(Pool { first, last }, []);

        assert_eq!(leases.pool().len(), 1 << 64);
        assert_eq!(leases.offer(client(1), Some(last), GUEST, 0), Some(last));
        assert_eq!(leases.offer(client(2), None, GUEST, 0), Some(first));
    }

    #[derive(Clone, Debug)]
    enum Act {
        Offer(u8),
        Bind(u8, u64),
        Release(u8, u64),
        Decline(u8, u64),
        Wait(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        let who = 0..6_u8;
        prop_oneof![
            who.clone().prop_map(Act::Offer),
            (who.clone(), 1..4_u64).prop_map(|(who, binding)| Act::Bind(who, binding)),
            (who.clone(), 1..4_u64).prop_map(|(who, binding)| Act::Release(who, binding)),
            (who, 1..4_u64).prop_map(|(who, binding)| Act::Decline(who, binding)),
            (1..400_u64).prop_map(Act::Wait),
        ]
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice_and_a_journal_leads_to_the_same_table(
            acts in proptest::collection::vec(act(), 0..80)
        ) {
            let mut leases = Leases::new(pool(4), []);
            let (mut now, mut journal) = (1_000, Vec::new());
            for act in acts {
                let of = |leases: &Leases, who| leases.of(&client(who)).map(|lease| lease.address);
                let mut records = Vec::new();
                match act {
                    Act::Offer(who) => drop(leases.offer(client(who), None, Claim::Known, now)),
                    Act::Bind(who, binding) => records.extend(
                        of(&leases, who)
                            .and_then(|own| leases.bind(client(who), own, binding, 300, now)),
                    ),
                    Act::Release(who, binding) => records.extend(
                        of(&leases, who)
                            .and_then(|own| leases.release(client(who), own, binding, now)),
                    ),
                    Act::Decline(who, binding) => records.extend(
                        of(&leases, who)
                            .and_then(|own| leases.decline(client(who), own, binding, now))
                            .into_iter()
                            .flatten(),
                    ),
                    Act::Wait(secs) => now += secs,
                }
                let again = |record: Record| Record::decode(&record.encode()).unwrap();
                journal.extend(records.into_iter().map(again));
                let mut holders: Vec<_> = (0..6).filter_map(|who| of(&leases, who)).collect();
                holders.sort();
                let clients = holders.len();
                holders.dedup();
                prop_assert_eq!(holders.len(), clients, "two clients have one address");
            }
            let replayed = Leases::replay(pool(4), [], journal, now);
            for who in 0..6 {
                let running = |leases: &Leases| leases.of(&client(who)).and_then(|lease| {
                    let running = lease.bindings.iter().filter(|binding| binding.until > now);
                    let running: Vec<_> = running.copied().collect();
                    (!running.is_empty()).then_some((lease.address, running))
                });
                prop_assert_eq!(running(&replayed), running(&leases));
            }
        }
    }
}
