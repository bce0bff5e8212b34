//! Router advertisements and solicitations (RFC 4861 §4.1, §4.2). Clients use DHCPv6 only after an advertisement with
//! the M flag, and firmware waits ten seconds for a router before it goes on.

use std::net::Ipv6Addr;

use hardware::Mac;
use thiserror::Error;

use super::names;

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
/// The hop limit that machines should use. Router advertisements themselves are sent with 255.
const HOP_LIMIT: u8 = 64;
const FROM_THE_LINK: u8 = 255;
/// M: addresses by DHCPv6. O: other settings by DHCPv6.
const MANAGED: u8 = 0b1000_0000;
const OTHER: u8 = 0b0100_0000;
/// L: on-link. A: machines may form their own addresses (SLAAC).
const ON_LINK: u8 = 0b1000_0000;
const AUTONOMOUS: u8 = 0b0100_0000;
const SOURCE_LINK_LAYER: u8 = 1;
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const DNS: u8 = 25;
const SEARCH: u8 = 31;
/// An option's length is one byte, in units of 8 bytes; the option's head takes one unit.
const MOST_SERVERS: usize = 127;
/// One domain takes at most 255 bytes.
const MOST_DOMAINS: usize = 7;

/// A router advertisement (RFC 4861 §4.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertisement {
    /// Whether addresses come from DHCPv6 (M flag).
    pub managed: bool,
    /// Whether other settings come from DHCPv6 (O flag).
    pub other: bool,
    /// Router lifetime in seconds; 0 if the sender is not a default router.
    pub router_secs: u16,
    /// The sender's MAC address on the link.
    pub mac: Option<Mac>,
    /// The link's MTU.
    pub mtu: Option<u32>,
    /// The link's prefixes.
    pub prefixes: Vec<Prefix>,
    /// Name servers (RFC 8106 §5.1).
    pub dns: Vec<NameServer>,
    /// DNS search domains (RFC 8106 §5.2).
    pub search: Vec<SearchDomain>,
}

/// A prefix (RFC 4861 §4.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Its address.
    pub address: Ipv6Addr,
    /// Its length in bits, 128 at most.
    pub len: u8,
    /// Whether the prefix is on-link (L flag).
    pub on_link: bool,
    /// Whether machines may form addresses from it (A flag).
    pub autonomous: bool,
    /// Valid lifetime in seconds; all ones mean no end.
    pub valid_secs: u32,
    /// Preferred lifetime in seconds.
    pub preferred_secs: u32,
}

/// A name server with its lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameServer {
    /// Its address.
    pub address: Ipv6Addr,
    /// Lifetime in seconds; 0 withdraws the server.
    pub secs: u32,
}

/// A DNS search domain with its lifetime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchDomain {
    /// Its name.
    pub name: String,
    /// Lifetime in seconds; 0 withdraws the domain.
    pub secs: u32,
}

/// The reason for rejecting a router advertisement (RFC 4861 §6.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AdvertisementError {
    /// The message may come from another link.
    #[error("its hop limit is {0}, not 255: it passed a router, or claims not to")]
    HopLimit(u8),
    /// Routers use their link-local address as the source.
    #[error("its sender {0} is not a link-local address")]
    Sender(Ipv6Addr),
    /// Another type of ICMPv6 message.
    #[error("ICMPv6 type {kind}, code {code} is not a router advertisement")]
    Kind {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
    },
    /// The message is shorter than its fixed part.
    #[error("a router advertisement has at least 16 bytes, this one {0}")]
    Short(usize),
    /// An option with a length of zero.
    #[error("option {0} has no length")]
    NoLength(u8),
    /// An option claims more bytes than there are.
    #[error("option {code} needs {needed} bytes, {left} left")]
    Truncated {
        /// The option.
        code: u8,
        /// Its length.
        needed: usize,
        /// The bytes left.
        left: usize,
    },
}

impl Advertisement {
    /// Reads an ICMPv6 message that came with this hop limit from this address.
    ///
    /// # Errors
    /// The part that is wrong. Never panics.
    pub fn parse(
        message: &[u8],
        hop_limit: u8,
        from: Ipv6Addr,
    ) -> Result<Self, AdvertisementError> {
        if hop_limit != FROM_THE_LINK {
            return Err(AdvertisementError::HopLimit(hop_limit));
        }
        if !from.is_unicast_link_local() {
            return Err(AdvertisementError::Sender(from));
        }
        let short = AdvertisementError::Short(message.len());
        let (&head, rest) = message.split_first_chunk::<16>().ok_or(short)?;
        let [kind, code, _, _, _, flags, router @ ..] = head;
        if (kind, code) != (ADVERTISEMENT, 0) {
            return Err(AdvertisementError::Kind { kind, code });
        }
        let mut advertisement = Self {
            managed: flags & MANAGED != 0,
            other: flags & OTHER != 0,
            router_secs: u16::from_be_bytes([router[0], router[1]]),
            ..Self::default()
        };
        for option in options(rest) {
            advertisement.take(option?);
        }
        Ok(advertisement)
    }

