//! Every setting of the daemon, its default, and its check.

mod provider;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context as _, Result, bail, ensure};
use dhcp::leases::LeasePool;
use dhcp::limits::{Rate, Rates};
use hardware::Mac;
use ipnet::{IpNet, Ipv4Net};
use jiff::SignedDuration;
use netboot::urls::{UrlSettings, Urls};
use nix::unistd::{Uid, gethostname};
use provision::Policy;
use provision::boot::HttpLoader;
use serde::Deserialize;
use url::{Host, Url};

pub use self::provider::{Dnsmasq, Kea, Neutron, Provider};
use crate::artifacts;
use crate::http_server::{BodyLimits, ConnectionLimits};

/// All settings, as the TOML file has them. An empty file is a good one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What this daemon calls itself towards others on the same database; the host's name.
    pub host: Option<String>,
    /// Where it keeps its state: `$STATE_DIRECTORY`, or `/var/lib/ferroboot` for root, or
    /// `~/.local/state/ferroboot`.
    pub state_dir: Option<PathBuf>,
    /// Where nodes are kept.
    pub database: Database,
    /// Ironic's API, for operators.
    pub api: Api,
    /// The part of it that machines need.
    pub agent: Agent,
    /// The boot listener.
    pub boot: Boot,
    /// Images that nodes name.
    pub images: Images,
    /// DHCP.
    pub dhcp: Dhcp,
    /// Cleaning.
    pub clean: Clean,
    /// Deployments.
    pub deploy: Deploy,
    /// Power.
    pub power: Power,
    /// What peers may do on the HTTP ports.
    pub limits: Limits,
}

/// `[database]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `sqlite:///path` or `postgres://…`; by default `ferroboot.db` in the state directory.
    pub url: Option<String>,
}

/// `[api]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Loopback by default: the API switches machines. Elsewhere it needs `users`, or `noauth`.
    pub listen: SocketAddr,
    /// Where clients reach it, for links in answers; by default, where each one did.
    pub public_url: Option<Url>,
    /// Names by which clients reach it, beside `localhost`, IP addresses and that of `public_url`.
    pub hosts: Vec<String>,
    /// The file of users, as `htpasswd -B` writes it (Ironic's `http_basic_auth_user_file`); without one, whoever
    /// reaches the API may do everything.
    pub users: Option<PathBuf>,
    /// Whether the API may be without users where others than this host reach it.
    pub noauth: bool,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 6385)),
            public_url: None,
            hosts: Vec::new(),
            users: None,
            noauth: false,
        }
    }
}

impl Api {
    /// Whether only this host reaches it.
    pub(crate) fn is_local(&self) -> bool {
        self.listen.ip().to_canonical().is_loopback()
    }

    /// `hosts`, read.
    ///
    /// # Errors
    /// Names the entry that is no host.
    pub(crate) fn host_names(&self) -> Result<Vec<Host>> {
        let read = |name: &String| {
            Host::parse(name).ok().filter(|_| !name.contains('*')).with_context(|| {
                format!(
                    "{name:?} in hosts of [api] is no host: give a name such as ironic.example, without http:// and \
                     without a port"
                )
            })
        };
        self.hosts.iter().map(read).collect()
    }

    fn check(&self) -> Result<()> {
        self.host_names()?;
        ensure!(
            self.users.is_none() || !self.noauth,
            "[api] has users and noauth = true, which exclude each other: leave one of them out"
        );
        ensure!(
            self.is_local() || self.users.is_some() || self.noauth,
            "the API listens on {}, where others than this host reach it, and asks nobody who they are: set users in \
             [api] to a file that `htpasswd -B` made; or, if all who reach it may do everything, write noauth = true \
             there",
            self.listen
        );
        Ok(())
    }
}

/// `[agent]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Agent {
    /// Lookup and heartbeat alone are served here.
    pub listen: SocketAddr,
    /// Where machines reach it; by default, at the address they fetch their images from.
    pub url: Option<Url>,
    /// Whether an agent must show a certificate for its command API.
    pub require_tls: bool,
    /// Lookups and heartbeats that one address may send per second, or an IPv6 network of 64 bits; 0 for as many as it
    /// likes. Machines of boots under way are counted apart.
    pub calls_per_sec: u32,
}

impl Default for Agent {
    fn default() -> Self {
        Self { listen: everywhere(6386), url: None, require_tls: true, calls_per_sec: 20 }
    }
}

/// Every address of this host, IPv4 and IPv6.
fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
}

/// `[boot]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Boot {
    /// Where firmware and loaders fetch images.
    pub listen: SocketAddr,
    /// Where machines reach it; by default, our address on the first DHCP network.
    pub url: Option<Url>,
    /// Where machines with IPv6 reach it, if that is elsewhere.
    pub url6: Option<Url>,
    /// The boot set; by default `ramdisk` in the state directory.
    pub ramdisk: Option<PathBuf>,
    /// What `http` starts first.
    pub http_loader: HttpLoader,
    /// Added to every kernel command line, as Ironic's option of this name.
    pub kernel_append_params: String,
    /// Folders that `file://` images of nodes may lie in; by default `images` in the state
    /// directory.
    pub image_dirs: Option<Vec<PathBuf>>,
}

