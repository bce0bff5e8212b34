//! Checks for other hosts with the addresses that DHCP answers contain.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use netboot::network_check::neighbours::judge;
use netboot::network_settings::NetworkSettings;

use crate::config::Config;
use crate::dhcp::probe;

/// Number of the pool's addresses to probe: those that are leased first.
const SOME: usize = 256;

/// `None` if the interface has no neighbours.
pub(super) async fn look(
    config: &Config,
    network: &NetworkSettings,
    own: Option<IpAddr>,
) -> Option<Result<String>> {
    let Some(IpAddr::V4(own)) = own else { return None };
    if !probe::has_neighbours(&network.interface) {
        return None;
    }
    let leased = config.state_dir().and_then(|dir| probe::leased(network, &dir));
    let leased = leased.unwrap_or_default();
    let pool = network.pool.into_iter().flat_map(|pool| {
        (u32::from(pool.0.first)..=u32::from(pool.0.last)).take(SOME).map(Ipv4Addr::from)
    });
    let wanted = pool.chain([own]).chain(network.router).collect::<BTreeSet<_>>();
    let found = probe::neighbours(&network.interface, &wanted).await;
    Some(found.and_then(|found| Ok(judge(network, own, &found, &leased)?)))
}
