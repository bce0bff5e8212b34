//! The responders of a network, each subnet with its leases, from the settings and the addresses of the interface.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use dhcp::address_family::AddressFamily;
use dhcp::leases::{LeasePool, LeaseTable};
use dhcp::limits::RateLimits;
use dhcp::v4::proxy::ProxyPort;
use dhcp::v6::client_identity::of_card;
use dhcp::v6::leases::Identity;
use dhcp::{v4, v6};
use hardware::Mac;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

use crate::foreign_pools::ForeignPools;
use crate::network_settings::{
    AddressRange, NetworkSettings, RelayedSubnet, Reservation, StaticRoute, SubnetServices,
};
use crate::proxy::ProxyResponder;
use crate::respond::Responder as _;
use crate::v4::{V4Responder, V4Subnet};
use crate::v6::{V6Responder, V6Subnet};

/// The pool of a subnet, and its reservations.
pub type PoolPlan<A> = (LeasePool<A>, Vec<(<A as AddressFamily>::Client, A)>);

/// The pool has no address that machines may use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the pool {}-{} on {interface} has no address that a machine may have",
    pool.first,
    pool.last
)]
pub struct EmptyPool {
    /// The interface.
    pub interface: String,
    /// The pool.
    pub pool: LeasePool<Ipv6Addr>,
}

/// The service's addresses on the interface of a network.
#[derive(Clone, Debug, Default)]
pub struct OwnAddresses {
    /// The source address of IPv4 answers, with its network; `None` if the network has neither a pool nor a proxy.
    pub v4: Option<Ipv4Net>,
    /// The IPv6 address with its network, and the service's DUID; `None` if the network has no IPv6 pool.
    pub v6: Option<(Ipv6Net, Vec<u8>)>,
    /// All addresses of the interface.
    pub all: Vec<IpNet>,
}

/// The responders of a network.
#[derive(Debug)]
pub struct NetworkResponders {
    /// DHCPv4.
    pub v4: Option<V4Responder>,
    /// ProxyDHCP on port 67.
    pub proxy: Option<ProxyResponder>,
    /// ProxyDHCP on port 4011.
    pub pxe: Option<ProxyResponder>,
    /// DHCPv6.
    pub v6: Option<V6Responder>,
}

impl NetworkResponders {
    /// The responders, each with limits of its own. `lease_secs` is the lease time in seconds. `open_leases4` and
    /// `open_leases6` get the name of a subnet's journal.
    ///
    /// # Errors
    /// [`EmptyPool`], and those of `open_leases4` and `open_leases6`.
    pub fn plan<E: From<EmptyPool>>(
        settings: &NetworkSettings,
        own: &OwnAddresses,
        lease_secs: u32,
        limits: impl Fn() -> RateLimits,
        open_leases4: impl FnMut(&str, PoolPlan<Ipv4Addr>) -> Result<LeaseTable<Ipv4Addr>, E>,
        open_leases6: impl FnMut(&str, PoolPlan<Ipv6Addr>) -> Result<LeaseTable<Ipv6Addr>, E>,
    ) -> Result<Self, E> {
        let mut all = Self { v4: None, proxy: None, pxe: None, v6: None };
        if let Some(own4) = own.v4 {
            all.v4 = v4_responder(settings, own4, &own.all, lease_secs, limits(), open_leases4)?;
            let beside = |port| proxy_responder(own4, lease_secs, port, limits());
            all.proxy = settings.proxy.then(|| beside(ProxyPort::Dhcp));
            all.pxe = settings.proxy.then(|| beside(ProxyPort::Pxe));
        }
        if let Some((own6, duid)) = &own.v6 {
            let (limits, ours) = (limits(), &own.all);
            all.v6 = v6_responder(settings, *own6, duid, ours, lease_secs, limits, open_leases6)?;
        }
        Ok(all)
    }

    /// The service's address of each family; IPv4 comes first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.as_ref().map(V4Responder::address);
        let v4 = v4.or_else(|| self.proxy.as_ref().map(ProxyResponder::address));
        let v6 = self.v6.as_ref().map(V6Responder::address);
        v4.map(IpAddr::from).into_iter().chain(v6.map(IpAddr::from))
    }

    /// Leaves clients with an address of these pools to the daemons that give them.
    pub fn set_foreign_pools(&mut self, pools: &ForeignPools) {
        if let Some(v4) = &mut self.v4 {
            v4.set_foreign_pools(pools);
        }
        if let Some(v6) = &mut self.v6 {
            v6.set_foreign_pools(pools);
        }
    }
}