impl Default for Boot {
    fn default() -> Self {
        Self {
            listen: everywhere(8080),
            url: None,
            url6: None,
            ramdisk: None,
            http_loader: HttpLoader::default(),
            kernel_append_params: "nofb vga=normal".to_owned(),
            image_dirs: None,
        }
    }
}

/// `[images]`: what nodes name as `deploy_iso`, `deploy_kernel` and `deploy_ramdisk`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Images {
    /// Whether they may be fetched from this host itself, through loopback addresses. This service is never
    /// asked.
    pub loopback: bool,
    /// Whether they may be fetched from link-local addresses; clouds answer with secrets at 169.254.169.254.
    pub link_local: bool,
    /// MiB of one image.
    pub longest_mib: u32,
    /// MiB of all downloaded images; those that were not used for longest make room for others.
    pub cache_mib: u32,
    /// Image files that are kept open between boots.
    pub open_files: u16,
    /// KiB each second that servers must send at the least, after the first minute.
    pub slowest_kib_per_sec: u32,
}

impl Default for Images {
    fn default() -> Self {
        let limits = artifacts::ImageLimits::default();
        let mib = |bytes: u64| u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        Self {
            loopback: false,
            link_local: false,
            longest_mib: mib(limits.image_bytes),
            cache_mib: mib(limits.cache_bytes),
            open_files: u16::try_from(limits.open_files).unwrap_or(u16::MAX),
            slowest_kib_per_sec: u32::try_from(limits.pace.bytes_per_sec >> 10).unwrap_or(u32::MAX),
        }
    }
}

impl Images {
    fn limits(&self) -> artifacts::ImageLimits {
        let pace = artifacts::ImagePace {
            bytes_per_sec: u64::from(self.slowest_kib_per_sec) << 10,
            ..artifacts::ImagePace::default()
        };
        artifacts::ImageLimits {
            image_bytes: u64::from(self.longest_mib) << 20,
            cache_bytes: u64::from(self.cache_mib) << 20,
            open_files: self.open_files.into(),
            pace,
        }
    }

    fn check(&self) -> Result<()> {
        ensure!(self.longest_mib > 0, "images.longest_mib must be at least 1");
        ensure!(
            self.cache_mib >= self.longest_mib,
            "images.cache_mib must be at least longest_mib: an image of that length would never be kept"
        );
        ensure!(self.open_files > 0, "images.open_files must be at least 1");
        ensure!(
            self.slowest_kib_per_sec > 0,
            "images.slowest_kib_per_sec must be at least 1: a server that sends nothing would hold a node"
        );
        Ok(())
    }
}

/// `[dhcp]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dhcp {
    /// Whose answers tell machines what to boot.
    pub provider: Provider,
    /// How long a lease is, in seconds.
    pub lease_secs: u32,
    /// Whether PXE firmware of nodes that boot over HTTP gets iPXE by TFTP.
    pub tftp: bool,
    /// How much is answered.
    pub limits: DhcpLimits,
    /// Where to answer; nowhere else.
    #[serde(rename = "network")]
    pub networks: Vec<Network>,
    /// For the provider `dnsmasq`.
    pub dnsmasq: Dnsmasq,
    /// For the provider `kea`.
    pub kea: Kea,
    /// For the provider `neutron`.
    pub neutron: Neutron,
}

impl Default for Dhcp {
    fn default() -> Self {
        Self {
            provider: Provider::default(),
            lease_secs: 3_600,
            tftp: false,
            limits: DhcpLimits::default(),
            networks: Vec::new(),
            dnsmasq: Dnsmasq::default(),
            kea: Kea::default(),
            neutron: Neutron::default(),
        }
    }
}

/// `[dhcp.limits]`: messages per second on each network; 0 for as many as there are. Four times as many
/// of a machine, and twice as many of all, may come at once.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DhcpLimits {
    /// Of one machine. One that is a port of a node may have more while there is some to spare.
    pub machine: u32,
    /// Of all machines that are ports of nodes, each within its own; half as many again are to spare.
    pub known: u32,
    /// Of all others.
    pub strangers: u32,
}

impl Default for DhcpLimits {
    fn default() -> Self {
        let Rates { each, known, guests } = Rates::default();
        Self { machine: each.per_sec, known: known.per_sec, strangers: guests.per_sec }
    }
}

impl DhcpLimits {
    pub(crate) fn rates(self) -> Rates {
        let rate =
            |per_sec: u32, times| Rate { per_sec, burst: per_sec.saturating_mul(times).max(1) };
        Rates {
            each: rate(self.machine, 4),
            known: rate(self.known, 2),
            guests: rate(self.strangers, 2),
        }
    }
}

