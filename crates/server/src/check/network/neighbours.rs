//! Checks for other hosts with the addresses that machines are given or told of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, bail, ensure};
use hardware::Mac;
use netboot::network_settings::NetworkSettings;

use crate::config::Config;
use crate::dhcp::probe::{self, Leased, Neighbours};

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
    Some(found.and_then(|found| judge(network, own, &found, &leased)))
}

fn judge(
    network: &NetworkSettings,
    own: Ipv4Addr,
    found: &Neighbours,
    leased: &Leased,
) -> Result<String> {
    if let Some(others) = found.get(&own) {
        bail!(
            "{} also has this host's address {own}, so it receives packets for this host: give one of the two \
             another address",
            macs(others)
        );
    }
    if let Some(router) = network.router {
        ensure!(
            router == own || found.contains_key(&router),
            "the router {router} does not answer (ARP), so machines cannot leave their network: is it \
             off, or is its address another one?"
        );
    }
    let is_known = |address: &Ipv4Addr, macs: &BTreeSet<Mac>| {
        leased.get(address).is_some_and(|holders| !holders.is_disjoint(macs))
    };
    let in_pool = |address: &Ipv4Addr| network.pool.is_some_and(|pool| pool.0.contains(*address));
    let squatters: BTreeMap<_, _> = found
        .iter()
        .filter(|(address, macs)| in_pool(address) && !is_known(address, macs))
        .collect();
    if let Some((address, who)) = squatters.first_key_value() {
        bail!(
            "{address} of the pool is in use by {}, without a lease of this service{}, so a machine with this address \
             would collide: take the address out of the pool, or reserve it for the other host",
            macs(who),
            match squatters.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more of the pool)"),
            }
        );
    }
    Ok(match network.router {
        Some(router) if router != own => {
            format!("no other host has {own}, and the router {router} answers")
        }
        Some(_) | None => format!("no other host has {own}"),
    })
}

fn macs(all: &BTreeSet<Mac>) -> String {
    let all: Vec<_> = all.iter().map(Mac::to_string).collect();
    all.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
    const IN_POOL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

    fn said(found: &[(Ipv4Addr, u8)], leased: &[(Ipv4Addr, u8)]) -> Result<String, String> {
        let network = NetworkSettings {
            router: Some(ROUTER),
            ..("eth1=192.0.2.10-192.0.2.20".parse::<NetworkSettings>().unwrap())
        };
        let all = |list: &[(Ipv4Addr, u8)]| -> Neighbours {
            list.iter().map(|(address, mac)| (*address, [Mac([*mac; 6])].into())).collect()
        };
        judge(&network, US, &all(found), &all(leased)).map_err(|error| error.to_string())
    }

    #[test]
    fn who_else_has_our_address_or_one_of_the_pool_is_named() {
        assert!(said(&[(ROUTER, 4)], &[]).unwrap().ends_with("192.0.2.254 answers"));
        let twice = said(&[(ROUTER, 4), (US, 6)], &[]).unwrap_err();
        assert!(
            twice.starts_with("06:06:06:06:06:06 also has this host's address 192.0.2.1"),
            "{twice}"
        );
        assert!(said(&[], &[]).unwrap_err().starts_with("the router 192.0.2.254 does not answer"));
        let used = [(ROUTER, 4), (IN_POOL, 8)];
        let squatter = said(&used, &[(IN_POOL, 10)]).unwrap_err();
        assert!(squatter.starts_with("192.0.2.10 of the pool is in use by 08:"), "{squatter}");
        assert!(said(&used, &[(IN_POOL, 8)]).is_ok());
    }
}
