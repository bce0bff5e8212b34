//! Checks of this host's interface against a network's settings. Nothing is sent.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::{IpNet, Ipv4Net};
use netboot::interface_addresses::{Unusable, is_link_local, nearest, own4};
use netboot::network_settings::NetworkSettings;
use tokio::time::{Instant, sleep};

use crate::config::AgentConfig;
use crate::dhcp::{interface, unusable};

/// Time limit and interval of waiting for duplicate address detection (RFC 4862 §5.4).
const SETTLING: Duration = Duration::from_millis(2_500);
const GLANCE: Duration = Duration::from_millis(250);

/// The state of an interface.
#[derive(Clone, Debug, Default)]
pub(super) struct CheckedInterface {
    pub(super) addresses: Vec<IpNet>,
    unusable: Vec<(Ipv6Addr, Unusable)>,
    mtu: Option<u32>,
    part_of: Option<String>,
}

/// Checks that a network can be served on its interface.
///
/// # Errors
/// A description of the problem.
pub(in crate::check) fn fits(network: &NetworkSettings, agent: &AgentConfig) -> Result<()> {
    let host = CheckedInterface::of(&network.interface)?;
    host.is_whole(&network.interface)?;
    host.has(network)?;
    host.suits(network)?;
    host.agents_reach(network, agent)
}

impl CheckedInterface {
    pub(super) fn of(name: &str) -> Result<Self> {
        Ok(Self {
            addresses: interface::addresses(name)?,
            unusable: unusable(name),
            mtu: interface::mtu(name),
            part_of: interface::part_of(name),
        })
    }

    /// The state once its IPv6 addresses are usable, or known to be unusable.
    pub(super) async fn settled(name: &str) -> Result<Self> {
        let begun = Instant::now();
        loop {
            let host = Self::of(name)?;
            let waits = host.unusable.iter().any(|(_, why)| *why == Unusable::Tentative);
            if !waits || begun.elapsed() > SETTLING {
                return Ok(host);
            }
            sleep(GLANCE).await;
        }
    }

    /// Checks that the interface receives machines' packets.
    pub(super) fn interface(&self, name: &str) -> Result<String> {
        self.is_whole(name)?;
        interface::is_up(name)
    }

    /// Checks that the interface is not a part of a bridge or bond.
    fn is_whole(&self, name: &str) -> Result<()> {
        if let Some(master) = &self.part_of {
            bail!(
                "{name} is a part of {master}, which receives all its packets, so no request would be \
                 received: serve on {master}"
            );
        }
        Ok(())
    }

    /// The service's address, IPv4 or IPv6.
    pub(super) fn own(&self, network: &NetworkSettings, is_four: bool) -> Option<IpNet> {
        let ends = match is_four {
            true => network.pool.map(|pool| [pool.0.first.into(), pool.0.last.into()]),
            false => network.pool6.map(|pool| [pool.0.first.into(), pool.0.last.into()]),
        };
        let family = |net: &IpNet| net.addr().is_ipv4() == is_four;
        nearest(self.addresses.iter().copied().filter(family), ends)
    }

    /// Checks that it has usable addresses in the pools' networks.
    pub(super) fn has(&self, network: &NetworkSettings) -> Result<String> {
        let name = &network.interface;
        let mut said = Vec::new();
        if network.pool.is_some() || network.proxy {
            let all: Vec<Ipv4Net> = self.addresses.iter().filter_map(four).collect();
            let own = own4(&all, network.pool.map(|pool| pool.0))?;
            network.check_on(own.into(), &self.addresses)?;
            said.push(own.to_string());
        }
        if let Some(pool) = network.pool6 {
            let (first, last) = (pool.0.first, pool.0.last);
            let usable = |net: &&IpNet| net.addr().is_ipv6() && !is_link_local(net.addr());
            let any = self.addresses.iter().find(usable).with_context(|| {
                format!(
                    "no IPv6 address: give it one, such as with `ip address add ADDRESS/LENGTH dev {name}`"
                )
            })?;
            let own = self.own(network, false).with_context(|| {
                format!(
                    "the pool {first}-{last} is not in {}, the network of {}",
                    any.trunc(),
                    any.addr()
                )
            })?;
            network.check_on(own, &self.addresses)?;
            self.can_use(name, own.addr())?;
            said.push(own.to_string());
        }
        Ok(said.join(", "))
    }