/// `[[dhcp.network]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The network interface, by name.
    pub interface: String,
    /// The IPv4 addresses to give out.
    pub pool: Option<Range>,
    /// The IPv6 addresses to give out.
    pub pool6: Option<Range6>,
    /// Whether another IPv4 server gives the addresses, and only what to boot is said here (ProxyDHCP).
    #[serde(default)]
    pub proxy: bool,
    /// The IPv4 router, if there is one.
    pub router: Option<Ipv4Addr>,
    /// Further IPv4 routes.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Name servers.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// The domain in which machines look up names without a dot.
    pub domain: Option<String>,
    /// Time servers.
    #[serde(default)]
    pub ntp: Vec<IpAddr>,
    /// The largest packet that the network carries, in bytes, where it is not 1500.
    pub mtu: Option<u16>,
    /// Whether to advertise the IPv6 network, as its router: without advertisements nobody asks
    /// DHCPv6. Off where another router does so, with the M flag.
    #[serde(default = "yes")]
    pub advertise: bool,
    /// Whether no other DHCP server answers here. Then machines need not wait for others, and those
    /// that come with an address from elsewhere are told at once to start over.
    #[serde(default = "yes")]
    pub sole: bool,
    /// Whether machines that nobody registered get an address. They never get one to boot from.
    #[serde(default)]
    pub strangers: Strangers,
    /// Addresses of single machines.
    #[serde(default, rename = "reservation")]
    pub reservations: Vec<Reservation>,
    /// Subnets whose relays send to this interface.
    #[serde(default)]
    pub relayed: Vec<Relayed>,
}

/// What machines get that are no port of any node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strangers {
    /// Nothing: somebody else looks after them, or nobody.
    #[default]
    Ignore,
    /// An address, as long as enough are left for the machines that are known.
    Serve,
}

/// `{ to = "ADDRESS/LENGTH", via = "ADDRESS" }`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// What is reached.
    pub to: Ipv4Net,
    /// Through whom.
    pub via: Ipv4Addr,
}

/// `[[dhcp.network.reservation]]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reservation {
    /// Whose it is.
    pub mac: Mac,
    /// Which, of either family; inside of the pool or not.
    pub address: IpAddr,
}

/// `[[dhcp.network.relayed]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relayed {
    /// Which it is.
    pub subnet: IpNet,
    /// The addresses to give out.
    pub pool: AnyRange,
    /// Its IPv4 router, if it has one.
    pub router: Option<Ipv4Addr>,
    /// Name servers, where they are not the network's.
    pub dns: Option<Vec<IpAddr>>,
    /// The domain, where it is not the network's.
    pub domain: Option<String>,
    /// Time servers, where they are not the network's.
    pub ntp: Option<Vec<IpAddr>>,
    /// The largest packet, where it is not the network's.
    pub mtu: Option<u16>,
}

/// What the machines of a subnet are told beside addresses and ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Services {
    /// Name servers of IPv4.
    pub(crate) dns4: Vec<Ipv4Addr>,
    /// The same of IPv6.
    pub(crate) dns6: Vec<Ipv6Addr>,
    /// The domain in which names without a dot are looked up.
    pub(crate) domain: Option<String>,
    /// Time servers of IPv4.
    pub(crate) ntp4: Vec<Ipv4Addr>,
    /// The same of IPv6.
    pub(crate) ntp6: Vec<Ipv6Addr>,
    /// The largest packet, in bytes.
    pub(crate) mtu: Option<u16>,
}

fn yes() -> bool {
    true
}