    /// Applies an option. Unknown options are ignored (RFC 4861 §6.1.2), as are malformed ones: the rest of the
    /// message is still of use.
    fn take(&mut self, option: &[u8]) {
        let (&[code, _], value) = option.split_first_chunk().expect("an option has 8 bytes");
        match code {
            // Link-layer addresses have another length on links that are not Ethernet.
            SOURCE_LINK_LAYER => self.mac = value.try_into().ok(),
            PREFIX => self.prefixes.extend(value.try_into().ok().and_then(Prefix::parse)),
            MTU => self.mtu = value.try_into().ok().map(mtu).or(self.mtu),
            DNS => self.dns.extend(name_servers(value).into_iter().flatten()),
            SEARCH => self.search.extend(search_domains(value).into_iter().flatten()),
            _ => {}
        }
    }

    /// The ICMPv6 message; the kernel fills in the checksum.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let flags = bit(self.managed, MANAGED) | bit(self.other, OTHER);
        let mut bytes = vec![ADVERTISEMENT, 0, 0, 0, HOP_LIMIT, flags];
        bytes.extend(self.router_secs.to_be_bytes());
        // Reachable time and retransmission timer: unspecified.
        bytes.extend([0; 8]);
        emit_mac(self.mac, &mut bytes);
        if let Some(mtu) = self.mtu {
            bytes.extend([MTU, 1, 0, 0]);
            bytes.extend(mtu.to_be_bytes());
        }
        for prefix in &self.prefixes {
            prefix.emit(&mut bytes);
        }
        for alike in self.dns.chunk_by(|one, next| one.secs == next.secs) {
            for servers in alike.chunks(MOST_SERVERS) {
                bytes.extend([DNS, 1 + 2 * servers.len() as u8, 0, 0]);
                bytes.extend(servers[0].secs.to_be_bytes());
                bytes.extend(servers.iter().flat_map(|server| server.address.octets()));
            }
        }
        for alike in self.search.chunk_by(|one, next| one.secs == next.secs) {
            for domains in alike.chunks(MOST_DOMAINS) {
                emit_search(domains, &mut bytes);
            }
        }
        bytes
    }
}

impl Prefix {
    /// Parses the 30 bytes after an option's code and length. A prefix length over 128 is invalid.
    fn parse(value: [u8; 30]) -> Option<Self> {
        let [len, flags, v0, v1, v2, v3, p0, p1, p2, p3, _, _, _, _, address @ ..] = value;
        (len <= 128).then(|| Self {
            address: Ipv6Addr::from(address),
            len,
            on_link: flags & ON_LINK != 0,
            autonomous: flags & AUTONOMOUS != 0,
            valid_secs: u32::from_be_bytes([v0, v1, v2, v3]),
            preferred_secs: u32::from_be_bytes([p0, p1, p2, p3]),
        })
    }

    fn emit(&self, bytes: &mut Vec<u8>) {
        let flags = bit(self.on_link, ON_LINK) | bit(self.autonomous, AUTONOMOUS);
        bytes.extend([PREFIX, 4, self.len, flags]);
        bytes.extend(self.valid_secs.to_be_bytes());
        bytes.extend(self.preferred_secs.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.address.octets());
    }
}

/// A router solicitation, to be sent to all routers with a hop limit of 255. It has no MAC address if the sender has
/// no address yet (RFC 4861 §4.1).
#[must_use]
pub fn solicitation(mac: Option<Mac>) -> Vec<u8> {
    let mut bytes = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    emit_mac(mac, &mut bytes);
    bytes
}

/// Whether an ICMPv6 message with this hop limit and source is a valid solicitation (RFC 4861 §6.1.1). A hop limit
/// below 255 means that it passed a router and is forged. A sender without an address must not send its MAC address.
#[must_use]
pub fn is_solicitation(message: &[u8], hop_limit: u8, from: Ipv6Addr) -> bool {
    let Some((head, rest)) = message.split_first_chunk::<8>() else { return false };
    let is_right = |option: Result<&[u8], AdvertisementError>| {
        option.is_ok_and(|option| option[0] != SOURCE_LINK_LAYER || !from.is_unspecified())
    };
    hop_limit == FROM_THE_LINK && head[..2] == [SOLICITATION, 0] && options(rest).all(is_right)
}

/// The prefix of an address.
#[must_use]
pub fn prefix(address: Ipv6Addr, len: u8) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0);
    Ipv6Addr::from(u128::from(address) & mask)
}

