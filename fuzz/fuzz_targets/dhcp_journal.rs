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
    let once = Leases::replay(pool, [], records);
    let again = Leases::replay(pool, [], once.records());
    assert_eq!(in_order(&once), in_order(&again));
});

fn in_order(leases: &Leases) -> Vec<Record> {
    let mut records: Vec<_> = leases.records().collect();
    records.sort_by_key(|record| record.0.address);
    records
}