impl Network {
    /// One without any addresses.
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
            strangers: Strangers::default(),
            reservations: Vec::new(),
            relayed: Vec::new(),
        }
    }

    pub(crate) fn dns6(&self) -> Vec<Ipv6Addr> {
        only6(&self.dns)
    }

    /// What machines are told that are on the interface's own link, or in a relayed subnet: what that does not
    /// set is the network's.
    pub(crate) fn services(&self, relayed: Option<&Relayed>) -> Services {
        let dns = relayed.and_then(|relayed| relayed.dns.as_ref()).unwrap_or(&self.dns);
        let domain = relayed.and_then(|relayed| relayed.domain.as_ref()).or(self.domain.as_ref());
        let ntp = relayed.and_then(|relayed| relayed.ntp.as_ref()).unwrap_or(&self.ntp);
        Services {
            dns4: only4(dns),
            dns6: only6(dns),
            domain: domain.cloned(),
            ntp4: only4(ntp),
            ntp6: only6(ntp),
            mtu: relayed.and_then(|relayed| relayed.mtu).or(self.mtu),
        }
    }

    /// The name servers of every subnet of a family in which addresses are given.
    pub(crate) fn dns_everywhere(&self, is_four: bool) -> Vec<Vec<IpAddr>> {
        if self.ends(is_four).is_none() {
            return Vec::new();
        }
        let relayed =
            self.relayed.iter().filter(|relayed| relayed.subnet.addr().is_ipv4() == is_four);
        let all = std::iter::once(None).chain(relayed.map(Some));
        all.map(|relayed| {
            let Services { dns4, dns6, .. } = self.services(relayed);
            if is_four {
                dns4.into_iter().map(IpAddr::from).collect()
            } else {
                dns6.into_iter().map(IpAddr::from).collect()
            }
        })
        .collect()
    }

    fn check(&self) -> Result<()> {
        let interface = &self.interface;
        ensure!(
            self.pool.is_some() || self.pool6.is_some() || self.proxy,
            "the DHCP network on {interface} has neither pool nor pool6, and is no proxy"
        );
        ensure!(
            self.pool.is_none() || !self.proxy,
            "the DHCP network on {interface} has a pool and is a proxy; a proxy gives no addresses"
        );
        for Relayed { subnet, pool, .. } in &self.relayed {
            let (has_own, ends) = match pool {
                AnyRange::V4(pool) => (self.pool.is_some(), [pool.first.into(), pool.last.into()]),
                AnyRange::V6(pool) => (self.pool6.is_some(), [pool.first.into(), pool.last.into()]),
            };
            ensure!(
                has_own,
                "the DHCP network on {interface} has the relayed subnet {subnet}, and so needs a \
                 pool of that family of its own"
            );
            ensure!(
                subnet.network() == subnet.addr(),
                "{subnet} is no subnet: its address has bits beyond its prefix"
            );
            ensure!(
                ends.iter().all(|end: &IpAddr| subnet.contains(end)),
                "the pool {}-{} is not in its subnet {subnet}",
                ends[0],
                ends[1]
            );
        }
        for (at, Relayed { subnet, .. }) in self.relayed.iter().enumerate() {
            if let Some(other) =
                self.relayed[..at].iter().find(|other| overlap(&other.subnet, subnet))
            {
                bail!(
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

    /// The first and the last address that are given out, of one family.
    fn ends(&self, is_four: bool) -> Option<[IpAddr; 2]> {
        if is_four {
            self.pool.map(|Range(pool)| [pool.first.into(), pool.last.into()])
        } else {
            self.pool6.map(|Range6(pool)| [pool.first.into(), pool.last.into()])
        }
    }

    /// Whether the settings go with the interface, whose addresses these are; `own` is the one that is answered
    /// from.
    ///
    /// # Errors
    /// What does not, and what to do.
    pub(crate) fn check_on(&self, own: IpNet, addresses: &[IpNet]) -> Result<()> {
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
            bail!(
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

impl FromStr for Network {
    type Err = anyhow::Error;

    /// `INTERFACE=FIRST-LAST`, or with IPv6 too, `INTERFACE=FIRST-LAST,FIRST6-LAST6`; or
    /// `INTERFACE=proxy`.
    fn from_str(text: &str) -> Result<Self> {
        let Some((interface, pools)) = text.split_once('=') else {
            bail!("{text:?} is not INTERFACE=FIRST-LAST, such as eth1=192.0.2.100-192.0.2.199");
        };
        let mut network = Self::on(interface);
        for pool in pools.split(',') {
            if pool == "proxy" {
                network.proxy = true;
                continue;
            }
            match pool.to_owned().try_into()? {
                AnyRange::V4(pool) => network.pool = Some(Range(pool)),
                AnyRange::V6(pool) => network.pool6 = Some(Range6(pool)),
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
pub enum AnyRange {
    /// Of IPv4.
    V4(LeasePool<Ipv4Addr>),
    /// Of IPv6.
    V6(LeasePool<Ipv6Addr>),
}

impl TryFrom<String> for AnyRange {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        if text.contains(':') {
            Range6::try_from(text).map(|pool| Self::V6(pool.0))
        } else {
            Range::try_from(text).map(|pool| Self::V4(pool.0))
        }
    }
}

/// `FIRST-LAST`, both included.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Range(pub LeasePool<Ipv4Addr>);

impl TryFrom<String> for Range {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let (first, last) = ends::<Ipv4Addr>(&text, "192.0.2.100-192.0.2.199")?;
        Ok(Self(LeasePool { first, last }))
    }
}

/// `FIRST-LAST` of IPv6, both included.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Range6(pub LeasePool<Ipv6Addr>);

impl TryFrom<String> for Range6 {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let (first, last) = ends::<Ipv6Addr>(&text, "2001:db8::100-2001:db8::1ff")?;
        Ok(Self(LeasePool { first, last }))
    }
}

fn ends<A: FromStr + Ord>(text: &str, example: &str) -> Result<(A, A)> {
    let parse = |address: &str| address.trim().parse::<A>().ok();
    let ends = text.split_once('-');
    let Some((Some(first), Some(last))) = ends.map(|(a, b)| (parse(a), parse(b))) else {
        bail!("{text:?} is no address range of this family, such as {example}");
    };
    ensure!(first <= last, "the address range {text} ends before it begins");
    Ok((first, last))
}

/// `[clean]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clean {
    /// Whether `provide` cleans first; a node's own `automated_clean` wins.
    pub automated: bool,
    /// Seconds of silence after which a clean has failed.
    pub callback_timeout_secs: u32,
}

impl Default for Clean {
    fn default() -> Self {
        Self { automated: true, callback_timeout_secs: 1_800 }
    }
}

/// `[deploy]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deploy {
    /// Seconds from power-on within which the whole image of an instance must have been fetched.
    pub callback_timeout_secs: u32,
}

impl Default for Deploy {
    fn default() -> Self {
        Self { callback_timeout_secs: 1_800 }
    }
}

/// `[power]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Power {
    /// Seconds between two looks at the power of machines that nobody works on; 0 for none.
    pub sync_secs: u32,
}

impl Default for Power {
    fn default() -> Self {
        Self { sync_secs: 60 }
    }
}

/// `[limits]`: of connections to the API, the port for agents and the boot listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at once to all ports: half of them to the boot listener, a quarter to each other port. Fewer, where
    /// the limit of open files leaves fewer.
    pub connections: usize,
    /// Of a port's connections, how many one peer may have: an IPv4 address, an IPv6 network of 64 bits, or a node
    /// whose machine fetches with a live ticket. In percent.
    pub peer_percent: u8,
    /// Addresses and networks of proxies and of NAT, that may have as many as there are.
    pub exempt: Vec<Addresses>,
    /// Seconds until the first byte of a request comes.
    pub idle_secs: u32,
    /// Seconds from there until its head is whole.
    pub head_secs: u32,
    /// Seconds from there until its body is whole.
    pub body_secs: u32,
    /// Seconds for a peer that takes nothing of its answer.
    pub stall_secs: u32,
    /// Seconds for a connection on which nothing is got that is there.
    pub fruitless_secs: u32,
    /// Seconds for answers under way when the service ends.
    pub end_secs: u32,
    /// What all bodies of requests under way may hold, of each port, in MiB.
    pub bodies_mib: u32,
    /// What all answers under way may hold, of the API and of the port for agents each, in MiB; a quarter of it for
    /// one peer, but for one answer.
    pub answers_mib: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            peer_percent: 25,
            exempt: Vec::new(),
            idle_secs: 60,
            head_secs: 30,
            body_secs: 30,
            stall_secs: 60,
            fruitless_secs: 120,
            end_secs: 20,
            bodies_mib: 32,
            answers_mib: 64,
        }
    }
}

impl Limits {
    /// Those of a port that may have so many connections, a quarter of which wait for a place.
    #[must_use]
    pub fn of_port(&self, share: usize) -> ConnectionLimits {
        let waiting = share / 4;
        let connections = share - waiting;
        let secs = |secs: u32| Duration::from_secs(secs.into());
        ConnectionLimits {
            connections,
            waiting,
            per_peer: (connections * usize::from(self.peer_percent) / 100).max(1),
            exempt: self.exempt.iter().map(|Addresses(net)| *net).collect(),
            idle: secs(self.idle_secs),
            head: secs(self.head_secs),
            body: secs(self.body_secs),
            stall: secs(self.stall_secs),
            fruitless: secs(self.fruitless_secs),
            end: secs(self.end_secs),
        }
    }

    /// How much of bodies is taken, where one may have so many bytes.
    #[must_use]
    pub fn of_bodies(&self, each: usize) -> BodyLimits {
        BodyLimits { each: each as u64, all: u64::from(self.bodies_mib) << 20 }
    }

    /// Bytes of answers under way.
    #[must_use]
    pub fn answers(&self) -> u64 {
        u64::from(self.answers_mib) << 20
    }

    fn check(&self) -> Result<()> {
        ensure!(
            (16..=1_000_000).contains(&self.connections),
            "limits.connections must be from 16 to 1000000"
        );
        ensure!(
            (1..=100).contains(&self.peer_percent),
            "limits.peer_percent must be from 1 to 100"
        );
        let all = [
            ("idle_secs", self.idle_secs),
            ("head_secs", self.head_secs),
            ("body_secs", self.body_secs),
            ("stall_secs", self.stall_secs),
            ("fruitless_secs", self.fruitless_secs),
            ("end_secs", self.end_secs),
        ];
        for (name, secs) in all {
            ensure!((1..=86_400).contains(&secs), "limits.{name} must be from 1 to 86400");
        }
        for (name, mib) in [("bodies_mib", self.bodies_mib), ("answers_mib", self.answers_mib)] {
            ensure!((2..=1 << 20).contains(&mib), "limits.{name} must be from 2 to 1048576");
        }
        Ok(())
    }
}

/// `ADDRESS` or `ADDRESS/LENGTH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Addresses(pub IpNet);

impl TryFrom<String> for Addresses {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let net = net.with_context(|| {
            format!("{text:?} is neither an address nor a network, such as 192.0.2.0/24")
        })?;
        Ok(Self(net))
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// Names the file, and the line that is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        text.parse().with_context(|| format!("the configuration {} is wrong", path.display()))
    }

    /// What this daemon calls itself.
    #[must_use]
    pub fn host(&self) -> String {
        let own = || gethostname().ok().and_then(|name| name.into_string().ok());
        self.host.clone().or_else(own).unwrap_or_else(|| "ferroboot".to_owned())
    }

    /// Where it keeps its state.
    ///
    /// # Errors
    /// When neither a setting nor the environment says where.
    pub fn state_dir(&self) -> Result<PathBuf> {
        if let Some(dir) = &self.state_dir {
            return Ok(dir.clone());
        }
        // systemd's `StateDirectory=`.
        if let Some(dir) = env::var_os("STATE_DIRECTORY") {
            return Ok(dir.into());
        }
        if Uid::effective().is_root() {
            return Ok("/var/lib/ferroboot".into());
        }
        let home = env::var_os("HOME").context("no HOME to keep state in: set state_dir")?;
        Ok(Path::new(&home).join(".local/state/ferroboot"))
    }

    /// Where nodes are kept.
    #[must_use]
    pub fn database_url(&self, state_dir: &Path) -> String {
        let own = || format!("sqlite://{}", state_dir.join("ferroboot.db").display());
        self.database.url.clone().unwrap_or_else(own)
    }

    /// The folder of the boot set for x64, in which those for other architectures have theirs.
    pub(crate) fn boot_sets_in(&self, state_dir: &Path) -> PathBuf {
        self.boot.ramdisk.clone().unwrap_or_else(|| state_dir.join("ramdisk"))
    }

    /// Which servers images may be fetched from.
    pub(crate) fn image_reach(&self) -> artifacts::ImageReach {
        artifacts::ImageReach {
            loopback: self.images.loopback,
            link_local: self.images.link_local,
            own_ports: [self.api.listen, self.agent.listen, self.boot.listen]
                .map(|address| address.port())
                .into(),
        }
    }

    /// How machines reach us; `address` is ours on the first DHCP network.
    #[must_use]
    pub fn urls(&self, address: Option<IpAddr>) -> Urls {
        let settings = UrlSettings {
            boot: self.boot.url.clone(),
            boot6: self.boot.url6.clone(),
            agent: self.agent.url.clone(),
            boot_port: self.boot.listen.port(),
            agent_port: self.agent.listen.port(),
        };
        Urls::new(settings, address)
    }

    /// What machines boot with.
    #[must_use]
    pub fn artifacts(&self, state_dir: &Path, urls: Urls) -> artifacts::Settings {
        let own = |name: &str| state_dir.join(name);
        let boot = &self.boot;
        artifacts::Settings {
            boot_sets: artifacts::BootSets::look(&self.boot_sets_in(state_dir)),
            cache: own("cache"),
            image_dirs: boot.image_dirs.clone().unwrap_or_else(|| vec![own("images")]),
            image_reach: self.image_reach(),
            image_limits: self.images.limits(),
            http_loader: boot.http_loader,
            kernel_append_params: boot.kernel_append_params.clone(),
            urls,
        }
    }

    /// How often the power of resting machines is looked at.
    #[must_use]
    pub fn power_sync(&self) -> Option<Duration> {
        let secs = self.power.sync_secs;
        (secs > 0).then(|| Duration::from_secs(secs.into()))
    }

    /// What transitions depend on.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let timeout = |seconds: u32| SignedDuration::from_secs(seconds.into());
        Policy {
            automated_clean: self.clean.automated,
            clean_callback_timeout: timeout(self.clean.callback_timeout_secs),
            deploy_callback_timeout: timeout(self.deploy.callback_timeout_secs),
        }
    }

    /// Whether the settings can go together.
    ///
    /// # Errors
    /// Names the setting that is wrong.
    pub fn check(&self) -> Result<()> {
        self.api.check()?;
        ensure!(self.dhcp.lease_secs >= 60, "dhcp.lease_secs must be at least 60");
        for (section, seconds) in [
            ("clean", self.clean.callback_timeout_secs),
            ("deploy", self.deploy.callback_timeout_secs),
        ] {
            ensure!(
                seconds >= 60,
                "{section}.callback_timeout_secs must be at least 60: machines need that long to start"
            );
        }
        let append = &self.boot.kernel_append_params;
        ensure!(
            !append.contains(|c: char| c.is_control()),
            "boot.kernel_append_params must be one line of kernel arguments"
        );
        let mut interfaces: Vec<_> =
            self.dhcp.networks.iter().map(|network| &network.interface).collect();
        interfaces.sort();
        for pair in interfaces.windows(2) {
            ensure!(pair[0] != pair[1], "the interface {} is in two DHCP networks", pair[0]);
        }
        for (name, url) in [
            ("api.public_url", &self.api.public_url),
            ("agent.url", &self.agent.url),
            ("boot.url", &self.boot.url),
            ("boot.url6", &self.boot.url6),
        ] {
            let is_public = url
                .as_ref()
                .is_none_or(|url| url.username().is_empty() && url.password().is_none());
            ensure!(
                is_public,
                "{name} must not hold a user name or a password: everybody is told it"
            );
        }
        self.images.check()?;
        self.dhcp.networks.iter().try_for_each(Network::check)?;
        self.limits.check()?;
        self.dhcp.check_provider()
    }
}

