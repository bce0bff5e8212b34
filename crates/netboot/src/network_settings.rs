//! `[[dhcp.network]]`: the settings of one network that the DHCP server answers on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use dhcp::leases::LeasePool;
use dhcp::v4::destination::SERVER;
use dhcp::v4::proxy::PXE_PORT;
use dhcp::v6::ports::SERVER_PORT;
use hardware::Mac;
use ipnet::{IpNet, Ipv4Net};
use serde::Deserialize;
use thiserror::Error;

/// A wrong setting of a DHCP network, in words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct WrongNetwork(String);

macro_rules! refuse {
    ($($words:tt)+) => { return Err(WrongNetwork(format!($($words)+))) };
}

macro_rules! ensure {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            refuse!($($words)+);
        }
    };
}

/// `[[dhcp.network]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSettings {
    /// The network interface, by name.
    pub interface: String,
    /// The IPv4 pool.
    pub pool: Option<Ipv4Range>,
    /// The IPv6 pool.
    pub pool6: Option<Ipv6Range>,
    /// Whether another server leases the IPv4 addresses, and this one only sends boot answers (ProxyDHCP).
    #[serde(default)]
    pub proxy: bool,
    /// The IPv4 router, if there is one.
    pub router: Option<Ipv4Addr>,
    /// Further IPv4 routes.
    #[serde(default)]
    pub routes: Vec<StaticRoute>,
    /// Name servers.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// The DNS search domain.
    pub domain: Option<String>,
    /// Time servers.
    #[serde(default)]
    pub ntp: Vec<IpAddr>,
    /// The MTU in bytes, if it is not 1500.
    pub mtu: Option<u16>,
    /// Whether to send router advertisements: without them no client uses DHCPv6. Off if another router sends them,
    /// with the M flag.
    #[serde(default = "yes")]
    pub advertise: bool,
    /// Whether this is the only DHCP server. Then machines need not wait for other servers, and a machine with an
    /// address from elsewhere gets a NAK at once.
    #[serde(default = "yes")]
    pub sole: bool,
    /// Whether unregistered machines get an address. They never get a boot answer.
    #[serde(default)]
    pub strangers: StrangerPolicy,
    /// Addresses of single machines.
    #[serde(default, rename = "reservation")]
    pub reservations: Vec<Reservation>,
    /// Subnets behind relays that send to this interface.
    #[serde(default)]
    pub relayed: Vec<RelayedSubnet>,
}

/// The treatment of machines that are no port of any node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StrangerPolicy {
    /// No answer: another server is responsible, or none.
    #[default]
    Ignore,
    /// An address, as long as enough remain for registered machines.
    Serve,
}

/// `{ to = "ADDRESS/LENGTH", via = "ADDRESS" }`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticRoute {
    /// The destination.
    pub to: Ipv4Net,
    /// The router.
    pub via: Ipv4Addr,
}

/// `[[dhcp.network.reservation]]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reservation {
    /// The machine's MAC address.
    pub mac: Mac,
    /// The address, IPv4 or IPv6, inside or outside of the pool.
    pub address: IpAddr,
}

/// `[[dhcp.network.relayed]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayedSubnet {
    /// The subnet.
    pub subnet: IpNet,
    /// The pool.
    pub pool: AddressRange,
    /// Its IPv4 router, if it has one.
    pub router: Option<Ipv4Addr>,
    /// Name servers; the network's if absent.
    pub dns: Option<Vec<IpAddr>>,
    /// DNS search domain; the network's if absent.
    pub domain: Option<String>,
    /// Time servers; the network's if absent.
    pub ntp: Option<Vec<IpAddr>>,
    /// MTU in bytes; the network's if absent.
    pub mtu: Option<u16>,
}

/// The settings for machines of a subnet besides addresses and routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetServices {
    /// IPv4 name servers.
    pub dns4: Vec<Ipv4Addr>,
    /// IPv6 name servers.
    pub dns6: Vec<Ipv6Addr>,
    /// The DNS search domain.
    pub domain: Option<String>,
    /// IPv4 time servers.
    pub ntp4: Vec<Ipv4Addr>,
    /// IPv6 time servers.
    pub ntp6: Vec<Ipv6Addr>,
    /// The MTU in bytes.
    pub mtu: Option<u16>,
}

fn yes() -> bool {
    true
}

