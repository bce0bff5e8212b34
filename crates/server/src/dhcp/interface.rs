//! The state of a network interface.

use std::net::IpAddr;

use anyhow::{Result, bail};
use ipnet::IpNet;
use nix::net::if_::InterfaceFlags;

use super::socket::entries_of;

/// Its addresses, of both families.
///
/// # Errors
/// There is no such interface.
pub fn addresses(name: &str) -> Result<Vec<IpNet>> {
    let entries = entries_of(name)?;
    let ip = |address: Option<nix::sys::socket::SockaddrStorage>| -> Option<IpAddr> {
        let address = address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    let nets = entries
        .iter()
        .filter_map(|entry| IpNet::with_netmask(ip(entry.address)?, ip(entry.netmask)?).ok());
    Ok(nets.collect())
}

/// Whether it is up, and connected to something.
///
/// # Errors
/// In words, what it is not.
pub fn is_up(name: &str) -> Result<String> {
    let flags = entries_of(name)?.first().map_or(InterfaceFlags::empty(), |entry| entry.flags);
    if !flags.contains(InterfaceFlags::IFF_UP) {
        bail!("it is down: `ip link set {name} up`");
    }
    if !flags.contains(InterfaceFlags::IFF_RUNNING) {
        bail!("it has no carrier: look at the cable, or at the other end");
    }
    Ok("up".to_owned())
}
