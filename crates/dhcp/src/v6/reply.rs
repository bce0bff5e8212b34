//! The options of an answer and their order: firmware depends on both.

use std::net::Ipv6Addr;
use std::sync::Arc;

use hardware::ClientKind;
use ipnet::Ipv6Net;

use super::names;
use super::options as code;
use super::packet::{Message, MessageType, Options};
use crate::leases::LeasePool;

/// The enterprise number in EDK2's vendor class (Intel's).
const ENTERPRISE: u32 = 343;

/// Status codes (RFC 8415 §21.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Success.
    Success,
    /// NoAddrsAvail.
    NoAddresses,
    /// NoBinding.
    NoBinding,
    /// NotOnLink.
    NotOnLink,
    /// NoPrefixAvail.
    NoPrefixes,
}

impl Status {
    fn code(self) -> u16 {
        match self {
            Self::Success => 0,
            Self::NoAddresses => 2,
            Self::NoBinding => 3,
            Self::NotOnLink => 4,
            Self::NoPrefixes => 6,
        }
    }

    fn option(self, words: &str) -> Vec<u8> {
        [&self.code().to_be_bytes()[..], words.as_bytes()].concat()
    }
}

/// The settings of a client's link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The link's prefix, which tells a client whether it has moved.
    pub net: Ipv6Net,
    /// The server's DUID.
    pub duid: Vec<u8>,
    /// Whether this is the only server: then clients need not wait for others.
    pub sole: bool,
    /// The link's name servers.
    pub dns: Vec<Ipv6Addr>,
    /// The DNS search domain.
    pub domain: Option<String>,
    /// The link's time servers.
    pub ntp: Vec<Ipv6Addr>,
    /// The lease time in seconds.
    pub lease_secs: u32,
    /// The pools of other daemons on the same database. Each daemon answers for the addresses of its own pools.
    pub foreign_pools: Arc<[LeasePool<Ipv6Addr>]>,
}

/// The result for an association.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// An address, with its lease time.
    Lease {
        /// The client's number.
        ia: u32,
        /// The address.
        address: Ipv6Addr,
        /// Addresses that the client must stop using at once.
        instead_of: Vec<Ipv6Addr>,
    },
    /// No address, with the reason.
    Refused {
        /// The client's number.
        ia: u32,
        /// The reason.
        status: Status,
    },
    /// An association of a type that the server does not lease.
    None {
        /// [`IA_TA`](code::IA_TA) or [`IA_PD`](code::IA_PD).
        option: u16,
        /// The client's number.
        ia: u32,
        /// The reason.
        status: Status,
    },
}

impl Grant {
    /// Whether the association gets an address.
    fn gives(&self) -> bool {
        match self {
            Self::Lease { .. } => true,
            Self::Refused { .. } | Self::None { .. } => false,
        }
    }

    /// Whether the result says more than that no address is available.
    pub(super) fn says_something(&self) -> bool {
        match self {
            Self::Lease { .. } => true,
            Self::Refused { status, .. } | Self::None { status, .. } => {
                *status == Status::NotOnLink
            }
        }
    }
}

/// An answer with the granted addresses and, for a machine that is to boot, its URL.
#[must_use]
pub fn reply(
    request: &Message,
    kind: MessageType,
    client: ClientKind,
    grants: &[Grant],
    url: Option<&str>,
    network: &Network,
) -> Message {
    let mut options = named(request, network);
    if network.sole && (grants.is_empty() || grants.iter().any(Grant::gives)) {
        // 255 ends a client's wait for other servers: 7 ms instead of 4.9 s from EDK2's SOLICIT to its REQUEST (RFC
        // 8415 §18.2.9). A client that gets no address here should wait for other servers.
        options.put(code::PREFERENCE, [255]);
    }
    add_grants(&mut options, grants, network);
    if let Some(url) = url {
        options.put(code::BOOT_FILE_URL, url);
        // EDK2 reads the URL as a zero-terminated text (`HttpBootDhcp6.c`). The next option's code supplies the zero
        // byte, so an option with a code below 256 must follow.
        if client == ClientKind::HttpClient {
            // EDK2 ignores an answer without exactly this class (`HttpBootParseDhcp6Packet`).
            options.put(code::VENDOR_CLASS, vendor_class(b"HTTPClient"));
        }
    }
    if !network.dns.is_empty() {
        options.put(code::DNS, octets(&network.dns));
    }
    add_comforts(&mut options, request, network);
    Message { kind, transaction: request.transaction, options }
}

