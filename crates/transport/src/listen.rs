//! Listening sockets.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener, TcpSocket};

/// Listens on `address` for `what`, a word for error messages.
///
/// On a kernel without IPv6, `[::]` means only the IPv4 addresses.
///
/// # Errors
/// A description: the address is in use, or not an address of this host.
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

/// Length of the socket's backlog; the kernel may lower it. A machine whose first packet is dropped retries only
/// after a second.
const BACKLOG: u32 = 4_096;

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted service need not wait for its old connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
