//! Sockets on one interface.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Result, anyhow};
use dhcp::v4::destination::{CLIENT, Destination};
use dhcp::v6::ports::{ALL_SERVERS, ALL_SITE_SERVERS, SERVER_PORT};
use netboot::v4::{V4Arrival, V4Reply};
use netboot::v6::{V6Arrival, V6Reply};
use nix::libc::{in6_addr, in6_pktinfo};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo, RcvBufForce};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrLike, recvmsg,
    sendmsg,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tracing::debug;

use super::dhcp_socket::DhcpSocket;
use super::frames::Frames;
use super::ipv6_link::Ipv6Link;
use super::port;

const BROADCAST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT);
/// The destination of solicitations (RFC 4861 §4.1).
pub(super) const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Longest DHCP message. None exceeds an Ethernet frame, unless crafted to.
pub(super) const LONGEST: usize = 4_096;
/// Size of the receive buffer in bytes, for ten thousand machines that are switched on at once; each packet takes
/// about 2 kB in the kernel.
const WAITING: usize = 32 * 1024 * 1024;
/// Pause after an error of a socket.
pub(super) const AFTER_ERROR: Duration = Duration::from_secs(1);

/// A UDP port of DHCPv4. Packets on other interfaces never reach it.
#[derive(Debug)]
pub(super) struct Socket4 {
    socket: UdpSocket,
    /// `None` without permission for raw frames: answers are broadcast then.
    frames: Option<Frames>,
}

impl Socket4 {
    /// `address` is the service's on the interface.
    pub(super) fn open(interface: &str, port: u16, address: Ipv4Addr) -> Result<Self> {
        let bound = || -> io::Result<UdpSocket> {
            let socket = on(interface, Domain::IPV4, Type::DGRAM, Protocol::UDP)?;
            socket.set_broadcast(true)?;
            socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
            setsockopt(&socket, Ipv4PacketInfo, &true)?;
            UdpSocket::from_std(socket.into())
        };
        let socket = bound().map_err(|error| refused(interface, port, error))?;
        let frames = Frames::open(interface, address);
        if let Err(error) = &frames {
            debug!(
                "answers on {interface} to machines without an address are broadcast: {error:#}"
            );
        }
        Ok(Self { socket, frames: frames.ok() })
    }
}

impl DhcpSocket for Socket4 {
    type Arrival = V4Arrival;
    type Reply = V4Reply;

    async fn receive(
        &self,
        packets: &mut Vec<(Vec<u8>, V4Arrival)>,
        most: usize,
    ) -> io::Result<()> {
        receive_all(&self.socket, packets, most, |from: SockaddrIn, control| {
            let ControlMessageOwned::Ipv4PacketInfo(info) = control else { return None };
            let to = Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes());
            Some(V4Arrival { from: from.into(), to })
        })
        .await
    }

    async fn send(&self, V4Reply { reply, to }: &V4Reply) -> io::Result<()> {
        let bytes = reply.emit();
        let to: SocketAddr = match *to {
            Destination::Unicast(to) => to.into(),
            Destination::Broadcast => BROADCAST.into(),
            // The kernel would send ARP requests for an address that no host has yet.
            Destination::Link { mac, address } => {
                let sent = self.frames.as_ref().map(|frames| frames.send(mac, address, &bytes));
                if let Some(Ok(())) = sent {
                    return Ok(());
                }
                BROADCAST.into()
            }
        };
        self.socket.send_to(&bytes, to).await.map(drop)
    }
}

/// UDP port 547.
#[derive(Debug)]
pub(super) struct Socket6(UdpSocket);

impl Socket6 {
    pub(super) fn open(link: &Ipv6Link) -> Result<Self> {
        let bound = || -> io::Result<UdpSocket> {
            let socket = on(&link.name, Domain::IPV6, Type::DGRAM, Protocol::UDP)?;
            socket.set_only_v6(true)?;
            socket.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, SERVER_PORT, 0, 0).into())?;
            for group in [ALL_SERVERS, ALL_SITE_SERVERS] {
                socket.join_multicast_v6(&group, link.index)?;
            }
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
            UdpSocket::from_std(socket.into())
        };
        bound().map(Self).map_err(|error| refused(&link.name, SERVER_PORT, error))
    }
}

impl DhcpSocket for Socket6 {
    type Arrival = V6Arrival;
    type Reply = V6Reply;

    async fn receive(
        &self,
        packets: &mut Vec<(Vec<u8>, V6Arrival)>,
        most: usize,
    ) -> io::Result<()> {
        receive_all(&self.0, packets, most, |from: SockaddrIn6, control| {
            let ControlMessageOwned::Ipv6PacketInfo(info) = control else { return None };
            Some(V6Arrival { from: from.into(), to: info.ipi6_addr.s6_addr.into() })
        })
        .await
    }

    async fn send(&self, reply: &V6Reply) -> io::Result<()> {
        self.0.send_to(&reply.bytes, SocketAddr::V6(reply.to)).await.map(drop)
    }
}

