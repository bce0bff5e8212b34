//! A UDP socket on one interface, on port 67.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use dhcp::v4::packet::Packet;
use nix::ifaddrs::getifaddrs;
use socket2::{Domain, Protocol, Type};
use tokio::net::UdpSocket;

const SERVER: u16 = 67;
const CLIENT: u16 = 68;
/// No DHCP message is longer than an Ethernet frame, unless it was made to be.
const LONGEST: usize = 4_096;
/// How long to leave a socket alone that fails.
pub(super) const AFTER_ERROR: Duration = Duration::from_secs(1);

/// The socket. What comes in on other interfaces never reaches it.
#[derive(Debug)]
pub(super) struct Socket(UdpSocket);

impl Socket {
    pub(super) fn open(interface: &str) -> Result<Self> {
        let bound = || -> io::Result<UdpSocket> {
            let socket = socket2::Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
            // Another network of ours has the same port on another interface.
            socket.set_reuse_address(true)?;
            socket.set_broadcast(true)?;
            socket.bind_device(Some(interface.as_bytes()))?;
            socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SERVER).into())?;
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket.into())
        };
        bound().map(Self).map_err(|error| refused(interface, error))
    }

    pub(super) async fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; LONGEST];
        let (len, _) = self.0.recv_from(&mut buffer).await?;
        buffer.truncate(len);
        Ok(buffer)
    }

    pub(super) async fn send(&self, request: &Packet, reply: &Packet) -> io::Result<()> {
        self.0.send_to(&reply.emit(), destination(request, reply)).await.map(drop)
    }
}

fn refused(interface: &str, error: io::Error) -> anyhow::Error {
    let kind = error.kind();
    if kind == io::ErrorKind::PermissionDenied {
        anyhow!(
            "may not answer DHCP on {interface}: that takes root, or the capabilities \
             CAP_NET_BIND_SERVICE and CAP_NET_RAW"
        )
    } else if kind == io::ErrorKind::AddrInUse {
        anyhow!(
            "cannot answer DHCP on {interface}: another program has UDP port 67 (a dnsmasq? \
             `ss -lnup sport = :67` shows it)"
        )
    } else {
        anyhow::Error::from(error).context(format!("cannot answer DHCP on {interface}"))
    }
}

/// Where a reply goes (RFC 2131 §4.1).
///
/// A client without an address gets a broadcast whether it asked for one or not: for a unicast to an
/// address that it does not have yet, the kernel would have to be told its MAC address first.
fn destination(request: &Packet, reply: &Packet) -> SocketAddr {
    let to = |address, port| SocketAddrV4::new(address, port).into();
    if !request.giaddr.is_unspecified() {
        to(request.giaddr, SERVER)
    } else if !reply.ciaddr.is_unspecified() && !reply.broadcast {
        to(reply.ciaddr, CLIENT)
    } else {
        to(Ipv4Addr::BROADCAST, CLIENT)
    }
}

/// Our address on an interface, and its mask.
pub(super) fn address_of(interface: &str) -> Result<(Ipv4Addr, Ipv4Addr)> {
    let mut seen = false;
    for entry in getifaddrs().context("cannot list the network interfaces")? {
        if entry.interface_name != interface {
            continue;
        }
        seen = true;
        let inet = |address: Option<nix::sys::socket::SockaddrStorage>| {
            address?.as_sockaddr_in().map(nix::sys::socket::SockaddrIn::ip)
        };
        if let (Some(address), Some(mask)) = (inet(entry.address), inet(entry.netmask)) {
            return Ok((address, mask));
        }
    }
    if seen {
        bail!("cannot answer DHCP on {interface}: it has no IPv4 address; give it one first")
    }
    bail!("cannot answer DHCP on {interface}: there is no such network interface")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let error = address_of("nosuch0").unwrap_err().to_string();

        assert!(error.contains("no such network interface"), "{error}");
    }

    #[test]
    fn the_address_of_an_interface_comes_with_its_mask() {
        let (address, mask) = address_of("lo").unwrap();

        assert_eq!((address, mask), (Ipv4Addr::LOCALHOST, Ipv4Addr::new(255, 0, 0, 0)));
    }
}