    /// DHCPv6 and advertisements are sent from the link-local address; URLs contain the other one.
    fn can_use(&self, name: &str, own: IpAddr) -> Result<()> {
        let local =
            self.addresses.iter().map(IpNet::addr).find(|it| it.is_ipv6() && is_link_local(*it));
        let local = local.with_context(|| {
            format!(
                "no link-local IPv6 address, from which DHCPv6 and advertisements are sent: `ip link set \
                 {name} addrgenmode eui64`, then down and up"
            )
        })?;
        let needed = |address: &Ipv6Addr| [own, local].contains(&(*address).into());
        match self.unusable.iter().find(|(address, _)| needed(address)) {
            None => Ok(()),
            Some((address, Unusable::Duplicate)) => bail!(
                "another host on the link also has {address} (duplicate address detection failed), so nothing \
                 is sent from it: give one of the two another address"
            ),
            Some((address, Unusable::Tentative)) => bail!(
                "{address} cannot be used yet (tentative: the kernel still checks whether another host has \
                 it): check again in some seconds"
            ),
        }
    }

    /// Checks that machines can reach the configured routers, servers and subnets, and that the MTU fits.
    pub(super) fn suits(&self, network: &NetworkSettings) -> Result<String> {
        let name = &network.interface;
        if let (Some(told), Some(has)) = (network.mtu, self.mtu) {
            ensure!(
                u32::from(told) <= has,
                "mtu = {told} is more than {name} itself carries ({has}), so longer packets of machines are \
                 lost: `ip link set {name} mtu {told}`, or a smaller mtu"
            );
        }
        if network.pool.is_none() {
            return Ok("match the interface".to_owned());
        }
        let Some(IpNet::V4(own)) = self.own(network, true) else { bail!("no IPv4 address") };
        let near = own.trunc();
        if let Some(router) = network.router {
            ensure!(
                near.contains(&router),
                "the router {router} is not in {near}, the pool's network, so machines cannot reach it: \
                 set router to its address there, or leave it out"
            );
        }
        let routes: Vec<_> = network.routes.iter().filter(|it| near.contains(&it.via)).collect();
        let told = network.services(None);
        let is_reached = |address| {
            near.contains(&address)
                || network.router.is_some()
                || routes.iter().any(|route| route.to.contains(&address))
        };
        for (what, all) in [("name", told.dns4), ("time", told.ntp4)] {
            if let Some(server) = all.into_iter().find(|server| !is_reached(*server)) {
                bail!(
                    "the {what} server {server} is not in {near}, and machines get no route to it: set \
                     router, or one of the pool's network"
                );
            }
        }
        Ok("match the interface".to_owned())
    }

