//! Decodes link layer, IP and UDP of a captured frame.

use std::net::IpAddr;
use std::time::Duration;

use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, TransportSlice, UdpSlice, ip_number};
use netboot::dry_run::CapturedPacket;
use pcap_file::DataLink;

/// The ports of DHCP, ProxyDHCP and DHCPv6 servers.
const SERVERS: [u16; 3] = [67, 4011, 547];
/// The ports of clients.
const CLIENTS: [u16; 2] = [68, 546];
/// Message types of servers: `ADVERTISE`, `REPLY`, `RECONFIGURE`, `RELAY-REPL` (RFC 8415 §7.3), and the answers to a
/// `LEASEQUERY` (RFC 5007 §4.2.2, RFC 5460 §5.1).
const ANSWERS6: [u8; 7] = [2, 7, 10, 13, 15, 16, 17];

/// A frame with its capture time.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) at: Duration,
    pub(super) link: DataLink,
    pub(super) bytes: Vec<u8>,
    /// Whether the frame was captured incompletely.
    pub(super) cut: bool,
}

/// The contents of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FrameContents {
    /// A packet to a DHCP server.
    ToServer(CapturedPacket),
    /// A DHCP server's answer.
    FromServer,
    /// Something else than DHCP.
    Other,
    /// Possibly a packet to a DHCP server, but incomplete.
    CutOff,
    /// A part of a longer UDP packet.
    Fragment,
    /// A link layer that is not supported.
    Unknown,
}

/// The contents of a frame.
pub(super) fn contents_of(frame: &Frame) -> FrameContents {
    let Some(payload) = below(frame.link, &frame.bytes) else { return FrameContents::Unknown };
    let packet = match payload {
        Below::Ethernet(frame) => LaxSlicedPacket::from_ethernet(frame).ok(),
        Below::Type(ether_type, rest) => Some(LaxSlicedPacket::from_ether_type(ether_type, rest)),
        Below::Ip(rest) => LaxSlicedPacket::from_ip(rest).ok(),
        Below::Short => None,
    };
    // The purpose of an incomplete frame is unknown if its UDP header is missing.
    let unclear = if frame.cut { FrameContents::CutOff } else { FrameContents::Other };
    let Some(LaxSlicedPacket { net, transport, stop_err, .. }) = packet else { return unclear };
    let (way, ip): ([IpAddr; 2], _) = match &net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            ([header.source_addr().into(), header.destination_addr().into()], ip.payload())
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            ([header.source_addr().into(), header.destination_addr().into()], ip.payload())
        }
        Some(LaxNetSlice::Arp(_)) => return FrameContents::Other,
        None if stop_err.is_some() => return unclear,
        None => return FrameContents::Other,
    };
    match transport {
        Some(TransportSlice::Udp(udp)) => contents_of_datagram(&udp, way, ip.incomplete),
        None if ip.fragmented && ip.ip_number == ip_number::UDP => FrameContents::Fragment,
        None if stop_err.is_some() && ip.ip_number == ip_number::UDP => unclear,
        Some(TransportSlice::Tcp(_) | TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_))
        | None => FrameContents::Other,
    }
}

fn contents_of_datagram(
    udp: &UdpSlice<'_>,
    [from, to]: [IpAddr; 2],
    incomplete: bool,
) -> FrameContents {
    let (source, port) = (udp.source_port(), udp.destination_port());
    if SERVERS.contains(&source) && CLIENTS.contains(&port) {
        return FrameContents::FromServer;
    }
    if !SERVERS.contains(&port) {
        return FrameContents::Other;
    }
    // A server's answer through a relay also goes to a server port.
    let first = udp.payload().first();
    let answers = if from.is_ipv4() { &[2][..] } else { &ANSWERS6 };
    if first.is_some_and(|first| answers.contains(first)) {
        return FrameContents::FromServer;
    }
    if incomplete || udp.slice().len() < usize::from(udp.length()) {
        return FrameContents::CutOff;
    }
    FrameContents::ToServer(CapturedPacket { from, to, port, payload: udp.payload().to_vec() })
}

