//! Tests: an attacker on the link sends messages in the name of a machine. The machine must keep its address.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use crate::leases::tests::TestFamily;
use crate::leases::{LeaseClaim, LeasePool, LeaseTable, Seconds};

/// Lease time in seconds.
const LEASE: u32 = 3_600;
/// The machine whose messages are forged.
const MACHINE: u8 = 1;
/// Other registered machines.
const OTHERS: std::ops::Range<u8> = 2..4;
const ADDRESSES: u8 = 24;

/// The next event.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Forged in the machine's name, about one of the addresses.
    Offer(u8),
    Bind(u8),
    Release(u8),
    Decline(u8),
    /// Forged in the machine's name, about the address that was last offered or leased.
    DeclineThat,
    /// The machine renews its lease.
    Renew,
    /// Another machine, or a guest, requests one of the addresses.
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

/// The machine's reservation, inside or outside of the pool.
fn reserved() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![3 => Just(None), 1 => Just(Some(7)), 1 => Just(Some(ADDRESSES + 1))]
}

fn claim(who: u8) -> LeaseClaim {
    let known = usize::from(OTHERS.end);
    let is_known = who == MACHINE || OTHERS.contains(&who);
    if is_known { LeaseClaim::Known } else { LeaseClaim::guest(ADDRESSES.into(), known) }
}

/// The messages of a client, by the last byte of the client's address.
trait ForgedFamily: TestFamily {
    /// Binds an address to a client, as the server does on a REQUEST.
    fn bind(table: &mut LeaseTable<Self>, who: u8, address: u8, now: Seconds) -> bool;
}

impl ForgedFamily for Ipv4Addr {
    fn bind(table: &mut LeaseTable<Self>, who: u8, address: u8, now: Seconds) -> bool {
        let (client, address, claim) = (Self::client(who), Self::at(address), claim(who));
        let record = table.bind(client, address, (), LEASE, claim, now);
        record.or_else(|| table.bind_unoffered(client, address, (), LEASE, claim, now)).is_some()
    }
}

impl ForgedFamily for Ipv6Addr {
    fn bind(table: &mut LeaseTable<Self>, who: u8, address: u8, now: Seconds) -> bool {
        let (client, address, claim) = (Self::client(who), Self::at(address), claim(who));
        table.reclaim(client, address, now);
        table.offer(client, None, claim, now) == Some(address)
            && table.bind(client, address, Self::BINDING, LEASE, claim, now).is_some()
    }
}

/// Whether every renewal of the machine succeeds.
fn keeps_its_address<A: ForgedFamily>(
    reserved: Option<u8>,
    deeds: Vec<Deed>,
) -> Result<(), TestCaseError> {
    let pool = LeasePool { first: A::at(0), last: A::at(ADDRESSES - 1) };
    let (machine, reserved) = (A::client(MACHINE), reserved.map(A::at));
    let reserved = reserved.map(|address| (machine, address));
    let mut table = LeaseTable::<A>::new(pool, reserved);
    let last_byte = |address: A| (address.number() & 0xff) as u8;
    let mut now = 1_000_000;
    let own = last_byte(table.offer(machine, Some(A::at(5)), claim(MACHINE), now).unwrap());
    assert!(A::bind(&mut table, MACHINE, own, now));
    let (mut renewed, mut told) = (now, own);
    for deed in deeds {
        match deed {
            Deed::Offer(wanted) => {
                let offered = table.offer(machine, Some(A::at(wanted)), claim(MACHINE), now);
                told = offered.map_or(told, last_byte);
            }
            Deed::Bind(address) => {
                if A::bind(&mut table, MACHINE, address, now) {
                    told = address;
                }
            }
            Deed::Release(address) => {
                table.release(machine, A::at(address), A::BINDING, now);
            }
            Deed::Decline(address) => {
                table.decline(machine, A::at(address), now);
            }
            Deed::DeclineThat => {
                A::bind(&mut table, MACHINE, told, now);
                table.decline(machine, A::at(told), now);
            }
            Deed::Renew => {
                prop_assert!(A::bind(&mut table, MACHINE, own, now));
                renewed = now;
            }
            Deed::Other(who, wanted) => {
                let wanted = Some(A::at(wanted));
                if let Some(address) = table.offer(A::client(who), wanted, claim(who), now) {
                    prop_assert_ne!(address, A::at(own));
                    A::bind(&mut table, who, last_byte(address), now);
                }
            }
            Deed::Wait(secs) => {
                now += Seconds::from(secs);
                if now >= renewed + Seconds::from(LEASE / 2) {
                    prop_assert!(A::bind(&mut table, MACHINE, own, now));
                    renewed = now;
                }
            }
            Deed::Restart => table = LeaseTable::replay(pool, reserved, table.records(), now),
        }
    }
    prop_assert!(A::bind(&mut table, MACHINE, own, now));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_machine_keeps_the_address_that_it_uses_over_ipv4(own in reserved(), deeds in deeds()) {
        keeps_its_address::<Ipv4Addr>(own, deeds)?;
    }

    #[test]
    fn a_machine_keeps_the_address_that_it_uses_over_ipv6(own in reserved(), deeds in deeds()) {
        keeps_its_address::<Ipv6Addr>(own, deeds)?;
    }
}
