//! Where the service stands on a network: as this host has it, or, on a host that does not have the
//! interface, as the settings let one think.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use anyhow::{Context as _, Error, Result};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netboot::network_settings::NetworkSettings;
use url::Url;

use super::super::plan;
use super::super::socket::Link;
use crate::config;

/// Our address on an interface, with the network that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The interface, as the settings name it.
    pub interface: String,
    /// Such as `192.0.2.1/24`.
    pub address: IpNet,
}

impl FromStr for Place {
    type Err = Error;

    /// `INTERFACE=ADDRESS/LENGTH`
    fn from_str(text: &str) -> Result<Self> {
        let place = text.split_once('=').and_then(|(interface, address)| {
            Some(Self { interface: interface.to_owned(), address: address.parse().ok()? })
        });
        place.with_context(|| {
            format!("{text:?} is not INTERFACE=ADDRESS/LENGTH, such as eth1=192.0.2.1/24")
        })
    }
}

/// Where we are in an IPv4 network.
#[derive(Debug)]
pub(super) struct Known4 {
    /// Our address, with its network.
    pub(super) own: Ipv4Net,
    /// What is said of it, where it is only guessed.
    pub(super) guessed: Option<String>,
}

/// The same of IPv6.
#[derive(Debug)]
pub(super) struct Known6 {
    pub(super) link: Link,
    /// Whether our identifier is not known, which is made of the card's address.
    pub(super) nameless: bool,
    pub(super) guessed: Option<String>,
}

impl Known4 {
    pub(super) fn find(
        settings: &NetworkSettings,
        boot: &config::Boot,
        places: &[Place],
    ) -> Result<Self> {
        let told = of(settings, places).find_map(|net| match net {
            IpNet::V4(net) => Some(net),
            IpNet::V6(_) => None,
        });
        if let Some(net) = told {
            return Ok(Self { own: net, guessed: None });
        }
        let missing = match plan::own4(settings) {
            Ok(own) if is_of(settings, own) => return Ok(Self { own, guessed: None }),
            Ok(own) => {
                Error::msg(format!("{} on this host is not of the pool's network", own.addr()))
            }
            Err(error) => error,
        };
        let Some(net) = guess4(settings) else {
            return Err(missing.context(unknown(&settings.interface, "192.0.2.1/24")));
        };
        let server = host4(boot.url.as_ref(), net).unwrap_or_else(|| free4(settings, net));
        let guessed = Some(words(&settings.interface, &net, &missing));
        Ok(Self { own: Ipv4Net::new(server, net.prefix_len())?, guessed })
    }
}

impl Known6 {
    pub(super) fn find(
        settings: &NetworkSettings,
        boot: &config::Boot,
        places: &[Place],
    ) -> Result<Self> {
        let interface = &settings.interface;
        let link = |net: Ipv6Net| Link {
            name: interface.clone(),
            index: 0,
            address: net.addr(),
            prefix_len: net.prefix_len(),
            mac: None,
        };
        let told = of(settings, places).find_map(|net| match net {
            IpNet::V4(_) => None,
            IpNet::V6(net) => Some(net),
        });
        if let Some(net) = told {
            let guessed = Some(format!(
                "{interface}: over IPv6 a server is known by the address of its card, which is not \
                 known here; so this service is taken to be whichever server a client names"
            ));
            return Ok(Self { link: link(net), nameless: true, guessed });
        }
        let here = match settings.pool6 {
            Some(pool) => Link::of_pool(interface, pool.0),
            None => Link::find(interface),
        };
        let missing = match here {
            Ok(link) if is_of6(settings, &link) => {
                return Ok(Self { link, nameless: false, guessed: None });
            }
            Ok(Link { address, .. }) => {
                Error::msg(format!("{address} on this host is not of the network of pool6"))
            }
            Err(error) => error,
        };
        let Some(net) = guess6(settings) else {
            return Err(missing.context(unknown(interface, "2001:db8::1/64")));
        };
        let url = boot.url6.as_ref().or(boot.url.as_ref());
        let server = host6(url, net).unwrap_or_else(|| first6(net));
        let guessed = Some(words(interface, &net, &missing));
        let net = Ipv6Net::new(server, net.prefix_len())?;
        Ok(Self { link: link(net), nameless: true, guessed })
    }
}

fn of<'a>(settings: &NetworkSettings, places: &'a [Place]) -> impl Iterator<Item = IpNet> + 'a {
    let interface = settings.interface.clone();
    places.iter().filter(move |place| place.interface == interface).map(|place| place.address)
}

/// Another host may have an interface of that name as well.
fn is_of(settings: &NetworkSettings, net: Ipv4Net) -> bool {
    settings.pool.is_none_or(|pool| net.contains(&pool.0.first) && net.contains(&pool.0.last))
}

fn is_of6(settings: &NetworkSettings, link: &Link) -> bool {
    let Ok(net) = link.net() else { return false };
    settings.pool6.is_none_or(|pool| net.contains(&pool.0.first) && net.contains(&pool.0.last))
}

