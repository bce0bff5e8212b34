//! A parsed message, encoded and parsed again, is the same.

#![no_main]

use std::net::Ipv6Addr;

use dhcp::v6::advertisement::{Advertisement, is_solicitation};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let _ = is_solicitation(bytes, 255, router);
    let Ok(read) = Advertisement::parse(bytes, 255, router) else { return };
    assert!(!is_solicitation(bytes, 255, router));
    assert_eq!(Advertisement::parse(&read.emit(), 255, router), Ok(read));
});