impl FromStr for Config {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::nearest;

    fn refusal(text: &str) -> String {
        format!("{:#}", text.parse::<Config>().unwrap_err())
    }

    #[test]
    fn nothing_need_be_set() {
        let config: Config = "".parse().unwrap();

        assert!(config.api.listen.ip().is_loopback());
        assert!(config.dhcp.networks.is_empty());
        assert_eq!(config.policy(), Policy::default());
    }

    #[test]
    fn an_api_that_others_reach_has_users_or_says_that_it_has_none() {
        let api = |settings: &str| format!("[api]\n{settings}");
        let users = "users = \"/etc/ferroboot/htpasswd\"";

        for listen in ["0.0.0.0:6385", "[::]:6385", "192.0.2.1:6385", "[::ffff:192.0.2.1]:1"] {
            let listen = format!("listen = \"{listen}\"\n");
            let refused = refusal(&api(&listen));
            assert!(refused.contains("users") && refused.contains("noauth = true"), "{refused}");
            assert!(api(&(listen.clone() + users)).parse::<Config>().is_ok());
            assert!(api(&(listen + "noauth = true")).parse::<Config>().is_ok());
        }
        for listen in ["127.0.0.1:6385", "127.0.0.2:1", "[::1]:6385", "[::ffff:127.0.0.1]:6385"] {
            assert!(api(&format!("listen = \"{listen}\"")).parse::<Config>().is_ok(), "{listen}");
        }
        let both = format!("noauth = true\n{users}");
        assert!(refusal(&api(&both)).contains("exclude each other"));
    }

