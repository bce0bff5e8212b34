//! A reply as an Ethernet frame, for clients that the kernel cannot reach: it would send ARP requests for an address
//! that no host has yet.

use std::net::Ipv4Addr;

use hardware::Mac;

use super::destination::{CLIENT, SERVER};
use super::packet::LARGEST;

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;
const TIME_TO_LIVE: u8 = 64;

/// One end of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEnd {
    /// The MAC address.
    pub mac: Mac,
    /// The IPv4 address.
    pub address: Ipv4Addr,
}

/// A server's message to a client with its Ethernet, IPv4 and UDP headers, without the frame check sequence.
///
/// `None` if the message does not fit into one frame.
#[must_use]
pub fn frame(from: FrameEnd, to: FrameEnd, message: &[u8]) -> Option<Vec<u8>> {
    if message.len() > LARGEST {
        return None;
    }
    let udp = udp(from.address, to.address, message);
    let mut frame = Vec::with_capacity(14 + IPV4_HEADER + udp.len());
    frame.extend(to.mac.0);
    frame.extend(from.mac.0);
    frame.extend(IPV4);
    frame.extend(ipv4_header(from.address, to.address, udp.len()));
    frame.extend(udp);
    Some(frame)
}

fn ipv4_header(from: Ipv4Addr, to: Ipv4Addr, len: usize) -> [u8; IPV4_HEADER] {
    let mut header = [0; IPV4_HEADER];
    // Version 4, five words.
    header[0] = 0x45;
    header[2..4].copy_from_slice(&sixteen(IPV4_HEADER + len));
    header[8] = TIME_TO_LIVE;
    header[9] = UDP;
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    let sum = checksum(sum(&header));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

fn udp(from: Ipv4Addr, to: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let len = sixteen(UDP_HEADER + message.len());
    let mut udp = Vec::with_capacity(UDP_HEADER + message.len());
    udp.extend(SERVER.to_be_bytes());
    udp.extend(CLIENT.to_be_bytes());
    udp.extend(len);
    udp.extend([0, 0]);
    udp.extend(message);
    let pseudo = sum(&from.octets()) + sum(&to.octets()) + sum(&[0, UDP]) + sum(&len);
    // RFC 768: zero means no checksum, so a checksum of zero is sent as all ones.
    let sum = match checksum(pseudo + sum(&udp)) {
        0 => 0xffff,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    udp
}

fn sixteen(len: usize) -> [u8; 2] {
    u16::try_from(len).expect("a message is no longer than a frame").to_be_bytes()
}

fn sum(bytes: &[u8]) -> u32 {
    let pairs = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or_default();
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    pairs.sum()
}

/// RFC 1071.
fn checksum(mut sum: u32) -> u16 {
    while let carry @ 1.. = sum >> 16 {
        sum = (sum & 0xffff) + carry;
    }
    !u16::try_from(sum).expect("the carries are folded in")
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn another_parser_finds_the_message_and_both_checksums_right(
            macs: [[u8; 6]; 2], addresses: [u32; 2],
            message in prop::collection::vec(any::<u8>(), 0..=LARGEST),
        ) {
            let [from, to] =
                [0, 1].map(|at| FrameEnd { mac: Mac(macs[at]), address: addresses[at].into() });

            let frame = frame(from, to, &message).unwrap();

            prop_assert!(frame.len() <= 1_514);
            let read = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(NetSlice::Ipv4(ip)) = read.net else { panic!("no IPv4") };
            let header = ip.header();
            prop_assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            prop_assert_eq!((header.source_addr(), header.destination_addr()), (from.address, to.address));
            let Some(TransportSlice::Udp(udp)) = read.transport else { panic!("no UDP") };
            prop_assert_eq!((udp.source_port(), udp.destination_port()), (67, 68));
            prop_assert_eq!(udp.payload(), &message[..]);
            let sum = udp.to_header().calc_checksum_ipv4(&header.to_header(), &message).unwrap();
            prop_assert_eq!(udp.checksum(), sum);
            prop_assert_eq!((&frame[..6], &frame[6..12]), (&to.mac.0[..], &from.mac.0[..]));
        }
    }

    #[test]
    fn a_message_longer_than_a_frame_is_refused() {
        let end = FrameEnd { mac: Mac([2; 6]), address: Ipv4Addr::LOCALHOST };

        assert_eq!(frame(end, end, &[0; LARGEST + 1]), None);
    }
}
