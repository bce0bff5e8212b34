//! Reads a capture, and removes the Ethernet, IPv4 and UDP headers.

use std::fs::File;
use std::path::Path;

use pcap_file::pcap::PcapReader;

/// A client's messages in an exchange of four messages.
pub(crate) struct Capture {
    /// Its DISCOVER.
    pub(crate) discover: Vec<u8>,
    /// Its REQUEST, to another server.
    pub(crate) request: Vec<u8>,
}

/// The capture of this name in this folder.
#[expect(clippy::disallowed_methods, reason = "captures are files; the crate itself reads none")]
pub(crate) fn open(name: &str) -> Capture {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let file = File::open(folder.join(name).with_added_extension("pcap")).unwrap();
    let mut packets = PcapReader::new(file).unwrap();
    let mut next = || udp_payload(&packets.next_packet().unwrap().unwrap().data).to_vec();
    Capture { discover: next(), request: next() }
}

/// The three DHCPv6 messages of the capture of this name, without Ethernet, IPv6 and UDP headers.
#[expect(clippy::disallowed_methods, reason = "captures are files; the crate itself reads none")]
pub(crate) fn open6(name: &str) -> [Vec<u8>; 3] {
    const HEADERS: usize = 14 + 40 + 8;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let file = File::open(folder.join(name).with_added_extension("pcap")).unwrap();
    let mut packets = PcapReader::new(file).unwrap();
    [(); 3].map(|()| packets.next_packet().unwrap().unwrap().data[HEADERS..].to_vec())
}

fn udp_payload(frame: &[u8]) -> &[u8] {
    const ETHERNET: usize = 14;
    const UDP: usize = 8;
    let ip = &frame[ETHERNET..];
    let header = usize::from(ip[0] & 0x0f) * 4;
    let udp = &ip[header..];
    let len = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
    &udp[UDP..len]
}
