//! The service's address on a network: the address on this host or, on a host without the interface, a guess from the
//! settings.

use std::error::Error;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use dhcp::leases::LeasePool;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;
use url::Url;

use crate::interface_addresses::server_duid;
use crate::network_plan::OwnAddresses;
use crate::network_settings::NetworkSettings;
use crate::urls::UrlSettings;

/// The service's address on an interface, with its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface, as the settings name it.
    pub interface: String,
    /// Such as `192.0.2.1/24`.
    pub address: IpNet,
}

impl FromStr for InterfaceAddress {
    type Err = NoInterfaceAddress;

    /// `INTERFACE=ADDRESS/LENGTH`
    fn from_str(text: &str) -> Result<Self, NoInterfaceAddress> {
        let parsed = text.split_once('=').and_then(|(interface, address)| {
            Some(Self { interface: interface.to_owned(), address: address.parse().ok()? })
        });
        parsed.ok_or_else(|| NoInterfaceAddress(text.to_owned()))
    }
}

/// The text is not an address on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not INTERFACE=ADDRESS/LENGTH, such as eth1=192.0.2.1/24")]
pub struct NoInterfaceAddress(String);

/// The reason why this host does not show the address: the caller's error.
pub type Unseen = Box<dyn Error + Send + Sync>;

/// The service's address is unknown.
#[derive(Debug, Error)]
#[error(
    "the service's address is unknown on {interface}: set it with `--address {interface}={example}`"
)]
pub struct UnknownVantage {
    interface: String,
    example: &'static str,
    #[source]
    unseen: Unseen,
}

/// The service's addresses in a network.
#[derive(Debug)]
pub struct NetworkVantage {
    /// The addresses.
    pub own: OwnAddresses,
    /// Whether the IPv4 address is a guess, so that any server identifier in a request is accepted as ours.
    pub accepts_any_v4_server_id: bool,
    /// Whether the DUID is invented, since the card's MAC address is unknown.
    pub accepts_any_v6_server_id: bool,
    /// A remark on each guess.
    pub guessed: Vec<String>,
}

/// The service's address in an IPv4 network.
#[derive(Debug)]
struct V4Vantage {
    /// The address, with its network.
    own: Ipv4Net,
    /// A remark if the address is a guess.
    guessed: Option<String>,
}

/// The service's address in an IPv6 network.
#[derive(Debug)]
struct V6Vantage {
    /// The address, with its network.
    own: Ipv6Net,
    /// The service's DUID.
    duid: Vec<u8>,
    /// Whether the DUID is invented, since the card's MAC address is unknown.
    accepts_any_server_id: bool,
    /// A remark if the address is a guess.
    guessed: Option<String>,
}

impl NetworkVantage {
    /// The addresses from `given`, otherwise those that this host shows, otherwise guesses. `here` are all addresses of
    /// the interface on this host. `seen4` and `seen6` are called if the network needs an address of that family.
    ///
    /// # Errors
    /// [`UnknownVantage`]
    pub fn find(
        settings: &NetworkSettings,
        urls: &UrlSettings,
        given: &[InterfaceAddress],
        here: &[IpNet],
        seen4: impl FnOnce() -> Result<Ipv4Net, Unseen>,
        seen6: impl FnOnce(LeasePool<Ipv6Addr>) -> Result<(Ipv6Net, Vec<u8>), Unseen>,
    ) -> Result<Self, UnknownVantage> {
        let mut vantage = Self {
            own: OwnAddresses::default(),
            accepts_any_v4_server_id: false,
            accepts_any_v6_server_id: false,
            guessed: Vec::new(),
        };
        if settings.needs_v4() {
            let V4Vantage { own, guessed } = V4Vantage::find(settings, urls, given, seen4())?;
            vantage.accepts_any_v4_server_id = guessed.is_some();
            vantage.guessed.extend(guessed);
            vantage.own.v4 = Some(own);
            vantage.own.all.extend(of_interface(here, own.into()));
        }
        if let Some(pool) = settings.pool6 {
            let V6Vantage { own, duid, accepts_any_server_id, guessed } =
                V6Vantage::find(settings, urls, given, seen6(pool.0))?;
            vantage.accepts_any_v6_server_id = accepts_any_server_id;
            vantage.guessed.extend(guessed);
            vantage.own.v6 = Some((own, duid));
            vantage.own.all.extend(of_interface(here, own.into()));
        }
        Ok(vantage)
    }
}

/// The addresses of the service's interface in the family of `own`: those `here`, unless an interface of the same name
/// on another host has `own`.
fn of_interface(here: &[IpNet], own: IpNet) -> Vec<IpNet> {
    if !here.contains(&own) {
        return vec![own];
    }
    let family = |net: &IpNet| net.addr().is_ipv4() == own.addr().is_ipv4();
    here.iter().copied().filter(family).collect()
}

