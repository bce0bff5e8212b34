//! Tests: somebody on the link speaks in the name of a machine, which goes on using its address.

use proptest::prelude::*;

use crate::leases::{Claim, Seconds};

/// How long leases last.
const LEASE: u32 = 3_600;
/// The machine that is spoken for.
const MACHINE: u8 = 1;
/// Others that are registered.
const OTHERS: std::ops::Range<u8> = 2..4;
const ADDRESSES: u8 = 24;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Said in the machine's name, about one of the addresses.
    Offer(u8),
    Bind(u8),
    Release(u8),
    Decline(u8),
    /// Said in the machine's name, about what it was last told.
    DeclineThat,
    /// The machine has its lease extended.
    Renew,
    /// Another machine, or a guest, asks for one of the addresses.
    Other(u8, u8),
    Wait(u8),
    Restart,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let address = 0..ADDRESSES;
    let deed = prop_oneof![
        2 => address.clone().prop_map(Deed::Offer),
        4 => address.clone().prop_map(Deed::Bind),
        1 => address.clone().prop_map(Deed::Release),
        2 => address.clone().prop_map(Deed::Decline),
        4 => Just(Deed::DeclineThat),
        2 => Just(Deed::Renew),
        2 => (2..30_u8, address).prop_map(|(who, address)| Deed::Other(who, address)),
        2 => any::<u8>().prop_map(Deed::Wait),
        1 => Just(Deed::Restart),
    ];
    prop::collection::vec(deed, 0..80)
}

/// What is reserved for the machine, in the pool or beyond it.
fn reserved() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![3 => Just(None), 1 => Just(Some(7)), 1 => Just(Some(ADDRESSES + 1))]
}

fn claim(who: u8) -> Claim {
    let known = usize::from(OTHERS.end);
    let is_known = who == MACHINE || OTHERS.contains(&who);
    if is_known { Claim::Known } else { Claim::guest(ADDRESSES.into(), known) }
}

/// Leases of either family, by the last byte of their addresses.
trait Table {
    fn offer(&mut self, who: u8, wanted: u8, now: Seconds) -> Option<u8>;
    fn bind(&mut self, who: u8, address: u8, now: Seconds) -> bool;
    fn release(&mut self, who: u8, address: u8, now: Seconds);
    fn decline(&mut self, who: u8, address: u8, now: Seconds);
    fn restart(&mut self, now: Seconds);
}

mod v4 {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::leases::{Leases, Pool};

    fn mac(who: u8) -> [u8; 6] {
        [2, 0, 0, 0, 0, who]
    }

    fn at(address: u8) -> Ipv4Addr {
        [10, 0, 0, address].into()
    }

    pub(super) fn table(reserved: Option<u8>) -> Leases {
        let reserved = reserved.map(|address| (mac(MACHINE), at(address)));
        Leases::new(Pool { first: at(0), last: at(ADDRESSES - 1) }, reserved)
    }

    impl Table for Leases {
        fn offer(&mut self, who: u8, wanted: u8, now: Seconds) -> Option<u8> {
            let address = Self::offer(self, mac(who), Some(at(wanted)), claim(who), now)?;
            Some(address.octets()[3])
        }

        fn bind(&mut self, who: u8, address: u8, now: Seconds) -> bool {
            let (mac, address, claim) = (mac(who), at(address), claim(who));
            let record = Self::bind(self, mac, address, LEASE, claim, now);
            record.or_else(|| self.bind_unoffered(mac, address, LEASE, claim, now)).is_some()
        }

        fn release(&mut self, who: u8, address: u8, now: Seconds) {
            Self::release(self, mac(who), at(address), now);
        }

        fn decline(&mut self, who: u8, address: u8, now: Seconds) {
            Self::decline(self, mac(who), at(address), now);
        }

        fn restart(&mut self, now: Seconds) {
            let reserved = self.reserved(mac(MACHINE)).map(|address| (mac(MACHINE), address));
            *self = Self::replay(self.pool(), reserved, self.records(), now);
        }
    }
}

mod v6 {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::v6::leases::{Identity, Leases, Pool};

    const BINDING: u64 = 7;

    fn identity(who: u8) -> Identity {
        [who; 16]
    }

    fn at(address: u8) -> Ipv6Addr {
        [0xfd00, 0, 0, 0, 0, 0, 0, address.into()].into()
    }

    pub(super) fn table(reserved: Option<u8>) -> Leases {
        let reserved = reserved.map(|address| (identity(MACHINE), at(address)));
        Leases::new(Pool { first: at(0), last: at(ADDRESSES - 1) }, reserved)
    }

    impl Table for Leases {
        fn offer(&mut self, who: u8, wanted: u8, now: Seconds) -> Option<u8> {
            let address = Self::offer(self, identity(who), Some(at(wanted)), claim(who), now)?;
            Some(address.octets()[15])
        }

        fn bind(&mut self, who: u8, address: u8, now: Seconds) -> bool {
            self.reclaim(identity(who), at(address), now);
            let own = Self::offer(self, identity(who), None, claim(who), now);
            own == Some(at(address))
                && Self::bind(self, identity(who), at(address), BINDING, LEASE, now).is_some()
        }

        fn release(&mut self, who: u8, address: u8, now: Seconds) {
            Self::release(self, identity(who), at(address), BINDING, now);
        }

        fn decline(&mut self, who: u8, address: u8, now: Seconds) {
            Self::decline(self, identity(who), at(address), BINDING, now);
        }

        fn restart(&mut self, now: Seconds) {
            let records: Vec<_> = self.records().collect();
            let own = identity(MACHINE);
            let reserved = self.reserved(&own).map(|address| (own, address));
            *self = Self::replay(self.pool(), reserved, records, now);
        }
    }
}

/// Whether the machine has its lease extended every time that it asks.
fn keeps_its_address(mut table: impl Table, deeds: Vec<Deed>) -> Result<(), TestCaseError> {
    let mut now = 1_000_000;
    let own = table.offer(MACHINE, 5, now).unwrap();
    assert!(table.bind(MACHINE, own, now));
    let (mut renewed, mut told) = (now, own);
    for deed in deeds {
        match deed {
            Deed::Offer(wanted) => told = table.offer(MACHINE, wanted, now).unwrap_or(told),
            Deed::Bind(address) => {
                if table.bind(MACHINE, address, now) {
                    told = address;
                }
            }
            Deed::Release(address) => table.release(MACHINE, address, now),
            Deed::Decline(address) => table.decline(MACHINE, address, now),
            Deed::DeclineThat => {
                table.bind(MACHINE, told, now);
                table.decline(MACHINE, told, now);
            }
            Deed::Renew => {
                prop_assert!(table.bind(MACHINE, own, now));
                renewed = now;
            }
            Deed::Other(who, wanted) => {
                if let Some(address) = table.offer(who, wanted, now) {
                    prop_assert_ne!(address, own);
                    table.bind(who, address, now);
                }
            }
            Deed::Wait(secs) => {
                now += Seconds::from(secs);
                if now >= renewed + Seconds::from(LEASE / 2) {
                    prop_assert!(table.bind(MACHINE, own, now));
                    renewed = now;
                }
            }
            Deed::Restart => table.restart(now),
        }
    }
    prop_assert!(table.bind(MACHINE, own, now));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_machine_keeps_the_address_that_it_uses_over_ipv4(own in reserved(), deeds in deeds()) {
        keeps_its_address(v4::table(own), deeds)?;
    }

    #[test]
    fn a_machine_keeps_the_address_that_it_uses_over_ipv6(own in reserved(), deeds in deeds()) {
        keeps_its_address(v6::table(own), deeds)?;
    }
}
