//! Any bytes are a journal: what is read of them, written again, is their beginning, and leads to a
//! table in which nobody has two addresses.

#![no_main]

use std::collections::HashSet;
use std::net::Ipv6Addr;

use dhcp::v6::leases::{Leases, Pool, Record, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let records = read(bytes);
    let written: Vec<u8> = records.iter().flat_map(Record::encode).collect();
    assert!(bytes.starts_with(&written));

    let pool = Pool { first: Ipv6Addr::UNSPECIFIED, last: Ipv6Addr::from(u128::MAX) };
    let leases = Leases::replay(pool, [], records, 0);
    let held: HashSet<_> = leases
        .records()
        .filter(|record| record.binding != 0)
        .map(|record| (record.identity, record.address))
        .collect();
    let holders: HashSet<_> = held.iter().map(|(identity, _)| identity).collect();
    assert_eq!(held.len(), holders.len());
});
