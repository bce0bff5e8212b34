//! The owners of ports.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Result, anyhow};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

/// `NETLINK_SOCK_DIAG` (`linux/netlink.h`).
const SOCK_DIAG: i32 = 4;
/// `AF_NETLINK`, `AF_INET` and `AF_INET6` (`linux/socket.h`).
const NETLINK: i32 = 16;
const INET: u8 = 2;
const INET6: u8 = 10;
/// `SOCK_DIAG_BY_FAMILY` (`linux/sock_diag.h`), in requests and answers.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x0301;
/// `IPPROTO_UDP` and `IPPROTO_TCP` (`netinet/in.h`).
const UDP: u8 = 17;
const TCP: u8 = 6;
/// TCP's listening sockets (`1 << TCP_LISTEN`, `net/tcp_states.h`); UDP has no such states.
const LISTENING: u32 = 1 << 10;

/// The owner of a port that is available, or in use as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortHolder {
    /// It is free.
    Nobody,
    /// This service, running as this process.
    Us(u32),
}

/// A program that occupies a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortProgram {
    /// A visible program.
    Seen {
        /// Its name.
        name: String,
        /// Its process.
        pid: u32,
    },
    /// A program that is invisible to this service.
    Unseen,
}

/// The reason why this service cannot listen on an address.
#[derive(Debug, Error)]
pub enum CannotListen {
    /// Other programs listen there, at least one.
    #[error("{} it: end that, or set another address", have(.0))]
    Taken(Vec<PortProgram>),
    /// The system call failed.
    #[error("cannot be had")]
    Refused(#[source] io::Error),
}

/// The place of a port.
#[derive(Clone, Copy, Debug)]
pub enum PortPlace<'a> {
    /// On an interface, at all its addresses.
    On(&'a str),
    /// At one address.
    At(IpAddr),
}

/// A bound socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    /// The index of its interface; 0 for all.
    interface: u32,
    at: SocketAddr,
    inode: u32,
}

impl fmt::Display for PortHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("free"),
            Self::Us(pid) => write!(f, "this service has it already (process {pid})"),
        }
    }
}

impl fmt::Display for PortProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seen { name, pid } => write!(f, "{name} (process {pid})"),
            Self::Unseen => f.write_str("another program"),
        }
    }
}

impl PortProgram {
    /// The process of this service, if it is one.
    fn us(&self) -> Option<u32> {
        match self {
            Self::Seen { name, pid } if name == "ferroboot" => Some(*pid),
            Self::Seen { .. } | Self::Unseen => None,
        }
    }
}

impl fmt::Display for PortPlace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On(interface) => f.write_str(interface),
            Self::At(address) => write!(f, "{address}"),
        }
    }
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
                    have(&holders)
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
            let holders = holders_of(TCP, PortPlace::At(address.ip()), address.port());
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
        have(&holders(PortPlace::On(interface), port))
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
            have(&others)
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
            have(&holders(PortPlace::On(interface), port))
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

/// "dnsmasq (process 7) and another program have"
fn have(holders: &[PortProgram]) -> String {
    let names: Vec<_> = holders.iter().map(PortProgram::to_string).collect();
    let verb = if names.len() > 1 { "have" } else { "has" };
    format!("{} {verb}", names.join(" and "))
}

/// The process of this service, if it is the only one.
fn us_alone(holders: &[PortProgram]) -> Option<u32> {
    if let [holder] = holders { holder.us() } else { None }
}

/// The programs that occupy a port. At least one.
fn holders(place: PortPlace<'_>, port: u16) -> Vec<PortProgram> {
    holders_of(UDP, place, port)
}

fn holders_of(protocol: u8, place: PortPlace<'_>, port: u16) -> Vec<PortProgram> {
    let open = asked(protocol).unwrap_or_else(|_| listed(protocol));
    let in_the_way: BTreeSet<u32> = open
        .iter()
        .filter(|socket| socket.at.port() == port && is_in_the_way(socket, place))
        .map(|socket| socket.inode)
        .collect();
    let programs = programs();
    let holder = |inode: &u32| match programs.get(inode) {
        Some((name, pid)) => PortProgram::Seen { name: name.clone(), pid: *pid },
        None => PortProgram::Unseen,
    };
    let mut found: BTreeSet<_> = in_the_way.iter().map(holder).collect();
    if found.is_empty() {
        found.insert(PortProgram::Unseen);
    }
    found.into_iter().collect()
}

fn is_in_the_way(socket: &Open, place: PortPlace<'_>) -> bool {
    match place {
        PortPlace::On(interface) => {
            socket.interface == 0 || if_nametoindex(interface).ok() == Some(socket.interface)
        }
        PortPlace::At(address) => {
            let there = socket.at.ip().to_canonical();
            there == address.to_canonical() || there.is_unspecified() || address.is_unspecified()
        }
    }
}

