//! The responders of a network, from the addresses of its interface on this host.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use dhcp::leases::LeaseTable;
use dhcp::limits::RateLimits;
use dhcp::v4::proxy::ProxyPort;
use ipnet::Ipv4Net;
use netboot::network_plan::{self, PoolPlan};
use netboot::network_settings::NetworkSettings;
use netboot::proxy::ProxyResponder;
use netboot::v4::V4Responder;
use netboot::v6::V6Responder;

use super::socket::Ipv6Link;
use super::{addresses, interface};

/// The service's IPv4 address on the interface, with its network.
///
/// # Errors
/// The interface is missing or has no IPv4 address.
pub(super) fn own4(settings: &NetworkSettings) -> Result<Ipv4Net> {
    let pool = settings.pool.map(|pool| pool.0);
    addresses::of_pool4(&settings.interface, pool)
}

/// The DHCPv4 responder; `None` if there is no pool.
///
/// # Errors
/// The interface is missing or has no IPv4 address in the pool's network, the settings do not fit it, or its leases
/// are not available.
pub(super) fn v4_responder(
    settings: &NetworkSettings,
    lease_secs: u32,
    limits: RateLimits,
    open_leases: impl FnMut(&str, PoolPlan<Ipv4Addr>) -> Result<LeaseTable<Ipv4Addr>>,
) -> Result<Option<V4Responder>> {
    if settings.pool.is_none() {
        return Ok(None);
    }
    let own = own4(settings)?;
    let ours = interface::addresses(&settings.interface)?;
    settings.check_on(own.into(), &ours)?;
    network_plan::v4_responder(settings, own, &ours, lease_secs, limits, open_leases)
}

/// The ProxyDHCP responder of one port; `None` if this service leases the addresses.
///
/// # Errors
/// The interface is missing or has no IPv4 address.
pub(super) fn proxy_responder(
    settings: &NetworkSettings,
    lease_secs: u32,
    port: ProxyPort,
    limits: RateLimits,
) -> Result<Option<ProxyResponder>> {
    match settings.proxy {
        true => {
            let own = own4(settings)?;
            Ok(Some(network_plan::proxy_responder(own, lease_secs, port, limits)))
        }
        false => Ok(None),
    }
}

/// The DHCPv6 responder; `None` if there is no pool.
///
/// # Errors
/// The interface is missing or has no IPv6 address, or its leases are not available.
pub(super) fn v6_responder(
    settings: &NetworkSettings,
    lease_secs: u32,
    limits: RateLimits,
    open_leases: impl FnMut(&str, PoolPlan<Ipv6Addr>) -> Result<LeaseTable<Ipv6Addr>>,
) -> Result<Option<V6Responder>> {
    let Some(pool) = settings.pool6 else { return Ok(None) };
    let link = Ipv6Link::of_pool(&settings.interface, pool.0)?;
    let (own, ours) = (link.net()?, interface::addresses(&settings.interface)?);
    settings.check_on(own.into(), &ours)?;
    network_plan::v6_responder(settings, own, &link.duid(), &ours, lease_secs, limits, open_leases)
}
