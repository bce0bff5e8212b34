//! Address conflict detection (RFC 5227), which RFC 2131 §3.1 requires before a client uses its address.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context, Result};
use hardware::Mac;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, bind};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::network::links::NetworkLink;

/// Number of probes. A present host answers within milliseconds; the RFC's probes would take several seconds of each
/// boot.
const PROBES: u32 = 2;
const WAIT: Duration = Duration::from_millis(250);

const ETHERTYPE: u16 = 0x0806;
/// Ethernet and IPv4, with the lengths of their addresses.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];

/// Probes for an address. True if another host claims it.
///
/// # Errors
///
/// The link cannot send.
pub(super) async fn is_taken(link: &NetworkLink, address: Ipv4Addr) -> Result<bool> {
    let socket = socket(&link.name).context("opening a socket for ARP")?;
    let mut frame = [0; 1500];
    for _ in 0..PROBES {
        socket.send(&probe(link.mac, address)).await.context("asking by ARP")?;
        let until = Instant::now() + WAIT;
        while let Ok(received) = timeout_at(until, socket.recv(&mut frame)).await {
            if claims(&frame[..received.context("listening to ARP")?], link.mac, address) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// As with router discovery, a UDP socket's type suffices for the raw socket.
fn socket(link: &str) -> io::Result<UdpSocket> {
    let protocol = Protocol::from(i32::from(ETHERTYPE.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
    let is_of_link = |name: &str, address: Option<&LinkAddr>| (name == link).then_some(*address?);
    let mut all = getifaddrs()?;
    let address = all.find_map(|entry| {
        is_of_link(&entry.interface_name, entry.address.as_ref()?.as_link_addr())
    });
    bind(socket.as_raw_fd(), &address.ok_or(io::ErrorKind::NotFound)?)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

/// RFC 5227 §2.1.1: the sender address is unspecified, so that no host updates its ARP cache.
fn probe(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    [
        &[0xff; 6][..],
        &mac.0,
        &ETHERTYPE.to_be_bytes(),
        &KIND,
        &REQUEST,
        &mac.0,
        &Ipv4Addr::UNSPECIFIED.octets(),
        &[0; 6],
        &address.octets(),
    ]
    .concat()
}

/// Whether a frame claims the address for another host. A probe by another host is no claim: some switches probe to
/// identify hosts (Cisco's device tracking).
fn claims(frame: &[u8], mac: Mac, address: Ipv4Addr) -> bool {
    let (Some(kind), Some(sender), Some(has)) =
        (frame.get(12..20), frame.get(22..28), frame.get(28..32))
    else {
        return false;
    };
    kind == [&ETHERTYPE.to_be_bytes()[..], &KIND].concat()
        && sender != mac.0
        && has == address.octets()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 8]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);

    /// Linux's answer.
    fn answer(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
        let mut frame = probe(mac, ADDRESS);
        frame[21] = 2;
        frame[28..32].copy_from_slice(&address.octets());
        frame
    }

    #[test]
    fn only_somebody_else_who_has_the_address_claims_it() {
        assert!(claims(&answer(OTHER, ADDRESS), MAC, ADDRESS));
        assert!(!claims(&answer(MAC, ADDRESS), MAC, ADDRESS));
        assert!(!claims(&answer(OTHER, Ipv4Addr::new(10, 0, 0, 1)), MAC, ADDRESS));
        assert!(!claims(&probe(OTHER, ADDRESS), MAC, ADDRESS), "a switch that looks for us");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(frame: Vec<u8>) {
            claims(&frame, MAC, ADDRESS);
        }
    }
}
