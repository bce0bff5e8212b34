//! Who has which address: one pool, one table for either family, changed only by what a journal can repeat.
//!
//! Nothing here takes longer the more leases or addresses there are, but for a logarithm.

mod claim;
mod pool;
mod sets;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;

pub use self::claim::{LeaseClaim, LeaseHolder};
pub use self::pool::LeasePool;
pub use self::sets::LeasePlace;
use self::sets::LeaseSets;
use crate::address_family::{AddressFamily, LeaseBindings as _};
use crate::journal::{LeaseRecord, leases_by_this_clock};

/// Seconds since the Unix epoch.
pub type Seconds = u64;

/// How long a client has, once it is told an address, to find somebody else using it. It looks before it uses the
/// address, which takes some seven seconds (RFC 5227 §2.1.1).
const TO_DECLINE: Seconds = 60;
/// How many addresses one client can keep from others that it gave up. One that finds more of them in use is broken,
/// or means harm.
const MOST_GIVEN_UP: usize = 3;

/// An address and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressLease<A: AddressFamily> {
    /// The client.
    pub client: A::Client,
    /// The address.
    pub address: A,
    /// What the client uses it for; nothing, if it was only offered.
    pub bindings: A::Bindings,
    /// Set aside until then, because it was offered or declined.
    pub aside_until: Seconds,
    /// What the client was when it last asked.
    pub holder: LeaseHolder,
    /// Whether the client found somebody else using it.
    pub is_declined: bool,
}

impl<A: AddressFamily> AddressLease<A> {
    /// The second from which it may be given to another.
    #[must_use]
    pub fn until(&self) -> Seconds {
        self.bindings.until().unwrap_or_default().max(self.aside_until)
    }
}

#[derive(Clone, Debug)]
struct LeaseEntry<A: AddressFamily> {
    lease: AddressLease<A>,
    place: LeasePlace,
    /// Its position among the addresses that got another client in this run; 0 if it got none.
    order: u64,
    /// The second in which the client was last told that this is its address; 0 before this run.
    told: Seconds,
}

/// The table.
///
/// A client keeps its address for as long as nobody else needs it: one that comes back, even long
/// after its lease ended, gets the address it had. Reserved addresses, in the pool or not, are their
/// clients' alone, and those that are kept back nobody's.
#[derive(Clone, Debug)]
pub struct LeaseTable<A: AddressFamily> {
    pool: LeasePool<A>,
    reservations: HashMap<A::Client, A>,
    /// By whom; by nobody, where they are kept back.
    reserved: HashMap<A, Option<A::Client>>,
    by_address: HashMap<A, LeaseEntry<A>>,
    by_client: HashMap<A::Client, A>,
    sets: LeaseSets<A>,
    /// How many addresses of the pool can be given out.
    size: usize,
    /// The lowest address that was never given out.
    unused: Option<A>,
    /// How many addresses got another client in this run.
    given: u64,
}

impl<A: AddressFamily> LeaseTable<A> {
    /// An empty table. Where an address or a client comes twice among the reservations, the first holds.
    #[must_use]
    pub fn new(pool: LeasePool<A>, reservations: impl IntoIterator<Item = (A::Client, A)>) -> Self {
        let (mut by_client, mut by_address) = (HashMap::new(), HashMap::new());
        for (client, address) in reservations {
            if !by_address.contains_key(&address) && !by_client.contains_key(&client) {
                by_client.insert(client, address);
                by_address.insert(address, Some(client));
            }
        }
        let in_pool = by_address.keys().filter(|address| pool.contains(**address)).count();
        Self {
            pool,
            size: pool.len() - in_pool,
            reservations: by_client,
            reserved: by_address,
            by_address: HashMap::new(),
            by_client: HashMap::new(),
            sets: LeaseSets::new(),
            unused: (!pool.is_empty()).then_some(pool.first),
            given: 0,
        }
    }

