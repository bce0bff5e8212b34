//! The addresses that an interface of this host has.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Result, anyhow};
use dhcp::leases::LeasePool;
use ipnet::{IpNet, Ipv4Net};
use netboot::interface_addresses::{Ipv6Address, Unusable, own4, parse};

use super::interface;

/// The kernel's list, of the current network namespace.
const TABLE: &str = "/proc/net/if_inet6";

/// The service's IPv4 address on an interface, with its network, which contains the pool.
///
/// # Errors
/// The interface is missing, or has no suitable address.
pub(super) fn of_pool4(interface: &str, pool: Option<LeasePool<Ipv4Addr>>) -> Result<Ipv4Net> {
    let four = |net| if let IpNet::V4(net) = net { Some(net) } else { None };
    let all: Vec<_> = interface::addresses(interface)?.into_iter().filter_map(four).collect();
    own4(&all, pool).map_err(|error| anyhow!("cannot answer DHCP on {interface}: {error}"))
}

/// The addresses of an interface; none if the kernel has no IPv6.
pub(super) fn of(interface: &str) -> Vec<Ipv6Address> {
    parse(&fs::read_to_string(TABLE).unwrap_or_default(), interface)
}

/// The addresses that cannot be used.
pub(crate) fn unusable(interface: &str) -> Vec<(Ipv6Addr, Unusable)> {
    of(interface).iter().filter_map(Ipv6Address::unusable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let error = of_pool4("nosuch0", None).unwrap_err().to_string();

        assert!(error.contains("no such network interface"), "{error}");
    }

    #[test]
    fn the_address_of_an_interface_comes_with_its_network() {
        assert_eq!(of_pool4("lo", None).unwrap().to_string(), "127.0.0.1/8");
    }
}