impl NetworkSettings {
    /// A network on an interface, without any addresses.
    fn on(interface: &str) -> Self {
        Self {
            interface: interface.to_owned(),
            pool: None,
            pool6: None,
            proxy: false,
            router: None,
            routes: Vec::new(),
            dns: Vec::new(),
            domain: None,
            ntp: Vec::new(),
            mtu: None,
            advertise: true,
            sole: true,
            strangers: StrangerPolicy::default(),
            reservations: Vec::new(),
            relayed: Vec::new(),
        }
    }

    /// The IPv6 name servers.
    #[must_use]
    pub fn dns6(&self) -> Vec<Ipv6Addr> {
        only6(&self.dns)
    }

    /// The settings for machines on the interface's own link, or in a relayed subnet. The network's values apply
    /// where the subnet sets none.
    #[must_use]
    pub fn services(&self, relayed: Option<&RelayedSubnet>) -> SubnetServices {
        let dns = relayed.and_then(|relayed| relayed.dns.as_ref()).unwrap_or(&self.dns);
        let domain = relayed.and_then(|relayed| relayed.domain.as_ref()).or(self.domain.as_ref());
        let ntp = relayed.and_then(|relayed| relayed.ntp.as_ref()).unwrap_or(&self.ntp);
        SubnetServices {
            dns4: only4(dns),
            dns6: only6(dns),
            domain: domain.cloned(),
            ntp4: only4(ntp),
            ntp6: only6(ntp),
            mtu: relayed.and_then(|relayed| relayed.mtu).or(self.mtu),
        }
    }

    /// The name servers of every subnet of a family that has a pool.
    #[must_use]
    pub fn dns_everywhere(&self, is_four: bool) -> Vec<Vec<IpAddr>> {
        if self.ends(is_four).is_none() {
            return Vec::new();
        }
        let relayed =
            self.relayed.iter().filter(|relayed| relayed.subnet.addr().is_ipv4() == is_four);
        let all = std::iter::once(None).chain(relayed.map(Some));
        all.map(|relayed| {
            let SubnetServices { dns4, dns6, .. } = self.services(relayed);
            if is_four {
                dns4.into_iter().map(IpAddr::from).collect()
            } else {
                dns6.into_iter().map(IpAddr::from).collect()
            }
        })
        .collect()
    }

    /// All addresses that are given out, but for reserved ones: on the interface's own link and in relayed subnets, of both
    /// families.
    pub fn ranges(&self) -> impl Iterator<Item = AddressRange> {
        let four = self.pool.map(|pool| AddressRange::V4(pool.0));
        let six = self.pool6.map(|pool| AddressRange::V6(pool.0));
        four.into_iter().chain(six).chain(self.relayed.iter().map(|relayed| relayed.pool))
    }

    /// Whether machines get IPv6 addresses and answers alone. A relayed subnet has a family of the network's own.
    #[must_use]
    pub fn is_ipv6_alone(&self) -> bool {
        self.pool.is_none() && !self.proxy
    }

    /// Checks the settings for contradictions.
    ///
    /// # Errors
    /// The contradiction, and how to resolve it.
    pub fn check(&self) -> Result<(), WrongNetwork> {
        let interface = &self.interface;
        ensure!(
            self.pool.is_some() || self.pool6.is_some() || self.proxy,
            "the DHCP network on {interface} has neither pool nor pool6, and is not a proxy"
        );
        ensure!(
            self.pool.is_none() || !self.proxy,
            "the DHCP network on {interface} has a pool and is a proxy; a proxy gives no addresses"
        );
        for RelayedSubnet { subnet, pool, .. } in &self.relayed {
            let (has_own, ends) = match pool {
                AddressRange::V4(_) => (self.pool.is_some(), pool.ends()),
                AddressRange::V6(_) => (self.pool6.is_some(), pool.ends()),
            };
            ensure!(
                has_own,
                "the DHCP network on {interface} has the relayed subnet {subnet}, and so needs a \
                 pool of that family of its own"
            );
            ensure!(
                subnet.network() == subnet.addr(),
                "{subnet} is not a subnet: its address has bits beyond its prefix"
            );
            ensure!(
                ends.iter().all(|end| subnet.contains(end)),
                "the pool {}-{} is not in its subnet {subnet}",
                ends[0],
                ends[1]
            );
        }
        for (at, RelayedSubnet { subnet, .. }) in self.relayed.iter().enumerate() {
            if let Some(other) =
                self.relayed[..at].iter().find(|other| overlap(&other.subnet, subnet))
            {
                refuse!(
                    "the relayed subnets {} and {subnet} on {interface} overlap, and would give one address \
                     twice: leave one of them out",
                    other.subnet
                );
            }
        }
        for (at, Reservation { mac, address }) in self.reservations.iter().enumerate() {
            let twice = self.reservations[..at].iter().any(|other| other.address == *address);
            ensure!(
                !twice,
                "the address {address} on {interface} is reserved twice, for {mac} too"
            );
            let (is_given, family, pool) = match address {
                IpAddr::V4(_) => (self.pool.is_some(), "IPv4", "pool"),
                IpAddr::V6(_) => (self.pool6.is_some(), "IPv6", "pool6"),
            };
            ensure!(
                is_given,
                "the address {address} on {interface} is reserved for {mac}, and no {family} addresses are \
                 given there: set {pool}"
            );
        }
        Ok(())
    }

