//! The sockets of IPv6 on one link: router discovery and DHCPv6.

use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::network::links::NetworkLink;

/// Longer than any Ethernet frame.
const LONGEST: usize = 9216;

/// RFC 8415 §7.2.
const CLIENT_PORT: u16 = 546;

/// ICMPv6. A raw socket, but a UDP socket's type suffices for it.
#[derive(Debug)]
pub(super) struct RouterSocket(UdpSocket);

impl RouterSocket {
    pub(super) fn open(link: &NetworkLink) -> io::Result<Self> {
        let socket = on(link, Type::RAW, Protocol::ICMPV6)?;
        socket.set_recv_hoplimit_v6(true)?;
        // Routers drop a solicitation with a lower hop limit, which may have passed a router (RFC 4861 §6.1.1).
        socket.set_multicast_hops_v6(255)?;
        UdpSocket::from_std(socket.into()).map(Self)
    }

    pub(super) async fn send(&self, message: &[u8], link: &NetworkLink) -> io::Result<()> {
        const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
        self.0.send_to(message, SocketAddrV6::new(ALL_ROUTERS, 0, 0, link.index)).await.map(drop)
    }

    /// A message with its hop limit and its source address.
    pub(super) async fn receive(&self) -> io::Result<(Vec<u8>, u8, Ipv6Addr)> {
        let receive = || {
            let mut buffer = vec![0; LONGEST];
            let mut control = nix::cmsg_space!(i32);
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let (fd, flags) = (self.0.as_raw_fd(), MsgFlags::empty());
            let message = recvmsg::<SockaddrIn6>(fd, &mut parts, Some(&mut control), flags)?;
            let hops = message.cmsgs()?.find_map(|control| {
                let ControlMessageOwned::Ipv6HopLimit(hops) = control else { return None };
                u8::try_from(hops).ok()
            });
            let from = message.address.map_or(Ipv6Addr::UNSPECIFIED, |from| from.ip());
            let len = message.bytes;
            buffer.truncate(len);
            Ok((buffer, hops.unwrap_or(0), from))
        };
        self.0.async_io(Interest::READABLE, receive).await
    }
}

/// A DHCPv6 client's socket.
#[derive(Debug)]
pub(super) struct ServerSocket(UdpSocket);

impl ServerSocket {
    pub(super) fn open(link: &NetworkLink) -> io::Result<Self> {
        let socket = on(link, Type::DGRAM, Protocol::UDP)?;
        socket.set_only_v6(true)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, CLIENT_PORT, 0, 0).into())?;
        UdpSocket::from_std(socket.into()).map(Self)
    }

    pub(super) async fn send(&self, message: &[u8], link: &NetworkLink) -> io::Result<()> {
        const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
        const PORT: u16 = 547;
        self.0.send_to(message, SocketAddrV6::new(ALL_SERVERS, PORT, 0, link.index)).await.map(drop)
    }

    pub(super) async fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; LONGEST];
        let len = self.0.recv(&mut buffer).await?;
        buffer.truncate(len);
        Ok(buffer)
    }
}

fn on(link: &NetworkLink, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, kind, Some(protocol))?;
    socket.bind_device(Some(link.name.as_bytes()))?;
    socket.set_multicast_if_v6(link.index)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