/// Waits for packets, and receives up to `most`, each with its addresses.
async fn receive_all<S: SockaddrLike, Way>(
    socket: &UdpSocket,
    packets: &mut Vec<(Vec<u8>, Way)>,
    most: usize,
    way: impl Fn(S, ControlMessageOwned) -> Option<Way>,
) -> io::Result<()> {
    socket.readable().await?;
    let mut buffer = [0; LONGEST];
    while packets.len() < most {
        match socket.try_io(Interest::READABLE, || receive(socket, &mut buffer, &way)) {
            Ok((len, Some(way))) => packets.push((buffer[..len].to_vec(), way)),
            Ok((_, None)) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The length of a packet, and its control message.
fn receive<S: SockaddrLike, T>(
    socket: &UdpSocket,
    buffer: &mut [u8],
    about: impl Fn(S, ControlMessageOwned) -> Option<T>,
) -> io::Result<(usize, Option<T>)> {
    // The largest of the requested control messages.
    let mut control = nix::cmsg_space!(in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let (fd, flags) = (socket.as_raw_fd(), MsgFlags::empty());
    let message = recvmsg::<S>(fd, &mut parts, Some(&mut control), flags)?;
    let said = message.cmsgs()?.next();
    Ok((message.bytes, message.address.zip(said).and_then(|(from, said)| about(from, said))))
}

/// ICMPv6, for solicitations and advertisements. A raw socket, but a UDP socket's type suffices for it.
#[derive(Debug)]
pub(super) struct Icmp6(UdpSocket);

impl Icmp6 {
    pub(super) fn open(link: &Ipv6Link) -> io::Result<Self> {
        let socket = on(&link.name, Domain::IPV6, Type::RAW, Protocol::ICMPV6)?;
        socket.set_recv_hoplimit_v6(true)?;
        socket.join_multicast_v6(&ALL_ROUTERS, link.index)?;
        socket.set_multicast_if_v6(link.index)?;
        // Receivers drop an advertisement with a lower hop limit, which may have passed a router (RFC 4861 §6.1.2).
        socket.set_multicast_hops_v6(255)?;
        socket.set_unicast_hops_v6(255)?;
        UdpSocket::from_std(socket.into()).map(Self)
    }

    /// A message with its hop limit and its source address.
    pub(super) async fn receive(&self) -> io::Result<(Vec<u8>, u8, Ipv6Addr)> {
        let about = |from: SockaddrIn6, control| {
            let ControlMessageOwned::Ipv6HopLimit(hops) = control else { return None };
            Some((u8::try_from(hops).ok()?, from.ip()))
        };
        let mut buffer = vec![0; LONGEST];
        let (len, about) =
            self.0.async_io(Interest::READABLE, || receive(&self.0, &mut buffer, about)).await?;
        buffer.truncate(len);
        let (hops, from) = about.unwrap_or((0, Ipv6Addr::UNSPECIFIED));
        Ok((buffer, hops, from))
    }

    pub(super) async fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.0.send_to(bytes, to).await.map(drop)
    }

    /// Sends from a given local address.
    pub(super) async fn send_from(
        &self,
        bytes: &[u8],
        from: Ipv6Addr,
        to: SocketAddrV6,
    ) -> io::Result<()> {
        let info = in6_pktinfo {
            ipi6_addr: in6_addr { s6_addr: from.octets() },
            ipi6_ifindex: to.scope_id(),
        };
        let (parts, control) = ([IoSlice::new(bytes)], [ControlMessage::Ipv6PacketInfo(&info)]);
        let (fd, flags, to) = (self.0.as_raw_fd(), MsgFlags::empty(), SockaddrIn6::from(to));
        let send = || Ok(sendmsg(fd, &parts, &control, flags, Some(&to)).map(drop)?);
        self.0.async_io(Interest::WRITABLE, send).await
    }
}

pub(super) fn on(
    interface: &str,
    domain: Domain,
    kind: Type,
    protocol: Protocol,
) -> io::Result<Socket> {
    let socket = Socket::new(domain, kind, Some(protocol))?;
    // Another network has the same port on another interface.
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_nonblocking(true)?;
    // Beyond the system's limit with privileges, otherwise up to it.
    if setsockopt(&socket, RcvBufForce, &WAITING).is_err() {
        socket.set_recv_buffer_size(WAITING)?;
    }
    Ok(socket)
}

fn refused(interface: &str, port: u16, error: io::Error) -> anyhow::Error {
    let kind = error.kind();
    if kind == io::ErrorKind::PermissionDenied {
        anyhow!(
            "may not answer DHCP on {interface}: that takes root, or the capabilities \
             CAP_NET_BIND_SERVICE and CAP_NET_RAW"
        )
    } else if kind == io::ErrorKind::AddrInUse {
        anyhow!("cannot answer DHCP on {interface}: {}", port::had(interface, port))
    } else {
        anyhow::Error::from(error).context(format!("cannot answer DHCP on {interface}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_port_is_named_where_it_cannot_be_had() {
        let taken = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = taken.local_addr().unwrap().port();

        let error = refused("lo", port, io::ErrorKind::AddrInUse.into()).to_string();

        assert!(error.contains(&format!("(process {}) has UDP port {port}", std::process::id())));
    }
}
