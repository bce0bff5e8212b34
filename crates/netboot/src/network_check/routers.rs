//! Evaluates router advertisements.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use dhcp::leases::LeasePool;
use dhcp::v6::advertisement::{Advertisement, Prefix};
use ipnet::{IpNet, Ipv6Net};
use thiserror::Error;

use super::dhcp_servers::names;
use crate::network_settings::NetworkSettings;

/// Routers by address, with their latest advertisements.
pub type RouterAdvertisements = BTreeMap<Ipv6Addr, Advertisement>;

/// Routers that keep machines from booting.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RouterConflict {
    /// No router sends advertisements.
    #[error(
        "nobody advertises, so no machine uses DHCPv6: let this service do it (`advertise = true`), \
         or switch it on in the network's router, with the M flag"
    )]
    None,
    /// A router removes the pool's prefix from machines, while this service advertises it.
    #[error(
        "{0} advertises the prefix of pool6 with a lifetime of 0, which removes it from machines: \
         switch that off"
    )]
    EndsPrefix(Ipv6Addr),
    /// No router's advertisement is suitable; this is the first one.
    #[error("{router} advertises {}", in_words(faults))]
    Faulty {
        /// The router.
        router: Ipv6Addr,
        /// The faults of its advertisement.
        faults: Vec<RouterFault>,
    },
}

/// The problem if only this router sends advertisements.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RouterFault {
    /// The M flag is not set.
    #[error(
        "without the M flag, so no machine asks DHCPv6 for an address: set it (AdvManagedFlag in \
         radvd), or let this service advertise (`advertise = true`)"
    )]
    NotManaged,
    /// It is no default router.
    #[error(
        "as no router (a lifetime of 0), for which firmware waits ten seconds and more: set one \
         (AdvDefaultLifetime in radvd)"
    )]
    NoRouter,
    /// It advertises no prefix.
    #[error(
        "no prefix, so machines do not know that this service is on their link: add {wanted} there, \
         on-link"
    )]
    NoPrefix {
        /// The prefix of the pool.
        wanted: String,
    },
    /// It advertises other prefixes.
    #[error(
        "other prefixes ({others}) than that of pool6: add {wanted} there, or take a pool of theirs"
    )]
    OtherPrefixes {
        /// The prefixes.
        others: String,
        /// The prefix of the pool.
        wanted: String,
    },
    /// Machines drop the prefix of the pool.
    #[error(
        "the prefix of pool6 with a lifetime of 0, so that machines drop it: set its lifetimes \
         (AdvValidLifetime and AdvPreferredLifetime in radvd)"
    )]
    PrefixDropped,
    /// The L flag is not set.
    #[error(
        "the prefix of pool6 without the L flag, so machines do not know that this service is on their \
         link: set it (AdvOnLink in radvd)"
    )]
    PrefixNotOnLink,
}

/// Evaluates the routers on a network; `own` is the service's prefix, and `own_addresses` are this host's, if the
/// service may have sent an advertisement itself.
///
/// # Errors
/// Routers that keep machines from booting.
pub fn judge(
    network: &NetworkSettings,
    routers: &RouterAdvertisements,
    own: Option<IpNet>,
    own_addresses: &[IpAddr],
) -> Result<String, RouterConflict> {
    let Some(pool) = network.pool6 else { return Ok("not asked".to_owned()) };
    let others = || routers.iter().filter(|(from, _)| !own_addresses.contains(&(**from).into()));
    let Some((first, said)) = others().next() else {
        return match network.advertise {
            true => Ok("no other router advertises".to_owned()),
            false => Err(RouterConflict::None),
        };
    };
    if network.advertise {
        return beside(others(), pool.0);
    }
    let good = others().filter(|(_, said)| faults(said, pool.0, own).is_empty());
    let good: BTreeSet<_> = good.map(|(from, _)| from).collect();
    if good.is_empty() {
        return Err(RouterConflict::Faulty { router: *first, faults: faults(said, pool.0, own) });
    }
    Ok(format!("{}, with the M flag", names(&good, "advertises", "advertise")))
}

/// The problem if this service also sends advertisements.
fn beside<'a>(
    others: impl Iterator<Item = (&'a Ipv6Addr, &'a Advertisement)> + Clone,
    pool: LeasePool<Ipv6Addr>,
) -> Result<String, RouterConflict> {
    let ends = |said: &Advertisement| {
        said.prefixes.iter().any(|prefix| holds(prefix, pool) && prefix.valid_secs == 0)
    };
    if let Some((from, _)) = others.clone().find(|(_, said)| ends(said)) {
        return Err(RouterConflict::EndsPrefix(*from));
    }
    let managed = others.clone().any(|(_, said)| said.managed);
    let who: BTreeSet<_> = others.map(|(from, _)| from).collect();
    let who = names(&who, "advertises", "advertise");
    Ok(match managed {
        true => format!(
            "{who} too, with the M flag, and machines take either for their router; `advertise = false` \
             leaves it to that one alone"
        ),
        false => format!(
            "{who} too, without the M flag: machines ask DHCPv6 all the same, since this service sets it, and \
             take either for their router"
        ),
    })
}

