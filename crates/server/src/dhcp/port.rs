//! The owners of ports.

use std::fs;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Result, anyhow};
use netboot::network_check::port_holders::{
    self, BoundSocket, FAMILIES, PortHolder, PortPlace, PortProgram, PortProtocol, SocketPrograms,
    holders_have, read_sockets, read_table, socket_inode, sockets_request, us_alone,
};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

/// `NETLINK_SOCK_DIAG` (`linux/netlink.h`).
const SOCK_DIAG: i32 = 4;
/// `AF_NETLINK` (`linux/socket.h`).
const NETLINK: i32 = 16;

/// The reason why this service cannot listen on an address.
#[derive(Debug, Error)]
pub enum CannotListen {
    /// Other programs listen there, at least one.
    #[error("{} it: end that, or set another address", holders_have(.0))]
    Taken(Vec<PortProgram>),
    /// The system call failed.
    #[error("cannot be had")]
    Refused(#[source] io::Error),
}

/// Checks that a server port is available, or that this service has it already.
///
/// # Errors
/// The owner, or missing permission.
pub fn who_has(place: PortPlace<'_>, port: u16) -> Result<PortHolder> {
    match take(place, port) {
        Ok(()) => Ok(PortHolder::Nobody),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holders = holders(place, port);
            match us_alone(&holders) {
                Some(pid) => Ok(PortHolder::Us(pid)),
                None => Err(anyhow!(
                    "{} it on {place}, so this service cannot answer there, or not alone: end that, or keep it off \
                     {place}",
                    holders_have(&holders)
                )),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(not_allowed()),
        Err(error) => Err(anyhow!(error).context("cannot be had")),
    }
}

/// Checks that a TCP address is available, or that this service listens on it already.
///
/// # Errors
/// The owners, or the reason.
pub fn who_listens(address: SocketAddr) -> Result<PortHolder, CannotListen> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(PortHolder::Nobody),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holders =
                holders_of(PortProtocol::Tcp, PortPlace::At(address.ip()), address.port());
            us_alone(&holders).map(PortHolder::Us).ok_or(CannotListen::Taken(holders))
        }
        Err(error) => Err(CannotListen::Refused(error)),
    }
}

