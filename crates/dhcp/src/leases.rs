//! The lease table: one pool, one table for either family, changed only by operations that a journal can replay.
//!
//! Every operation takes at most logarithmic time in the number of leases and addresses.

mod claim;
mod lease;
mod place;
mod pool;
mod sets;
#[cfg(test)]
pub(crate) mod tests;
mod time;

use std::collections::HashMap;

pub use self::claim::{LeaseClaim, LeaseHolder};
pub use self::lease::AddressLease;
use self::lease::LeaseEntry;
pub use self::place::LeasePlace;
pub use self::pool::LeasePool;
use self::sets::LeaseSets;
pub use self::time::Seconds;
use crate::address_family::{AddressFamily, LeaseBindings as _, LeaseRecord};
use crate::journal::leases_by_this_clock;

/// Time within which a client may decline an address, in seconds. A client probes an address before it uses it, which
/// takes about seven seconds (RFC 5227 §2.1.1).
const TO_DECLINE: Seconds = 60;
/// Number of given-up addresses that one client can keep from others. A client that declines more is broken or
/// hostile.
const MOST_GIVEN_UP: usize = 3;

/// The table of leases.
///
/// A client keeps its address as long as nobody else needs it: a client that returns long after the end of its lease
/// gets the same address. A reserved address, inside or outside of the pool, is its client's alone. Addresses that
/// are kept back are given to nobody.
#[derive(Clone, Debug)]
pub struct LeaseTable<A: AddressFamily> {
    pool: LeasePool<A>,
    reservations: HashMap<A::Client, A>,
    /// The client of a reserved address; `None` for an address that is kept back.
    reserved: HashMap<A, Option<A::Client>>,
    by_address: HashMap<A, LeaseEntry<A>>,
    by_client: HashMap<A::Client, A>,
    sets: LeaseSets<A>,
    /// Number of addresses of the pool that can be given out.
    size: usize,
    /// The lowest address that was never given out.
    unused: Option<A>,
    /// Number of reassigned addresses in this run.
    given: u64,
}

impl<A: AddressFamily> LeaseTable<A> {
    /// An empty table. The first reservation wins where an address or a client has several.
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