impl V4Vantage {
    /// The address from `given`, otherwise the one that was `seen` on this host, otherwise a guess.
    ///
    /// # Errors
    /// [`UnknownVantage`]
    fn find(
        settings: &NetworkSettings,
        urls: &UrlSettings,
        given: &[InterfaceAddress],
        seen: Result<Ipv4Net, Unseen>,
    ) -> Result<Self, UnknownVantage> {
        let given = of(settings, given).find_map(|net| match net {
            IpNet::V4(net) => Some(net),
            IpNet::V6(_) => None,
        });
        if let Some(own) = given {
            return Ok(Self { own, guessed: None });
        }
        let unseen = match seen {
            Ok(own) if is_of(settings, own) => return Ok(Self { own, guessed: None }),
            Ok(own) => format!("{} on this host is not of the pool's network", own.addr()).into(),
            Err(unseen) => unseen,
        };
        let interface = &settings.interface;
        let guess = guess4(settings).and_then(|net| {
            let server = host4(urls.boot.as_ref(), net).unwrap_or_else(|| free4(settings, net));
            Some((net, Ipv4Net::new(server, net.prefix_len()).ok()?))
        });
        match guess {
            Some((net, own)) => Ok(Self { own, guessed: Some(words(interface, &net, &*unseen)) }),
            None => Err(UnknownVantage {
                interface: interface.clone(),
                example: "192.0.2.1/24",
                unseen,
            }),
        }
    }
}

impl V6Vantage {
    /// The same as [`V4Vantage::find`]; `seen` comes with the DUID.
    ///
    /// # Errors
    /// [`UnknownVantage`]
    fn find(
        settings: &NetworkSettings,
        urls: &UrlSettings,
        given: &[InterfaceAddress],
        seen: Result<(Ipv6Net, Vec<u8>), Unseen>,
    ) -> Result<Self, UnknownVantage> {
        let interface = &settings.interface;
        let made_up = |own, guessed| Self {
            own,
            duid: server_duid(interface, None),
            accepts_any_server_id: true,
            guessed: Some(guessed),
        };
        let given = of(settings, given).find_map(|net| match net {
            IpNet::V4(_) => None,
            IpNet::V6(net) => Some(net),
        });
        if let Some(own) = given {
            let guessed = format!(
                "{interface}: over IPv6 a server is known by the address of its card, which is not known here; so \
                 this service is taken to be whichever server a client names"
            );
            return Ok(made_up(own, guessed));
        }
        let unseen = match seen {
            Ok((own, duid)) if is_of6(settings, own) => {
                return Ok(Self { own, duid, accepts_any_server_id: false, guessed: None });
            }
            Ok((own, _)) => {
                format!("{} on this host is not of the network of pool6", own.addr()).into()
            }
            Err(unseen) => unseen,
        };
        let guess = guess6(settings).and_then(|net| {
            let url = urls.boot6.as_ref().or(urls.boot.as_ref());
            let server = host6(url, net).unwrap_or_else(|| first6(net));
            Some((net, Ipv6Net::new(server, net.prefix_len()).ok()?))
        });
        match guess {
            Some((net, own)) => Ok(made_up(own, words(interface, &net, &*unseen))),
            None => Err(UnknownVantage {
                interface: interface.clone(),
                example: "2001:db8::1/64",
                unseen,
            }),
        }
    }
}

fn of<'a>(
    settings: &NetworkSettings,
    given: &'a [InterfaceAddress],
) -> impl Iterator<Item = IpNet> + 'a {
    let interface = settings.interface.clone();
    given.iter().filter(move |given| given.interface == interface).map(|given| given.address)
}

/// Whether the address fits the settings: another host may have an interface of the same name.
fn is_of(settings: &NetworkSettings, net: Ipv4Net) -> bool {
    settings.pool.is_none_or(|pool| net.contains(&pool.0.first) && net.contains(&pool.0.last))
}

fn is_of6(settings: &NetworkSettings, net: Ipv6Net) -> bool {
    settings.pool6.is_none_or(|pool| net.contains(&pool.0.first) && net.contains(&pool.0.last))
}

/// The smallest network that contains pool and router, at least a /24.
fn guess4(settings: &NetworkSettings) -> Option<Ipv4Net> {
    let ends = settings.pool.map(|pool| [pool.0.first, pool.0.last]);
    let all: Vec<_> = ends.into_iter().flatten().chain(settings.router).collect();
    let first = *all.first()?;
    let nets = (0..=24).rev().filter_map(|len| Ipv4Net::new(first, len).ok());
    let mut nets = nets.map(|net| net.trunc());
    nets.find(|net| all.iter().all(|address| net.contains(address)))
}

