//! Who has which address: one pool, one table, changed only by what a journal can repeat.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

use crate::journal::{Record, State};

/// Seconds since the Unix epoch.
pub type Seconds = u64;

/// How long an address stays set aside for whoever it was offered to. EDK2 takes an offer after
/// four seconds, and asks again for a minute.
const OFFER: Seconds = 60;
/// How long an address is left alone after a client found somebody else using it.
const QUARANTINE: Seconds = 600;

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
}

/// The table.
///
/// A client keeps its address for as long as nobody else needs it: one that comes back, even long
/// after its lease ended, gets the address it had.
#[derive(Clone, Debug)]
pub struct Leases {
    pool: Pool,
    by_address: HashMap<Ipv4Addr, Lease>,
    by_mac: HashMap<[u8; 6], Ipv4Addr>,
    by_end: BTreeSet<(Seconds, Ipv4Addr)>,
    /// The lowest address that was never given out.
    unused: Option<Ipv4Addr>,
}

impl Leases {
    /// An empty table.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            by_address: HashMap::new(),
            by_mac: HashMap::new(),
            by_end: BTreeSet::new(),
            unused: (!pool.is_empty()).then_some(pool.first),
        }
    }

    /// The table that a journal leads to. Addresses outside the pool are left out, so a pool may be
    /// changed between two runs.
    #[must_use]
    pub fn replay(pool: Pool, records: impl IntoIterator<Item = Record>) -> Self {
        let mut leases = Self::new(pool);
        for record in records {
            leases.apply(record);
        }
        leases
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> Pool {
        self.pool
    }

    /// What a client has, ended or not.
    #[must_use]
    pub fn of(&self, mac: [u8; 6]) -> Option<Lease> {
        self.by_address.get(self.by_mac.get(&mac)?).copied()
    }

    /// Sets an address aside for a client, which then has a minute to ask for it.
    ///
    /// `None` when the pool is exhausted.
    pub fn offer(
        &mut self,
        mac: [u8; 6],
        wanted: Option<Ipv4Addr>,
        now: Seconds,
    ) -> Option<Ipv4Addr> {
        if let Some(lease) = self.of(mac) {
            // A running lease must not be made shorter by a client that starts over.
            if lease.until < now + OFFER {
                self.put(Lease { until: now + OFFER, state: State::Offered, ..lease });
            }
            return Some(lease.address);
        }
        let wanted = wanted.filter(|wanted| self.is_free(*wanted, now));
        let address = wanted.or_else(|| self.any_free(now))?;
        self.put(Lease { mac, address, until: now + OFFER, state: State::Offered });
        Some(address)
    }

    /// Gives a client the address it was offered or has, for `secs`. `None` if it has not.
    pub fn bind(
        &mut self,
        mac: [u8; 6],
        address: Ipv4Addr,
        secs: u32,
        now: Seconds,
    ) -> Option<Record> {
        let lease = self.of(mac).filter(|lease| lease.address == address)?;
        let until = now + Seconds::from(secs);
        Some(self.record(Lease { until, state: State::Bound, ..lease }))
    }

    /// A client is done with its address. It keeps its claim until somebody else needs it.
    pub fn release(&mut self, mac: [u8; 6], address: Ipv4Addr, now: Seconds) -> Option<Record> {
        let lease = self.of(mac).filter(|lease| lease.address == address)?;
        Some(self.record(Lease { until: now, ..lease }))
    }

    /// A client found its address in use: nobody gets it for ten minutes.
    pub fn decline(&mut self, mac: [u8; 6], address: Ipv4Addr, now: Seconds) -> Option<Record> {
        let lease = self.of(mac).filter(|lease| lease.address == address)?;
        Some(self.record(Lease { until: now + QUARANTINE, state: State::Declined, ..lease }))
    }

    /// Every lease that would have to be in a journal written anew.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        self.by_end
            .iter()
            .filter_map(|(_, address)| self.by_address.get(address))
            .filter(|lease| lease.state != State::Offered)
            .map(|lease| Record(*lease))
    }

    fn apply(&mut self, record: Record) {
        if self.pool.contains(record.0.address) {
            self.put(record.0);
        }
    }

    fn record(&mut self, lease: Lease) -> Record {
        self.put(lease);
        Record(lease)
    }

    /// Makes a lease the one of its address and of its client.
    fn put(&mut self, lease: Lease) {
        if let Some(old) = self.by_mac.get(&lease.mac).copied()
            && old != lease.address
        {
            self.forget(old);
        }
        self.forget(lease.address);
        self.by_end.insert((lease.until, lease.address));
        self.by_address.insert(lease.address, lease);
        // A declined address is nobody's: the client that declined it must get another.
        if lease.state != State::Declined {
            self.by_mac.insert(lease.mac, lease.address);
        }
    }

    fn forget(&mut self, address: Ipv4Addr) {
        if let Some(old) = self.by_address.remove(&address) {
            self.by_end.remove(&(old.until, address));
            if self.by_mac.get(&old.mac) == Some(&address) {
                self.by_mac.remove(&old.mac);
            }
        }
    }

    fn is_free(&self, address: Ipv4Addr, now: Seconds) -> bool {
        self.pool.contains(address)
            && self.by_address.get(&address).is_none_or(|lease| lease.until <= now)
    }

    /// One never used, else the one that has been free for longest.
    fn any_free(&mut self, now: Seconds) -> Option<Ipv4Addr> {
        while let Some(address) = self.unused {
            self.unused = next(address).filter(|next| self.pool.contains(*next));
            if !self.by_address.contains_key(&address) {
                return Some(address);
            }
        }
        self.by_end.first().filter(|(until, _)| *until <= now).map(|(_, address)| *address)
    }
}

