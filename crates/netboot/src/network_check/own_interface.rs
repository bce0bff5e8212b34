//! Checks of this host's interface against a network's settings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dhcp::leases::LeasePool;
use ipnet::{IpNet, Ipv4Net};
use thiserror::Error;
use url::Url;

use crate::interface_addresses::{NoIpv4Address, Unusable, is_link_local, nearest, own4};
use crate::network_settings::{NetworkSettings, WrongNetwork};

/// The properties of an interface of this host.
#[derive(Clone, Debug, Default)]
pub struct OwnInterface {
    /// The name.
    pub name: String,
    /// The addresses of both families, with their networks.
    pub addresses: Vec<IpNet>,
    /// The IPv6 addresses that cannot be used.
    pub unusable: Vec<(Ipv6Addr, Unusable)>,
    /// The MTU in bytes, if known.
    pub mtu: Option<u32>,
    /// The bridge or bond that it is a part of.
    pub part_of: Option<String>,
}

/// The reason why a network cannot be served on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnfitInterface {
    /// A bridge or bond receives its packets.
    #[error(
        "{name} is a part of {master}, which receives all its packets, so no request would be received: serve on \
         {master}"
    )]
    Part {
        /// The interface.
        name: String,
        /// The bridge or bond.
        master: String,
    },
    /// No IPv4 address is usable.
    #[error(transparent)]
    NoIpv4Address(#[from] NoIpv4Address),
    /// The settings contradict the addresses.
    #[error(transparent)]
    Settings(#[from] WrongNetwork),
    /// It has no IPv4 address in the pool's network.
    #[error("no IPv4 address")]
    NoOwn4,
    /// It has no IPv6 address besides link-local ones.
    #[error("no IPv6 address: give it one, such as with `ip address add ADDRESS/LENGTH dev {0}`")]
    NoIpv6Address(String),
    /// No IPv6 address is in the network of the pool; this is the first address.
    #[error(
        "the pool {}-{} is not in {}, the network of {}",
        pool.first, pool.last, address.trunc(), address.addr()
    )]
    OtherIpv6Network {
        /// The pool.
        pool: LeasePool<Ipv6Addr>,
        /// The address, with its network.
        address: IpNet,
    },
    /// DHCPv6 has no source address.
    #[error(
        "no link-local IPv6 address, from which DHCPv6 and advertisements are sent: `ip link set {0} addrgenmode \
         eui64`, then down and up"
    )]
    NoLinkLocal(String),
    /// Another host has a needed address.
    #[error(
        "another host on the link also has {0} (duplicate address detection failed), so nothing is sent from it: \
         give one of the two another address"
    )]
    Duplicate(Ipv6Addr),
    /// Duplicate address detection has not finished for a needed address.
    #[error(
        "{0} cannot be used yet (tentative: the kernel still checks whether another host has it): check again in \
         some seconds"
    )]
    Tentative(Ipv6Addr),
    /// Machines would send longer packets than the interface does.
    #[error(
        "mtu = {set} is more than {name} itself carries ({own}), so longer packets of machines are lost: `ip link \
         set {name} mtu {set}`, or a smaller mtu"
    )]
    Mtu {
        /// The interface.
        name: String,
        /// The MTU in the settings, in bytes.
        set: u16,
        /// The interface's MTU in bytes.
        own: u32,
    },
    /// The router is outside of the pool's network.
    #[error(
        "the router {router} is not in {near}, the pool's network, so machines cannot reach it: set router to its \
         address there, or leave it out"
    )]
    RouterElsewhere {
        /// The router.
        router: Ipv4Addr,
        /// The pool's network.
        near: Ipv4Net,
    },
    /// Machines get no route to a server.
    #[error(
        "the {service} server {server} is not in {near}, and machines get no route to it: set router, or one of \
         the pool's network"
    )]
    ServerElsewhere {
        /// `name`, `time`.
        service: &'static str,
        /// The server.
        server: Ipv4Addr,
        /// The pool's network.
        near: Ipv4Net,
    },
    /// The agent port is on a loopback address.
    #[error(
        "listen in [agent] is {listen}, which no machine reaches, so no clean would start: set it to [::]:{}, or \
         url in [agent] to the URL by which machines reach it",
        listen.port()
    )]
    AgentLoopback {
        /// The address of the agent port.
        listen: SocketAddr,
    },
    /// The agent port is on another address than the one that agents call.
    #[error(
        "listen in [agent] is {listen} alone, and agents on {name} call {own}: set it to [::]:{}",
        listen.port()
    )]
    AgentElsewhere {
        /// The interface.
        name: String,
        /// The address of the agent port.
        listen: SocketAddr,
        /// The service's address on the interface.
        own: IpAddr,
    },
}

impl OwnInterface {
    /// Checks everything below; `agent_url` and `agent_listen` are the URL, if it is set, and the address of the agent
    /// port.
    ///
    /// # Errors
    /// [`UnfitInterface`]
    pub fn fits(
        &self,
        network: &NetworkSettings,
        agent_url: Option<&Url>,
        agent_listen: SocketAddr,
    ) -> Result<(), UnfitInterface> {
        self.is_whole()?;
        self.has(network)?;
        self.suits(network)?;
        self.agents_reach(network, agent_url, agent_listen)
    }