/// The DHCPv4 responder of a network; `None` if the network has no pool. `own` is the source address of answers,
/// `ours` are all addresses of the interface. `open_leases` gets the name of a subnet's journal.
///
/// # Errors
/// The errors of `open_leases`.
fn v4_responder<E>(
    settings: &NetworkSettings,
    own: Ipv4Net,
    ours: &[IpNet],
    lease_secs: u32,
    limits: RateLimits,
    mut open_leases: impl FnMut(&str, PoolPlan<Ipv4Addr>) -> Result<LeaseTable<Ipv4Addr>, E>,
) -> Result<Option<V4Responder>, E> {
    let Some(pool) = settings.pool else { return Ok(None) };
    let interface = &settings.interface;
    let mut subnet = |net: Ipv4Net, router, pool, relayed, journal: &str| -> Result<_, E> {
        let mut leases = open_leases(journal, (pool, reservations(settings, net)))?;
        let routes = routes(settings, net);
        leases.keep_back(others(net, ours, router, &routes));
        let SubnetServices { dns4, domain, ntp4, mtu, .. } = settings.services(relayed);
        let about = v4::reply::Network {
            router,
            routes,
            dns: dns4,
            domain,
            ntp: ntp4,
            mtu,
            sole: settings.sole,
            ..v4::reply::Network::new(own.addr(), net.netmask(), lease_secs)
        };
        Ok(V4Subnet::new(net, leases, about))
    };
    let journal = format!("leases-{interface}.journal");
    let mut subnets = vec![subnet(own.trunc(), settings.router, pool.0, None, &journal)?];
    for relayed in &settings.relayed {
        let RelayedSubnet { subnet: net, pool, router, .. } = relayed;
        let (IpNet::V4(net), AddressRange::V4(pool)) = (net, pool) else { continue };
        let journal = format!("leases-{interface}-{}.journal", net.network());
        subnets.push(subnet(*net, *router, *pool, Some(relayed), &journal)?);
    }
    Ok(Some(V4Responder::new(subnets, settings.strangers, limits)))
}

/// The ProxyDHCP responder for one port of a network with another DHCP server.
fn proxy_responder(
    own: Ipv4Net,
    lease_secs: u32,
    port: ProxyPort,
    limits: RateLimits,
) -> ProxyResponder {
    let about = v4::reply::Network::new(own.addr(), own.netmask(), lease_secs);
    ProxyResponder::new(port, about, limits)
}

/// The DHCPv6 responder of a network; `None` if the network has no pool. `own` is the service's address with its
/// network, `duid` the service's DUID. The rest is as with [`v4_responder`].
///
/// # Errors
/// [`EmptyPool`], and those of `open_leases`.
fn v6_responder<E: From<EmptyPool>>(
    settings: &NetworkSettings,
    own: Ipv6Net,
    duid: &[u8],
    ours: &[IpNet],
    lease_secs: u32,
    limits: RateLimits,
    mut open_leases: impl FnMut(&str, PoolPlan<Ipv6Addr>) -> Result<LeaseTable<Ipv6Addr>, E>,
) -> Result<Option<V6Responder>, E> {
    let Some(pool) = settings.pool6 else { return Ok(None) };
    let interface = &settings.interface;
    let mut subnet =
        |net: Ipv6Net, pool: LeasePool<Ipv6Addr>, relayed, journal: &str| -> Result<_, E> {
            let mut reserved = reservations6(settings, net);
            reserved.extend(ours6(net, ours).zip(0..).map(kept_back6));
            let given = pool.on(net);
            if given.is_empty() {
                return Err(EmptyPool { interface: interface.clone(), pool }.into());
            }
            let leases = open_leases(journal, (given, reserved))?;
            let SubnetServices { dns6, domain, ntp6, .. } = settings.services(relayed);
            let about = v6::reply::Network {
                net,
                duid: duid.to_vec(),
                sole: settings.sole,
                dns: dns6,
                domain,
                ntp: ntp6,
                lease_secs,
                foreign_pools: Arc::default(),
            };
            Ok(V6Subnet { net, leases, about })
        };
    let journal = format!("leases6-{interface}.journal");
    let mut subnets = vec![subnet(own.trunc(), pool.0, None, &journal)?];
    for relayed in &settings.relayed {
        let RelayedSubnet { subnet: net, pool, .. } = relayed;
        let (IpNet::V6(net), AddressRange::V6(pool)) = (net, pool) else { continue };
        let journal = format!("leases6-{interface}-{}.journal", net.network());
        subnets.push(subnet(*net, *pool, Some(relayed), &journal)?);
    }
    Ok(Some(V6Responder::new(own.addr(), subnets, settings.strangers, limits)))
}