/// The smallest network that holds pool and router, a /24 at least.
fn guess4(settings: &NetworkSettings) -> Option<Ipv4Net> {
    let ends = settings.pool.map(|pool| [pool.0.first, pool.0.last]);
    let all: Vec<_> = ends.into_iter().flatten().chain(settings.router).collect();
    let first = *all.first()?;
    let nets = (0..=24).rev().filter_map(|len| Ipv4Net::new(first, len).ok());
    let mut nets = nets.map(|net| net.trunc());
    nets.find(|net| all.iter().all(|address| net.contains(address)))
}

/// The same of IPv6, a /64 at least.
fn guess6(settings: &NetworkSettings) -> Option<Ipv6Net> {
    let pool = settings.pool6?.0;
    let nets = (0..=64).rev().filter_map(|len| Ipv6Net::new(pool.first, len).ok());
    let mut nets = nets.map(|net| net.trunc());
    nets.find(|net| net.contains(&pool.last))
}

fn host4(url: Option<&Url>, net: Ipv4Net) -> Option<Ipv4Addr> {
    let host: Ipv4Addr = url?.host_str()?.parse().ok()?;
    net.contains(&host).then_some(host)
}

fn host6(url: Option<&Url>, net: Ipv6Net) -> Option<Ipv6Addr> {
    let host: Ipv6Addr = url?.host_str()?.trim_matches(['[', ']']).parse().ok()?;
    net.contains(&host).then_some(host)
}

/// An address that is nobody else's, as far as the settings say.
fn free4(settings: &NetworkSettings, net: Ipv4Net) -> Ipv4Addr {
    let is_pooled = |host: &Ipv4Addr| {
        settings.pool.is_some_and(|pool| (pool.0.first..=pool.0.last).contains(host))
    };
    let is_taken = |host: &Ipv4Addr| {
        settings.router == Some(*host) || settings.dns.contains(&IpAddr::V4(*host))
    };
    net.hosts().find(|host| !is_pooled(host) && !is_taken(host)).unwrap_or_else(|| net.network())
}

fn first6(net: Ipv6Net) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(net.network()) | 1)
}

fn words(interface: &str, net: &dyn std::fmt::Display, missing: &Error) -> String {
    format!(
        "{interface}: {missing:#}; so its network is taken to be {net}, and this service to be whichever \
         server a client names. `--address {interface}=ADDRESS/LENGTH` says what it is"
    )
}

fn unknown(interface: &str, example: &str) -> String {
    format!(
        "it is not known which address the service has on {interface}: say it with \
         `--address {interface}={example}`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn settings(more: &str) -> NetworkSettings {
        let text = format!("[[dhcp.network]]\ninterface = \"nosuch0\"\n{more}");
        let config: Config = text.parse().unwrap();
        config.dhcp.networks[0].clone()
    }

    fn find4(more: &str, places: &[Place]) -> Result<Known4> {
        Known4::find(&settings(more), &config::Boot::default(), places)
    }

    #[test]
    fn the_network_of_an_interface_that_is_elsewhere_is_taken_from_its_settings_which_is_said() {
        let pool = "pool = \"192.0.2.100-192.0.2.199\"\nrouter = \"192.0.2.1\"";
        let Known4 { own, guessed } = find4(pool, &[]).unwrap();

        assert_eq!(own, "192.0.2.2/24".parse().unwrap());
        let guessed = guessed.unwrap();
        assert!(guessed.contains("no such network interface"), "{guessed}");
        assert!(guessed.contains("192.0.2.0/24"), "{guessed}");
        assert!(guessed.contains("--address nosuch0="), "{guessed}");

        let wide = "pool = \"10.0.1.10-10.0.1.20\"\nrouter = \"10.0.0.1\"";
        assert_eq!(find4(wide, &[]).unwrap().own.prefix_len(), 23);

        let six = settings("pool6 = \"2001:db8::100-2001:db8::1ff\"");
        let Known6 { link, nameless, guessed } =
            Known6::find(&six, &config::Boot::default(), &[]).unwrap();
        assert_eq!((link.address, link.prefix_len), ("2001:db8::1".parse().unwrap(), 64));
        assert!(nameless && guessed.is_some());
    }

    #[test]
    fn what_is_said_of_a_network_wins_over_what_could_be_thought_of_it() {
        let place = "nosuch0=192.0.2.9/25".parse().unwrap();
        let known = find4("pool = \"192.0.2.10-192.0.2.20\"", &[place]).unwrap();

        assert_eq!(known.own, "192.0.2.9/25".parse().unwrap());
        assert!(known.guessed.is_none());
    }

    #[test]
    fn a_proxy_of_which_nothing_is_known_has_to_be_told_its_address() {
        let refused = format!("{:#}", find4("proxy = true", &[]).unwrap_err());

        assert!(refused.contains("--address nosuch0="), "{refused}");
    }

    #[test]
    fn a_place_is_an_interface_and_an_address_with_its_network() {
        let refused = "eth1".parse::<Place>().unwrap_err().to_string();

        assert!(refused.contains("INTERFACE=ADDRESS/LENGTH"), "{refused}");
        assert!("eth1=192.0.2.1".parse::<Place>().is_err());
    }
}
