//! The addresses of an interface, and the selection of the service's address.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dhcp::leases::LeasePool;
use hardware::Mac;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

/// `IFA_F_OPTIMISTIC`, `IFA_F_DADFAILED`, `IFA_F_DEPRECATED` and `IFA_F_TENTATIVE` (`linux/if_addr.h`).
const OPTIMISTIC: u8 = 0x04;
const TAKEN: u8 = 0x08;
const DEPRECATED: u8 = 0x20;
const TENTATIVE: u8 = 0x40;

/// The reason why no IPv4 address of an interface is usable.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoIpv4Address {
    /// The interface has none.
    #[error("it has no IPv4 address; give it one first")]
    None,
    /// No address is in the network of the pool.
    #[error(
        "the pool {}-{} is in no network that it has an address of ({there}), so machines would not \
         reach this service: give it one of the pool's network, or choose another pool",
        pool.first,
        pool.last
    )]
    OtherNetwork {
        /// The pool.
        pool: LeasePool<Ipv4Addr>,
        /// The addresses, with their networks.
        there: String,
    },
}

/// The service's address on an interface.
///
/// # Errors
/// A description if no address is usable.
pub fn own4(
    addresses: &[Ipv4Net],
    pool: Option<LeasePool<Ipv4Addr>>,
) -> Result<Ipv4Net, NoIpv4Address> {
    let ends = pool.map(|pool| [pool.first.into(), pool.last.into()]);
    let found = nearest(addresses.iter().copied().map(IpNet::from), ends);
    if let Some(IpNet::V4(net)) = found {
        return Ok(net);
    }
    let Some(pool) = pool.filter(|_| !addresses.is_empty()) else {
        return Err(NoIpv4Address::None);
    };
    let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    Err(NoIpv4Address::OtherNetwork { pool, there: all.join(", ") })
}

/// The address whose network contains both ends of the pool, with the longest prefix if there are several. Without a
/// pool, the first address. Link-local addresses come last.
#[must_use]
pub fn nearest(addresses: impl Iterator<Item = IpNet>, pool: Option<[IpAddr; 2]>) -> Option<IpNet> {
    let holds = |net: &IpNet| pool.is_none_or(|ends| ends.iter().all(|end| net.contains(end)));
    addresses
        .filter(holds)
        .min_by_key(|net| (is_link_local(net.addr()), pool.map(|_| Reverse(net.prefix_len()))))
}

/// Whether an address is link-local.
#[must_use]
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// An IPv6 address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Address {
    /// The address.
    pub address: Ipv6Addr,
    /// The length of its network's prefix, in bits.
    pub prefix_len: u8,
    flags: u8,
}

/// The reason why an address cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Duplicate address detection has not finished (RFC 4862 §5.4).
    Tentative,
    /// Another host has the address.
    Duplicate,
}

/// The link-local address, once duplicate address detection has finished.
#[must_use]
pub fn link_local(all: &[Ipv6Address]) -> Option<Ipv6Addr> {
    let ready = all.iter().filter(|one| one.flags & (TAKEN | TENTATIVE) == 0);
    ready.map(|one| one.address).find(Ipv6Addr::is_unicast_link_local)
}

/// The service's address: in the network of the pool, if there is a pool.
#[must_use]
pub fn choose(all: &[Ipv6Address], pool: Option<LeasePool<Ipv6Addr>>) -> Option<Ipv6Address> {
    let fits = |one: &Ipv6Address| pool.is_none_or(|pool| one.has(pool));
    let may = all
        .iter()
        .filter(|one| !one.address.is_unicast_link_local() && one.flags & TAKEN == 0 && fits(one));
    // Among several, the first that is not deprecated.
    may.min_by_key(|one| one.flags & DEPRECATED).copied()
}

impl Ipv6Address {
    /// The reason why the address cannot be used; `None` if it can.
    #[must_use]
    pub fn unusable(&self) -> Option<(Ipv6Addr, Unusable)> {
        let waits = self.flags & TENTATIVE != 0 && self.flags & OPTIMISTIC == 0;
        let why = match (self.flags & TAKEN != 0, waits) {
            (true, _) => Unusable::Duplicate,
            (false, true) => Unusable::Tentative,
            (false, false) => return None,
        };
        Some((self.address, why))
    }

    fn has(&self, pool: LeasePool<Ipv6Addr>) -> bool {
        let net = Ipv6Net::new(self.address, self.prefix_len);
        net.is_ok_and(|net| net.contains(&pool.first) && net.contains(&pool.last))
    }
}

/// Ipv6Address, number of the interface, prefix length, scope, flags, name.
#[must_use]
pub fn parse(table: &str, interface: &str) -> Vec<Ipv6Address> {
    let of = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [address, _, prefix_len, _, flags, name] = fields[..] else { return None };
        (name == interface).then_some(())?;
        Some(Ipv6Address {
            address: u128::from_str_radix(address, 16).ok()?.into(),
            prefix_len: u8::from_str_radix(prefix_len, 16).ok()?,
            flags: u8::from_str_radix(flags, 16).ok()?,
        })
    };
    table.lines().filter_map(of).collect()
}

