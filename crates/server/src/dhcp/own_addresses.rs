//! The addresses of a network's interface on this host, from which its responders are planned.

use anyhow::Result;
use ipnet::Ipv4Net;
use netboot::network_plan::OwnAddresses;
use netboot::network_settings::NetworkSettings;

use super::ipv6_link::Ipv6Link;
use super::{addresses, interface};

/// The service's IPv4 address on the interface, with its network.
///
/// # Errors
/// The interface is missing or has no IPv4 address.
pub(super) fn own4(settings: &NetworkSettings) -> Result<Ipv4Net> {
    let pool = settings.pool.map(|pool| pool.0);
    addresses::of_pool4(&settings.interface, pool)
}

/// The service's addresses on the interface.
///
/// # Errors
/// The interface is missing, has no address in a pool's network, or the settings do not fit it.
pub(super) fn own_addresses(settings: &NetworkSettings) -> Result<OwnAddresses> {
    let mut own =
        OwnAddresses { all: interface::addresses(&settings.interface)?, v4: None, v6: None };
    if settings.needs_v4() {
        let own4 = own4(settings)?;
        settings.check_on(own4.into(), &own.all)?;
        own.v4 = Some(own4);
    }
    if let Some(pool) = settings.pool6 {
        let link = Ipv6Link::of_pool(&settings.interface, pool.0)?;
        let own6 = link.net()?;
        settings.check_on(own6.into(), &own.all)?;
        own.v6 = Some((own6, link.duid()));
    }
    Ok(own)
}
