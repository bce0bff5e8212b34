//! Any bytes as a journal: the parsed records, encoded again, are its beginning.

#![no_main]

use std::net::Ipv4Addr;

use dhcp::journal::{LeaseRecord, read};
use dhcp::leases::{LeasePool, LeaseTable};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let records = read::<Ipv4Addr>(bytes);
    let mut written = Vec::new();
    records.iter().for_each(|record| record.encode(&mut written));
    assert!(bytes.starts_with(&written));

    let pool = LeasePool { first: Ipv4Addr::UNSPECIFIED, last: Ipv4Addr::BROADCAST };
    let once = LeaseTable::replay(pool, [], records, 0);
    let again = LeaseTable::replay(pool, [], once.records(), 0);
    // The order of records decides a client's current address; compaction replaces that order.
    let leases = |table: &LeaseTable<Ipv4Addr>| {
        let lease = |record: LeaseRecord<Ipv4Addr>| (record.address, record.client, record.until);
        let mut leases: Vec<_> = table.records().into_iter().map(lease).collect();
        leases.sort_unstable();
        leases
    };
    assert_eq!(leases(&once), leases(&again));
});
