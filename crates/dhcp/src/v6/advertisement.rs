//! Router advertisements and solicitations (RFC 4861 §4.1, §4.2): without an advertisement with the
//! M flag no client asks DHCPv6, and firmware waits ten seconds for a router before it goes on.

use std::net::Ipv6Addr;

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
const HOP_LIMIT: u8 = 64;
/// M: addresses by DHCPv6. O: other settings too.
const MANAGED_AND_OTHER: u8 = 0b1100_0000;
/// L: on the link. A, which would let machines choose an address of their own, stays off.
const ON_LINK: u8 = 0b1000_0000;
const SOURCE_LINK_LAYER: u8 = 1;
const PREFIX: u8 = 3;
const DNS: u8 = 25;

/// What is advertised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// The link's prefix.
    pub prefix: Ipv6Addr,
    /// Its length in bits.
    pub prefix_len: u8,
    /// Seconds for which we are a default router; 0 if we are none.
    pub router_secs: u16,
    /// Seconds for which the prefix is good.
    pub prefix_secs: u32,
    /// Our MAC address on the link.
    pub mac: Option<[u8; 6]>,
    /// Name servers (RFC 8106 §5.1).
    pub dns: Vec<Ipv6Addr>,
}

impl Advertisement {
    /// The ICMPv6 message; its checksum is the kernel's to fill in.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![ADVERTISEMENT, 0, 0, 0, HOP_LIMIT, MANAGED_AND_OTHER];
        bytes.extend(self.router_secs.to_be_bytes());
        // Reachable time and retransmission timer: unspecified.
        bytes.extend([0; 8]);
        if let Some(mac) = self.mac {
            bytes.extend([SOURCE_LINK_LAYER, 1]);
            bytes.extend(mac);
        }
        bytes.extend([PREFIX, 4, self.prefix_len, ON_LINK]);
        bytes.extend(self.prefix_secs.to_be_bytes());
        bytes.extend(self.prefix_secs.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.prefix.octets());
        // The option's length is in units of 8 bytes and one byte long.
        let dns = &self.dns[..self.dns.len().min(8)];
        if !dns.is_empty() {
            bytes.extend([DNS, 1 + 2 * dns.len() as u8, 0, 0]);
            bytes.extend(self.prefix_secs.to_be_bytes());
            bytes.extend(dns.iter().flat_map(Ipv6Addr::octets));
        }
        bytes
    }
}

/// Whether an ICMPv6 message that came with this hop limit is a solicitation (RFC 4861 §6.1.1): one
/// that passed a router is a forgery.
#[must_use]
pub fn is_solicitation(message: &[u8], hop_limit: u8) -> bool {
    if hop_limit != 255 || message.len() < 8 || message[..2] != [SOLICITATION, 0] {
        return false;
    }
    let mut options = &message[8..];
    while let [_, len, ..] = options {
        match options.split_at_checked(usize::from(*len) * 8) {
            Some((_, rest)) if *len > 0 => options = rest,
            Some(_) | None => return false,
        }
    }
    options.is_empty()
}

/// The prefix that an address is in.
#[must_use]
pub fn prefix(address: Ipv6Addr, len: u8) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0);
    Ipv6Addr::from(u128::from(address) & mask)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_advertisement_is_what_firmware_was_seen_to_take() {
        let advertisement = Advertisement {
            prefix: "fd09::".parse().unwrap(),
            prefix_len: 64,
            router_secs: 1_800,
            prefix_secs: 3_600,
            mac: None,
            dns: Vec::new(),
        };

        let bytes = advertisement.emit();

        assert_eq!(bytes[..8], [134, 0, 0, 0, 64, 0xc0, 0x07, 0x08]);
        assert_eq!(bytes[16..24], [3, 4, 64, 0x80, 0, 0, 0x0e, 0x10]);
        assert_eq!(bytes.len(), 16 + 32);
    }

    #[test]
    fn every_option_is_as_long_as_it_says() {
        let advertisement = Advertisement {
            prefix: "fd09::".parse().unwrap(),
            prefix_len: 64,
            router_secs: 0,
            prefix_secs: 60,
            mac: Some([2; 6]),
            dns: vec!["fd09::53".parse().unwrap(); 9],
        };

        let bytes = advertisement.emit();

        let mut options = &bytes[16..];
        while let [_, len, ..] = options {
            assert!(*len > 0);
            options = &options[usize::from(*len) * 8..];
        }
    }

    #[test]
    fn a_solicitation_that_passed_a_router_is_a_forgery() {
        let solicitation = [133, 0, 0, 0, 0, 0, 0, 0];

        assert!(is_solicitation(&solicitation, 255));
        assert!(!is_solicitation(&solicitation, 254));
        assert!(!is_solicitation(&[133, 0, 0, 0, 0, 0, 0, 0, 1, 0], 255));
    }

    #[test]
    fn a_prefix_is_cut_at_any_length() {
        let address: Ipv6Addr = "fd09:1:2:3:4:5:6:7".parse().unwrap();

        assert_eq!(prefix(address, 64), "fd09:1:2:3::".parse::<Ipv6Addr>().unwrap());
        assert_eq!(prefix(address, 128), address);
        assert_eq!(prefix(address, 0), Ipv6Addr::UNSPECIFIED);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = is_solicitation(&bytes, 255);
        }
    }
}