/// Adds options that operating systems request and firmware does not use.
fn add_comforts(options: &mut Options, request: &Message, network: &Network) {
    let domain = network.domain.as_deref().filter(|_| request.asks_for(code::DOMAINS));
    if let Some(domain) = domain.and_then(names::encode) {
        options.put(code::DOMAINS, domain);
    }
    if network.ntp.is_empty() {
        return;
    }
    if request.asks_for(code::NTP) {
        // One suboption for each server (RFC 5908 §4.1).
        let server = |address: &Ipv6Addr| [&[0, 1, 0, 16][..], &address.octets()].concat();
        let servers: Vec<_> = network.ntp.iter().flat_map(server).collect();
        options.put(code::NTP, servers);
    }
    if request.asks_for(code::SNTP) {
        options.put(code::SNTP, octets(&network.ntp));
    }
}

/// A REPLY with a status and nothing else.
#[must_use]
pub fn status(request: &Message, status: Status, words: &str, network: &Network) -> Message {
    let mut options = named(request, network);
    options.put(code::STATUS, status.option(words));
    Message { kind: MessageType::Reply, transaction: request.transaction, options }
}

fn named(request: &Message, network: &Network) -> Options {
    let mut options = Options::default();
    if let Some(client) = request.options.get(code::CLIENT_ID) {
        options.put(code::CLIENT_ID, client);
    }
    options.put(code::SERVER_ID, network.duid.clone());
    options
}

/// Adds the results of the associations.
pub(super) fn add_grants(options: &mut Options, grants: &[Grant], network: &Network) {
    for grant in grants {
        let (option, value) = association(grant, network.lease_secs);
        options.put(option, value);
    }
}

fn association(grant: &Grant, secs: u32) -> (u16, Vec<u8>) {
    // T1 and T2 at half and four fifths of the lease (RFC 8415 §21.4).
    let times = [secs / 2, secs / 5 * 4];
    let (option, ia, times, inner) = match grant {
        Grant::Lease { ia, address, instead_of } => {
            let mut addresses = lease(*address, secs);
            addresses.0.extend(instead_of.iter().flat_map(|other| lease(*other, 0).0));
            (code::IA_NA, ia, &times[..], addresses)
        }
        Grant::Refused { ia, status } => (code::IA_NA, ia, &[0, 0][..], refused(*status)),
        // IA_TA has no T1 and T2 (RFC 8415 §21.5); those of a refused IA_PD do not matter.
        Grant::None { option, ia, status } => match *option {
            code::IA_TA => (code::IA_TA, ia, &[][..], refused(*status)),
            option => (option, ia, &[0, 0][..], refused(*status)),
        },
    };
    let mut value = ia.to_be_bytes().to_vec();
    value.extend(times.iter().flat_map(|secs| secs.to_be_bytes()));
    inner.emit_into(&mut value);
    (option, value)
}

fn refused(status: Status) -> Options {
    let mut refused = Options::default();
    refused.put(code::STATUS, status.option(""));
    refused
}

/// Preferred and valid lifetime are equal: no other address follows.
fn lease(address: Ipv6Addr, secs: u32) -> Options {
    let mut lease = Options::default();
    let secs = secs.to_be_bytes();
    lease.put(code::IA_ADDRESS, [&address.octets()[..], &secs, &secs].concat());
    lease
}

fn vendor_class(class: &[u8]) -> Vec<u8> {
    let len = u16::try_from(class.len()).unwrap_or_default();
    [&ENTERPRISE.to_be_bytes()[..], &len.to_be_bytes(), class].concat()
}

fn octets(addresses: &[Ipv6Addr]) -> Vec<u8> {
    addresses.iter().flat_map(Ipv6Addr::octets).collect()
}
