//! The owners of ports: the kernel's lists of open sockets, and what an owner means.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use thiserror::Error;

/// `AF_INET` and `AF_INET6` (`linux/socket.h`), the address families of [`sockets_request`].
pub const FAMILIES: [u8; 2] = [INET, 10];
const INET: u8 = 2;
/// `SOCK_DIAG_BY_FAMILY` (`linux/sock_diag.h`), in requests and answers.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x0301;
/// `NLMSG_DONE` (`linux/netlink.h`)
const DONE: u16 = 3;
/// TCP's listening sockets (`1 << TCP_LISTEN`, `net/tcp_states.h`); UDP has no such states.
const LISTENING: u32 = 1 << 10;

/// The protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The owners of sockets, as far as visible: name and process by inode.
pub type SocketPrograms = HashMap<u32, (String, u32)>;

/// The kernel's answer is damaged, or it does not support the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the kernel's list of sockets cannot be read")]
pub struct UnreadableSockets;

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
pub struct BoundSocket {
    /// The index of its interface; 0 for all.
    pub interface: u32,
    /// The address and port.
    pub at: SocketAddr,
    /// The inode, which identifies its owners.
    pub inode: u32,
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

/// The programs that occupy a port, at least one. `index` is the index of the place's interface.
#[must_use]
pub fn holders(
    sockets: &[BoundSocket],
    programs: &SocketPrograms,
    place: PortPlace<'_>,
    index: Option<u32>,
    port: u16,
) -> Vec<PortProgram> {
    let in_the_way =
        |socket: &&BoundSocket| socket.at.port() == port && socket.is_in_the_way(place, index);
    let holder = |socket: &BoundSocket| match programs.get(&socket.inode) {
        Some((name, pid)) => PortProgram::Seen { name: name.clone(), pid: *pid },
        None => PortProgram::Unseen,
    };
    let mut found: BTreeSet<_> = sockets.iter().filter(in_the_way).map(holder).collect();
    if found.is_empty() {
        found.insert(PortProgram::Unseen);
    }
    found.into_iter().collect()
}

/// "dnsmasq (process 7) and another program have"
#[must_use]
pub fn holders_have(holders: &[PortProgram]) -> String {
    let names: Vec<_> = holders.iter().map(PortProgram::to_string).collect();
    let verb = if names.len() > 1 { "have" } else { "has" };
    format!("{} {verb}", names.join(" and "))
}

/// The process of this service, if it is the only holder.
#[must_use]
pub fn us_alone(holders: &[PortProgram]) -> Option<u32> {
    if let [holder] = holders { holder.us() } else { None }
}

impl BoundSocket {
    fn is_in_the_way(&self, place: PortPlace<'_>, index: Option<u32>) -> bool {
        match place {
            PortPlace::On(_) => self.interface == 0 || index == Some(self.interface),
            PortPlace::At(address) => {
                let there = self.at.ip().to_canonical();
                there == address.to_canonical()
                    || there.is_unspecified()
                    || address.is_unspecified()
            }
        }
    }
}

/// The request for all bound or listening sockets of a family and protocol (`sock_diag(7)`): `struct nlmsghdr` and
/// `struct inet_diag_req_v2`.
#[must_use]
pub fn sockets_request(family: u8, protocol: PortProtocol) -> Vec<u8> {
    // `IPPROTO_TCP` and `IPPROTO_UDP` (`netinet/in.h`). All states for UDP.
    let (number, states) = match protocol {
        PortProtocol::Tcp => (6, LISTENING),
        PortProtocol::Udp => (17, u32::MAX),
    };
    let mut bytes = Vec::new();
    bytes.extend(72_u32.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(DUMP.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, number, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    // All local and remote addresses.
    bytes.extend([0; 48]);
    bytes
}

/// Adds the sockets of an answer, each a `struct inet_diag_msg`; returns whether more follow.
///
/// # Errors
/// [`UnreadableSockets`]
pub fn read_sockets(
    mut bytes: &[u8],
    all: &mut Vec<BoundSocket>,
) -> Result<bool, UnreadableSockets> {
    while let Some((head, _)) = bytes.split_first_chunk::<16>() {
        let len = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = u16::from_ne_bytes([head[4], head[5]]);
        let message = bytes.get(16..len).ok_or(UnreadableSockets)?;
        match kind {
            BY_FAMILY => all.extend(socket(message)),
            DONE => return Ok(false),
            // NLMSG_ERROR if the kernel does not support it.
            _ => return Err(UnreadableSockets),
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

fn socket(message: &[u8]) -> Option<BoundSocket> {
    let four = |at: usize| message.get(at..)?.first_chunk::<4>().copied();
    let sixteen = message.get(8..)?.first_chunk::<16>()?;
    let address = match message[0] {
        INET => IpAddr::from(four(8)?),
        _ => IpAddr::from(*sixteen),
    };
    let port = u16::from_be_bytes([message[4], message[5]]);
    Some(BoundSocket {
        interface: u32::from_ne_bytes(four(40)?),
        at: SocketAddr::new(address, port),
        inode: u32::from_ne_bytes(four(68)?),
    })
}

/// The sockets in a table of `/proc/net`, as if all were on all interfaces; those of TCP that listen.
#[must_use]
pub fn read_table(table: &str, protocol: PortProtocol) -> Vec<BoundSocket> {
    let rows = table.lines().skip(1);
    rows.filter(|line| protocol == PortProtocol::Udp || listens(line)).filter_map(row).collect()
}

/// `TCP_LISTEN`, in hexadecimal.
fn listens(line: &str) -> bool {
    line.split_whitespace().nth(3) == Some("0A")
}

fn row(line: &str) -> Option<BoundSocket> {
    let mut fields = line.split_whitespace();
    let (_, port) = fields.nth(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let inode = fields.nth(7)?.parse().ok()?;
    Some(BoundSocket { interface: 0, at: (Ipv4Addr::UNSPECIFIED, port).into(), inode })
}

/// The inode of a socket that a link in `/proc/PID/fd` names.
#[must_use]
pub fn socket_inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
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
    fn a_socket_on_another_interface_is_not_in_the_way() {
        let on =
            |interface| BoundSocket { interface, at: (Ipv4Addr::UNSPECIFIED, 67).into(), inode: 0 };
        let is_in_the_way =
            |socket: BoundSocket| socket.is_in_the_way(PortPlace::On("lo"), Some(1));

        assert!(is_in_the_way(on(0)));
        assert!(is_in_the_way(on(1)));
        assert!(!is_in_the_way(on(2)));
    }

    #[test]
    fn the_holders_of_a_port_are_found_and_an_unknown_one_is_assumed() {
        let socket = |port, inode| BoundSocket {
            interface: 0,
            at: (Ipv4Addr::UNSPECIFIED, port).into(),
            inode,
        };
        let sockets = [socket(67, 7), socket(67, 8), socket(68, 9)];
        let programs = [(7, ("dnsmasq".to_owned(), 70))].into();
        let of_port = |port| {
            let found = holders(&sockets, &programs, PortPlace::On("lo"), Some(1), port);
            found.iter().map(PortProgram::to_string).collect::<Vec<_>>()
        };

        assert_eq!(of_port(67), ["dnsmasq (process 70)", "another program"]);
        assert_eq!(of_port(69), ["another program"]);
    }

    #[test]
    fn only_listening_sockets_of_tcp_are_in_the_way() {
        let row = |port: &str, state: &str| {
            format!("0: 00000000:{port} 00000000:0000 {state} 0:0 00:0 0 0 0 777 2 0 0")
        };
        let table = format!("head\n{}\n{}\n", row("0050", "0A"), row("0051", "01"));
        let ports = |protocol| {
            let sockets = read_table(&table, protocol);
            sockets.iter().map(|socket| socket.at.port()).collect::<Vec<_>>()
        };

        assert_eq!(ports(PortProtocol::Tcp), [80]);
        assert_eq!(ports(PortProtocol::Udp), [80, 81]);
    }

    #[test]
    fn several_holders_are_all_named() {
        let seen = |name: &str, pid| PortProgram::Seen { name: name.to_owned(), pid };
        let two = [seen("dnsmasq", 7), seen("ferroboot", 8)];

        assert_eq!(holders_have(&two), "dnsmasq (process 7) and ferroboot (process 8) have");
        assert_eq!(holders_have(&[PortProgram::Unseen]), "another program has");
        assert_eq!(holders_have(&two[..1]), "dnsmasq (process 7) has");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_sockets(&bytes, &mut Vec::new());
            let _ = socket(&bytes);
        }
    }
}