    /// Whether a service needs an IPv4 address on the interface.
    #[must_use]
    pub fn needs_v4(&self) -> bool {
        self.pool.is_some() || self.proxy
    }

    /// The UDP ports that a service has on the interface.
    pub fn server_ports(&self) -> impl Iterator<Item = u16> {
        let all = [
            (SERVER, self.needs_v4()),
            (PXE_PORT, self.proxy),
            (SERVER_PORT, self.pool6.is_some()),
        ];
        all.into_iter().filter(|(_, is_needed)| *is_needed).map(|(port, _)| port)
    }

    /// The first and the last address of a family's pool.
    #[must_use]
    pub fn ends(&self, is_four: bool) -> Option<[IpAddr; 2]> {
        if is_four {
            self.pool.map(|Ipv4Range(pool)| [pool.first.into(), pool.last.into()])
        } else {
            self.pool6.map(|Ipv6Range(pool)| [pool.first.into(), pool.last.into()])
        }
    }

    /// Checks the settings against the addresses of the interface; `own` is the source address of answers.
    ///
    /// # Errors
    /// The contradiction, and how to resolve it.
    pub fn check_on(&self, own: IpNet, addresses: &[IpNet]) -> Result<(), WrongNetwork> {
        let (interface, net) = (&self.interface, own.trunc());
        let Some([first, last]) = self.ends(own.addr().is_ipv4()) else { return Ok(()) };
        ensure!(
            net.contains(&first) && net.contains(&last),
            "the pool {first}-{last} is not in {net}, the network of {} on {interface}: set one that is, or give \
             the interface an address of the pool's network",
            own.addr()
        );
        let relayed = || self.relayed.iter().map(|relayed| relayed.subnet);
        if let Some(subnet) = relayed().find(|subnet| overlap(subnet, &net)) {
            refuse!(
                "the relayed subnet {subnet} overlaps {net}, the network of {interface} itself, whose machines \
                 need no relay: leave it out"
            );
        }
        for Reservation { mac, address } in &self.reservations {
            if address.is_ipv4() != net.addr().is_ipv4() {
                continue;
            }
            ensure!(
                net.contains(address) || relayed().any(|subnet| subnet.contains(address)),
                "the address {address} on {interface} is reserved for {mac}, and is neither in {net} nor in a \
                 relayed subnet: take one that is, or add a [[dhcp.network.relayed]]"
            );
            let is_ours = addresses.iter().any(|own| own.addr() == *address);
            let mut routers =
                self.relayed.iter().map(|relayed| relayed.router).chain([self.router]);
            ensure!(
                !is_ours && !routers.any(|router| router.map(IpAddr::from) == Some(*address)),
                "the address {address} on {interface} is reserved for {mac}, and is {}: take another one",
                if is_ours { "our own" } else { "the router's" }
            );
        }
        Ok(())
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

impl FromStr for NetworkSettings {
    type Err = WrongNetwork;

    /// `INTERFACE=FIRST-LAST`; with IPv6, `INTERFACE=FIRST-LAST,FIRST6-LAST6`; or `INTERFACE=proxy`.
    fn from_str(text: &str) -> Result<Self, WrongNetwork> {
        let Some((interface, pools)) = text.split_once('=') else {
            refuse!("{text:?} is not INTERFACE=FIRST-LAST, such as eth1=192.0.2.100-192.0.2.199");
        };
        let mut network = Self::on(interface);
        for pool in pools.split(',') {
            if pool == "proxy" {
                network.proxy = true;
                continue;
            }
            match pool.to_owned().try_into()? {
                AddressRange::V4(pool) => network.pool = Some(Ipv4Range(pool)),
                AddressRange::V6(pool) => network.pool6 = Some(Ipv6Range(pool)),
            }
        }
        network.check()?;
        Ok(network)
    }
}

fn only4(all: &[IpAddr]) -> Vec<Ipv4Addr> {
    let v4 = |address: &IpAddr| if let IpAddr::V4(v4) = address { Some(*v4) } else { None };
    all.iter().filter_map(v4).collect()
}

fn only6(all: &[IpAddr]) -> Vec<Ipv6Addr> {
    let v6 = |address: &IpAddr| if let IpAddr::V6(v6) = address { Some(*v6) } else { None };
    all.iter().filter_map(v6).collect()
}

/// `FIRST-LAST` of either family, both included.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub enum AddressRange {
    /// An IPv4 range.
    V4(LeasePool<Ipv4Addr>),
    /// An IPv6 range.
    V6(LeasePool<Ipv6Addr>),
}

impl AddressRange {
    /// The first and the last address.
    #[must_use]
    pub fn ends(&self) -> [IpAddr; 2] {
        match self {
            Self::V4(pool) => [pool.first.into(), pool.last.into()],
            Self::V6(pool) => [pool.first.into(), pool.last.into()],
        }
    }
}

impl TryFrom<String> for AddressRange {
    type Error = WrongNetwork;

