//! The state of a network interface.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::socket::SockaddrStorage;

/// Its entries in the kernel's list, one for each address and one for the link.
///
/// # Errors
/// The interface does not exist.
pub(super) fn entries_of(interface: &str) -> Result<Vec<InterfaceAddress>> {
    let all = getifaddrs().context("cannot list the network interfaces")?;
    let entries: Vec<_> = all.filter(|entry| entry.interface_name == interface).collect();
    if entries.is_empty() {
        bail!("cannot answer DHCP on {interface}: there is no such network interface");
    }
    Ok(entries)
}

/// Its addresses of both families.
///
/// # Errors
/// The interface does not exist.
pub fn addresses(name: &str) -> Result<Vec<IpNet>> {
    Ok(entries_of(name)?.iter().filter_map(net).collect())
}

fn net(entry: &InterfaceAddress) -> Option<IpNet> {
    let ip = |address: Option<SockaddrStorage>| -> Option<IpAddr> {
        let address = address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    IpNet::with_netmask(ip(entry.address)?, ip(entry.netmask)?).ok()
}

/// Checks that it is up and has a carrier.
///
/// # Errors
/// A description of the problem.
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

/// The state of an interface when serving began.
#[derive(Clone, Debug)]
pub(super) struct ServedInterface {
    name: String,
    index: u32,
    /// The service's addresses, which answers contain.
    addresses: Vec<IpAddr>,
}

impl ServedInterface {
    /// # Errors
    /// There is no such interface.
    pub(super) fn new(name: &str, addresses: Vec<IpAddr>) -> Result<Self> {
        Ok(Self { name: name.to_owned(), index: if_nametoindex(name)?, addresses })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The service's addresses; IPv4 comes first.
    pub(super) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Whether the interface is gone, has lost one of those addresses, or another interface has its name: the sockets
    /// of a VLAN or bridge that was created again receive nothing.
    pub(super) fn is_over(&self) -> bool {
        let Ok(now) = addresses(&self.name) else { return true };
        let has = |address: &IpAddr| now.iter().any(|net| net.addr() == *address);
        if_nametoindex(self.name.as_str()) != Ok(self.index) || !self.addresses.iter().all(has)
    }
}

/// Its MTU in bytes, if known.
#[must_use]
pub fn mtu(name: &str) -> Option<u32> {
    fs::read_to_string(about(name)?.join("mtu")).ok()?.trim().parse().ok()
}

/// The bridge or bond that it is a part of, which then receives its packets.
#[must_use]
pub fn part_of(name: &str) -> Option<String> {
    let master = fs::canonicalize(about(name)?.join("master")).ok()?;
    // An interface in a VRF still receives its own packets.
    let is_vrf =
        fs::read_to_string(master.join("uevent")).is_ok_and(|it| it.contains("DEVTYPE=vrf"));
    let master = master.file_name().filter(|_| !is_vrf)?;
    Some(master.to_string_lossy().into_owned())
}

/// The interface in sysfs, unless sysfs belongs to another network namespace.
fn about(name: &str) -> Option<PathBuf> {
    let folder = Path::new("/sys/class/net").join(name);
    let index: u32 = fs::read_to_string(folder.join("ifindex")).ok()?.trim().parse().ok()?;
    (if_nametoindex(name).ok() == Some(index)).then_some(folder)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_interface_is_itself_while_it_has_its_number_and_our_addresses() {
        let ours = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
        let seen = ServedInterface::new("lo", ours).unwrap();

        assert!(!seen.is_over());
        assert!(
            ServedInterface { index: seen.index + 1, ..seen.clone() }.is_over(),
            "it was made anew"
        );
        let lost = vec![IpAddr::from([192, 0, 2, 1])];
        assert!(
            ServedInterface { addresses: lost, ..seen.clone() }.is_over(),
            "it has another address"
        );
        assert!(ServedInterface { name: "nosuch0".to_owned(), ..seen }.is_over(), "it is gone");
    }

    #[test]
    fn the_loopback_interface_is_a_part_of_nothing() {
        assert_eq!(part_of("lo"), None);
    }
}