/// The service's DUID on an interface: a DUID-LL of the card or, without a MAC address, a DUID-EN of the interface's
/// name (RFC 8415 §11.3, §11.4).
#[must_use]
pub fn server_duid(interface: &str, mac: Option<Mac>) -> Vec<u8> {
    match mac {
        Some(mac) => [&[0, 3, 0, 1][..], &mac.0].concat(),
        None => [&[0, 2, 0, 0, 0, 0][..], interface.as_bytes()].concat(),
    }
}

/// The link-local address that is made of a MAC address (RFC 4291, appendix A).
#[must_use]
pub fn link_local_of(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 0b10, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
        fe80000000000000505400fffeaa00ff 02 40 20 80     eth0\n\
        fd880000000000000000000000000001 02 40 00 88     eth0\n\
        fd660000000000000000000000000001 02 40 00 a0     eth0\n\
        fd660000000000000000000000000002 02 40 00 80     eth0\n\
        fd770000000000000000000000000001 02 40 00 80     eth0\n\
        fd990000000000000000000000000001 03 40 00 80     eth1\n\
        damaged\n";

    fn pool(first: &str, last: &str) -> Option<LeasePool<Ipv6Addr>> {
        Some(LeasePool { first: first.parse().unwrap(), last: last.parse().unwrap() })
    }

    fn chosen(pool: Option<LeasePool<Ipv6Addr>>) -> Option<String> {
        choose(&parse(TABLE, "eth0"), pool).map(|one| one.address.to_string())
    }

    #[test]
    fn an_interface_is_known_by_its_address_in_the_network_of_the_pool() {
        assert_eq!(chosen(pool("fd77::10", "fd77::1f")).as_deref(), Some("fd77::1"));
        assert_eq!(chosen(pool("fd55::10", "fd55::1f")), None);
        assert_eq!(chosen(pool("fd66::10", "fd77::1f")), None);
        assert_eq!(chosen(pool("fd99::10", "fd99::1f")), None, "of another interface");
    }

    #[test]
    fn an_address_that_another_has_is_not_ours_and_one_on_its_way_out_comes_last() {
        assert_eq!(chosen(pool("fd66::10", "fd66::1f")).as_deref(), Some("fd66::2"));
        assert_eq!(chosen(pool("fd88::10", "fd88::1f")), None);
        assert_eq!(chosen(None).as_deref(), Some("fd66::2"));
    }

    #[test]
    fn nothing_is_sent_from_an_address_that_is_still_asked_about() {
        let of = |flags| {
            let line = format!("fe80000000000000505400fffeaa00ff 02 40 20 {flags} eth0");
            link_local(&parse(&line, "eth0"))
        };

        assert_eq!(of("80"), Some("fe80::5054:ff:feaa:ff".parse().unwrap()));
        assert_eq!([of("c0"), of("88")], [None, None]);
    }

    #[test]
    fn addresses_that_somebody_else_has_or_may_have_are_told_from_good_ones() {
        let table = "fd770000000000000000000000000001 02 40 00 c8     eth1\n\
                     fe800000000000000000000000000001 02 40 20 40     eth1\n\
                     fd770000000000000000000000000002 02 40 00 80     eth1\n\
                     fd770000000000000000000000000003 03 40 00 c8     eth2\n\
                     damaged\n";

        let all = parse(table, "eth1");
        let all: Vec<_> = all.iter().filter_map(Ipv6Address::unusable).collect();
        let [duplicate, tentative] = all[..] else { panic!("two expected") };

        assert_eq!(duplicate, ("fd77::1".parse().unwrap(), Unusable::Duplicate));
        assert_eq!(tentative, ("fe80::1".parse().unwrap(), Unusable::Tentative));
    }

    fn own(addresses: &[&str], pool: Option<[[u8; 4]; 2]>) -> Result<String, String> {
        let addresses: Vec<_> = addresses.iter().map(|net| net.parse().unwrap()).collect();
        let pool = pool.map(|[first, last]| LeasePool { first: first.into(), last: last.into() });
        let own = own4(&addresses, pool);
        own.map(|net| net.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn of_several_addresses_ours_is_the_one_of_the_pools_network() {
        let pool = Some([[192, 0, 2, 10], [192, 0, 2, 20]]);
        let several = ["169.254.7.7/16", "10.0.0.1/8", "192.0.0.1/8", "192.0.2.1/24"];

        assert_eq!(own(&several, pool).unwrap(), "192.0.2.1/24");
        assert_eq!(own(&several, None).unwrap(), "10.0.0.1/8");
        assert_eq!(own(&["169.254.7.7/16"], None).unwrap(), "169.254.7.7/16");
    }

    #[test]
    fn a_pool_that_no_address_goes_with_is_refused_in_words() {
        let pool = Some([[192, 0, 2, 10], [192, 0, 2, 20]]);

        let other = own(&["10.0.0.1/8", "192.0.2.1/32"], pool).unwrap_err();
        let none = own(&[], pool).unwrap_err();

        assert!(other.starts_with("the pool 192.0.2.10-192.0.2.20 is in no network"), "{other}");
        assert!(other.contains("(10.0.0.1/8, 192.0.2.1/32)"), "{other}");
        assert!(none.starts_with("it has no IPv4 address"), "{none}");
    }

    #[test]
    fn a_link_local_address_is_made_of_the_mac_address() {
        let mac = Mac([0x52, 0x54, 0, 0xfb, 0, 1]);
        assert_eq!(link_local_of(mac).to_string(), "fe80::5054:ff:fefb:1");
    }
}