/// Each option with its code and length, up to the first malformed one.
fn options(mut bytes: &[u8]) -> impl Iterator<Item = Result<&[u8], AdvertisementError>> {
    std::iter::from_fn(move || {
        let code = *bytes.first()?;
        let left = bytes.len();
        let needed = usize::from(bytes.get(1).copied().unwrap_or(1)) * 8;
        let (option, rest) = bytes.split_at_checked(needed).unwrap_or_default();
        bytes = rest;
        Some(match (needed, option) {
            (0, _) => {
                bytes = &[];
                Err(AdvertisementError::NoLength(code))
            }
            (_, []) => Err(AdvertisementError::Truncated { code, needed, left }),
            (_, option) => Ok(option),
        })
    })
}

/// Two reserved bytes, a lifetime, and at least one address.
fn name_servers(value: &[u8]) -> Option<impl Iterator<Item = NameServer>> {
    let (&[_, _, secs @ ..], addresses) = value.split_first_chunk::<6>()?;
    let (addresses, rest) = addresses.as_chunks::<16>();
    let secs = u32::from_be_bytes(secs);
    let server = move |address: &[u8; 16]| NameServer { address: (*address).into(), secs };
    (rest.is_empty() && !addresses.is_empty()).then(|| addresses.iter().map(server))
}

/// Two reserved bytes, a lifetime, and names.
fn search_domains(value: &[u8]) -> Option<impl Iterator<Item = SearchDomain>> {
    let (&[_, _, secs @ ..], domains) = value.split_first_chunk::<6>()?;
    let secs = u32::from_be_bytes(secs);
    let domains = names::decode(domains)?;
    Some(domains.into_iter().map(move |name| SearchDomain { name, secs }))
}

/// Appends the search domains. Invalid names are left out.
fn emit_search(domains: &[SearchDomain], bytes: &mut Vec<u8>) {
    let encoded = domains.iter().filter_map(|domain| names::encode(&domain.name));
    let mut encoded: Vec<u8> = encoded.flatten().collect();
    if encoded.is_empty() {
        return;
    }
    encoded.resize(encoded.len().next_multiple_of(8), 0);
    bytes.extend([SEARCH, 1 + (encoded.len() / 8) as u8, 0, 0]);
    bytes.extend(domains[0].secs.to_be_bytes());
    bytes.extend(encoded);
}

/// Two reserved bytes come first.
fn mtu([_, _, mtu @ ..]: [u8; 6]) -> u32 {
    u32::from_be_bytes(mtu)
}

fn emit_mac(mac: Option<Mac>, bytes: &mut Vec<u8>) {
    if let Some(mac) = mac {
        bytes.extend([SOURCE_LINK_LAYER, 1]);
        bytes.extend(mac.0);
    }
}