/// Checks the permission for ports of servers and clients.
///
/// # Errors
/// The required permission.
pub fn may_have(interface: &str, port: u16) -> Result<()> {
    match take(PortPlace::On(interface), port) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(not_allowed()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The owners of a port that could not be opened on an interface, in words.
pub(super) fn had(interface: &str, port: u16) -> String {
    format!(
        "{} UDP port {port} there: end that, or keep it off {interface}",
        holders_have(&holders(PortPlace::On(interface), port))
    )
}

/// The other owners of a port on an interface, in words, if there are any: some programs share the port on request,
/// and then both answer.
pub(super) fn shared(interface: &str, port: u16) -> Option<String> {
    let us = std::process::id();
    let is_us =
        |holder: &PortProgram| matches!(holder, PortProgram::Seen { pid, .. } if *pid == us);
    let mut others = holders(PortPlace::On(interface), port);
    others.retain(|holder| !is_us(holder));
    (!others.is_empty()).then(|| {
        format!(
            "{} UDP port {port} on {interface} too, and may answer machines there: end that, or keep it off \
             {interface}",
            holders_have(&others)
        )
    })
}

/// The reason why a client port could not be opened for requests, in words.
pub(super) fn cannot_ask(interface: &str, port: u16, error: io::Error) -> anyhow::Error {
    let kind = error.kind();
    if kind == io::ErrorKind::AddrInUse {
        anyhow!(
            "cannot ask, as {} UDP port {port} on {interface}: stop that program there (a DHCP client, \
             mostly) while this asks",
            holders_have(&holders(PortPlace::On(interface), port))
        )
    } else if kind == io::ErrorKind::PermissionDenied {
        not_allowed()
    } else {
        anyhow::Error::from(error).context(format!("cannot ask on {interface}"))
    }
}

fn not_allowed() -> anyhow::Error {
    anyhow!(
        "not allowed, so nobody is asked and nothing is known: run this as root (sudo), or with the capabilities \
         CAP_NET_BIND_SERVICE (ports below 1024) and CAP_NET_RAW (an interface's packets)"
    )
}

/// Opens and closes the port. Programs with the port only on another interface do not matter.
fn take(place: PortPlace<'_>, port: u16) -> io::Result<()> {
    let address = match place {
        // DHCPv6's port.
        PortPlace::On(_) if port == 547 => Ipv6Addr::UNSPECIFIED.into(),
        PortPlace::On(_) => Ipv4Addr::UNSPECIFIED.into(),
        PortPlace::At(address) => address,
    };
    let domain = if address.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if let PortPlace::On(interface) = place {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    socket.bind(&SocketAddr::new(address, port).into())
}

/// The programs that occupy a port. At least one.
fn holders(place: PortPlace<'_>, port: u16) -> Vec<PortProgram> {
    holders_of(PortProtocol::Udp, place, port)
}

fn holders_of(protocol: PortProtocol, place: PortPlace<'_>, port: u16) -> Vec<PortProgram> {
    let sockets = asked(protocol).unwrap_or_else(|_| listed(protocol));
    let index = match place {
        PortPlace::On(interface) => if_nametoindex(interface).ok(),
        PortPlace::At(_) => None,
    };
    port_holders::holders(&sockets, &programs(), place, index, port)
}

/// All bound or listening sockets of a protocol, from the kernel (`sock_diag(7)`); only this source has their
/// interfaces.
fn asked(protocol: PortProtocol) -> io::Result<Vec<BoundSocket>> {
    let mut all = Vec::new();
    for family in FAMILIES {
        let kind = Type::DGRAM;
        let mut socket = Socket::new(Domain::from(NETLINK), kind, Some(SOCK_DIAG.into()))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.send(&sockets_request(family, protocol))?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let len = socket.read(&mut buffer)?;
            if !read_sockets(&buffer[..len], &mut all).map_err(io::Error::other)? {
                break;
            }
        }
    }
    Ok(all)
}

/// The same from `/proc`, as if all sockets were on all interfaces.
fn listed(protocol: PortProtocol) -> Vec<BoundSocket> {
    let tables = match protocol {
        PortProtocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        PortProtocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let tables = tables.iter().filter_map(|table| fs::read_to_string(table).ok());
    tables.flat_map(|table| read_table(&table, protocol)).collect()
}

/// The owners of sockets, as far as visible.
fn programs() -> SocketPrograms {
    let mut all = SocketPrograms::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let open = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
        let links = open.filter_map(|fd| fs::read_link(fd.path()).ok());
        let sockets: Vec<u32> = links.filter_map(|link| socket_inode(link.to_str()?)).collect();
        if !sockets.is_empty() {
            let name = name_of(pid);
            all.extend(sockets.into_iter().map(|inode| (inode, (name.clone(), pid))));
        }
    }
    all
}

fn name_of(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn the_holder_of_a_port_is_named_and_others_are_not() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let own = std::process::id();

        let at = holders(PortPlace::At(Ipv4Addr::LOCALHOST.into()), port);

        assert_eq!(at, [PortProgram::Seen { name: name_of(own), pid: own }]);
        assert!(who_has(PortPlace::At(Ipv4Addr::LOCALHOST.into()), port).is_err());
        let elsewhere = holders(PortPlace::At(Ipv4Addr::new(127, 0, 0, 2).into()), port);
        assert_eq!(elsewhere, [PortProgram::Unseen]);
    }

    #[test]
    fn the_program_that_listens_on_an_address_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let own = std::process::id();

        let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
        for address in [address, everywhere] {
            let holders =
                holders_of(PortProtocol::Tcp, PortPlace::At(address.ip()), address.port());
            assert_eq!(holders, [PortProgram::Seen { name: name_of(own), pid: own }]);
            let said = who_listens(address).unwrap_err().to_string();
            assert!(said.contains(&format!("(process {own}) has it")), "{said}");
        }
        drop(listener);
        assert_eq!(who_listens(address).unwrap(), PortHolder::Nobody);
    }

    #[test]
    fn a_port_that_we_have_alone_is_shared_with_nobody() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();

        assert_eq!(shared("lo", socket.local_addr().unwrap().port()), None);
    }
}