/// All bound or listening sockets of a protocol, from the kernel (`sock_diag(7)`); only this source has their
/// interfaces.
fn asked(protocol: u8) -> io::Result<Vec<Open>> {
    let mut all = Vec::new();
    for family in [INET, INET6] {
        let kind = Type::DGRAM;
        let mut socket = Socket::new(Domain::from(NETLINK), kind, Some(SOCK_DIAG.into()))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.send(&question(family, protocol))?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let len = socket.read(&mut buffer)?;
            if !take_in(&buffer[..len], &mut all)? {
                break;
            }
        }
    }
    Ok(all)
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn question(family: u8, protocol: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(72_u32.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(DUMP.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, protocol, 0, 0]);
    // All states for UDP.
    let states = if protocol == TCP { LISTENING } else { u32::MAX };
    bytes.extend(states.to_ne_bytes());
    // All local and remote addresses.
    bytes.extend([0; 48]);
    bytes
}

/// Adds the sockets of an answer, each a `struct inet_diag_msg`; returns whether more follow.
fn take_in(mut bytes: &[u8], all: &mut Vec<Open>) -> io::Result<bool> {
    while let Some((head, _)) = bytes.split_first_chunk::<16>() {
        let len = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = u16::from_ne_bytes([head[4], head[5]]);
        let message = bytes.get(16..len).ok_or(io::ErrorKind::InvalidData)?;
        if kind != BY_FAMILY {
            // NLMSG_DONE, or NLMSG_ERROR if the kernel does not support it.
            return if kind == 3 { Ok(false) } else { Err(io::ErrorKind::Unsupported.into()) };
        }
        all.extend(open(message));
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

fn open(message: &[u8]) -> Option<Open> {
    let four = |at: usize| message.get(at..)?.first_chunk::<4>().copied();
    let sixteen = message.get(8..)?.first_chunk::<16>()?;
    let address = match message[0] {
        INET => IpAddr::from(four(8)?),
        _ => IpAddr::from(*sixteen),
    };
    let port = u16::from_be_bytes([message[4], message[5]]);
    Some(Open {
        interface: u32::from_ne_bytes(four(40)?),
        at: SocketAddr::new(address, port),
        inode: u32::from_ne_bytes(four(68)?),
    })
}

/// The same from `/proc`, as if all sockets were on all interfaces.
fn listed(protocol: u8) -> Vec<Open> {
    let tables = match protocol {
        TCP => ["/proc/net/tcp", "/proc/net/tcp6"],
        _ => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let tables = tables.iter().filter_map(|table| fs::read_to_string(table).ok());
    let rows = |table: String| {
        let rows = table.lines().skip(1).filter(|line| protocol != TCP || listens(line));
        rows.filter_map(row).collect::<Vec<_>>()
    };
    tables.flat_map(rows).collect()
}

/// `TCP_LISTEN`, in hexadecimal.
fn listens(line: &str) -> bool {
    line.split_whitespace().nth(3) == Some("0A")
}

fn row(line: &str) -> Option<Open> {
    let mut fields = line.split_whitespace();
    let (_, port) = fields.nth(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let inode = fields.nth(7)?.parse().ok()?;
    Some(Open { interface: 0, at: (Ipv4Addr::UNSPECIFIED, port).into(), inode })
}

/// The owners of sockets, as far as visible: by inode, name and process.
fn programs() -> HashMap<u32, (String, u32)> {
    let mut all = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let open = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
        let links = open.filter_map(|fd| fs::read_link(fd.path()).ok());
        let sockets: Vec<u32> = links.filter_map(|link| inode(link.to_str()?)).collect();
        if !sockets.is_empty() {
            let name = name_of(pid);
            all.extend(sockets.into_iter().map(|inode| (inode, (name.clone(), pid))));
        }
    }
    all
}

fn inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn name_of(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_row_of_the_kernels_table_is_read() {
        let row4 = "10: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 777 2 0 0";

        let read = row(row4).unwrap();

        assert_eq!((read.at.port(), read.inode), (67, 777));
        assert_eq!(row("lines here: there"), None);
    }

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
            let holders = holders_of(TCP, PortPlace::At(address.ip()), address.port());
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

    #[test]
    fn a_socket_on_another_interface_is_not_in_the_way() {
        let lo = if_nametoindex("lo").unwrap();
        let on = |interface| Open { interface, at: (Ipv4Addr::UNSPECIFIED, 67).into(), inode: 0 };

        assert!(is_in_the_way(&on(0), PortPlace::On("lo")));
        assert!(is_in_the_way(&on(lo), PortPlace::On("lo")));
        assert!(!is_in_the_way(&on(lo + 1), PortPlace::On("lo")));
    }

    #[test]
    fn several_holders_are_all_named() {
        let seen = |name: &str, pid| PortProgram::Seen { name: name.to_owned(), pid };
        let two = [seen("dnsmasq", 7), seen("ferroboot", 8)];

        assert_eq!(have(&two), "dnsmasq (process 7) and ferroboot (process 8) have");
        assert_eq!(have(&[PortProgram::Unseen]), "another program has");
        assert_eq!(have(&two[..1]), "dnsmasq (process 7) has");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = take_in(&bytes, &mut Vec::new());
            let _ = open(&bytes);
        }
    }
}
