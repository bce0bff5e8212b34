//! Packets that a UDP socket does not receive: owners of IPv4 addresses on the link, and packets to other hosts.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use dhcp::leases::LeaseTable;
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, NetSlice, PacketBuilder, SlicedPacket, TransportSlice,
};
use hardware::Mac;
use netboot::network_check::neighbours::AddressHolders;
use netboot::network_settings::{NetworkSettings, Reservation};
use nix::sys::socket::{LinkAddr, MsgFlags, bind, sendto};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::super::interface::entries_of;
use super::super::journal::look;
use super::super::listener::now_secs;
use super::super::port;
use super::super::socket::LONGEST;
use super::CLIENT;

/// EtherTypes.
pub(super) const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
/// Number of probes, and time limit of each answer (RFC 5227 §1.1 has three probes, up to two seconds apart).
const PROBES: u32 = 3;
const WAIT: Duration = Duration::from_millis(700);

/// Probes each of these addresses, without a sender address, so that no ARP cache changes (RFC 5227 §2.1.1).
///
/// # Errors
/// The interface is missing, has no MAC address, or requests are not permitted.
pub async fn neighbours(interface: &str, wanted: &BTreeSet<Ipv4Addr>) -> Result<AddressHolders> {
    let mac = mac_of(interface).context("the interface has no MAC address")?;
    let socket = Incoming::open(interface, ARP);
    let socket = socket.map_err(|error| port::cannot_ask(interface, 0, error))?;
    let mut found = AddressHolders::new();
    if wanted.is_empty() {
        return Ok(found);
    }
    let begun = Instant::now();
    for probe in 1..=PROBES {
        for address in wanted.iter().filter(|address| !found.contains_key(address)) {
            socket.send(&question(mac, *address)).context("cannot ask by ARP")?;
        }
        while let Ok(received) = timeout_at(begun + WAIT * probe, socket.receive()).await {
            if let Some((address, mac)) = said(&received?)
                && wanted.contains(&address)
                && !is_own(mac)
            {
                found.entry(address).or_default().insert(mac);
            }
        }
    }
    Ok(found)
}

/// The leases of a network's own subnet, from the journal.
///
/// # Errors
/// The journal cannot be read.
pub fn leased(network: &NetworkSettings, state_dir: &Path) -> Result<AddressHolders> {
    let mut all = AddressHolders::new();
    for Reservation { mac, address } in &network.reservations {
        if let IpAddr::V4(address) = address {
            all.entry(*address).or_default().insert(*mac);
        }
    }
    if let Some(pool) = network.pool {
        let path = state_dir.join(format!("leases-{}.journal", network.interface));
        let leases: LeaseTable<Ipv4Addr> = look(&path, (pool.0, Vec::new()), now_secs())?;
        for lease in leases.records() {
            all.entry(lease.address).or_default().insert(lease.client);
        }
    }
    Ok(all)
}

/// Whether an interface's neighbours have MAC addresses.
#[must_use]
pub fn has_neighbours(interface: &str) -> bool {
    mac_of(interface).is_some_and(|mac| mac != Mac([0; 6]))
}

pub(super) fn mac_of(interface: &str) -> Option<Mac> {
    link_of(interface).ok()?.addr().map(Mac)
}

fn link_of(interface: &str) -> Result<LinkAddr> {
    let found =
        entries_of(interface)?.iter().find_map(|entry| entry.address?.as_link_addr().copied());
    found.context("the interface has no link")
}

/// Whether a MAC address belongs to an interface of this host, which may answer for another interface's address.
fn is_own(mac: Mac) -> bool {
    let mut all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    all.any(|entry| entry.address.and_then(|it| it.as_link_addr()?.addr()) == Some(mac.0))
}

fn question(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let packet = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: mac.0,
        sender_ipv4: [0; 4],
        target_mac: [0; 6],
        target_ipv4: address.octets(),
    };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac.0, [0xff; 6])
        .arp(packet.into())
        .write(&mut frame)
        .expect("memory takes every frame");
    frame
}

/// The address that a sender claims, in an answer or a request.
fn said(frame: &[u8]) -> Option<(Ipv4Addr, Mac)> {
    let NetSlice::Arp(arp) = SlicedPacket::from_ethernet(frame).ok()?.net? else { return None };
    let arp = arp.to_packet().try_eth_ipv4().ok()?;
    Some((arp.sender_ipv4.into(), Mac(arp.sender_mac)))
}

/// All incoming packets of one protocol on an interface, for any destination.
#[derive(Debug)]
pub(super) struct Incoming {
    /// A packet socket; a UDP socket's type suffices for it.
    socket: UdpSocket,
    link: LinkAddr,
}

impl Incoming {
    pub(super) fn open(interface: &str, protocol: u16) -> io::Result<Self> {
        let link = link_of(interface).map_err(io::Error::other)?;
        let protocol = Protocol::from(i32::from(protocol.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
        socket.set_nonblocking(true)?;
        // The protocol stays the same, since the address has none.
        bind(socket.as_raw_fd(), &link)?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, link })
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        sendto(self.socket.as_raw_fd(), frame, &self.link, MsgFlags::empty())?;
        Ok(())
    }

    async fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; LONGEST];
        let len = self.socket.recv(&mut buffer).await?;
        buffer.truncate(len);
        Ok(buffer)
    }

    /// The next packet: a DHCP server's message to a client with the server's address, or `None` for other packets.
    pub(super) async fn datagram(&self) -> io::Result<Option<(Ipv4Addr, Vec<u8>)>> {
        Ok(to_client(&self.receive().await?))
    }
}

fn to_client(frame: &[u8]) -> Option<(Ipv4Addr, Vec<u8>)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let NetSlice::Ipv4(ip) = packet.net? else { return None };
    let TransportSlice::Udp(udp) = packet.transport? else { return None };
    let is_to_client = udp.destination_port() == CLIENT;
    is_to_client.then(|| (ip.header().source_addr(), udp.payload().to_vec()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_probe_says_nothing_of_who_asks_and_an_answer_is_read() {
        let probe = question(Mac([2; 6]), Ipv4Addr::new(192, 0, 2, 1));
        let answer = ArpEthIpv4Packet {
            operation: ArpOperation::REPLY,
            sender_mac: [4; 6],
            sender_ipv4: [192, 0, 2, 1],
            target_mac: [2; 6],
            target_ipv4: [0; 4],
        };
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([4; 6], [2; 6]).arp(answer.into()).write(&mut frame).unwrap();

        assert_eq!(said(&probe), Some((Ipv4Addr::UNSPECIFIED, Mac([2; 6]))));
        assert_eq!(said(&frame), Some((Ipv4Addr::new(192, 0, 2, 1), Mac([4; 6]))));
    }

    #[test]
    fn what_is_sent_to_a_client_alone_is_heard() {
        let frame = |port| {
            let builder = PacketBuilder::ethernet2([4; 6], [2; 6]);
            let builder = builder.ipv4([192, 0, 2, 250], [192, 0, 2, 66], 64).udp(67, port);
            let mut frame = Vec::new();
            builder.write(&mut frame, b"offer").unwrap();
            frame
        };

        assert_eq!(to_client(&frame(68)), Some(([192, 0, 2, 250].into(), b"offer".to_vec())));
        assert_eq!(to_client(&frame(67)), None);
    }

    proptest! {
        #[test]
        fn no_frame_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = said(&bytes);
            let _ = to_client(&bytes);
        }
    }
}
