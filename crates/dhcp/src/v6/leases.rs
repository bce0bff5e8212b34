//! IPv6 leases. A client here is a machine's port, not a DUID: firmware, iPXE and Linux on one card send different
//! DUIDs, and firmware a new IAID at each boot (EDK2 `Dhcp6Dxe`), and all get the same address. Each combination is a
//! binding of the address; the address is free when the last binding has ended.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use crate::address_family::{AddressFamily, LeaseBindings};
use crate::journal::{CHECKSUM_LEN, LeaseRecord};
use crate::leases::{LeaseHolder, LeasePlace, LeasePool, Seconds};

/// Identifiers of each link that are reserved (RFC 2526 §2).
const ANYCASTS: u128 = 128;
/// The bit of a record's end that marks a guest's lease: no end is so large.
const GUEST: u64 = 1 << 63;
/// Number of bindings of one client. A machine with a new IAID at each boot, and bindings that have not ended yet,
/// loses the oldest.
const MOST_BINDINGS: usize = 16;

/// The client that an address belongs to.
pub type Identity = [u8; 16];

/// The owner of the addresses that a message requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A card has one address, for all its associations.
    Card(Identity),
    /// A running system with an unknown card has one address for each association.
    System(Identity),
}

impl Owner {
    /// The owner's identity, without the association.
    #[must_use]
    pub fn identity(self) -> Identity {
        let (Self::Card(identity) | Self::System(identity)) = self;
        identity
    }

    /// The identity that owns the address of an association (by its IAID).
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

impl LeasePool<Ipv6Addr> {
    /// The part of the pool that machines on this link may use: without the subnet-router anycast address (RFC 4291
    /// §2.6.1) and the reserved anycast addresses (RFC 2526 §2), and within the link's prefix.
    #[must_use]
    pub fn on(self, net: Ipv6Net) -> Self {
        let host = u128::MAX.checked_shr(net.prefix_len().into()).unwrap_or(0);
        let link = u128::from(net.network());
        let (mut first, mut last) = (u128::from(self.first), u128::from(self.last));
        // On a link with two addresses each is a machine's (RFC 6164 §6).
        if host > 1 && first == link {
            first += 1;
        }
        // On links with interface identifiers, the last one whose universal bit is 0.
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
}

/// The ID of a binding among those of its client; never 0.
#[must_use]
pub fn binding_id(duid: &[u8], ia: u32) -> u64 {
    (u64::from(crc32fast::hash(duid)) << 32 | u64::from(ia)).max(1)
}

/// The bindings of an address, each of a DUID and an IAID, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssociationBindings(Vec<(u64, Seconds)>);

impl LeaseBindings<u64> for AssociationBindings {
    fn bind(&mut self, binding: u64, until: Seconds) {
        self.0.retain(|(other, _)| *other != binding);
        if self.0.len() == MOST_BINDINGS {
            self.0.remove(0);
        }
        self.0.push((binding, until));
    }

    fn each(&self) -> impl Iterator<Item = (u64, Seconds)> {
        self.0.iter().copied()
    }
}

impl AddressFamily for Ipv6Addr {
    type Client = Identity;
    /// See [`binding_id`].
    type Binding = u64;
    type Bindings = AssociationBindings;

    const UNSPECIFIED: Self = Self::UNSPECIFIED;
    const KEPT: u64 = 1;
    /// Only the longest free of other known machines' addresses: the pool is large enough to spare the rest.
    const TAKEN_FOR_KNOWN: &'static [LeasePlace] = &[LeasePlace::EndedOfKnown];
    const RECORD_LEN: usize = 48 + CHECKSUM_LEN;

    fn number(self) -> u128 {
        self.to_bits()
    }

    fn next(self) -> Option<Self> {
        self.to_bits().checked_add(1).map(Self::from_bits)
    }

