//! Which address is whose. A client here is a machine's port, not a DUID: firmware, iPXE and Linux
//! come with different DUIDs, and firmware with a new IAID at each boot (EDK2 `Dhcp6Dxe`), from one
//! card, and all get the one address. Each is a binding of it; it is free when the last has ended.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv6Addr;

use crate::leases::Seconds;

/// How long an address is set aside for whoever it was advertised to.
const OFFER: Seconds = 60;
/// How long an address is left alone after a client found somebody else using it.
const QUARANTINE: Seconds = 600;
/// Bindings of one client. A machine that comes with a new IAID at each boot, and whose bindings have
/// not ended yet, loses the oldest.
const MOST_BINDINGS: usize = 16;

/// The client that an address belongs to, as whoever knows machines names it.
pub type Identity = [u8; 16];

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
}

/// One use of an address: a DUID and an IAID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Which, see [`binding_id`].
    pub id: u64,
    /// The second at which it ends.
    pub until: Seconds,
}

/// A binding's identity among those of its client.
#[must_use]
pub fn binding_id(duid: &[u8], ia: u32) -> u64 {
    u64::from(crc32fast::hash(duid)) << 32 | u64::from(ia)
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
    /// The binding, or 0 where the address is set aside.
    pub binding: u64,
    /// The second at which it ends; at once, if it was given back.
    pub until: Seconds,
}

/// The size of a record, in bytes.
pub const RECORD: usize = 52;