    #[test]
    fn a_name_of_the_api_is_a_name_and_no_more() {
        let hosts = |name: &str| format!("[api]\nhosts = [\"{name}\"]");

        assert!(hosts("ironic.example").parse::<Config>().is_ok());
        for odd in ["http://ironic.example", "ironic.example:6385", "", "a b", "*.example"] {
            assert!(refusal(&hosts(odd)).contains("hosts of [api]"), "{odd}");
        }
    }

    #[test]
    fn a_network_is_an_interface_and_a_pool() {
        let config: Config =
            "[[dhcp.network]]\ninterface = \"eth1\"\npool = \"192.0.2.10-192.0.2.20\""
                .parse()
                .unwrap();

        let [network] = &config.dhcp.networks[..] else { panic!("one network expected") };
        let pool = network.pool.unwrap().0;
        assert_eq!(pool.len(), 11);
        let flag: Network = "eth1=192.0.2.10-192.0.2.20".parse().unwrap();
        assert_eq!(flag.pool.unwrap().0, pool);
    }

    #[test]
    fn a_misspelt_setting_is_named() {
        assert!(refusal("[boot]\nlisten_on = 1").contains("listen_on"));
    }

    #[test]
    fn what_is_out_of_range_is_refused_in_words() {
        assert!(refusal("[[dhcp.network]]\ninterface = \"a\"").contains("neither pool nor pool6"));
        let network = |pool| format!("[[dhcp.network]]\ninterface = \"a\"\npool = \"{pool}\"\n");

        assert!(refusal(&network("10.0.0.9-10.0.0.1")).contains("ends before it begins"));
        assert!(refusal(&network("10.0.0.9")).contains("is no address range"));
        let six = "[[dhcp.network]]\ninterface = \"a\"\npool6 = \"10.0.0.1-10.0.0.9\"";
        assert!(refusal(six).contains("such as 2001:db8::100-2001:db8::1ff"));
        let twice = network("10.0.0.1-10.0.0.2") + &network("10.0.0.3-10.0.0.4");
        assert!(refusal(&twice).contains("the interface a is in two DHCP networks"));
        assert!(refusal("[dhcp]\nlease_secs = 1").contains("at least 60"));
    }

