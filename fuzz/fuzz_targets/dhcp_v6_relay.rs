//! An answer returns through every relay in turn, with each relay's options.

#![no_main]

use dhcp::v6::packet::Relay;
use dhcp::v6::{Packet, options};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(packet) = Packet::parse(bytes) else { return };
    let answer = packet.answered_by(packet.message.clone()).emit();
    let read = Packet::parse(&answer).expect("what we send can be read");

    assert_eq!(read.message, packet.message);
    let marks = |relay: &Relay| {
        let ports: Vec<_> = relay.options.all(options::INTERFACE_ID).map(<[u8]>::to_vec).collect();
        (relay.hops, relay.link, relay.peer, ports)
    };
    let [there, back] =
        [&packet, &read].map(|packet| packet.relays.iter().map(marks).collect::<Vec<_>>());
    assert_eq!(there, back);
});
