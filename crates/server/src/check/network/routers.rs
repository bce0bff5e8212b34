//! Evaluates router advertisements.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Result, bail};
use dhcp::leases::LeasePool;
use dhcp::v6::advertisement::{Advertisement, Prefix};
use ipnet::{IpNet, Ipv6Net};
use netboot::network_settings::NetworkSettings;

use super::servers::names;
use crate::dhcp::probe::RouterAdvertisements;

/// Evaluates the routers on a network; `own` is the service's prefix, and `own_addresses` are this host's, if the
/// service may have sent an advertisement itself.
pub(super) fn judge(
    network: &NetworkSettings,
    routers: &RouterAdvertisements,
    own: Option<IpNet>,
    own_addresses: &[IpAddr],
) -> Result<String> {
    let Some(pool) = network.pool6 else { return Ok("not asked".to_owned()) };
    let others = || routers.iter().filter(|(from, _)| !own_addresses.contains(&(**from).into()));
    let Some((first, _)) = others().next() else {
        if network.advertise {
            return Ok("no other router advertises".to_owned());
        }
        bail!(
            "nobody advertises, so no machine uses DHCPv6: let this service do it (`advertise = true`), \
             or switch it on in the network's router, with the M flag"
        );
    };
    if network.advertise {
        return beside(others(), pool.0);
    }
    let bad = |(_, said): &(&Ipv6Addr, &Advertisement)| wrong(said, pool.0, own);
    let good = || others().filter(|other| bad(other).is_empty()).map(|(from, _)| *from);
    if good().next().is_some() {
        return Ok(format!("{}, with the M flag", names(good(), "advertises", "advertise")));
    }
    let wrongs: Vec<_> = others().next().as_ref().map(bad).unwrap_or_default();
    bail!("{first} advertises {}", wrongs.join("; and "))
}

/// The problem if this service also sends advertisements.
fn beside<'a>(
    others: impl Iterator<Item = (&'a Ipv6Addr, &'a Advertisement)> + Clone,
    pool: LeasePool<Ipv6Addr>,
) -> Result<String> {
    let ends = |said: &Advertisement| {
        said.prefixes.iter().any(|prefix| holds(prefix, pool) && prefix.valid_secs == 0)
    };
    if let Some((from, _)) = others.clone().find(|(_, said)| ends(said)) {
        bail!(
            "{from} advertises the prefix of pool6 with a lifetime of 0, which removes it from machines: \
             switch that off"
        );
    }
    let managed = others.clone().any(|(_, said)| said.managed);
    let who = names(others.map(|(from, _)| *from), "advertises", "advertise");
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

/// The problem if only this router sends advertisements.
fn wrong(said: &Advertisement, pool: LeasePool<Ipv6Addr>, own: Option<IpNet>) -> Vec<String> {
    let mut all = Vec::new();
    if !said.managed {
        all.push(
            "without the M flag, so no machine asks DHCPv6 for an address: set it (AdvManagedFlag in \
             radvd), or let this service advertise (`advertise = true`)"
                .to_owned(),
        );
    }
    if said.router_secs == 0 {
        all.push(
            "as no router (a lifetime of 0), for which firmware waits ten seconds and more: set one \
             (AdvDefaultLifetime in radvd)"
                .to_owned(),
        );
    }
    let wanted = own.map_or_else(|| "of pool6".to_owned(), |own| own.trunc().to_string());
    let mut ours = said.prefixes.iter().filter(|prefix| holds(prefix, pool)).peekable();
    if said.prefixes.is_empty() {
        all.push(format!(
            "no prefix, so machines do not know that this service is on their link: add {wanted} there, \
             on-link"
        ));
    } else if ours.peek().is_none() {
        let others: Vec<_> = said
            .prefixes
            .iter()
            .map(|prefix| format!("{}/{}", prefix.address, prefix.len))
            .collect();
        all.push(format!(
            "other prefixes ({}) than that of pool6: add {wanted} there, or take a pool of theirs",
            others.join(", ")
        ));
    } else if ours.clone().all(|prefix| prefix.valid_secs == 0 || prefix.preferred_secs == 0) {
        all.push(
            "the prefix of pool6 with a lifetime of 0, so that machines drop it: set its lifetimes \
             (AdvValidLifetime and AdvPreferredLifetime in radvd)"
                .to_owned(),
        );
    } else if !ours.any(|prefix| prefix.on_link) {
        all.push(
            "the prefix of pool6 without the L flag, so machines do not know that this service is on their \
             link: set it (AdvOnLink in radvd)"
                .to_owned(),
        );
    }
    all
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
