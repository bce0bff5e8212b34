//! A parsed packet is encoded without a change, and the server's decision about it can be sent.

#![no_main]

use std::net::Ipv6Addr;

use dhcp::Answer;
use dhcp::leases::{LeaseClaim, LeasePool, LeaseTable};
use dhcp::v6::Packet;
use dhcp::v6::client_identity::Client;
use dhcp::v6::decide::{Decision, decide};
use dhcp::v6::reply::Network;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(packet) = Packet::parse(bytes) else { return };
    let again = Packet::parse(&packet.emit()).expect("what we send can be read");
    assert_eq!(again.message, packet.message);
    assert_eq!(again.relays.len(), packet.relays.len());

    let first = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x10);
    let last = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x1f);
    let network = Network {
        net: "fd00::/64".parse().expect("it is a prefix"),
        duid: vec![0, 2, 1],
        sole: true,
        dns: vec![Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x53)],
        domain: Some("hall.example".to_owned()),
        ntp: vec![Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x7b)],
        lease_secs: 3_600,
        foreign_pools: std::sync::Arc::default(),
    };
    let client = Client::identify(&packet, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9));
    let answer = Answer::Boot("http://[fd00::1]:8080/boot/x/bootx64.efi".to_owned());
    let mut leases = LeaseTable::new(LeasePool { first, last }, []);
    let request = &packet.message;
    let decision = decide(request, &client, &answer, LeaseClaim::Known, &mut leases, &network, 1_000);
    if let Decision::Send { reply, .. } = decision {
        let back = packet.answered_by(reply);
        assert_eq!(Packet::parse(&back.emit()), Ok(back));
    }
});
