//! Any bytes are a journal: what is read of them, written again, is their beginning.

#![no_main]

use std::net::Ipv4Addr;

use dhcp::journal::{Record, read};
use dhcp::leases::{Leases, Pool};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let records = read(bytes);
    let written: Vec<u8> = records.iter().flat_map(Record::encode).collect();
    assert!(bytes.starts_with(&written));

    let pool = Pool { first: Ipv4Addr::UNSPECIFIED, last: Ipv4Addr::BROADCAST };
    let once = Leases::replay(pool, [], records, 0);
    let again = Leases::replay(pool, [], once.records(), 0);
    // Who held an address last is told by the order of records, which that of their ends replaces.
    let lease = |Record(lease)| (lease.address, lease.mac, lease.until);
    let leases = |table: &Leases| table.records().into_iter().map(lease).collect::<Vec<_>>();
    assert_eq!(leases(&once), leases(&again));
});