fn faults(said: &Advertisement, pool: LeasePool<Ipv6Addr>, own: Option<IpNet>) -> Vec<RouterFault> {
    let flag = (!said.managed).then_some(RouterFault::NotManaged);
    let lifetime = (said.router_secs == 0).then_some(RouterFault::NoRouter);
    [flag, lifetime, prefix_fault(said, pool, own)].into_iter().flatten().collect()
}

fn prefix_fault(
    said: &Advertisement,
    pool: LeasePool<Ipv6Addr>,
    own: Option<IpNet>,
) -> Option<RouterFault> {
    let wanted = own.map_or_else(|| "of pool6".to_owned(), |own| own.trunc().to_string());
    let mut ours = said.prefixes.iter().filter(|prefix| holds(prefix, pool)).peekable();
    if said.prefixes.is_empty() {
        Some(RouterFault::NoPrefix { wanted })
    } else if ours.peek().is_none() {
        let others = said.prefixes.iter();
        let others: Vec<_> =
            others.map(|prefix| format!("{}/{}", prefix.address, prefix.len)).collect();
        Some(RouterFault::OtherPrefixes { others: others.join(", "), wanted })
    } else if ours.clone().all(|prefix| prefix.valid_secs == 0 || prefix.preferred_secs == 0) {
        Some(RouterFault::PrefixDropped)
    } else if !ours.any(|prefix| prefix.on_link) {
        Some(RouterFault::PrefixNotOnLink)
    } else {
        None
    }
}

fn in_words(faults: &[RouterFault]) -> String {
    let all: Vec<_> = faults.iter().map(RouterFault::to_string).collect();
    all.join("; and ")
}

fn holds(prefix: &Prefix, pool: LeasePool<Ipv6Addr>) -> bool {
    let net = Ipv6Net::new(prefix.address, prefix.len).map(|net| net.trunc());
    net.is_ok_and(|net| net.contains(&pool.first) && net.contains(&pool.last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Advertisement {
        Advertisement {
            managed: true,
            router_secs: 1_800,
            prefixes: vec![prefix("fd77::")],
            ..Advertisement::default()
        }
    }

    fn prefix(address: &str) -> Prefix {
        Prefix {
            address: address.parse().unwrap(),
            len: 64,
            on_link: true,
            autonomous: false,
            valid_secs: 3_600,
            preferred_secs: 3_600,
        }
    }

    fn said(advertise: bool, all: &[(&str, Advertisement)]) -> Result<String, String> {
        let network = NetworkSettings {
            advertise,
            ..("eth1=fd77::10-fd77::20".parse::<NetworkSettings>().unwrap())
        };
        let routers =
            all.iter().map(|(from, said)| (from.parse().unwrap(), said.clone())).collect();
        let own = Some("fd77::1/64".parse().unwrap());
        judge(&network, &routers, own, &[]).map_err(|error| error.to_string())
    }

    fn alone(said_by_router: Advertisement) -> String {
        said(false, &[("fe80::2", said_by_router)]).unwrap_err()
    }

    #[test]
    fn a_router_that_leaves_machines_without_dhcpv6_or_the_network_is_of_no_use() {
        let with = |prefix| Advertisement { prefixes: vec![prefix], ..good() };

        assert!(said(false, &[("fe80::2", good())]).unwrap().contains("with the M flag"));
        assert!(said(false, &[]).unwrap_err().starts_with("nobody advertises"));
        assert!(alone(Advertisement { managed: false, ..good() }).contains("without the M flag"));
        assert!(alone(Advertisement { router_secs: 0, ..good() }).contains("as no router"));
        assert!(alone(Advertisement { prefixes: vec![], ..good() }).contains("no prefix"));
        let other = alone(with(prefix("2001:db8::")));
        assert!(other.contains("(2001:db8::/64)") && other.contains("add fd77::/64"), "{other}");
        assert!(alone(with(Prefix { on_link: false, ..prefix("fd77::") })).contains("L flag"));
        assert!(
            alone(with(Prefix { valid_secs: 0, ..prefix("fd77::") })).contains("lifetime of 0")
        );
    }

    #[test]
    fn one_good_router_does() {
        let bad = Advertisement { managed: false, ..good() };

        let said = said(false, &[("fe80::2", bad), ("fe80::3", good())]);

        assert_eq!(said.unwrap(), "fe80::3 advertises, with the M flag");
    }

    #[test]
    fn beside_a_router_without_the_m_flag_nobody_is_told_to_leave_it_to_that_one() {
        let bad = Advertisement { managed: false, ..good() };
        let ends = Advertisement {
            prefixes: vec![Prefix { valid_secs: 0, ..prefix("fd77::") }],
            ..bad.clone()
        };

        let beside = said(true, &[("fe80::2", bad)]).unwrap();

        assert!(beside.contains("machines ask DHCPv6 all the same"), "{beside}");
        assert!(!beside.contains("advertise = false"), "{beside}");
        assert!(said(true, &[("fe80::2", good())]).unwrap().contains("`advertise = false`"));
        assert!(said(true, &[("fe80::2", ends)]).unwrap_err().contains("lifetime of 0"));
    }
}