fn bit(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    fn managed() -> Advertisement {
        let prefix = Prefix {
            address: "fd09::".parse().unwrap(),
            len: 64,
            on_link: true,
            autonomous: false,
            valid_secs: 3_600,
            preferred_secs: 3_600,
        };
        Advertisement {
            managed: true,
            other: true,
            router_secs: 1_800,
            prefixes: vec![prefix],
            ..Advertisement::default()
        }
    }

    fn refusal(message: &[u8]) -> String {
        Advertisement::parse(message, 255, ROUTER).unwrap_err().to_string()
    }

    #[test]
    fn an_advertisement_is_what_firmware_was_seen_to_take() {
        let bytes = managed().emit();

        assert_eq!(bytes[..8], [134, 0, 0, 0, 64, 0xc0, 0x07, 0x08]);
        assert_eq!(bytes[16..24], [3, 4, 64, 0x80, 0, 0, 0x0e, 0x10]);
        assert_eq!(bytes.len(), 16 + 32);
    }

    #[test]
    fn an_advertisement_that_may_come_from_elsewhere_is_not_believed() {
        let bytes = managed().emit();

        assert_eq!(Advertisement::parse(&bytes, 64, ROUTER), Err(AdvertisementError::HopLimit(64)));
        let global = "2001:db8::1".parse().unwrap();
        assert_eq!(
            Advertisement::parse(&bytes, 255, global),
            Err(AdvertisementError::Sender(global))
        );
    }

    #[test]
    fn what_is_broken_is_refused_in_words() {
        let bytes = managed().emit();
        let with = |option: &[u8]| [&bytes[..], option].concat();

        assert_eq!(
            refusal(&bytes[..15]),
            "a router advertisement has at least 16 bytes, this one 15"
        );
        assert_eq!(
            refusal(&[[135, 0].as_slice(), &bytes[2..]].concat()),
            "ICMPv6 type 135, code 0 is not a router advertisement"
        );
        assert_eq!(refusal(&with(&[9, 0, 0, 0, 0, 0, 0, 0])), "option 9 has no length");
        assert_eq!(refusal(&with(&[9])), "option 9 needs 8 bytes, 1 left");
        assert_eq!(refusal(&bytes[..40]), "option 3 needs 32 bytes, 24 left");
    }

    #[test]
    fn an_option_of_which_nothing_can_be_made_costs_no_other() {
        let mut long_prefix = managed().emit()[16..].to_vec();
        long_prefix[2] = 129;
        let short_prefix = [3, 1, 0, 0, 0, 0, 0, 0];
        let no_server = [25, 1, 0, 0, 0, 0, 0, 9];
        let no_name = [31, 2, 0, 0, 0, 0, 0, 9, 64, 1, 1, 1, 1, 1, 1, 1];
        let long_mtu = [5, 2, 0, 0, 0, 0, 5, 220, 0, 0, 0, 0, 0, 0, 0, 0];

        for odd in [&long_prefix[..], &short_prefix, &no_server, &no_name, &long_mtu] {
            let with = [&managed().emit()[..], odd].concat();
            assert_eq!(Advertisement::parse(&with, 255, ROUTER), Ok(managed()), "{odd:?}");
        }
    }

    #[test]
    fn options_that_nobody_knows_are_let_be() {
        let with = [&managed().emit()[..], &[200, 2], &[7; 14]].concat();

        assert_eq!(Advertisement::parse(&with, 255, ROUTER), Ok(managed()));
    }

    #[test]
    fn a_solicitation_that_passed_a_router_is_a_forgery() {
        let own = solicitation(Some(Mac([2; 6])));

        assert!(is_solicitation(&own, 255, ROUTER));
        assert!(is_solicitation(&solicitation(None), 255, ROUTER));
        assert!(!is_solicitation(&own, 254, ROUTER));
        assert!(!is_solicitation(&own[..15], 255, ROUTER));
        assert!(!is_solicitation(&[133, 0, 0, 0, 0, 0, 0, 0, 1, 0], 255, ROUTER));
    }

    #[test]
    fn who_has_no_address_and_names_a_card_to_send_to_is_not_answered() {
        let nobody = Ipv6Addr::UNSPECIFIED;

        assert!(is_solicitation(&solicitation(None), 255, nobody));
        assert!(!is_solicitation(&solicitation(Some(Mac([2; 6]))), 255, nobody));
    }

    #[test]
    fn a_prefix_is_cut_at_any_length() {
        let address: Ipv6Addr = "fd09:1:2:3:4:5:6:7".parse().unwrap();

        assert_eq!(prefix(address, 64), "fd09:1:2:3::".parse::<Ipv6Addr>().unwrap());
        assert_eq!(prefix(address, 128), address);
        assert_eq!(prefix(address, 0), Ipv6Addr::UNSPECIFIED);
    }

    prop_compose! {
        fn prefixes()(
            address: u128, len in 0..=128_u8, on_link: bool, autonomous: bool,
            valid_secs: u32, preferred_secs: u32,
        ) -> Prefix {
            let address = address.into();
            Prefix { address, len, on_link, autonomous, valid_secs, preferred_secs }
        }
    }

    prop_compose! {
        fn advertisements()(
            managed: bool, other: bool, router_secs: u16, mac: Option<[u8; 6]>, mtu: Option<u32>,
            prefixes in prop::collection::vec(prefixes(), 0..4),
            dns in prop::collection::vec((any::<u128>(), 0..3_u32, 1..150_usize), 0..4),
            search in prop::collection::vec(("[a-z]{1,60}(\\.[a-z]{1,60}){0,3}", 0..2_u32), 0..12),
        ) -> Advertisement {
            let alike = |(address, secs, count): (u128, u32, usize)| {
                std::iter::repeat_n(NameServer { address: address.into(), secs }, count)
            };
            let dns = dns.into_iter().flat_map(alike).collect();
            let search = search.into_iter().map(|(name, secs)| SearchDomain { name, secs });
            let (search, mac) = (search.collect(), mac.map(Mac));
            Advertisement { managed, other, router_secs, mac, mtu, prefixes, dns, search }
        }
    }

    proptest! {
        #[test]
        fn what_is_advertised_is_read_back(advertisement in advertisements()) {
            let read = Advertisement::parse(&advertisement.emit(), 255, ROUTER);
            prop_assert_eq!(read, Ok(advertisement));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = is_solicitation(&bytes, 255, ROUTER);
            let advertised = [&managed().emit()[..16], &bytes].concat();
            let _ = Advertisement::parse(&advertised, 255, ROUTER);
            let _ = Advertisement::parse(&bytes, 255, ROUTER);
        }
    }
}
