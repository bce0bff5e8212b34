//! Evaluates the holders of the addresses that DHCP answers contain: this service's, the router's and the pool's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use hardware::Mac;
use thiserror::Error;

use crate::network_settings::NetworkSettings;

/// Addresses, each with the MAC addresses of its holders.
pub type AddressHolders = BTreeMap<Ipv4Addr, BTreeSet<Mac>>;

/// Other hosts, or a missing router, that keep machines from booting.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NeighbourConflict {
    /// Another host has this service's address.
    #[error(
        "{} also has this host's address {own}, so it receives packets for this host: give one of the two \
         another address",
        in_words(holders)
    )]
    OwnAddress {
        /// The address.
        own: Ipv4Addr,
        /// The other hosts.
        holders: BTreeSet<Mac>,
    },
    /// The router does not answer.
    #[error(
        "the router {0} does not answer (ARP), so machines cannot leave their network: is it \
         off, or is its address another one?"
    )]
    SilentRouter(Ipv4Addr),
    /// Hosts without a lease have addresses of the pool.
    #[error(
        "{address} of the pool is in use by {}, without a lease of this service{}, so a machine with this address \
         would collide: take the address out of the pool, or reserve it for the other host",
        in_words(holders),
        if *more == 0 { String::new() } else { format!(" (and {more} more of the pool)") }
    )]
    WithoutLease {
        /// The first address.
        address: Ipv4Addr,
        /// Its hosts.
        holders: BTreeSet<Mac>,
        /// The number of other addresses.
        more: usize,
    },
}

/// Evaluates the holders of addresses on a network where `own` is the service's; `leased` are the holders of its leases.
///
/// # Errors
/// Hosts that keep machines from booting.
pub fn judge(
    network: &NetworkSettings,
    own: Ipv4Addr,
    found: &AddressHolders,
    leased: &AddressHolders,
) -> Result<String, NeighbourConflict> {
    if let Some(holders) = found.get(&own) {
        return Err(NeighbourConflict::OwnAddress { own, holders: holders.clone() });
    }
    let router = network.router.filter(|router| *router != own);
    if let Some(router) = router.filter(|router| !found.contains_key(router)) {
        return Err(NeighbourConflict::SilentRouter(router));
    }
    let has_lease = |address: &Ipv4Addr, holders: &BTreeSet<Mac>| {
        leased.get(address).is_some_and(|lessees| !lessees.is_disjoint(holders))
    };
    let in_pool = |address: &Ipv4Addr| network.pool.is_some_and(|pool| pool.0.contains(*address));
    let mut others =
        found.iter().filter(|(address, macs)| in_pool(address) && !has_lease(address, macs));
    if let Some((address, holders)) = others.next() {
        let (address, holders, more) = (*address, holders.clone(), others.count());
        return Err(NeighbourConflict::WithoutLease { address, holders, more });
    }
    Ok(match router {
        Some(router) => format!("no other host has {own}, and the router {router} answers"),
        None => format!("no other host has {own}"),
    })
}

fn in_words(all: &BTreeSet<Mac>) -> String {
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
        let all = |list: &[(Ipv4Addr, u8)]| -> AddressHolders {
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
