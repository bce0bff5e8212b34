//! Any ICMPv6 bytes from any source and hop limit: solicitations are identified correctly.

#![no_main]

use std::net::Ipv6Addr;

use dhcp::v6::advertisement::is_solicitation;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u128, &[u8])| {
    let (hop_limit, source, bytes) = input;
    if is_solicitation(bytes, hop_limit, Ipv6Addr::from(source)) {
        // RFC 4861 §6.1.1.
        assert!(hop_limit == 255 && bytes.len() >= 8 && bytes[0] == 133 && bytes[1] == 0);
        let mut options = &bytes[8..];
        while let [kind, len, ..] = *options {
            assert!(len > 0, "an option without a length");
            assert!(source != 0 || kind != 1, "a link-layer address of nobody");
            options = options.get(8 * usize::from(len)..).unwrap_or_default();
        }
    }
});