    #[test]
    fn limits_that_would_let_nobody_in_are_refused_in_words() {
        let text = "[limits]\nexempt = [\"192.0.2.1\", \"2001:db8::/32\"]\npeer_percent = 10";
        let limits = text.parse::<Config>().unwrap().limits.of_port(400);
        assert_eq!((limits.connections, limits.waiting, limits.per_peer), (300, 100, 30));
        assert_eq!(
            limits.exempt,
            ["192.0.2.1/32", "2001:db8::/32"].map(|net| net.parse().unwrap())
        );

        assert!(
            refusal("[limits]\nconnections = 0").contains("limits.connections must be from 16")
        );
        assert!(refusal("[limits]\npeer_percent = 0").contains("limits.peer_percent must be"));
        assert!(refusal("[limits]\nhead_secs = 0").contains("limits.head_secs must be from 1"));
        assert!(refusal("[limits]\nbodies_mib = 0").contains("limits.bodies_mib must be from 2"));
        assert!(refusal("[limits]\nexempt = [\"proxy\"]").contains("neither an address nor a net"));
    }

    #[test]
    fn images_have_limits_that_go_together() {
        let config: Config = "[images]\nslowest_kib_per_sec = 1\ncache_mib = 9000".parse().unwrap();
        let limits = config.images.limits();

        assert_eq!((limits.pace.bytes_per_sec, limits.cache_bytes), (1 << 10, 9000 << 20));
        assert_eq!(Images::default().limits(), artifacts::ImageLimits::default());
        assert!(refusal("[images]\ncache_mib = 1").contains("at least longest_mib"));
        assert!(refusal("[images]\nslowest_kib_per_sec = 0").contains("at least 1"));
        assert!(refusal("[images]\nopen_files = 0").contains("at least 1"));
    }