fn next(address: Ipv4Addr) -> Option<Ipv4Addr> {
    u32::from(address).checked_add(1).map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POOL: Pool = Pool { first: Ipv4Addr::new(10, 0, 0, 1), last: Ipv4Addr::new(10, 0, 0, 4) };

    fn mac(last: u8) -> [u8; 6] {
        [2, 0, 0, 0, 0, last]
    }

    fn bound(leases: &mut Leases, last: u8, now: Seconds) -> Ipv4Addr {
        let address = leases.offer(mac(last), None, now).unwrap();
        leases.bind(mac(last), address, 100, now).unwrap();
        address
    }

    #[test]
    fn a_client_that_comes_back_gets_the_address_it_had() {
        let mut leases = Leases::new(POOL);
        let first = bound(&mut leases, 1, 0);
        bound(&mut leases, 2, 0);

        assert_eq!(leases.offer(mac(1), None, 1_000), Some(first));
    }

    #[test]
    fn an_exhausted_pool_offers_nothing_until_a_lease_ends() {
        let mut leases = Leases::new(POOL);
        for client in 1..=4 {
            bound(&mut leases, client, 0);
        }

        assert_eq!(leases.offer(mac(5), None, 99), None);
        assert!(leases.offer(mac(5), None, 100).is_some());
    }

    #[test]
    fn an_address_that_is_in_use_is_not_offered_again_for_ten_minutes() {
        let mut leases = Leases::new(POOL);
        let declined = bound(&mut leases, 1, 0);
        leases.decline(mac(1), declined, 10).unwrap();

        let other = leases.offer(mac(1), Some(declined), 11);

        assert!(other.is_some_and(|other| other != declined));
    }

    #[test]
    fn nobody_binds_an_address_that_was_not_offered_to_him() {
        let mut leases = Leases::new(POOL);
        let address = leases.offer(mac(1), None, 0).unwrap();

        assert_eq!(leases.bind(mac(2), address, 100, 0), None);
    }

    #[derive(Clone, Debug)]
    enum Deed {
        Offer(u8),
        Bind(u8),
        Release(u8),
        Decline(u8),
        Wait(u8),
    }

    fn deeds() -> impl Strategy<Value = Vec<Deed>> {
        let who = 0..9_u8;
        prop::collection::vec(
            prop_oneof![
                who.clone().prop_map(Deed::Offer),
                who.clone().prop_map(Deed::Bind),
                who.clone().prop_map(Deed::Release),
                who.prop_map(Deed::Decline),
                any::<u8>().prop_map(Deed::Wait),
            ],
            0..200,
        )
    }

    proptest! {
        #[test]
        fn no_address_is_ever_two_clients_and_the_journal_repeats_the_table(deeds in deeds()) {
            let mut leases = Leases::new(POOL);
            let mut journal = Vec::new();
            let mut now = 1_000;
            for deed in deeds {
                let held = |leases: &Leases, who| leases.of(mac(who)).map(|lease| lease.address);
                let record = match deed {
                    Deed::Offer(who) => {
                        leases.offer(mac(who), None, now);
                        None
                    }
                    Deed::Bind(who) => held(&leases, who)
                        .and_then(|address| leases.bind(mac(who), address, 50, now)),
                    Deed::Release(who) => held(&leases, who)
                        .and_then(|address| leases.release(mac(who), address, now)),
                    Deed::Decline(who) => held(&leases, who)
                        .and_then(|address| leases.decline(mac(who), address, now)),
                    Deed::Wait(secs) => {
                        now += Seconds::from(secs);
                        None
                    }
                };
                journal.extend(record);

                for (mac, address) in &leases.by_mac {
                    prop_assert_eq!(leases.by_address[address].mac, *mac);
                }
                prop_assert_eq!(leases.by_end.len(), leases.by_address.len());
                prop_assert!(leases.by_address.len() <= POOL.len());
            }
            let replayed = Leases::replay(POOL, journal);
            for lease in leases.by_address.values().filter(|lease| lease.state == State::Bound) {
                prop_assert_eq!(replayed.by_address.get(&lease.address), Some(lease));
            }
        }
    }
}