    fn try_from(text: String) -> Result<Self, WrongNetwork> {
        if text.contains(':') {
            Ipv6Range::try_from(text).map(|pool| Self::V6(pool.0))
        } else {
            Ipv4Range::try_from(text).map(|pool| Self::V4(pool.0))
        }
    }
}

/// `FIRST-LAST`, both included.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Ipv4Range(pub LeasePool<Ipv4Addr>);

impl TryFrom<String> for Ipv4Range {
    type Error = WrongNetwork;

    fn try_from(text: String) -> Result<Self, WrongNetwork> {
        let (first, last) = ends::<Ipv4Addr>(&text, "192.0.2.100-192.0.2.199")?;
        Ok(Self(LeasePool { first, last }))
    }
}

/// `FIRST-LAST` of IPv6, both included.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Ipv6Range(pub LeasePool<Ipv6Addr>);

impl TryFrom<String> for Ipv6Range {
    type Error = WrongNetwork;

    fn try_from(text: String) -> Result<Self, WrongNetwork> {
        let (first, last) = ends::<Ipv6Addr>(&text, "2001:db8::100-2001:db8::1ff")?;
        Ok(Self(LeasePool { first, last }))
    }
}

fn ends<A: FromStr + Ord>(text: &str, example: &str) -> Result<(A, A), WrongNetwork> {
    let parse = |address: &str| address.trim().parse::<A>().ok();
    let ends = text.split_once('-');
    let Some((Some(first), Some(last))) = ends.map(|(a, b)| (parse(a), parse(b))) else {
        refuse!("{text:?} is not an address range of this family, such as {example}");
    };
    ensure!(first <= last, "the address range {text} ends before it begins");
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface_addresses::nearest;

    #[derive(Deserialize)]
    struct SettingsFile {
        dhcp: DhcpSection,
    }

    #[derive(Deserialize)]
    struct DhcpSection {
        network: Vec<NetworkSettings>,
    }

    /// The only network in a file of settings.
    fn network(text: &str) -> Result<NetworkSettings, String> {
        let file: SettingsFile = toml::from_str(text).map_err(|error| error.to_string())?;
        let [network] = &file.dhcp.network[..] else { return Err("one is expected".to_owned()) };
        network.check().map_err(|error| error.to_string())?;
        Ok(network.clone())
    }

    fn refusal(text: &str) -> String {
        network(text).unwrap_err()
    }

    #[test]
    fn a_relayed_subnet_holds_its_pool() {
        let relayed = |subnet: &str| {
            format!(
                "[[dhcp.network]]\ninterface = \"a\"\npool = \"10.0.0.1-10.0.0.2\"\n\
                 [[dhcp.network.relayed]]\nsubnet = \"{subnet}\"\npool = \"10.2.0.10-10.2.0.20\""
            )
        };

        let network = network(&relayed("10.2.0.0/24")).unwrap();
        assert!(matches!(network.relayed[0].subnet, IpNet::V4(_)));
        assert!(refusal(&relayed("10.3.0.0/24")).contains("is not in its subnet 10.3.0.0/24"));
        assert!(refusal(&relayed("10.2.0.1/24")).contains("bits beyond its prefix"));
        assert!(refusal(&relayed("10.2.0.0/33")).contains("subnet"));
        assert!(refusal(&relayed("2001:db8::/64")).contains("is not in its subnet"));
    }

    #[test]
    fn the_ranges_of_a_network_are_those_of_both_families_and_of_relayed_subnets() {
        let text = "[[dhcp.network]]\ninterface = \"a\"\npool = \"10.0.0.1-10.0.0.2\"\n\
                    pool6 = \"fd00::1-fd00::2\"\n\
                    [[dhcp.network.relayed]]\nsubnet = \"10.2.0.0/24\"\npool = \"10.2.0.10-10.2.0.20\"\n\
                    [[dhcp.network.relayed]]\nsubnet = \"fd02::/64\"\npool = \"fd02::10-fd02::20\"";

        let ranges: Vec<_> = network(text).unwrap().ranges().map(|range| range.ends()).collect();

        let range =
            |first: &str, last: &str| [first, last].map(|end| end.parse::<IpAddr>().unwrap());
        let expected = [
            range("10.0.0.1", "10.0.0.2"),
            range("fd00::1", "fd00::2"),
            range("10.2.0.10", "10.2.0.20"),
            range("fd02::10", "fd02::20"),
        ];
        assert_eq!(ranges, expected);
    }

    #[test]
    fn a_relayed_subnet_has_the_services_of_its_network_but_for_those_of_its_own() {
        let text = "[[dhcp.network]]\ninterface = \"a\"\npool = \"10.0.0.1-10.0.0.2\"\n\
                    dns = [\"10.0.0.53\", \"fd00::53\"]\ndomain = \"hall.example\"\nmtu = 9000\n\
                    [[dhcp.network.relayed]]\nsubnet = \"10.2.0.0/24\"\npool = \"10.2.0.10-10.2.0.20\"\n\
                    [[dhcp.network.relayed]]\nsubnet = \"10.3.0.0/24\"\npool = \"10.3.0.10-10.3.0.20\"\n\
                    dns = [\"10.3.0.53\"]\ndomain = \"far.example\"\nntp = [\"10.3.0.123\"]\nmtu = 1400";
        let network = network(text).unwrap();
        let [plain, own] = &network.relayed[..] else { panic!("two are expected") };
        let at = |last: &str| last.parse::<Ipv4Addr>().unwrap();

        assert_eq!(network.services(Some(plain)), network.services(None));
        let services = network.services(Some(own));
        assert_eq!(services.dns4, [at("10.3.0.53")]);
        assert_eq!(services.dns6, [Ipv6Addr::UNSPECIFIED; 0]);
        assert_eq!(services.domain.as_deref(), Some("far.example"));
        assert_eq!((services.ntp4, services.mtu), (vec![at("10.3.0.123")], Some(1_400)));
        let servers = network.dns_everywhere(true);
        assert_eq!(servers.concat(), ["10.0.0.53", "10.0.0.53", "10.3.0.53"].map(at));
        assert!(network.dns_everywhere(false).is_empty());
    }

    #[test]
    fn relayed_subnets_that_overlap_would_give_an_address_twice_and_are_refused() {
        let relayed = |subnets: &[&str]| {
            let mut text = "[[dhcp.network]]\ninterface = \"a\"\npool = \"10.0.0.1-10.0.0.2\"\n\
                            pool6 = \"fd00::1-fd00::2\"\n"
                .to_owned();
            for subnet in subnets {
                let net: IpNet = subnet.parse().unwrap();
                let address = net.hosts().next().unwrap();
                text += &format!(
                    "[[dhcp.network.relayed]]\nsubnet = \"{subnet}\"\npool = \"{address}-{address}\"\n"
                );
            }
            text
        };

        assert!(network(&relayed(&["10.2.0.0/24", "10.3.0.0/24", "fd02::/64"])).is_ok());
        for twice in [
            ["10.2.0.0/24", "10.2.0.0/24"],
            ["10.2.0.0/24", "10.2.0.128/25"],
            ["10.2.0.128/25", "10.2.0.0/16"],
            ["fd02::/48", "fd02::/64"],
        ] {
            let refused = refusal(&relayed(&twice));
            assert!(refused.contains("overlap, and would give one address twice"), "{refused}");
        }
    }

    #[test]
    fn a_reservation_of_a_family_that_no_addresses_are_given_of_is_refused() {
        let reserved = |pools: &str, address: &str| {
            format!(
                "[[dhcp.network]]\ninterface = \"a\"\n{pools}\n[[dhcp.network.reservation]]\n\
                 mac = \"52:54:00:00:00:01\"\naddress = \"{address}\""
            )
        };
        let (four, six) = ("pool = \"10.0.0.1-10.0.0.2\"", "pool6 = \"fd00::1-fd00::2\"");

        assert!(network(&reserved(four, "10.0.0.9")).is_ok());
        assert!(refusal(&reserved(four, "fd00::9")).contains("set pool6"));
        assert!(refusal(&reserved(six, "10.0.0.9")).contains("set pool"));
        assert!(refusal(&reserved("proxy = true", "10.0.0.9")).contains("no IPv4 addresses"));
    }

    #[test]
    fn what_does_not_go_with_the_interface_is_refused_in_words() {
        let addresses: Vec<IpNet> = ["192.0.2.1/24", "198.51.100.1/24", "fe80::1/64"]
            .map(|net| net.parse().unwrap())
            .into();
        let refused = |settings: &str| {
            let text = format!("[[dhcp.network]]\ninterface = \"a\"\n{settings}");
            let network = network(&text).unwrap();
            let four = addresses.iter().copied().filter(|net| net.addr().is_ipv4());
            // If no address fits the pool, the error names the first one.
            let own = nearest(four.clone(), network.ends(true)).or_else(|| nearest(four, None));
            let own = own.unwrap();
            network.check_on(own, &addresses).map_err(|error| error.to_string()).err()
        };
        let reserved = |address: &str| {
            let text = format!(
                "pool = \"192.0.2.10-192.0.2.20\"\nrouter = \"192.0.2.254\"\n\
                 [[dhcp.network.relayed]]\nsubnet = \"10.2.0.0/24\"\npool = \"10.2.0.10-10.2.0.20\"\n\
                 [[dhcp.network.reservation]]\nmac = \"52:54:00:00:00:01\"\naddress = \"{address}\""
            );
            refused(&text)
        };
        let relayed = "pool = \"192.0.2.10-192.0.2.20\"\n[[dhcp.network.relayed]]\n\
                       subnet = \"192.0.2.0/25\"\npool = \"192.0.2.30-192.0.2.40\"";

        assert_eq!(refused("pool = \"192.0.2.1-192.0.2.20\""), None, "ours is kept back");
        assert_eq!(refused("pool = \"198.51.100.9-198.51.100.20\""), None, "ours as well");
        let elsewhere = refused("pool = \"203.0.113.1-203.0.113.9\"").unwrap();
        assert!(
            elsewhere.contains("is not in 192.0.2.0/24, the network of 192.0.2.1"),
            "{elsewhere}"
        );
        assert!(refused("pool = \"192.0.2.250-192.0.3.9\"").unwrap().contains("is not in"));
        assert!(
            refused(relayed).unwrap().contains("overlaps 192.0.2.0/24, the network of a itself")
        );
        assert_eq!(reserved("192.0.2.99"), None);
        assert_eq!(reserved("10.2.0.99"), None);
        assert!(reserved("10.9.0.9").unwrap().contains("neither in 192.0.2.0/24 nor in a relayed"));
        assert!(reserved("192.0.2.1").unwrap().contains("is our own"));
        assert!(reserved("192.0.2.254").unwrap().contains("is the router's"));
    }

    #[test]
    fn only_a_whole_network_is_taken_from_the_command_line() {
        let refused = "eth1".parse::<NetworkSettings>().unwrap_err().to_string();
        assert!(refused.contains("INTERFACE=FIRST-LAST"), "{refused}");
    }
}