impl Record {
    /// Identity, address, binding, end, CRC-32 of all before it; integers are big-endian.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[..16].copy_from_slice(&self.identity);
        bytes[16..32].copy_from_slice(&self.address.octets());
        bytes[32..40].copy_from_slice(&self.binding.to_be_bytes());
        bytes[40..48].copy_from_slice(&self.until.to_be_bytes());
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
        Some(Self {
            identity: body[..16].try_into().ok()?,
            address: octets.into(),
            binding: u64::from_be_bytes(body[32..40].try_into().ok()?),
            until: u64::from_be_bytes(body[40..48].try_into().ok()?),
        })
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
#[derive(Clone, Debug)]
pub struct Leases {
    pool: Pool,
    by_address: HashMap<Ipv6Addr, Lease>,
    by_identity: HashMap<Identity, Ipv6Addr>,
    by_end: BTreeSet<(Seconds, Ipv6Addr)>,
    /// The lowest address that was never given out.
    unused: Option<Ipv6Addr>,
}

/// Of no client: addresses that were declined are kept under it.
const NOBODY: Identity = [0; 16];

impl Leases {
    /// An empty table.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            by_address: HashMap::new(),
            by_identity: HashMap::new(),
            by_end: BTreeSet::new(),
            unused: (pool.first <= pool.last).then_some(pool.first),
        }
    }

    /// The table that a journal leads to, without addresses outside of the pool.
    #[must_use]
    pub fn replay(pool: Pool, records: impl IntoIterator<Item = Record>) -> Self {
        let mut leases = Self::new(pool);
        for record in records {
            if pool.contains(record.address) {
                leases.apply(&record);
            }
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
    pub fn of(&self, identity: &Identity) -> Option<&Lease> {
        self.by_address.get(self.by_identity.get(identity)?)
    }

    /// Sets an address aside for a client; `None` when the pool is exhausted.
    pub fn offer(
        &mut self,
        identity: Identity,
        wanted: Option<Ipv6Addr>,
        now: Seconds,
    ) -> Option<Ipv6Addr> {
        if let Some(lease) = self.of(&identity) {
            let address = lease.address;
            self.change(address, |lease| lease.aside_until = lease.aside_until.max(now + OFFER));
            return Some(address);
        }
        let wanted = wanted.filter(|wanted| self.is_free(*wanted, now));
        let address = wanted.or_else(|| self.any_free(now))?;
        self.put(Lease { identity, address, bindings: Vec::new(), aside_until: now + OFFER });
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
        self.of(&identity).filter(|lease| lease.address == address)?;
        let record = Record { identity, address, binding, until: now + Seconds::from(secs) };
        self.apply(&record);
        Some(record)
    }

    /// A client is done with a binding.
    pub fn release(
        &mut self,
        identity: Identity,
        address: Ipv6Addr,
        binding: u64,
        now: Seconds,
    ) -> Option<Record> {
        let lease = self.of(&identity).filter(|lease| lease.address == address)?;
        lease.bindings.iter().find(|have| have.id == binding)?;
        let record = Record { identity, address, binding, until: now };
        self.apply(&record);
        Some(record)
    }

    /// A client found its address in use: nobody gets it for ten minutes.
    pub fn decline(
        &mut self,
        identity: Identity,
        address: Ipv6Addr,
        now: Seconds,
    ) -> Option<Record> {
        self.of(&identity).filter(|lease| lease.address == address)?;
        let record = Record { identity: NOBODY, address, binding: 0, until: now + QUARANTINE };
        self.apply(&record);
        Some(record)
    }

    /// Every record that would have to be in a journal written anew.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        self.by_address.values().flat_map(|lease| {
            let aside = (lease.identity == NOBODY).then_some(Record {
                identity: NOBODY,
                address: lease.address,
                binding: 0,
                until: lease.aside_until,
            });
            let bound = lease.bindings.iter().map(|binding| Record {
                identity: lease.identity,
                address: lease.address,
                binding: binding.id,
                until: binding.until,
            });
            aside.into_iter().chain(bound)
        })
    }

    fn apply(&mut self, record: &Record) {
        let Record { identity, address, binding, until } = *record;
        if identity == NOBODY {
            self.put(Lease { identity, address, bindings: Vec::new(), aside_until: until });
            return;
        }
        if self.of(&identity).is_none_or(|lease| lease.address != address) {
            self.put(Lease { identity, address, bindings: Vec::new(), aside_until: 0 });
        }
        self.change(address, |lease| {
            lease.aside_until = 0;
            lease.bindings.retain(|have| have.id != binding);
            if lease.bindings.len() == MOST_BINDINGS {
                lease.bindings.remove(0);
            }
            lease.bindings.push(Binding { id: binding, until });
        });
    }

    fn change(&mut self, address: Ipv6Addr, change: impl FnOnce(&mut Lease)) {
        if let Some(lease) = self.by_address.get_mut(&address) {
            self.by_end.remove(&(lease.until(), address));
            change(lease);
            self.by_end.insert((lease.until(), address));
        }
    }

    /// Makes a lease the one of its address and of its client.
    fn put(&mut self, lease: Lease) {
        if let Some(old) = self.by_identity.get(&lease.identity).copied() {
            self.forget(old);
        }
        self.forget(lease.address);
        self.by_end.insert((lease.until(), lease.address));
        if lease.identity != NOBODY {
            self.by_identity.insert(lease.identity, lease.address);
        }
        self.by_address.insert(lease.address, lease);
    }

    fn forget(&mut self, address: Ipv6Addr) {
        if let Some(old) = self.by_address.remove(&address) {
            self.by_end.remove(&(old.until(), address));
            if self.by_identity.get(&old.identity) == Some(&address) {
                self.by_identity.remove(&old.identity);
            }
        }
    }

    fn is_free(&self, address: Ipv6Addr, now: Seconds) -> bool {
        self.pool.contains(address)
            && self.by_address.get(&address).is_none_or(|lease| lease.until() <= now)
    }

    /// One never used, else the one that has been free for longest.
    fn any_free(&mut self, now: Seconds) -> Option<Ipv6Addr> {
        while let Some(address) = self.unused {
            let next = u128::from(address).checked_add(1).map(Ipv6Addr::from);
            self.unused = next.filter(|next| self.pool.contains(*next));
            if !self.by_address.contains_key(&address) {
                return Some(address);
            }
        }
        self.by_end.first().filter(|(until, _)| *until <= now).map(|(_, address)| *address)
    }
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
    fn firmware_loader_and_system_share_one_address_until_the_last_lets_go() {
        let mut leases = Leases::new(pool(1));
        let [firmware, system] = [binding_id(b"uuid", 7), binding_id(b"llt", 1)];
        let address = leases.offer(client(1), None, 0).unwrap();
        leases.bind(client(1), address, firmware, 100, 0).unwrap();
        assert_eq!(leases.offer(client(1), None, 1), Some(address));
        leases.bind(client(1), address, system, 100, 1).unwrap();

        leases.release(client(1), address, firmware, 2).unwrap();

        assert_eq!(leases.offer(client(2), None, 3), None, "the system still uses it");
        leases.release(client(1), address, system, 4).unwrap();
        assert_eq!(leases.offer(client(2), None, 5), Some(address));
    }

    #[test]
    fn a_client_that_comes_back_gets_the_address_it_had() {
        let mut leases = Leases::new(pool(4));
        let address = leases.offer(client(1), None, 0).unwrap();
        leases.bind(client(1), address, 1, 10, 0).unwrap();
        leases.offer(client(2), None, 0).unwrap();

        assert_eq!(leases.offer(client(1), None, 1_000), Some(address));
    }

    #[test]
    fn an_address_that_is_in_use_elsewhere_is_left_alone_even_by_who_found_out() {
        let mut leases = Leases::new(pool(2));
        let address = leases.offer(client(1), None, 0).unwrap();
        leases.bind(client(1), address, 1, 100, 0).unwrap();

        leases.decline(client(1), address, 1).unwrap();

        let other = leases.offer(client(1), Some(address), 2).unwrap();
        assert_ne!(other, address);
        leases.bind(client(1), other, 1, 10_000, 2).unwrap();
        assert_eq!(leases.offer(client(2), None, 2), None);
        assert_eq!(leases.offer(client(2), None, 1 + QUARANTINE), Some(address));
    }

    #[test]
    fn a_new_iaid_at_each_boot_does_not_pile_up() {
        let mut leases = Leases::new(pool(1));
        let address = leases.offer(client(1), None, 0).unwrap();
        for boot in 0..100 {
            leases.bind(client(1), address, boot, 1_000, boot).unwrap();
        }

        assert_eq!(leases.of(&client(1)).unwrap().bindings.len(), MOST_BINDINGS);
        assert_eq!(leases.records().count(), MOST_BINDINGS);
    }

    #[derive(Clone, Debug)]
    enum Act {
        Offer(u8),
        Bind(u8, u64),
        Release(u8, u64),
        Decline(u8),
        Wait(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        let who = 0..6_u8;
        prop_oneof![
            who.clone().prop_map(Act::Offer),
            (who.clone(), 1..4_u64).prop_map(|(who, binding)| Act::Bind(who, binding)),
            (who.clone(), 1..4_u64).prop_map(|(who, binding)| Act::Release(who, binding)),
            who.prop_map(Act::Decline),
            (1..400_u64).prop_map(Act::Wait),
        ]
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice_and_a_journal_leads_to_the_same_table(
            acts in proptest::collection::vec(act(), 0..80)
        ) {
            let mut leases = Leases::new(pool(4));
            let (mut now, mut journal) = (1_000, Vec::new());
            for act in acts {
                let of = |leases: &Leases, who| leases.of(&client(who)).map(|lease| lease.address);
                let record = match act {
                    Act::Offer(who) => { leases.offer(client(who), None, now); None }
                    Act::Bind(who, binding) => of(&leases, who)
                        .and_then(|address| leases.bind(client(who), address, binding, 300, now)),
                    Act::Release(who, binding) => of(&leases, who)
                        .and_then(|address| leases.release(client(who), address, binding, now)),
                    Act::Decline(who) => of(&leases, who)
                        .and_then(|address| leases.decline(client(who), address, now)),
                    Act::Wait(secs) => { now += secs; None }
                };
                journal.extend(record.map(|record| Record::decode(&record.encode()).unwrap()));
                let mut holders: Vec<_> = (0..6).filter_map(|who| of(&leases, who)).collect();
                holders.sort();
                let clients = holders.len();
                holders.dedup();
                prop_assert_eq!(holders.len(), clients, "two clients have one address");
            }
            let replayed = Leases::replay(pool(4), journal);
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
