//! The addresses of this host.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

/// Every address of this host, on whichever interface.
#[must_use]
pub fn host_addresses() -> BTreeSet<IpAddr> {
    getifaddrs().into_iter().flatten().filter_map(|entry| ip(&entry.address?)).collect()
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_an_address_of_every_host() {
        assert!(host_addresses().contains(&IpAddr::from([127, 0, 0, 1])));
    }
}
