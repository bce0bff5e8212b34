//! Takes Ethernet, IP and UDP off a captured frame.

use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use pcap_file::DataLink;
use server::dhcp::Captured;

/// The ports that DHCP servers, ProxyDHCP servers and DHCPv6 servers are asked on.
const SERVERS: [u16; 3] = [67, 4011, 547];

/// What the frame holds for a DHCP server, if it does.
pub(super) fn to_server(link: DataLink, frame: &[u8]) -> Option<Captured> {
    let packet = if link == DataLink::ETHERNET {
        SlicedPacket::from_ethernet(frame).ok()?
    } else if link == DataLink::LINUX_SLL {
        SlicedPacket::from_linux_sll(frame).ok()?
    } else if [DataLink::RAW, DataLink::IPV4, DataLink::IPV6].contains(&link) {
        SlicedPacket::from_ip(frame).ok()?
    } else {
        return None;
    };
    let from: IpAddr = match packet.net? {
        NetSlice::Ipv4(ip) => ip.header().source_addr().into(),
        NetSlice::Ipv6(ip) => ip.header().source_addr().into(),
        NetSlice::Arp(_) => return None,
    };
    let TransportSlice::Udp(udp) = packet.transport? else { return None };
    // A server's answer through a relay goes to port 67 too.
    let is_reply = from.is_ipv4() && udp.payload().first() == Some(&2);
    let asks = SERVERS.contains(&udp.destination_port()) && !is_reply;
    asks.then(|| Captured { from, port: udp.destination_port(), payload: udp.payload().to_vec() })
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    fn frame(port: u16) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2; 6], [0xff; 6])
            .ipv4([10, 0, 0, 5], [255; 4], 64)
            .udp(68, port);
        let mut frame = Vec::new();
        builder.write(&mut frame, b"\x01hello").unwrap();
        frame
    }

    #[test]
    fn what_goes_to_a_server_is_taken_out_and_the_rest_is_left() {
        let captured = to_server(DataLink::ETHERNET, &frame(67)).unwrap();

        assert_eq!(captured.payload, b"\x01hello");
        assert_eq!(captured.from, IpAddr::from([10, 0, 0, 5]));
        assert_eq!(to_server(DataLink::ETHERNET, &frame(68)), None);
    }

    proptest! {
        #[test]
        fn no_frame_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for link in [DataLink::ETHERNET, DataLink::LINUX_SLL, DataLink::RAW] {
                let _ = to_server(link, &bytes);
            }
        }
    }
}