    #[test]
    fn a_url_that_everybody_is_told_holds_no_password() {
        for (section, name) in
            [("api", "public_url"), ("agent", "url"), ("boot", "url"), ("boot", "url6")]
        {
            let said = refusal(&format!("[{section}]\n{name} = \"http://me:geheim@h\""));
            assert!(
                said.contains("must not hold a user name") && !said.contains("geheim"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_relayed_subnet_holds_its_pool() {
        let relayed = |subnet: &str| {
            format!(
                "[[dhcp.network]]\ninterface = \"a\"\npool = \"10.0.0.1-10.0.0.2\"\n\
                 [[dhcp.network.relayed]]\nsubnet = \"{subnet}\"\npool = \"10.2.0.10-10.2.0.20\""
            )
        };

        let config: Config = relayed("10.2.0.0/24").parse().unwrap();
        assert!(matches!(config.dhcp.networks[0].relayed[0].subnet, IpNet::V4(_)));
        assert!(refusal(&relayed("10.3.0.0/24")).contains("is not in its subnet 10.3.0.0/24"));
        assert!(refusal(&relayed("10.2.0.1/24")).contains("bits beyond its prefix"));
        assert!(refusal(&relayed("10.2.0.0/33")).contains("subnet"));
        assert!(refusal(&relayed("2001:db8::/64")).contains("is not in its subnet"));
    }

    #[test]
    fn a_relayed_subnet_has_the_services_of_its_network_but_for_those_of_its_own() {
        let text = "[[dhcp.network]]\ninterface = \"a\"\npool = \"10.0.0.1-10.0.0.2\"\n\
                    dns = [\"10.0.0.53\", \"fd00::53\"]\ndomain = \"hall.example\"\nmtu = 9000\n\
                    [[dhcp.network.relayed]]\nsubnet = \"10.2.0.0/24\"\npool = \"10.2.0.10-10.2.0.20\"\n\
                    [[dhcp.network.relayed]]\nsubnet = \"10.3.0.0/24\"\npool = \"10.3.0.10-10.3.0.20\"\n\
                    dns = [\"10.3.0.53\"]\ndomain = \"far.example\"\nntp = [\"10.3.0.123\"]\nmtu = 1400";
        let network = text.parse::<Config>().unwrap().dhcp.networks.remove(0);
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

        assert!(relayed(&["10.2.0.0/24", "10.3.0.0/24", "fd02::/64"]).parse::<Config>().is_ok());
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

        assert!(reserved(four, "10.0.0.9").parse::<Config>().is_ok());
        assert!(refusal(&reserved(four, "fd00::9")).contains("set pool6"));
        assert!(refusal(&reserved(six, "10.0.0.9")).contains("set pool"));
        assert!(refusal(&reserved("proxy = true", "10.0.0.9")).contains("no IPv4 addresses"));
    }

    #[test]
    fn what_does_not_go_with_the_interface_is_refused_in_words() {
        let addresses: Vec<IpNet> = ["192.0.2.1/24", "198.51.100.1/24", "fe80::1/64"]
            .map(|net| net.parse().unwrap())
            .into();
        let network = |settings: &str| -> Network {
            let text = format!("[[dhcp.network]]\ninterface = \"a\"\n{settings}");
            text.parse::<Config>().unwrap().dhcp.networks.remove(0)
        };
        let refused = |settings: &str| {
            let network = network(settings);
            let four = addresses.iter().copied().filter(|net| net.addr().is_ipv4());
            // Where none goes with the pool, the one that is named.
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
    fn a_provider_that_lacks_a_setting_is_refused_in_words() {
        let provider = |settings: &str| refusal(&format!("[dhcp]\nprovider = {settings}"));

        assert!(provider("\"isc\"").contains("isc"));
        assert!(provider("\"kea\"").contains("socket4"));
        assert!(provider("\"neutron\"").contains("url or auth_url"));
        let half = "\"neutron\"\n[dhcp.neutron]\nauth_url = \"http://keystone:5000\"";
        assert!(provider(half).contains("password_file"));
        let config: Config = "[dhcp]\nprovider = \"dnsmasq\"".parse().unwrap();
        assert_eq!(config.dhcp.provider, Provider::Dnsmasq);
    }

    #[test]
    fn only_a_whole_network_is_taken_from_the_command_line() {
        let refused = "eth1".parse::<Network>().unwrap_err().to_string();
        assert!(refused.contains("INTERFACE=FIRST-LAST"), "{refused}");
    }
}
