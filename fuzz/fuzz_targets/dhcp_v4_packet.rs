//! What is read is sent again unchanged, and the server's decision about it is one it can send.

#![no_main]

use std::net::Ipv4Addr;

use dhcp::leases::{Leases, Pool};
use dhcp::Answer;
use dhcp::v4::Packet;
use dhcp::v4::decide::{Decision, decide};
use dhcp::v4::reply::Network;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(packet) = Packet::parse(bytes) else { return };
    assert_eq!(Packet::parse(&packet.emit()).as_ref(), Ok(&packet));

    let server = Ipv4Addr::new(10, 0, 0, 1);
    let pool = Pool { first: Ipv4Addr::new(10, 0, 0, 2), last: Ipv4Addr::new(10, 0, 0, 9) };
    let network = Network {
        server,
        mask: Ipv4Addr::new(255, 255, 255, 0),
        router: Some(server),
        dns: vec![server],
        lease_secs: 3_600,
    };
    let answer = Answer::Boot("http://10.0.0.1:8080/boot/x/bootx64.efi".to_owned());
    let decision = decide(&packet, &answer, &mut Leases::new(pool), &network, 1_000);
    if let Decision::Send { reply, .. } = decision {
        assert_eq!(Packet::parse(&reply.emit()), Ok(reply));
    }
});