    /// Identity, address, binding or 0, end (its highest bit is a guest's); integers are big-endian.
    fn encode(record: &LeaseRecord<Self>, into: &mut Vec<u8>) {
        let guest = match record.holder {
            LeaseHolder::Known => 0,
            LeaseHolder::Guest => GUEST,
        };
        into.extend(record.client);
        into.extend(record.address.octets());
        into.extend(record.binding.unwrap_or_default().to_be_bytes());
        into.extend((record.until & !GUEST | guest).to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<LeaseRecord<Self>> {
        let (client, rest) = bytes.split_first_chunk()?;
        let (address, rest) = rest.split_first_chunk::<16>()?;
        let (binding, end) = rest.split_first_chunk()?;
        let end = u64::from_be_bytes(end.try_into().ok()?);
        Some(LeaseRecord {
            client: *client,
            address: Self::from(*address),
            binding: Some(u64::from_be_bytes(*binding)).filter(|binding| *binding != 0),
            until: end & !GUEST,
            holder: if end & GUEST == 0 { LeaseHolder::Known } else { LeaseHolder::Guest },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::read;
    use crate::leases::{LeaseClaim, LeaseTable};

    fn pool(addresses: u128) -> LeasePool<Ipv6Addr> {
        let first: Ipv6Addr = "fd00::10".parse().unwrap();
        LeasePool { first, last: Ipv6Addr::from(u128::from(first) + addresses - 1) }
    }

    fn client(last: u8) -> Identity {
        let mut identity = [1; 16];
        identity[15] = last;
        identity
    }

    #[test]
    fn no_machine_gets_an_address_that_stands_for_others() {
        let range = |net: &str, first: &str, last: &str| {
            let pool = LeasePool { first: first.parse().unwrap(), last: last.parse().unwrap() };
            let LeasePool { first, last } = pool.on(net.parse().unwrap());
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
        let none = LeasePool { first: "fd00::".parse().unwrap(), last: "fd00::".parse().unwrap() };
        assert!(none.on("fd00::/64".parse().unwrap()).is_empty());
    }

    #[test]
    fn firmware_loader_and_system_share_one_address_until_the_last_lets_go() {
        let mut leases = LeaseTable::new(pool(1), []);
        let [firmware, system] = [binding_id(b"uuid", 7), binding_id(b"llt", 1)];
        let address = leases.offer(client(1), None, LeaseClaim::Known, 0).unwrap();
        leases.bind(client(1), address, firmware, 100, LeaseClaim::Known, 0).unwrap();
        assert_eq!(leases.offer(client(1), None, LeaseClaim::Known, 1), Some(address));
        leases.bind(client(1), address, system, 100, LeaseClaim::Known, 1).unwrap();

        leases.release(client(1), address, firmware, 2).unwrap();

        assert_eq!(
            leases.offer(client(2), None, LeaseClaim::Known, 3),
            None,
            "the system still uses it"
        );
        leases.release(client(1), address, system, 4).unwrap();
        assert_eq!(leases.offer(client(2), None, LeaseClaim::Known, 5), Some(address));
    }

    #[test]
    fn an_address_that_is_in_use_elsewhere_is_left_alone_even_by_who_found_out() {
        let mut leases = LeaseTable::new(pool(2), []);
        let address = leases.offer(client(1), None, LeaseClaim::Known, 0).unwrap();
        leases.bind(client(1), address, 1, 100, LeaseClaim::Known, 0).unwrap();

        leases.decline(client(1), address, 1).unwrap();

        let other = leases.offer(client(1), Some(address), LeaseClaim::Known, 2).unwrap();
        assert_ne!(other, address);
        leases.bind(client(1), other, 1, 10_000, LeaseClaim::Known, 2).unwrap();
        assert_eq!(leases.offer(client(2), None, LeaseClaim::Known, 2), None);
        assert_eq!(leases.offer(client(2), None, LeaseClaim::Known, 601), Some(address));
    }

    /// A known client whose address was declined, maybe by a forger.
    fn declined(secs: u32) -> (LeaseTable<Ipv6Addr>, Ipv6Addr) {
        let mut leases = LeaseTable::new(pool(3), []);
        let address = leases.offer(client(1), None, LeaseClaim::Known, 0).unwrap();
        leases.bind(client(1), address, 1, secs, LeaseClaim::Known, 0).unwrap();
        leases.decline(client(1), address, 1).unwrap();
        (leases, address)
    }

    #[test]
    fn a_machine_that_has_its_lease_extended_did_not_decline_it_whatever_is_said_in_its_name() {
        for (takes_another, restarts) in [(false, false), (true, false), (true, true)] {
            let (mut leases, address) = declined(3_600);
            if takes_another {
                let other = leases.offer(client(1), None, LeaseClaim::Known, 2).unwrap();
                leases.bind(client(1), other, 1, 3_600, LeaseClaim::Known, 2).unwrap();
            }
            if restarts {
                let records = leases.records();
                leases = LeaseTable::replay(pool(3), [], records, 0);
            }
            assert_ne!(leases.offer(client(2), Some(address), GUEST, 1_700), Some(address));

            leases.reclaim(client(3), address, 1_800);
            assert_eq!(
                leases.bind(client(3), address, 1, 3_600, LeaseClaim::Known, 1_800),
                None,
                "another's"
            );
            leases.reclaim(client(1), address, 1_800);

            assert_eq!(leases.offer(client(1), None, LeaseClaim::Known, 1_800), Some(address));
            assert!(leases.bind(client(1), address, 1, 3_600, LeaseClaim::Known, 1_800).is_some());
        }
    }

    #[test]
    fn a_new_iaid_at_each_boot_does_not_pile_up() {
        let mut leases = LeaseTable::new(pool(1), []);
        let address = leases.offer(client(1), None, LeaseClaim::Known, 0).unwrap();
        for boot in 1..=100 {
            leases.bind(client(1), address, boot, 1_000, LeaseClaim::Known, boot).unwrap();
        }

        assert_eq!(leases.of(&client(1)).unwrap().bindings.0.len(), MOST_BINDINGS);
        assert_eq!(leases.records().len(), MOST_BINDINGS);
    }

    const GUEST: LeaseClaim = LeaseClaim::Guest { keep: 1 };

    #[test]
    fn who_gets_a_reservation_while_a_lease_runs_keeps_that_from_others_until_it_ends() {
        let mut before = LeaseTable::new(pool(1), []);
        let address = before.offer(client(1), None, LeaseClaim::Known, 0).unwrap();
        before.bind(client(1), address, 1, 100, LeaseClaim::Known, 0).unwrap();
        let own: Ipv6Addr = "fd00::99".parse().unwrap();
        let mut leases = LeaseTable::replay(pool(1), [(client(1), own)], before.records(), 0);

        assert_eq!(leases.offer(client(1), None, LeaseClaim::Known, 1), Some(own));
        assert_eq!(leases.offer(client(2), None, LeaseClaim::Known, 99), None);
        assert_eq!(leases.offer(client(2), None, LeaseClaim::Known, 100), Some(address));
    }

    #[test]
    fn a_guest_gets_neither_the_last_addresses_nor_one_that_a_known_machine_left() {
        let mut leases = LeaseTable::new(pool(3), []);
        let known = leases.offer(client(1), None, LeaseClaim::Known, 0).unwrap();
        leases.bind(client(1), known, 1, 100, LeaseClaim::Known, 0).unwrap();
        leases.release(client(1), known, 1, 10).unwrap();

        let guest = leases.offer(client(2), Some(known), GUEST, 20).unwrap();

        assert_ne!(guest, known);
        assert!(leases.offer(client(3), None, GUEST, 20).is_some());
        assert_eq!(leases.offer(client(4), None, GUEST, 20), None);
        assert_eq!(leases.offer(client(1), None, LeaseClaim::Known, 20), Some(known));
    }

    #[test]
    fn a_pool_as_large_as_a_link_takes_no_longer_than_a_small_one() {
        let first: Ipv6Addr = "fd00::".parse().unwrap();
        let last: Ipv6Addr = "fd00::ffff:ffff:ffff:ffff".parse().unwrap();
        let mut leases = LeaseTable::new(LeasePool { first, last }, []);

        assert_eq!(leases.pool().len(), usize::MAX, "one less than there are");
        assert_eq!(leases.offer(client(1), Some(last), GUEST, 0), Some(last));
        assert_eq!(leases.offer(client(2), None, GUEST, 0), Some(first));
    }

    #[test]
    fn a_record_that_was_written_before_both_families_had_one_table_is_read_and_written_the_same() {
        let written = [
            "01010101010101010101010101010101fd0000000000000000000000000000021234567800000007000000006b49d200a97d74fe",
            "02020202020202020202020202020202fd0000000000000000000000000000030000000000000000800000006b49d4582bf3d82e",
        ];
        let records = [
            LeaseRecord::<Ipv6Addr> {
                client: [1; 16],
                address: "fd00::2".parse().unwrap(),
                binding: Some(0x1234_5678_0000_0007),
                until: 1_800_000_000,
                holder: LeaseHolder::Known,
            },
            LeaseRecord {
                client: [2; 16],
                address: "fd00::3".parse().unwrap(),
                binding: None,
                until: 1_800_000_600,
                holder: LeaseHolder::Guest,
            },
        ];

        for (written, record) in written.into_iter().zip(records) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, written);
            assert_eq!(LeaseRecord::decode(&bytes), Some(record));
        }
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
            let mut leases = LeaseTable::new(pool(4), []);
            let (mut now, mut journal) = (1_000, Vec::new());
            for act in acts {
                let of = |leases: &LeaseTable<Ipv6Addr>, who| leases.of(&client(who)).map(|lease| lease.address);
                let mut records = Vec::new();
                match act {
                    Act::Offer(who) => drop(leases.offer(client(who), None, LeaseClaim::Known, now)),
                    Act::Bind(who, binding) => records.extend(
                        of(&leases, who)
                            .and_then(|own| leases.bind(client(who), own, binding, 300, LeaseClaim::Known, now)),
                    ),
                    Act::Release(who, binding) => records.extend(
                        of(&leases, who)
                            .and_then(|own| leases.release(client(who), own, binding, now)),
                    ),
                    Act::Decline(who) => records.extend(
                        of(&leases, who)
                            .and_then(|own| leases.decline(client(who), own, now))
                            .into_iter()
                            .flatten(),
                    ),
                    Act::Wait(secs) => now += secs,
                }
                let mut bytes = Vec::new();
                records.iter().for_each(|record: &LeaseRecord<Ipv6Addr>| record.encode(&mut bytes));
                journal.extend(read::<Ipv6Addr>(&bytes));
                let mut holders: Vec<_> = (0..6).filter_map(|who| of(&leases, who)).collect();
                holders.sort();
                let clients = holders.len();
                holders.dedup();
                prop_assert_eq!(holders.len(), clients, "two clients have one address");
            }
            let replayed = LeaseTable::replay(pool(4), [], journal, now);
            for who in 0..6 {
                let running = |leases: &LeaseTable<Ipv6Addr>| leases.of(&client(who)).and_then(|lease| {
                    let running = lease.bindings.each().filter(|(_, until)| *until > now);
                    let running: Vec<_> = running.collect();
                    (!running.is_empty()).then_some((lease.address, running))
                });
                prop_assert_eq!(running(&replayed), running(&leases));
            }
        }
    }
}