    /// Whether duplicate address detection of an address has not finished.
    #[must_use]
    pub fn has_tentative(&self) -> bool {
        self.unusable.iter().any(|(_, why)| *why == Unusable::Tentative)
    }

    /// Checks that the interface is not a part of a bridge or bond.
    ///
    /// # Errors
    /// [`UnfitInterface::Part`]
    pub fn is_whole(&self) -> Result<(), UnfitInterface> {
        match &self.part_of {
            Some(master) => {
                let (name, master) = (self.name.clone(), master.clone());
                Err(UnfitInterface::Part { name, master })
            }
            None => Ok(()),
        }
    }

    /// The service's address, IPv4 or IPv6.
    #[must_use]
    pub fn own(&self, network: &NetworkSettings, is_four: bool) -> Option<IpNet> {
        let family = |net: &IpNet| net.addr().is_ipv4() == is_four;
        nearest(self.addresses.iter().copied().filter(family), network.ends(is_four))
    }

    /// Checks that it has usable addresses in the pools' networks, and returns them in words.
    ///
    /// # Errors
    /// [`UnfitInterface`]
    pub fn has(&self, network: &NetworkSettings) -> Result<String, UnfitInterface> {
        let mut said = Vec::new();
        if network.needs_v4() {
            let all: Vec<Ipv4Net> = self.addresses.iter().filter_map(four).collect();
            let own = own4(&all, network.pool.map(|pool| pool.0))?;
            network.check_on(own.into(), &self.addresses)?;
            said.push(own.to_string());
        }
        if let Some(pool) = network.pool6 {
            let usable = |net: &&IpNet| net.addr().is_ipv6() && !is_link_local(net.addr());
            let any = self.addresses.iter().find(usable);
            let any = any.ok_or_else(|| UnfitInterface::NoIpv6Address(self.name.clone()))?;
            let other = UnfitInterface::OtherIpv6Network { pool: pool.0, address: *any };
            let own = self.own(network, false).ok_or(other)?;
            network.check_on(own, &self.addresses)?;
            self.can_use(own.addr())?;
            said.push(own.to_string());
        }
        Ok(said.join(", "))
    }

    /// DHCPv6 and advertisements are sent from the link-local address; URLs contain the other one.
    fn can_use(&self, own: IpAddr) -> Result<(), UnfitInterface> {
        let local =
            self.addresses.iter().map(IpNet::addr).find(|it| it.is_ipv6() && is_link_local(*it));
        let local = local.ok_or_else(|| UnfitInterface::NoLinkLocal(self.name.clone()))?;
        let needed = |address: &Ipv6Addr| [own, local].contains(&(*address).into());
        match self.unusable.iter().find(|(address, _)| needed(address)) {
            None => Ok(()),
            Some((address, Unusable::Duplicate)) => Err(UnfitInterface::Duplicate(*address)),
            Some((address, Unusable::Tentative)) => Err(UnfitInterface::Tentative(*address)),
        }
    }

    /// Checks that machines can reach the configured routers, servers and subnets, and that the MTU fits.
    ///
    /// # Errors
    /// [`UnfitInterface`]
    pub fn suits(&self, network: &NetworkSettings) -> Result<String, UnfitInterface> {
        if let (Some(set), Some(own)) = (network.mtu, self.mtu)
            && u32::from(set) > own
        {
            return Err(UnfitInterface::Mtu { name: self.name.clone(), set, own });
        }
        let fine = "match the interface".to_owned();
        if network.pool.is_none() {
            return Ok(fine);
        }
        let Some(IpNet::V4(own)) = self.own(network, true) else {
            return Err(UnfitInterface::NoOwn4);
        };
        let near = own.trunc();
        if let Some(router) = network.router.filter(|router| !near.contains(router)) {
            return Err(UnfitInterface::RouterElsewhere { router, near });
        }
        let routes: Vec<_> = network.routes.iter().filter(|it| near.contains(&it.via)).collect();
        let services = network.services(None);
        let is_reached = |address| {
            near.contains(&address)
                || network.router.is_some()
                || routes.iter().any(|route| route.to.contains(&address))
        };
        for (service, servers) in [("name", services.dns4), ("time", services.ntp4)] {
            if let Some(server) = servers.into_iter().find(|server| !is_reached(*server)) {
                return Err(UnfitInterface::ServerElsewhere { service, server, near });
            }
        }
        Ok(fine)
    }

    /// Checks that agents can reach the agent port.
    ///
    /// # Errors
    /// [`UnfitInterface`]
    pub fn agents_reach(
        &self,
        network: &NetworkSettings,
        agent_url: Option<&Url>,
        listen: SocketAddr,
    ) -> Result<(), UnfitInterface> {
        if agent_url.is_some() || listen.ip().is_unspecified() {
            return Ok(());
        }
        if listen.ip().is_loopback() {
            return Err(UnfitInterface::AgentLoopback { listen });
        }
        for (is_four, is_used) in [(true, network.needs_v4()), (false, network.pool6.is_some())] {
            let own = self.own(network, is_four).map(|net| net.addr()).filter(|_| is_used);
            if let Some(own) = own.filter(|own| *own != listen.ip()) {
                return Err(UnfitInterface::AgentElsewhere {
                    name: self.name.clone(),
                    listen,
                    own,
                });
            }
        }
        Ok(())
    }
}