/// The rest of a frame after its link layer.
enum Below<'a> {
    /// For etherparse, which decodes Ethernet with its VLANs.
    Ethernet(&'a [u8]),
    Type(EtherType, &'a [u8]),
    Ip(&'a [u8]),
    /// The frame is shorter than its link layer header.
    Short,
}

/// `None` for an unsupported link layer.
fn below(link: DataLink, frame: &[u8]) -> Option<Below<'_>> {
    let typed = |at: usize, header: usize| {
        let ether_type = frame.get(at..at + 2).zip(frame.get(header..));
        ether_type.map_or(Below::Short, |(two, rest)| {
            Below::Type(EtherType(u16::from_be_bytes([two[0], two[1]])), rest)
        })
    };
    // Some programs write the operating system's own number for raw IP into their files.
    let is_ip = [DataLink::RAW, DataLink::IPV4, DataLink::IPV6].contains(&link)
        || [12, 14].map(DataLink::Unknown).contains(&link);
    if is_ip {
        Some(Below::Ip(frame))
    } else if link == DataLink::ETHERNET {
        Some(Below::Ethernet(frame))
    } else if link == DataLink::LINUX_SLL {
        // `tcpdump -i any`: the type comes last (`LINKTYPE_LINUX_SLL`) …
        Some(typed(14, 16))
    } else if link == DataLink::LINUX_SLL2 {
        // … or, from tcpdump 4.99 on, first (`LINKTYPE_LINUX_SLL2`).
        Some(typed(0, 20))
    } else if [DataLink::NULL, DataLink::LOOP].contains(&link) {
        // Loopback, and tunnels of the BSDs and macOS: an address family, which the IP header repeats.
        Some(frame.get(4..).map_or(Below::Short, Below::Ip))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    const MESSAGE: &[u8] = b"\x01hello";

    fn ip(port: u16, payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ipv4([10, 0, 0, 5], [255; 4], 64).udp(68, port);
        let mut packet = Vec::new();
        builder.write(&mut packet, payload).unwrap();
        packet
    }

    fn ip6(port: u16, payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ipv6([0xfe; 16], [0xff; 16], 64).udp(547, port);
        let mut packet = Vec::new();
        builder.write(&mut packet, payload).unwrap();
        packet
    }

    fn of(link: DataLink, header: &[u8], packet: &[u8]) -> Frame {
        Frame { at: Duration::ZERO, link, bytes: [header, packet].concat(), cut: false }
    }

    fn ethernet(packet: &[u8]) -> Frame {
        of(DataLink::ETHERNET, b"\xff\xff\xff\xff\xff\xff\x02\x02\x02\x02\x02\x02\x08\x00", packet)
    }

    fn message() -> FrameContents {
        let (from, to) = (IpAddr::from([10, 0, 0, 5]), IpAddr::from([255; 4]));
        FrameContents::ToServer(CapturedPacket { from, to, port: 67, payload: MESSAGE.to_vec() })
    }

    #[test]
    fn what_goes_to_a_server_is_taken_out_and_the_rest_is_left() {
        assert_eq!(contents_of(&ethernet(&ip(67, MESSAGE))), message());
        assert_eq!(contents_of(&ethernet(&ip(53, MESSAGE))), FrameContents::Other);
    }

    #[test]
    fn a_packet_is_found_below_whatever_link_layer_tcpdump_writes() {
        let packet = ip(67, MESSAGE);
        let sll = b"\x00\x01\x00\x01\x00\x06\x52\x54\x00\xaa\xbb\x01\x00\x00\x08\x00";
        let sll2 =
            b"\x08\x00\x00\x00\x00\x00\x00\x03\x00\x01\x01\x06\x52\x54\x00\xaa\xbb\x01\x00\x00";
        let vlan = b"\xff\xff\xff\xff\xff\xff\x02\x02\x02\x02\x02\x02\x81\x00\x00\x64\x08\x00";

        for (link, header) in [
            (DataLink::RAW, &b""[..]),
            (DataLink::Unknown(12), b""),
            (DataLink::LINUX_SLL, sll),
            (DataLink::LINUX_SLL2, sll2),
            (DataLink::NULL, &2_u32.to_le_bytes()),
            (DataLink::LOOP, &2_u32.to_be_bytes()),
            (DataLink::ETHERNET, vlan),
        ] {
            assert_eq!(contents_of(&of(link, header, &packet)), message(), "{link:?}");
        }
    }

    #[test]
    fn a_link_layer_that_is_not_known_is_not_taken_for_something_else_than_dhcp() {
        let wifi = of(DataLink::IEEE802_11, &[8, 0], &ip(67, MESSAGE));

        assert_eq!(contents_of(&wifi), FrameContents::Unknown);
    }

    #[test]
    fn a_message_that_is_not_all_there_is_told_from_one_that_is_for_somebody_else() {
        let cut = |packet: &[u8], len: usize| {
            let mut frame = ethernet(packet);
            frame.bytes.truncate(len);
            contents_of(&Frame { cut: true, ..frame })
        };
        let (to_server, other) = (ip(67, &[1; 300]), ip(53, &[1; 300]));

        assert_eq!(cut(&to_server, 96), FrameContents::CutOff);
        assert_eq!(cut(&other, 96), FrameContents::Other);
        assert_eq!(cut(&other, 14 + 20 + 2), FrameContents::CutOff, "nobody knows where it went");
    }

    #[test]
    fn a_fragment_is_told_from_a_packet_that_is_for_somebody_else() {
        let mut first = ip(67, MESSAGE);
        first[6] = 0x20;

        assert_eq!(contents_of(&ethernet(&first)), FrameContents::Fragment);
    }

    #[test]
    fn an_answer_is_none_to_a_server_though_it_goes_to_a_relay_on_a_servers_port() {
        assert_eq!(contents_of(&ethernet(&ip(67, b"\x02hello"))), FrameContents::FromServer);
        let relay_reply = ip6(547, b"\x0dhello");
        assert_eq!(contents_of(&of(DataLink::RAW, b"", &relay_reply)), FrameContents::FromServer);
        let lease_answer = ip6(547, b"\x0fhello");
        assert_eq!(contents_of(&of(DataLink::RAW, b"", &lease_answer)), FrameContents::FromServer);
        let relay_forward = contents_of(&of(DataLink::RAW, b"", &ip6(547, b"\x0chello")));
        assert!(matches!(relay_forward, FrameContents::ToServer(_)), "{relay_forward:?}");
        assert_eq!(
            contents_of(&of(DataLink::RAW, b"", &ip6(546, b"\x02hello"))),
            FrameContents::FromServer
        );
    }

    proptest! {
        #[test]
        fn no_frame_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), cut: bool) {
            for link in [
                DataLink::ETHERNET,
                DataLink::LINUX_SLL,
                DataLink::LINUX_SLL2,
                DataLink::NULL,
                DataLink::RAW,
            ] {
                let _ = contents_of(&Frame { at: Duration::ZERO, link, bytes: bytes.clone(), cut });
            }
        }
    }
}