/// The smallest network that contains the IPv6 pool, at least a /64.
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

/// An address that the settings do not use.
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

fn words(interface: &str, net: &dyn Display, unseen: &dyn Error) -> String {
    let (mut causes, mut cause) = (unseen.to_string(), unseen.source());
    while let Some(next) = cause {
        causes += &format!(": {next}");
        cause = next.source();
    }
    format!(
        "{interface}: {causes}; so its network is taken to be {net}, and this service to be whichever server a client names. \
         `--address {interface}=ADDRESS/LENGTH` says what it is"
    )
}

#[cfg(test)]
mod tests {

    use super::*;

    fn settings(more: &str) -> NetworkSettings {
        toml::from_str(&format!("interface = \"nosuch0\"\n{more}")).unwrap()
    }

    fn find4(more: &str, given: &[InterfaceAddress]) -> Result<V4Vantage, UnknownVantage> {
        V4Vantage::find(
            &settings(more),
            &UrlSettings::default(),
            given,
            Err("no such network interface".into()),
        )
    }

    #[test]
    fn the_network_of_an_interface_that_is_elsewhere_is_taken_from_its_settings_which_is_said() {
        let pool = "pool = \"192.0.2.100-192.0.2.199\"\nrouter = \"192.0.2.1\"";
        let V4Vantage { own, guessed } = find4(pool, &[]).unwrap();

        assert_eq!(own, "192.0.2.2/24".parse().unwrap());
        let guessed = guessed.unwrap();
        assert!(guessed.contains("no such network interface"), "{guessed}");
        assert!(guessed.contains("192.0.2.0/24"), "{guessed}");
        assert!(guessed.contains("--address nosuch0="), "{guessed}");

        let wide = "pool = \"10.0.1.10-10.0.1.20\"\nrouter = \"10.0.0.1\"";
        assert_eq!(find4(wide, &[]).unwrap().own.prefix_len(), 23);

        let six = settings("pool6 = \"2001:db8::100-2001:db8::1ff\"");
        let six =
            V6Vantage::find(&six, &UrlSettings::default(), &[], Err("no such interface".into()))
                .unwrap();
        assert_eq!(six.own, "2001:db8::1/64".parse().unwrap());
        assert!(six.accepts_any_server_id && six.guessed.is_some());
    }

    #[test]
    fn what_is_said_of_a_network_wins_over_what_could_be_thought_of_it() {
        let given = "nosuch0=192.0.2.9/25".parse().unwrap();
        let vantage = find4("pool = \"192.0.2.10-192.0.2.20\"", &[given]).unwrap();

        assert_eq!(vantage.own, "192.0.2.9/25".parse().unwrap());
        assert!(vantage.guessed.is_none());
    }

    #[test]
    fn a_proxy_of_which_nothing_is_known_has_to_be_told_its_address() {
        let refused = find4("proxy = true", &[]).unwrap_err();

        assert!(refused.to_string().contains("--address nosuch0="), "{refused}");
        assert_eq!(refused.source().unwrap().to_string(), "no such network interface");
    }

    #[test]
    fn the_addresses_of_an_interface_of_the_same_name_on_another_host_are_left_out() {
        let both = settings("pool = \"192.0.2.10-192.0.2.20\"\npool6 = \"fd00::10-fd00::1f\"");
        let here = ["192.0.2.1/24", "192.0.2.2/24", "fd00::1/64"].map(|net| net.parse().unwrap());
        let given =
            ["nosuch0=192.0.2.1/24", "nosuch0=fd00::9/64"].map(|text| text.parse().unwrap());
        let (seen4, seen6) = (|| Err("unused".into()), |_| Err("unused".into()));

        let vantage =
            NetworkVantage::find(&both, &UrlSettings::default(), &given, &here, seen4, seen6)
                .unwrap();

        let all: Vec<_> = vantage.own.all.iter().map(IpNet::to_string).collect();
        assert_eq!(all, ["192.0.2.1/24", "192.0.2.2/24", "fd00::9/64"]);
        assert!(!vantage.accepts_any_v4_server_id && vantage.accepts_any_v6_server_id);
    }

    #[test]
    fn a_place_is_an_interface_and_an_address_with_its_network() {
        let refused = "eth1".parse::<InterfaceAddress>().unwrap_err().to_string();

        assert!(refused.contains("INTERFACE=ADDRESS/LENGTH"), "{refused}");
        assert!("eth1=192.0.2.1".parse::<InterfaceAddress>().is_err());
    }
}