fn four(net: &IpNet) -> Option<Ipv4Net> {
    if let IpNet::V4(net) = net { Some(*net) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: &str = "eth1=192.0.2.10-192.0.2.20";

    fn network(text: &str) -> NetworkSettings {
        text.parse().unwrap()
    }

    fn interface(addresses: &[&str]) -> OwnInterface {
        let addresses = addresses.iter().map(|net| net.parse().unwrap()).collect();
        OwnInterface { name: "eth1".to_owned(), addresses, ..OwnInterface::default() }
    }

    fn refusal<T: std::fmt::Debug>(said: Result<T, UnfitInterface>) -> String {
        said.unwrap_err().to_string()
    }

    #[test]
    fn a_pool_of_another_network_is_refused_and_one_with_our_address_is_not() {
        let interface = interface(&["169.254.1.1/16", "10.0.0.1/8", "192.0.2.1/24", "fe80::1/64"]);
        let said = |text| interface.has(&network(text)).map_err(|error| error.to_string());

        assert_eq!(said(POOL).unwrap(), "192.0.2.1/24");
        assert_eq!(said("eth1=proxy").unwrap(), "10.0.0.1/8");
        assert!(said("eth1=198.51.100.1-198.51.100.9").unwrap_err().contains("is in no network"));
        assert!(said("eth1=192.0.2.1-192.0.2.20").is_ok(), "it is kept back");
        assert!(said("eth1=fd77::1-fd77::2").unwrap_err().starts_with("no IPv6 address"));
    }

    #[test]
    fn an_ipv6_address_that_somebody_else_has_is_of_no_use() {
        let pool6 = network("eth1=fd77::10-fd77::20");
        let with = |address: &str, why| OwnInterface {
            unusable: vec![(address.parse().unwrap(), why)],
            ..interface(&["fd77::1/64", "fe80::1/64"])
        };

        assert_eq!(with("fd77::9", Unusable::Duplicate).has(&pool6).unwrap(), "fd77::1/64");
        let duplicate = refusal(with("fd77::1", Unusable::Duplicate).has(&pool6));
        assert!(duplicate.starts_with("another host on the link also has fd77::1"), "{duplicate}");
        let tentative = refusal(with("fe80::1", Unusable::Tentative).has(&pool6));
        assert!(tentative.starts_with("fe80::1 cannot be used yet"), "{tentative}");
        let no_local = refusal(interface(&["fd77::1/64"]).has(&pool6));
        assert!(no_local.starts_with("no link-local IPv6 address"), "{no_local}");
    }

    #[test]
    fn the_port_of_a_bridge_is_not_served_on() {
        let port = OwnInterface { part_of: Some("br0".to_owned()), ..interface(&[]) };

        assert!(refusal(port.is_whole()).ends_with("serve on br0"));
    }

    #[test]
    fn what_machines_cannot_reach_or_the_link_cannot_carry_is_named() {
        let interface = OwnInterface { mtu: Some(1_500), ..interface(&["192.0.2.1/24"]) };
        let pool = || network(POOL);
        let server = |address: &str| vec![address.parse().unwrap()];

        let mtu = NetworkSettings { mtu: Some(9_000), ..pool() };
        let router = NetworkSettings { router: Some([10, 0, 0, 1].into()), ..pool() };
        let dns = NetworkSettings { dns: server("198.51.100.53"), ..pool() };
        let routed = NetworkSettings { router: Some([192, 0, 2, 254].into()), ..dns.clone() };

        assert!(refusal(interface.suits(&mtu)).contains("than eth1 itself carries (1500)"));
        assert!(
            refusal(interface.suits(&router))
                .starts_with("the router 10.0.0.1 is not in 192.0.2.0/24")
        );
        assert!(
            refusal(interface.suits(&dns)).starts_with("the name server 198.51.100.53 is not in")
        );
        assert!(interface.suits(&routed).is_ok());
        assert!(interface.suits(&pool()).is_ok());
    }

    #[test]
    fn agents_must_be_able_to_call_the_address_that_they_get() {
        let interface = interface(&["192.0.2.1/24"]);
        let said = |listen: &str, url: Option<&Url>| {
            let reached = interface.agents_reach(&network(POOL), url, listen.parse().unwrap());
            reached.map_err(|error| error.to_string())
        };
        let url = "https://agents.example".parse().unwrap();

        assert!(said("127.0.0.1:6386", None).unwrap_err().contains("no machine reaches"));
        assert!(said("10.0.0.1:6386", None).unwrap_err().contains("agents on eth1 call 192.0.2.1"));
        assert!(said("[::]:6386", None).is_ok());
        assert!(said("192.0.2.1:6386", None).is_ok());
        assert!(said("127.0.0.1:6386", Some(&url)).is_ok());
    }
}