    /// Checks that agents can reach the agent port.
    pub(super) fn agents_reach(
        &self,
        network: &NetworkSettings,
        agent: &AgentConfig,
    ) -> Result<()> {
        let listen = agent.listen;
        if agent.url.is_some() || listen.ip().is_unspecified() {
            return Ok(());
        }
        ensure!(
            !listen.ip().is_loopback(),
            "listen in [agent] is {listen}, which no machine reaches, so no clean would start: set it \
             to [::]:{}, or url in [agent] to the URL by which machines reach it",
            listen.port()
        );
        for is_four in [true, false] {
            let is_used = if is_four {
                network.pool.is_some() || network.proxy
            } else {
                network.pool6.is_some()
            };
            let own = self.own(network, is_four).map(|net| net.addr()).filter(|_| is_used);
            if let Some(own) = own.filter(|own| *own != listen.ip()) {
                bail!(
                    "listen in [agent] is {listen} alone, and agents on {} call {own}: set it to [::]:{}",
                    network.interface,
                    listen.port()
                );
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

    fn host(addresses: &[&str]) -> CheckedInterface {
        let addresses = addresses.iter().map(|net| net.parse().unwrap()).collect();
        CheckedInterface { addresses, ..CheckedInterface::default() }
    }

    fn refusal(said: Result<String>) -> String {
        said.unwrap_err().to_string()
    }

    #[test]
    fn a_pool_of_another_network_is_refused_and_one_with_our_address_is_not() {
        let host = host(&["169.254.1.1/16", "10.0.0.1/8", "192.0.2.1/24", "fe80::1/64"]);
        let said = |text| host.has(&network(text)).map_err(|error| error.to_string());

        assert_eq!(said(POOL).unwrap(), "192.0.2.1/24");
        assert_eq!(said("eth1=proxy").unwrap(), "10.0.0.1/8");
        assert!(said("eth1=198.51.100.1-198.51.100.9").unwrap_err().contains("is in no network"));
        assert!(said("eth1=192.0.2.1-192.0.2.20").is_ok(), "it is kept back");
        assert!(said("eth1=fd77::1-fd77::2").unwrap_err().starts_with("no IPv6 address"));
    }

    #[test]
    fn an_ipv6_address_that_somebody_else_has_is_of_no_use() {
        let pool6 = network("eth1=fd77::10-fd77::20");
        let with = |address: &str, why| CheckedInterface {
            unusable: vec![(address.parse().unwrap(), why)],
            ..host(&["fd77::1/64", "fe80::1/64"])
        };

        assert_eq!(with("fd77::9", Unusable::Duplicate).has(&pool6).unwrap(), "fd77::1/64");
        let duplicate = refusal(with("fd77::1", Unusable::Duplicate).has(&pool6));
        assert!(duplicate.starts_with("another host on the link also has fd77::1"), "{duplicate}");
        let tentative = refusal(with("fe80::1", Unusable::Tentative).has(&pool6));
        assert!(tentative.starts_with("fe80::1 cannot be used yet"), "{tentative}");
        let no_local = refusal(host(&["fd77::1/64"]).has(&pool6));
        assert!(no_local.starts_with("no link-local IPv6 address"), "{no_local}");
    }

    #[test]
    fn the_port_of_a_bridge_is_no_interface_to_serve_on() {
        let port =
            CheckedInterface { part_of: Some("br0".to_owned()), ..CheckedInterface::default() };

        assert!(refusal(port.interface("eth1")).ends_with("serve on br0"));
    }

    #[test]
    fn what_machines_cannot_reach_or_the_link_cannot_carry_is_named() {
        let host = CheckedInterface { mtu: Some(1_500), ..host(&["192.0.2.1/24"]) };
        let pool = || network(POOL);
        let server = |address: &str| vec![address.parse().unwrap()];

        let mtu = NetworkSettings { mtu: Some(9_000), ..pool() };
        let router = NetworkSettings { router: Some([10, 0, 0, 1].into()), ..pool() };
        let dns = NetworkSettings { dns: server("198.51.100.53"), ..pool() };
        let routed = NetworkSettings { router: Some([192, 0, 2, 254].into()), ..dns.clone() };

        assert!(refusal(host.suits(&mtu)).contains("than eth1 itself carries (1500)"));
        assert!(
            refusal(host.suits(&router)).starts_with("the router 10.0.0.1 is not in 192.0.2.0/24")
        );
        assert!(refusal(host.suits(&dns)).starts_with("the name server 198.51.100.53 is not in"));
        assert!(host.suits(&routed).is_ok());
        assert!(host.suits(&pool()).is_ok());
    }

    #[test]
    fn agents_must_be_able_to_call_where_they_are_told_to() {
        let host = host(&["192.0.2.1/24"]);
        let at = |listen: &str| AgentConfig {
            listen: listen.parse().unwrap(),
            ..AgentConfig::default()
        };
        let said = |agent: &AgentConfig| {
            host.agents_reach(&network(POOL), agent).map_err(|error| error.to_string())
        };
        let behind = AgentConfig {
            url: Some("https://agents.example".parse().unwrap()),
            ..at("127.0.0.1:6386")
        };

        assert!(said(&at("127.0.0.1:6386")).unwrap_err().contains("no machine reaches"));
        assert!(said(&at("10.0.0.1:6386")).unwrap_err().contains("agents on eth1 call 192.0.2.1"));
        assert!(said(&at("[::]:6386")).is_ok());
        assert!(said(&at("192.0.2.1:6386")).is_ok());
        assert!(said(&behind).is_ok());
    }
}
