//! What a network's settings come to on this host: its subnets, and the journal that each has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::Result;
use dhcp::v4::reply;
use dhcp::v6::leases::Identity;
use dhcp::{leases, v6 as six};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::socket::{self, Link};
use super::v6;
use crate::config::{self, AnyRange, Relayed};

/// An IPv4 subnet.
#[derive(Debug)]
pub(super) struct Subnet4 {
    pub(super) net: Ipv4Net,
    pub(super) pool: leases::Pool,
    pub(super) reservations: Vec<([u8; 6], Ipv4Addr)>,
    pub(super) about: reply::Network,
    /// Where its leases are kept.
    pub(super) journal: PathBuf,
}

/// An IPv6 subnet.
#[derive(Debug)]
pub(super) struct Subnet6 {
    pub(super) net: Ipv6Net,
    pub(super) pool: six::leases::Pool,
    pub(super) reservations: Vec<(Identity, Ipv6Addr)>,
    pub(super) about: six::reply::Network,
    /// Where its leases are kept.
    pub(super) journal: PathBuf,
}

/// The IPv4 subnets, the interface's own first; none, where it has no pool.
///
/// # Errors
/// The interface is missing or has no IPv4 address.
pub(super) fn subnets4(
    settings: &config::Network,
    lease_secs: u32,
    state_dir: &Path,
) -> Result<Vec<Subnet4>> {
    let Some(pool) = settings.pool else { return Ok(Vec::new()) };
    let interface = &settings.interface;
    let (server, mask) = socket::address_of(interface)?;
    let subnet = |net: Ipv4Net, router, pool, name| Subnet4 {
        net,
        pool,
        reservations: reservations(settings, net),
        about: reply::Network {
            router,
            routes: routes(settings, net),
            dns: settings.dns4(),
            domain: settings.domain.clone(),
            ntp: settings.ntp.clone(),
            mtu: settings.mtu,
            sole: settings.sole,
            ..reply::Network::new(server, net.netmask(), lease_secs)
        },
        journal: state_dir.join(name),
    };
    let own = Ipv4Net::with_netmask(server, mask)?.trunc();
    let mut subnets =
        vec![subnet(own, settings.router, pool.0, format!("leases-{interface}.journal"))];
    for Relayed { subnet: net, pool, router } in &settings.relayed {
        let (IpNet::V4(net), AnyRange::V4(pool)) = (net, pool) else { continue };
        let name = format!("leases-{interface}-{}.journal", net.network());
        subnets.push(subnet(*net, *router, *pool, name));
    }
    Ok(subnets)
}

/// What is known of a network on which another server gives the addresses.
///
/// # Errors
/// The interface is missing or has no IPv4 address.
pub(super) fn beside(settings: &config::Network, lease_secs: u32) -> Result<reply::Network> {
    let (server, mask) = socket::address_of(&settings.interface)?;
    Ok(reply::Network::new(server, mask, lease_secs))
}

/// Those of its addresses.
fn reservations(settings: &config::Network, net: Ipv4Net) -> Vec<([u8; 6], Ipv4Addr)> {
    let mut all = Vec::new();
    for config::Reservation { mac, address } in &settings.reservations {
        if let IpAddr::V4(address) = address
            && net.contains(address)
        {
            all.push((mac.0, *address));
        }
    }
    all
}

/// The same of an IPv6 subnet.
fn reservations6(settings: &config::Network, net: Ipv6Net) -> Vec<(Identity, Ipv6Addr)> {
    let mut all = Vec::new();
    for config::Reservation { mac, address } in &settings.reservations {
        if let IpAddr::V6(address) = address
            && net.contains(address)
        {
            all.push((v6::of_mac(*mac), *address));
        }
    }
    all
}

/// Those routes whose gateways a client in the subnet reaches.
fn routes(settings: &config::Network, net: Ipv4Net) -> Vec<reply::Route> {
    let near = settings.routes.iter().filter(|route| net.contains(&route.via));
    near.map(|config::Route { to, via }| reply::Route { to: *to, via: *via }).collect()
}

/// The IPv6 subnets, the interface's own first; none, where it has no pool.
///
/// # Errors
/// The interface is missing or has no IPv6 address.
pub(super) fn subnets6(
    settings: &config::Network,
    link: &Link,
    lease_secs: u32,
    state_dir: &Path,
) -> Result<Vec<Subnet6>> {
    let Some(pool) = settings.pool6 else { return Ok(Vec::new()) };
    let interface = &settings.interface;
    let subnet = |net, pool, name| Subnet6 {
        net,
        pool,
        reservations: reservations6(settings, net),
        about: six::reply::Network {
            net,
            duid: link.duid(),
            sole: settings.sole,
            dns: settings.dns6(),
            lease_secs,
        },
        journal: state_dir.join(name),
    };
    let own = Ipv6Net::new(link.address, link.prefix_len)?.trunc();
    let mut subnets = vec![subnet(own, pool.0, format!("leases6-{interface}.journal"))];
    for Relayed { subnet: net, pool, .. } in &settings.relayed {
        let (IpNet::V6(net), AnyRange::V6(pool)) = (net, pool) else { continue };
        let name = format!("leases6-{interface}-{}.journal", net.network());
        subnets.push(subnet(*net, *pool, name));
    }
    Ok(subnets)
}
