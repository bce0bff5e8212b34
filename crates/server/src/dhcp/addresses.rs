//! The IPv6 addresses of interfaces, and which of them to be known by.

use std::fs;
use std::net::Ipv6Addr;

use dhcp::v6::leases::Pool;
use ipnet::Ipv6Net;

/// Where the kernel lists them, as of the network namespace that we are in.
const TABLE: &str = "/proc/net/if_inet6";
/// `IFA_F_OPTIMISTIC`, `IFA_F_DADFAILED`, `IFA_F_DEPRECATED` and `IFA_F_TENTATIVE` (`linux/if_addr.h`).
const OPTIMISTIC: u8 = 0x04;
const TAKEN: u8 = 0x08;
const DEPRECATED: u8 = 0x20;
const TENTATIVE: u8 = 0x40;

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) address: Ipv6Addr,
    pub(super) prefix_len: u8,
    flags: u8,
}

/// Why an address cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It is not known yet whether somebody else has it (RFC 4862 §5.4).
    Tentative,
    /// Somebody else has it.
    Duplicate,
}

/// Those of one interface; none, where the kernel has no IPv6.
pub(super) fn of(interface: &str) -> Vec<Address> {
    parse(&fs::read_to_string(TABLE).unwrap_or_default(), interface)
}

/// The one that may be sent from to neighbours, once it is known that nobody else has it.
pub(super) fn link_local(all: &[Address]) -> Option<Ipv6Addr> {
    let ready = all.iter().filter(|one| one.flags & (TAKEN | TENTATIVE) == 0);
    ready.map(|one| one.address).find(Ipv6Addr::is_unicast_link_local)
}

/// Those that cannot be used.
pub(crate) fn unusable(interface: &str) -> Vec<(Ipv6Addr, Unusable)> {
    of(interface).iter().filter_map(Address::unusable).collect()
}

/// The one to be known by, in the network of the pool where there is a pool.
pub(super) fn choose(all: &[Address], pool: Option<Pool>) -> Option<Address> {
    let fits = |one: &Address| pool.is_none_or(|pool| one.has(pool));
    let may = all
        .iter()
        .filter(|one| !one.address.is_unicast_link_local() && one.flags & TAKEN == 0 && fits(one));
    // Of several, the first that is to be used any longer.
    may.min_by_key(|one| one.flags & DEPRECATED).copied()
}

impl Address {
    fn unusable(&self) -> Option<(Ipv6Addr, Unusable)> {
        let waits = self.flags & TENTATIVE != 0 && self.flags & OPTIMISTIC == 0;
        let why = match (self.flags & TAKEN != 0, waits) {
            (true, _) => Unusable::Duplicate,
            (false, true) => Unusable::Tentative,
            (false, false) => return None,
        };
        Some((self.address, why))
    }

    fn has(&self, pool: Pool) -> bool {
        let net = Ipv6Net::new(self.address, self.prefix_len);
        net.is_ok_and(|net| net.contains(&pool.first) && net.contains(&pool.last))
    }
}

/// Address, number of the interface, prefix length, scope, flags, name.
fn parse(table: &str, interface: &str) -> Vec<Address> {
    let of = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [address, _, prefix_len, _, flags, name] = fields[..] else { return None };
        (name == interface).then_some(())?;
        Some(Address {
            address: u128::from_str_radix(address, 16).ok()?.into(),
            prefix_len: u8::from_str_radix(prefix_len, 16).ok()?,
            flags: u8::from_str_radix(flags, 16).ok()?,
        })
    };
    table.lines().filter_map(of).collect()
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

    fn pool(first: &str, last: &str) -> Option<Pool> {
        Some(Pool { first: first.parse().unwrap(), last: last.parse().unwrap() })
    }

    fn chosen(pool: Option<Pool>) -> Option<String> {
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
        let all: Vec<_> = all.iter().filter_map(Address::unusable).collect();
        let [duplicate, tentative] = all[..] else { panic!("two expected") };

        assert_eq!(duplicate, ("fd77::1".parse().unwrap(), Unusable::Duplicate));
        assert_eq!(tentative, ("fe80::1".parse().unwrap(), Unusable::Tentative));
    }
}
