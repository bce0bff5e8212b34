//! The client survives any answer, and never sends without a pause.

#![no_main]

use dhcp::v6::Packet;
use dhcp::v6::lease_client::LeaseClient;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut client = LeaseClient::new(vec![0, 3, 0, 1, 2, 0, 0, 0, 0, 7], 5, 0x0102_0300, 0);
    // The same answer to each message, as if it answered that message.
    for _ in 0..20 {
        let now = client.wake();
        let Some(sent) = client.due(0x0102_0300, now) else {
            assert_eq!(now, u64::MAX, "it has to be woken to say something");
            return;
        };
        Packet::parse(&sent).expect("what we send can be read");
        assert!(client.wake() > now);
        client.receive(bytes, now);
    }
    // Three exchanges may follow each other at once, but not twenty.
    assert!(client.wake() > 3_000);
});
