//! What is read is sent again unchanged, through all its relays.

#![no_main]

use dhcp::v6::Packet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(packet) = Packet::parse(bytes) else { return };
    let again = Packet::parse(&packet.emit()).expect("what we send can be read");
    assert_eq!(again.message, packet.message);
    assert_eq!(again.relays.len(), packet.relays.len());
});