/// Addresses of a subnet in use by hosts that never request them: this host, the routers, and the network and
/// broadcast addresses.
fn others(
    net: Ipv4Net,
    ours: &[IpNet],
    router: Option<Ipv4Addr>,
    routes: &[v4::reply::Route],
) -> Vec<Ipv4Addr> {
    let mut all: Vec<_> = ours
        .iter()
        .filter_map(|own| if let IpNet::V4(own) = own { Some(own.addr()) } else { None })
        .chain(router)
        .chain(routes.iter().map(|route| route.via))
        .collect();
    // A /31 has neither (RFC 3021).
    if net.prefix_len() <= 30 {
        all.extend([net.network(), net.broadcast()]);
    }
    all.retain(|address| net.contains(address));
    all
}

/// This host's addresses in a subnet, which no client requests.
fn ours6(net: Ipv6Net, ours: &[IpNet]) -> impl Iterator<Item = Ipv6Addr> {
    let six = |own: &IpNet| match own {
        IpNet::V6(own) => Some(own.addr()),
        IpNet::V4(_) => None,
    };
    ours.iter().filter_map(six).filter(move |own| net.contains(own))
}

/// A reservation that no client can claim: no machine has such an identity.
fn kept_back6((address, number): (Ipv6Addr, u16)) -> (Identity, Ipv6Addr) {
    let mut identity = *b"kept back: ---  ";
    identity[14..].copy_from_slice(&number.to_be_bytes());
    (identity, address)
}

/// The reservations within the network.
fn reservations(settings: &NetworkSettings, net: Ipv4Net) -> Vec<(Mac, Ipv4Addr)> {
    let mut all = Vec::new();
    for Reservation { mac, address } in &settings.reservations {
        if let IpAddr::V4(address) = address
            && net.contains(address)
        {
            all.push((*mac, *address));
        }
    }
    all
}

/// The reservations within the IPv6 network.
fn reservations6(settings: &NetworkSettings, net: Ipv6Net) -> Vec<(Identity, Ipv6Addr)> {
    let mut all = Vec::new();
    for Reservation { mac, address } in &settings.reservations {
        if let IpAddr::V6(address) = address
            && net.contains(address)
        {
            all.push((of_card(*mac), *address));
        }
    }
    all
}

/// The routes whose gateways are within the subnet.
fn routes(settings: &NetworkSettings, net: Ipv4Net) -> Vec<v4::reply::Route> {
    let near = settings.routes.iter().filter(|route| net.contains(&route.via));
    near.map(|StaticRoute { to, via }| v4::reply::Route { to: *to, via: *via }).collect()
}

#[cfg(test)]
mod tests {
    use dhcp::leases::LeaseClaim;

    use super::*;

    fn ours() -> Vec<IpNet> {
        ["10.0.0.1/29", "fd00::1/64"].map(|net| net.parse().unwrap()).into()
    }

    #[test]
    fn neither_our_own_address_nor_a_routers_nor_one_that_means_all_is_ever_leased() {
        let net: Ipv4Net = "10.0.0.0/29".parse().unwrap();
        let (router, via) = (Ipv4Addr::new(10, 0, 0, 6), Ipv4Addr::new(10, 0, 0, 2));
        let routes = [v4::reply::Route { to: "192.0.2.0/24".parse().unwrap(), via }];
        let mut leases =
            LeaseTable::new(LeasePool { first: net.network(), last: net.broadcast() }, []);
        leases.keep_back(others(net, &ours(), Some(router), &routes));

        let given: Vec<_> = (0..9)
            .map_while(|client| {
                leases.offer(Mac([2, 0, 0, 0, 0, client]), None, LeaseClaim::Known, 0)
            })
            .map(|address| address.octets()[3])
            .collect();

        assert_eq!(given, [3, 4, 5]);
    }

    #[test]
    fn on_a_link_of_two_ends_every_address_is_somebodys() {
        let net: Ipv4Net = "10.9.0.0/31".parse().unwrap();

        assert_eq!(others(net, &ours(), None, &[]), [Ipv4Addr::UNSPECIFIED; 0]);
    }

    #[test]
    fn over_ipv6_neither_our_own_address_nor_one_of_any_router_or_server_is_ever_leased() {
        let net: Ipv6Net = "fd00::/64".parse().unwrap();
        let given = |first: &str, last: &str| {
            let pool = LeasePool { first: first.parse().unwrap(), last: last.parse().unwrap() };
            let ours = ours();
            let reserved = ours6(net, &ours).zip(0..).map(kept_back6);
            let mut leases = LeaseTable::new(pool.on(net), reserved);
            let clients = (0..9).map(|client| [client; 16]);
            let given =
                clients.map_while(|client| leases.offer(client, None, LeaseClaim::Known, 0));
            given.map(|address| address.to_string()).collect::<Vec<_>>()
        };

        assert_eq!(given("fd00::", "fd00::3"), ["fd00::2", "fd00::3"]);
        let anycast = given("fd00::fdff:ffff:ffff:ff7f", "fd00::fdff:ffff:ffff:ffff");
        assert_eq!(anycast, ["fd00::fdff:ffff:ffff:ff7f"]);
    }
}