    /// The table after a journal's records, at `now`. Addresses outside the pool and addresses reserved for another
    /// client are left out, so pool and reservations may change between two runs. The time between two runs does not
    /// count.
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
        // A compacted journal does not keep the order of events.
        leases.by_address.values_mut().for_each(|entry| entry.order = 0);
        leases
    }

    /// Removes addresses from the pool for good, and from their clients: another host uses them and never requests
    /// them here.
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

    /// The address reserved for a client.
    #[must_use]
    pub fn reserved(&self, client: &A::Client) -> Option<A> {
        self.reservations.get(client).copied()
    }

    /// All clients with a reserved address.
    pub fn reserved_clients(&self) -> impl Iterator<Item = A::Client> {
        self.reservations.keys().copied()
    }

    /// Number of addresses with a current or former client.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_address.len()
    }

    /// The client's current lease, ended or not.
    #[must_use]
    pub fn of(&self, client: &A::Client) -> Option<&AddressLease<A>> {
        Some(&self.by_address.get(self.by_client.get(client)?)?.lease)
    }

    /// The address of a binding that has not ended.
    #[must_use]
    pub fn bound(&self, client: &A::Client, binding: A::Binding, now: Seconds) -> Option<A> {
        let lease = self.of(client)?;
        lease.bindings.is_bound(binding, now).then_some(lease.address)
    }

    /// Whether the table gives out this address, to any client.
    #[must_use]
    pub fn gives(&self, address: A) -> bool {
        self.pool.contains(address) || self.reserved.contains_key(&address)
    }

    /// Sets an address aside for a client, which has a while to request it.
    ///
    /// `None` if no address is left for this client.
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
            // A client that starts over must not shorten its running lease.
            lease.aside_until = lease.aside_until.max(until);
            lease.holder = claim.holder();
            lease.is_declined = false;
        });
        Some(address)
    }

    /// Leases an address to a client for `secs`: one that was offered to it, is already its own, or is reserved for
    /// it. `None` otherwise.
    ///
    /// An address that the client declined is included, as long as no other client has it: a client that renews an
    /// address uses it, so the DECLINE was forged.
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

    /// Leases a free address to a client that has none, as if it had been offered. `None` if another client may have
    /// the address.
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
        // Otherwise a client with an address could collect every free address.
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

    /// Returns to a client an address that it gave up but now renews. The client uses the address, so a forger
    /// declined it in the client's name or requested another one.
    pub fn reclaim(&mut self, client: A::Client, address: A, now: Seconds) {
        self.end_leases(now);
        let is_current = self.by_client.get(&client) == Some(&address);
        if !is_current && self.is_of(address, &client) {
            self.change(client, address, now, |lease| {
                (lease.aside_until, lease.is_declined) = (now, false);
            });
        }
    }

    /// Ends a client's binding of its address. The client keeps its claim until another client needs the address.
    ///
    /// An address that was only offered yields no record: the journal has no offers.
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

    /// Declines an address that the client was given within the last minute: no client gets it for ten minutes, as
    /// long as other addresses are left. `None` if the address was given earlier; a client that finds the conflict
    /// later gets the same address again when it starts over, and may decline it then.
    ///
    /// Any host on the link can send a DECLINE in a known machine's name. So the machine's address is kept for the
    /// rest of its lease, and returns to the machine after that unless the machine has taken another.
    ///
    /// A client that declines too often has to take another address, but of all addresses that it gave up it keeps
    /// only the first from others. So the records are about the declined address, and sometimes about an address that
    /// the client gave up before and that is free now.
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

    /// Withdraws an offer: the client took another server's offer.
    pub fn withdraw(&mut self, client: &A::Client, now: Seconds) {
        let offered = self.of(client).filter(|lease| lease.bindings.until().is_none());
        let offered = offered.filter(|lease| lease.until() > now).map(|lease| lease.address);
        if let Some(address) = offered {
            self.change(*client, address, now, |lease| lease.aside_until = now);
        }
    }

    /// All records of a compacted journal. If a client has several addresses, its current one comes last.
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

    /// The client's newest given-up address, if it may give up no more. Addresses from before this run have no known
    /// order and do not count.
    ///
    /// A forger can make a machine take addresses and decline them, but the address that the machine used before came
    /// first.
    fn last_given_up(&self, client: &A::Client) -> Option<A> {
        let order = |address: &A| self.by_address.get(address).map_or(0, |entry| entry.order);
        let given_up = self.sets.given_up(client).iter().map(|address| (order(address), *address));
        let given_up: Vec<_> = given_up.filter(|(order, _)| *order > 0).collect();
        let last = given_up.iter().max_by_key(|(order, _)| *order).map(|(_, address)| *address);
        last.filter(|_| given_up.len() > MOST_GIVEN_UP)
    }

    /// The address reserved for a client, unless a conflict was found on it.
    fn reservation(&self, client: &A::Client, now: Seconds) -> Option<A> {
        let address = self.reserved(client)?;
        let lease = self.by_address.get(&address).map(|entry| &entry.lease);
        let is_declined = lease.is_some_and(|lease| lease.is_declined && lease.until() > now);
        (!is_declined).then_some(address)
    }

    fn is_of(&self, address: A, client: &A::Client) -> bool {
        self.by_address.get(&address).is_some_and(|entry| entry.lease.client == *client)
    }

    /// Whether a client may have its own address now. An address whose lease ended counts like a new one.
    fn may_have(&self, address: A, claim: LeaseClaim) -> bool {
        self.by_address.get(&address).is_some_and(|entry| entry.place.is_taken())
            || self.reserved.contains_key(&address)
            || self.left_for(claim)
    }

    /// Whether the claim allows one more address.
    fn left_for(&self, claim: LeaseClaim) -> bool {
        match claim {
            LeaseClaim::Known => true,
            LeaseClaim::Guest { keep } => {
                let kept = keep.saturating_sub(self.sets.taken_by_known);
                self.size.saturating_sub(self.sets.taken) > kept
            }
        }
    }

    /// An address for a client without one: the requested address, if it is free.
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

    /// An address without a claim. If there is none, a known machine gets another client's.
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

    /// Changes the lease of a client's address, which the client is given at `told`. The lease is a new one if the
    /// address had another client.
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
            // A client that declined the address must get another one.
            self.by_client.remove(&client);
        }
    }

    /// Assigns an address to a client, with a lease that has ended.
    fn assign(&mut self, client: A::Client, address: A) {
        self.forget(address);
        self.given += 1;
        let (bindings, holder) = (A::Bindings::default(), LeaseHolder::Guest);
        let lease =
            AddressLease { client, address, bindings, aside_until: 0, holder, is_declined: false };
        // The address is in no set yet.
        let place = LeasePlace::Reserved;
        self.by_address.insert(address, LeaseEntry { lease, place, order: self.given, told: 0 });
    }

    /// Marks an address as replaced: its client has another one now.
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

    /// Moves ended leases to the sets of available addresses; each lease is moved once.
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
                    // An address that a known machine gave up returns to the machine unless it has taken another.
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
