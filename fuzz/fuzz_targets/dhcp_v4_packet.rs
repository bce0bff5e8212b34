//! A parsed packet is encoded without a change, and the server's decision about it can be sent.

#![no_main]

use std::net::{Ipv4Addr, SocketAddrV4};

use dhcp::Answer;
use dhcp::leases::{LeaseClaim, LeasePool, LeaseTable};
use dhcp::v4::Packet;
use dhcp::v4::decide::{Decision, decide};
use dhcp::v4::destination::destination;
use dhcp::v4::proxy::{self, ProxyPort};
use dhcp::v4::reply::{Network, Route};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(packet) = Packet::parse(bytes) else { return };
    assert_eq!(Packet::parse(&packet.emit()).as_ref(), Ok(&packet));

    let server = Ipv4Addr::new(10, 0, 0, 1);
    let pool = LeasePool { first: Ipv4Addr::new(10, 0, 0, 2), last: Ipv4Addr::new(10, 0, 0, 9) };
    let network = Network {
        router: Some(server),
        routes: vec![Route { to: "192.0.2.0/25".parse().expect("it is one"), via: server }],
        dns: vec![server],
        domain: Some("example.org".to_owned()),
        ntp: vec![server],
        mtu: Some(9_000),
        ..Network::new(server, Ipv4Addr::new(255, 255, 255, 0), 3_600)
    };
    let answer = Answer::Boot("http://10.0.0.1:8080/boot/x/bootx64.efi".to_owned());
    let claim = LeaseClaim::Guest { keep: 1 };
    let decision = decide(&packet, &answer, claim, &mut LeaseTable::new(pool, []), &network, 1_000);
    if let Decision::Send { reply, .. } = decision {
        let from = SocketAddrV4::new(packet.giaddr, 67);
        let _ = destination(&packet, from, &reply);
        assert_eq!(Packet::parse(&reply.emit()), Ok(reply));
    }
    for port in [ProxyPort::Dhcp, ProxyPort::Pxe] {
        if let Ok(reply) = proxy::decide(&packet, port, &answer, &network) {
            assert!(reply.yiaddr.is_unspecified());
            assert_eq!(Packet::parse(&reply.emit()), Ok(reply));
        }
    }
});
