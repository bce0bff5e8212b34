//! What a network's settings come to on this host: its desks, with the leases that each subnet has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use dhcp::limits::Limits;
use dhcp::v4::proxy::Port;
use dhcp::v4::reply;
use dhcp::v6::leases::Identity;
use dhcp::{leases, v6 as six};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::journal::Table;
use super::socket::{self, Link};
use super::{proxy, v4, v6};
use crate::config::{self, AnyRange, Relayed};

/// Finds a subnet's leases by the name of the file that they are in.
pub(super) trait Keeper<T: Table>: FnMut(&str, T::Pool) -> Result<T> {}

impl<T: Table, F: FnMut(&str, T::Pool) -> Result<T>> Keeper<T> for F {}

/// DHCPv4 on its interface; `None`, where it has no pool.
///
/// # Errors
/// The interface is missing or has no IPv4 address, or its leases cannot be had.
pub(super) fn desk4(
    settings: &config::Network,
    lease_secs: u32,
    limits: Limits,
    mut keeper: impl Keeper<leases::Leases>,
) -> Result<Option<v4::Desk>> {
    let Some(pool) = settings.pool else { return Ok(None) };
    let interface = &settings.interface;
    let (server, mask) = socket::address_of(interface)?;
    let mut subnet = |net: Ipv4Net, router, pool, journal: &str| -> Result<_> {
        let leases = keeper(journal, (pool, reservations(settings, net)))?;
        let about = reply::Network {
            router,
            routes: routes(settings, net),
            dns: settings.dns4(),
            domain: settings.domain.clone(),
            ntp: settings.ntp.clone(),
            mtu: settings.mtu,
            sole: settings.sole,
            ..reply::Network::new(server, net.netmask(), lease_secs)
        };
        Ok(v4::Subnet { net, leases, about })
    };
    let own = Ipv4Net::with_netmask(server, mask)?.trunc();
    let journal = format!("leases-{interface}.journal");
    let mut subnets = vec![subnet(own, settings.router, pool.0, &journal)?];
    for Relayed { subnet: net, pool, router } in &settings.relayed {
        let (IpNet::V4(net), AnyRange::V4(pool)) = (net, pool) else { continue };
        let journal = format!("leases-{interface}-{}.journal", net.network());
        subnets.push(subnet(*net, *router, *pool, &journal)?);
    }
    Ok(Some(v4::Desk::new(subnets, settings.strangers, limits)))
}

/// One port of an interface on which another server gives the addresses; `None`, where we do.
///
/// # Errors
/// The interface is missing or has no IPv4 address.
pub(super) fn beside(
    settings: &config::Network,
    lease_secs: u32,
    port: Port,
    limits: Limits,
) -> Result<Option<proxy::Desk>> {
    if !settings.proxy {
        return Ok(None);
    }
    let (server, mask) = socket::address_of(&settings.interface)?;
    let about = reply::Network::new(server, mask, lease_secs);
    Ok(Some(proxy::Desk::new(port, about, limits)))
}

/// DHCPv6 on its interface; `None`, where it has no pool.
///
/// # Errors
/// The interface is missing or has no IPv6 address, or its leases cannot be had.
pub(super) fn desk6(
    settings: &config::Network,
    lease_secs: u32,
    limits: Limits,
    mut keeper: impl Keeper<six::leases::Leases>,
) -> Result<Option<v6::Desk>> {
    let Some(pool) = settings.pool6 else { return Ok(None) };
    let interface = &settings.interface;
    let link = Link::find(interface)?;
    let mut subnet = |net: Ipv6Net, pool, journal: &str| -> Result<_> {
        let leases = keeper(journal, (pool, reservations6(settings, net)))?;
        let about = six::reply::Network {
            net,
            duid: link.duid(),
            sole: settings.sole,
            dns: settings.dns6(),
            lease_secs,
        };
        Ok(v6::Subnet { net, leases, about })
    };
    let own = Ipv6Net::new(link.address, link.prefix_len)?.trunc();
    let mut subnets = vec![subnet(own, pool.0, &format!("leases6-{interface}.journal"))?];
    for Relayed { subnet: net, pool, .. } in &settings.relayed {
        let (IpNet::V6(net), AnyRange::V6(pool)) = (net, pool) else { continue };
        let journal = format!("leases6-{interface}-{}.journal", net.network());
        subnets.push(subnet(*net, *pool, &journal)?);
    }
    Ok(Some(v6::Desk::new(link.address, subnets, settings.strangers, limits)))
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