    /// The table that a journal leads to by `now`. Addresses outside the pool are left out, and those that are
    /// reserved for another client, so both may be changed between two runs. The time between two runs does not count.
    #[must_use]
    pub fn replay(
        pool: LeasePool<A>,
        reservations: impl IntoIterator<Item = (A::Client, A)>,
        records: impl IntoIterator<Item = LeaseRecord<A>>,
        now: Seconds,
    ) -> Self {
        let mut leases = Self::new(pool, reservations);
        for record in leases_by_this_clock(records, now) {
            let fits = match leases.reserved.get(&record.address) {
                Some(client) => *client == Some(record.client),
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

    /// Takes addresses out of the pool for good, and from whoever has them: somebody has them who never asks here.
    pub fn keep_back(&mut self, addresses: impl IntoIterator<Item = A>) {
        for address in addresses {
            self.forget(address);
            match self.reserved.insert(address, None) {
                Some(Some(client)) => drop(self.reservations.remove(&client)),
                Some(None) => {}
                None => self.size -= usize::from(self.pool.contains(address)),
            }
        }
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> LeasePool<A> {
        self.pool
    }

    /// The address that is this client's alone.
    #[must_use]
    pub fn reserved(&self, client: &A::Client) -> Option<A> {
        self.reservations.get(client).copied()
    }

    /// All clients with an address that is theirs alone.
    pub fn reserved_clients(&self) -> impl Iterator<Item = A::Client> {
        self.reservations.keys().copied()
    }

    /// How many addresses have or had a client.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_address.len()
    }

    /// What a client has, ended or not.
    #[must_use]
    pub fn of(&self, client: &A::Client) -> Option<&AddressLease<A>> {
        Some(&self.by_address.get(self.by_client.get(client)?)?.lease)
    }

    /// The address that a binding is a use of, unless it has ended.
    #[must_use]
    pub fn bound(&self, client: &A::Client, binding: A::Binding, now: Seconds) -> Option<A> {
        let lease = self.of(client)?;
        lease.bindings.is_bound(binding, now).then_some(lease.address)
    }

    /// Whether an address is given out here, to whomever.
    #[must_use]
    pub fn gives(&self, address: A) -> bool {
        self.pool.contains(address) || self.reserved.contains_key(&address)
    }

    /// Sets an address aside for a client, which then has a while to ask for it.
    ///
    /// `None` when none is left for it.
    pub fn offer(
        &mut self,
        client: A::Client,
        wanted: Option<A>,
        claim: LeaseClaim,
        now: Seconds,
    ) -> Option<A> {
        self.end_leases(now);
        let reserved = self.reservation(&client, now);
        let last = self.of(&client).map(|last| last.address);
        let address = match last.filter(|last| reserved.is_none_or(|own| own == *last)) {
            Some(last) => self.may_have(last, claim).then_some(last)?,
            None => reserved.or_else(|| self.choose(wanted, claim))?,
        };
        let until = now + claim.offer_secs();
        self.change(client, address, now, |lease| {
            // A running lease must not be made shorter by a client that starts over.
            lease.aside_until = lease.aside_until.max(until);
            lease.holder = claim.holder();
            lease.is_declined = false;
        });
        Some(address)
    }

    /// Gives a client the address it was offered or has, or that is reserved for it, for `secs`. `None`
    /// if it has not.
    ///
    /// One that it declined is among those, as long as nobody else has it: whoever asks for it to last longer uses it,
    /// and it was somebody else who declined it.
    pub fn bind(
        &mut self,
        client: A::Client,
        address: A,
        binding: A::Binding,
        secs: u32,
        claim: LeaseClaim,
        now: Seconds,
    ) -> Option<LeaseRecord<A>> {
        self.end_leases(now);
        let is_own =
            self.is_of(address, &client) || self.reservation(&client, now) == Some(address);
        if !is_own || !self.may_have(address, claim) {
            return None;
        }
        let (until, holder) = (now + Seconds::from(secs), claim.holder());
        Some(
            self.record(
                LeaseRecord { client, address, binding: Some(binding), until, holder },
                now,
            ),
        )
    }

    /// Gives a client that has no address one which nobody else has, as if it had been offered. `None` if somebody
    /// may have it.
    pub fn bind_unoffered(
        &mut self,
        client: A::Client,
        address: A,
        binding: A::Binding,
        secs: u32,
        claim: LeaseClaim,
        now: Seconds,
    ) -> Option<LeaseRecord<A>> {
        self.end_leases(now);
        // Whoever has one could else collect as many as there are.
        let has_none = self.of(&client).is_none() && self.reservation(&client, now).is_none();
        if !has_none || !self.is_nobodys(address) || !self.left_for(claim) {
            return None;
        }
        let (until, holder) = (now + Seconds::from(secs), claim.holder());
        Some(
            self.record(
                LeaseRecord { client, address, binding: Some(binding), until, holder },
                now,
            ),
        )
    }

    /// A client has an address extended that it gave up. So it uses it, and it was somebody else who declined it in its
    /// name or took another: it is the client's again.
    pub fn reclaim(&mut self, client: A::Client, address: A, now: Seconds) {
        self.end_leases(now);
        let is_current = self.by_client.get(&client) == Some(&address);
        if !is_current && self.is_of(address, &client) {
            self.change(client, address, now, |lease| {
                (lease.aside_until, lease.is_declined) = (now, false);
            });
        }
    }

    /// A client is done with a use of its address. It keeps its claim until somebody else needs it.
    ///
    /// Nothing is written of an address that was only offered: an offer is in no journal.
    pub fn release(
        &mut self,
        client: A::Client,
        address: A,
        binding: A::Binding,
        now: Seconds,
    ) -> Option<LeaseRecord<A>> {
        let lease = self.of(&client).filter(|lease| lease.address == address)?;
        let holder = lease.holder;
        if lease.bindings.until().is_none() {
            self.withdraw(&client, now);
            return None;
        }
        self.bound(&client, binding, now)?;
        let record = LeaseRecord { client, address, binding: Some(binding), until: now, holder };
        Some(self.record(record, now))
    }

    /// A client found the address in use that it was just told: nobody gets it for ten minutes, as long as others are
    /// left. `None` if it was not told so just now; whoever finds out later is told it again if it starts over, and
    /// then may decline it.
    ///
    /// Anybody on the link can say so in a known machine's name. So what that machine had is kept for as long as it
    /// may use it, and is its own again after that if it has taken no other.
    ///
    /// A client that says so too often has to take another address, but of all that it gave up it keeps from others
    /// only what it had first. So the records are of the address, and maybe of one that it gave up before and that
    /// is free now.
    pub fn decline(
        &mut self,
        client: A::Client,
        address: A,
        now: Seconds,
    ) -> Option<Vec<LeaseRecord<A>>> {
        self.end_leases(now);
        let lease = self.of(&client).filter(|lease| lease.address == address)?;
        let (holder, until) = (lease.holder, lease.until());
        let was_told = self.by_address.get(&address).is_some_and(|it| now < it.told + TO_DECLINE);
        if !was_told || until <= now {
            return None;
        }
        let until = holder.leaves_alone_until(until, now);
        let declined = LeaseRecord { client, address, binding: None, until, holder };
        let mut records = vec![self.record(declined, now)];
        if let Some(address) = self.last_given_up(&client) {
            let free = LeaseRecord { address, until: now, holder: LeaseHolder::Guest, ..declined };
            records.push(self.record(free, now));
        }
        Some(records)
    }

    /// A client took another server's offer instead of ours.
    pub fn withdraw(&mut self, client: &A::Client, now: Seconds) {
        let offered = self.of(client).filter(|lease| lease.bindings.until().is_none());
        let offered = offered.filter(|lease| lease.until() > now).map(|lease| lease.address);
        if let Some(address) = offered {
            self.change(*client, address, now, |lease| lease.aside_until = now);
        }
    }

    /// Every record that would have to be in a journal written anew. Where a client has several addresses, the one that
    /// it has now is the last.
    #[must_use]
    pub fn records(&self) -> Vec<LeaseRecord<A>> {
        let mut leases: Vec<_> = self.by_address.values().map(|entry| &entry.lease).collect();
        let is_current =
            |lease: &AddressLease<A>| self.by_client.get(&lease.client) == Some(&lease.address);
        leases.sort_by_cached_key(|lease| (is_current(lease), lease.until(), lease.address));
        let records = leases.into_iter().flat_map(|lease| {
            let AddressLease { client, address, aside_until, holder, is_declined, .. } = *lease;
            let record =
                move |binding, until| LeaseRecord { client, address, binding, until, holder };
            let declined = is_declined.then(|| record(None, aside_until));
            let bound = lease.bindings.each().map(move |(id, until)| record(Some(id), until));
            declined.into_iter().chain(bound)
        });
        records.collect()
    }

    /// Of more addresses than a client may have given up, the one that it had last. That is unknown of those that it
    /// had before this run, which do not count.
    ///
    /// Whoever speaks in a machine's name has it take addresses and declines them, but what the machine used before
    /// that it had first.
    fn last_given_up(&self, client: &A::Client) -> Option<A> {
        let order = |address: &A| self.by_address.get(address).map_or(0, |entry| entry.order);
        let given_up = self.sets.given_up(client).iter().map(|address| (order(address), *address));
        let given_up: Vec<_> = given_up.filter(|(order, _)| *order > 0).collect();
        let last = given_up.iter().max_by_key(|(order, _)| *order).map(|(_, address)| *address);
        last.filter(|_| given_up.len() > MOST_GIVEN_UP)
    }

    /// The address that is reserved for a client, unless somebody else was found to use it.
    fn reservation(&self, client: &A::Client, now: Seconds) -> Option<A> {
        let address = self.reserved(client)?;
        let lease = self.by_address.get(&address).map(|entry| &entry.lease);
        let is_declined = lease.is_some_and(|lease| lease.is_declined && lease.until() > now);
        (!is_declined).then_some(address)
    }

    fn is_of(&self, address: A, client: &A::Client) -> bool {
        self.by_address.get(&address).is_some_and(|entry| entry.lease.client == *client)
    }

    /// Whether a client may have an address now that is its own, which counts for as much as a
    /// new one if its lease ended.
    fn may_have(&self, address: A, claim: LeaseClaim) -> bool {
        self.by_address.get(&address).is_some_and(|entry| entry.place.is_taken())
            || self.reserved.contains_key(&address)
            || self.left_for(claim)
    }

    /// Whether one more address may be taken.
    fn left_for(&self, claim: LeaseClaim) -> bool {
        match claim {
            LeaseClaim::Known => true,
            LeaseClaim::Guest { keep } => {
                let kept = keep.saturating_sub(self.sets.taken_by_known);
                self.size.saturating_sub(self.sets.taken) > kept
            }
        }
    }

    /// An address for a client that has none: the one that it wants, if that is free.
    fn choose(&mut self, wanted: Option<A>, claim: LeaseClaim) -> Option<A> {
        if !self.left_for(claim) {
            return None;
        }
        wanted.filter(|wanted| self.is_nobodys(*wanted)).or_else(|| self.any_free(claim))
    }

    fn is_nobodys(&self, address: A) -> bool {
        let place = self.by_address.get(&address).map(|entry| entry.place);
        self.pool.contains(address)
            && !self.reserved.contains_key(&address)
            && place.is_none_or(|place| place == LeasePlace::EndedOfGuest)
    }

    /// One that nobody has a claim on. If there is none, a known machine gets another's.
    fn any_free(&mut self, claim: LeaseClaim) -> Option<A> {
        let free = self.next_unused().or_else(|| self.sets.first(LeasePlace::EndedOfGuest));
        match claim {
            LeaseClaim::Known => {
                free.or_else(|| A::TAKEN_FOR_KNOWN.iter().find_map(|place| self.sets.first(*place)))
            }
            LeaseClaim::Guest { .. } => free,
        }
    }

    fn next_unused(&mut self) -> Option<A> {
        while let Some(address) = self.unused {
            self.unused = address.next().filter(|next| self.pool.contains(*next));
            if !self.by_address.contains_key(&address) && !self.reserved.contains_key(&address) {
                return Some(address);
            }
        }
        None
    }

    fn record(&mut self, record: LeaseRecord<A>, now: Seconds) -> LeaseRecord<A> {
        self.apply(&record, now);
        record
    }

    fn apply(&mut self, record: &LeaseRecord<A>, told: Seconds) {
        let LeaseRecord { client, address, binding, until, holder } = *record;
        self.change(client, address, told, |lease| {
            lease.holder = holder;
            lease.is_declined = binding.is_none();
            match binding {
                Some(binding) => {
                    lease.aside_until = 0;
                    lease.bindings.bind(binding, until);
                }
                None => (lease.aside_until, lease.bindings) = (until, A::Bindings::default()),
            }
        });
    }

    /// Changes the lease that a client has of an address, which it is told in the second `told`. It is a new one if
    /// the address was another's.
    fn change(
        &mut self,
        client: A::Client,
        address: A,
        told: Seconds,
        change: impl FnOnce(&mut AddressLease<A>),
    ) {
        if !self.is_of(address, &client) {
            self.assign(client, address);
        }
        let entry = self.by_address.get_mut(&address).expect("it was assigned if it was not there");
        self.sets.remove(entry);
        change(&mut entry.lease);
        entry.told = told;
        entry.place = match entry.lease.holder {
            _ if self.reserved.contains_key(&address) => LeasePlace::Reserved,
            _ if entry.lease.is_declined => LeasePlace::Declined,
            LeaseHolder::Guest if entry.lease.bindings.until().is_none() => {
                LeasePlace::OfferedToGuest
            }
            LeaseHolder::Known | LeaseHolder::Guest => LeasePlace::Running,
        };
        self.sets.insert(entry);
        if !entry.lease.is_declined {
            let before = self.by_client.insert(client, address);
            before.filter(|before| *before != address).into_iter().for_each(|it| self.replace(it));
        } else if self.by_client.get(&client) == Some(&address) {
            // The client that declined it must get another.
            self.by_client.remove(&client);
        }
    }

    /// Makes an address a client's, with a lease that has ended.
    fn assign(&mut self, client: A::Client, address: A) {
        self.forget(address);
        self.given += 1;
        let (bindings, holder) = (A::Bindings::default(), LeaseHolder::Guest);
        let lease =
            AddressLease { client, address, bindings, aside_until: 0, holder, is_declined: false };
        // In no set yet.
        let place = LeasePlace::Reserved;
        self.by_address.insert(address, LeaseEntry { lease, place, order: self.given, told: 0 });
    }

    /// Its client has another address now.
    fn replace(&mut self, address: A) {
        let entry = self.by_address.get_mut(&address);
        if let Some(entry) = entry.filter(|entry| entry.place == LeasePlace::Running) {
            self.sets.remove(entry);
            entry.place = LeasePlace::Replaced;
            self.sets.insert(entry);
        }
    }

    fn forget(&mut self, address: A) {
        let Some(entry) = self.by_address.remove(&address) else { return };
        self.sets.remove(&entry);
        if self.by_client.get(&entry.lease.client) == Some(&address) {
            self.by_client.remove(&entry.lease.client);
        }
    }

    /// Moves the leases that have ended to where others find their addresses: each once.
    fn end_leases(&mut self, now: Seconds) {
        while let Some(address) = self.sets.over(now) {
            let entry = self.by_address.get_mut(&address);
            let entry = entry.expect("every address in a set is in the table");
            self.sets.remove(entry);
            let until = entry.lease.until();
            let AddressLease { client, bindings, holder, is_declined, .. } = &mut entry.lease;
            entry.place = match holder {
                LeaseHolder::Guest => LeasePlace::EndedOfGuest,
                LeaseHolder::Known => {
                    // What a known machine gave up is its own again if it has taken no other.
                    self.by_client.entry(*client).or_insert(address);
                    if std::mem::take(is_declined) {
                        bindings.bind(A::KEPT, until);
                    }
                    LeasePlace::EndedOfKnown
                }
            };
            self.sets.insert(entry);
        }
    }
}
