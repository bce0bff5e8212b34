//! Any bytes as a journal: the parsed records, encoded again, are its beginning, and lead to a table in which no
//! address has two clients.

#![no_main]

use std::collections::HashMap;
use std::net::Ipv6Addr;

use dhcp::journal::read;
use dhcp::leases::{LeasePool, LeaseTable};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let records = read::<Ipv6Addr>(bytes);
    let mut written = Vec::new();
    records.iter().for_each(|record| record.encode(&mut written));
    assert!(bytes.starts_with(&written));

    let pool = LeasePool { first: Ipv6Addr::UNSPECIFIED, last: Ipv6Addr::from(u128::MAX) };
    let leases = LeaseTable::replay(pool, [], records, 0);
    let mut clients = HashMap::new();
    for record in leases.records() {
        assert_eq!(*clients.entry(record.address).or_insert(record.client), record.client);
    }
});
