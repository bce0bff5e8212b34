//! A relay's option is returned unchanged, and last.

#![no_main]

use std::net::Ipv4Addr;

use dhcp::Answer;
use dhcp::leases::{LeaseClaim, LeasePool, LeaseTable};
use dhcp::v4::decide::{Decision, decide};
use dhcp::v4::packet::{Hardware, MessageType, Op};
use dhcp::v4::relay::{link, relayed};
use dhcp::v4::reply::Network;
use dhcp::v4::{Packet, options};
use hardware::Mac;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|information: &[u8]| {
    let relay = Ipv4Addr::new(10, 9, 0, 1);
    let request = Packet {
        op: Op::Request,
        hardware: Hardware::ETHERNET,
        hops: 1,
        xid: 7,
        secs: 0,
        broadcast: false,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        yiaddr: Ipv4Addr::UNSPECIFIED,
        siaddr: Ipv4Addr::UNSPECIFIED,
        giaddr: relay,
        chaddr: Mac([2, 0, 0, 0, 0, 7]),
        file: Vec::new(),
        message: MessageType::Discover,
        options: vec![(options::RELAY_AGENT, information.to_vec())],
    };
    let request = Packet::parse(&request.emit()).expect("what we send can be read");
    let server = Ipv4Addr::new(10, 0, 0, 1);
    for to in [server, Ipv4Addr::BROADCAST] {
        assert_eq!(
            link(&request, Ipv4Addr::UNSPECIFIED, to),
            relayed(&request).map(|relayed| relayed.link)
        );
    }

    let pool = LeasePool { first: Ipv4Addr::new(10, 9, 0, 2), last: Ipv4Addr::new(10, 9, 0, 9) };
    let network = Network::new(server, Ipv4Addr::new(255, 255, 255, 0), 3_600);
    let mut leases = LeaseTable::new(pool, []);
    let decision = decide(&request, &Answer::Address, LeaseClaim::Known, &mut leases, &network, 1_000);
    let Decision::Send { reply, .. } = decision else { panic!("the relay gets no answer") };
    let reply = Packet::parse(&reply.emit()).expect("what we send can be read");
    let last = reply.options.last().expect("an offer has options");
    assert_eq!(last, &(options::RELAY_AGENT, information.to_vec()));
});
