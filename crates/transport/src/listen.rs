//! Listening sockets.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener, TcpSocket};

/// Listens on `address` for `what`, a word for errors.
///
/// Where the kernel was started without IPv6, `[::]` means the IPv4 addresses alone.
///
/// # Errors
/// In words: the address is taken, or not one of this host.
pub fn listen(address: SocketAddr, what: &str) -> Result<TcpListener> {
    let bound = match bind(address) {
        Err(error)
            if address.ip() == Ipv6Addr::UNSPECIFIED
                && error.kind() != io::ErrorKind::AddrInUse =>
        {
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        bound => bound,
    };
    bound.with_context(|| format!("cannot listen on {address} for {what}"))
}

/// Connections that may wait for the service to take them; the kernel takes less, where it is set so. A machine whose
/// first packet is dropped beyond that tries again only after a second.
const BACKLOG: u32 = 4_096;

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A service that is started again need not wait for what is left of its connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
