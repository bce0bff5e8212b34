//! All settings of the daemon, with their defaults and checks.

mod dhcp;
mod provider;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};

use ipnet::IpNet;
use jiff::SignedDuration;
use netboot::image_limits::{ImageLimits, ImagePace};
use netboot::image_reach::ImageReach;
use netboot::urls::{UrlSettings, Urls};
use nix::unistd::{Uid, gethostname};
use provision::Policy;
use provision::boot::HttpLoader;
use serde::Deserialize;
use transport::http_server::{BodyLimits, ConnectionLimits};
use url::{Host, Url};

pub use self::dhcp::{DhcpConfig, DhcpLimits};
pub use self::provider::{DhcpProvider, DnsmasqConfig, KeaConfig, NeutronConfig};

/// All settings, in the form of the TOML file. An empty file is valid.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// This daemon's name among the daemons of a database; by default the host's name.
    pub host: Option<String>,
    /// The state directory: by default `$STATE_DIRECTORY`, otherwise `/var/lib/ferroboot` for root, or
    /// `~/.local/state/ferroboot`.
    pub state_dir: Option<PathBuf>,
    /// The database of nodes.
    pub database: DatabaseConfig,
    /// Ironic's API, for operators.
    pub api: ApiConfig,
    /// The agents' part of the API.
    pub agent: AgentConfig,
    /// The boot listener.
    pub boot: BootConfig,
    /// Images of nodes.
    pub images: ImageConfig,
    /// DHCP.
    pub dhcp: DhcpConfig,
    /// Cleaning.
    pub clean: CleanConfig,
    /// Deployments.
    pub deploy: DeployConfig,
    /// Power.
    pub power: PowerConfig,
    /// Limits for peers on the HTTP ports.
    pub limits: LimitConfig,
}

/// `[database]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `sqlite:///path` or `postgres://…`; by default `ferroboot.db` in the state directory.
    pub url: Option<String>,
    /// The key file, which encrypts passwords and tokens in the database; by default `ferroboot.key` in the state
    /// directory.
    pub key_file: Option<PathBuf>,
}

/// `[api]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// The listening address; loopback by default, since the API switches machines. Another address requires `users`
    /// or `noauth`.
    pub listen: SocketAddr,
    /// The URL for links in answers; by default the one in each request.
    pub public_url: Option<Url>,
    /// Host names of the API, besides `localhost`, IP addresses and the host of `public_url`.
    pub hosts: Vec<String>,
    /// The users file, as written by `htpasswd -B` (Ironic's `http_basic_auth_user_file`); without one, every client
    /// may do everything.
    pub users: Option<PathBuf>,
    /// Whether the API may be reachable from other hosts without users.
    pub noauth: bool,
}

impl Default for ApiConfig {
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

impl ApiConfig {
    /// Whether only this host reaches it.
    pub(crate) fn is_local(&self) -> bool {
        self.listen.ip().to_canonical().is_loopback()
    }

    /// `hosts`, parsed.
    ///
    /// # Errors
    /// The invalid entry.
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
            "the API listens on {}, reachable from other hosts, without logins: set users in \
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
pub struct AgentConfig {
    /// The listening address of lookups and heartbeats.
    pub listen: SocketAddr,
    /// The URL for machines; by default the address that they fetch their images from.
    pub url: Option<Url>,
    /// Whether an agent's command API must use TLS.
    pub require_tls: bool,
    /// Lookups and heartbeats per second for each address or IPv6 /64; 0 for no limit. Machines of current boots are
    /// counted separately.
    pub calls_per_sec: u32,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self { listen: everywhere(6386), url: None, require_tls: true, calls_per_sec: 20 }
    }
}

/// All addresses of this host, IPv4 and IPv6.
fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
}

/// `[boot]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BootConfig {
    /// The listening address for firmware and loaders.
    pub listen: SocketAddr,
    /// The URL for machines; by default the service's address on the first DHCP network.
    pub url: Option<Url>,
    /// The URL for machines with IPv6, if it differs.
    pub url6: Option<Url>,
    /// The boot set; by default `ramdisk` in the state directory.
    pub ramdisk: Option<PathBuf>,
    /// The first loader of `http`.
    pub http_loader: HttpLoader,
    /// Arguments added to every kernel command line, as in Ironic's option of this name.
    pub kernel_append_params: String,
    /// Folders for nodes' `file://` images; by default `images` in the state directory.
    pub image_dirs: Option<Vec<PathBuf>>,
}

impl Default for BootConfig {
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

/// `[images]`: `deploy_iso`, `deploy_kernel` and `deploy_ramdisk` of nodes.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageConfig {
    /// Whether images may be fetched from this host's loopback addresses. Images are never fetched from this service
    /// itself.
    pub loopback: bool,
    /// Whether images may be fetched from link-local addresses; clouds serve secrets at 169.254.169.254.
    pub link_local: bool,
    /// Largest image, in MiB.
    pub longest_mib: u32,
    /// Size of all downloaded images, in MiB; the least recently used are evicted.
    pub cache_mib: u32,
    /// Number of image files kept open between boots.
    pub open_files: u16,
    /// Least download rate in KiB per second, after the first minute.
    pub slowest_kib_per_sec: u32,
}

impl Default for ImageConfig {
    fn default() -> Self {
        let limits = ImageLimits::default();
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

impl ImageConfig {
    fn limits(&self) -> ImageLimits {
        let pace = ImagePace {
            bytes_per_sec: u64::from(self.slowest_kib_per_sec) << 10,
            ..ImagePace::default()
        };
        ImageLimits {
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
            "images.slowest_kib_per_sec must be at least 1: a silent server would block a node"
        );
        Ok(())
    }
}

/// `[clean]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CleanConfig {
    /// Whether `provide` cleans first; a node's own `automated_clean` takes precedence.
    pub automated: bool,
    /// Seconds of silence after which a clean fails.
    pub callback_timeout_secs: u32,
}

impl Default for CleanConfig {
    fn default() -> Self {
        Self { automated: true, callback_timeout_secs: 1_800 }
    }
}

/// `[deploy]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeployConfig {
    /// Seconds from power-on until the whole image of an instance must have been fetched.
    pub callback_timeout_secs: u32,
}

impl Default for DeployConfig {
    fn default() -> Self {
        Self { callback_timeout_secs: 1_800 }
    }
}

/// `[power]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PowerConfig {
    /// Seconds between two power readings of machines without work; 0 for none.
    pub sync_secs: u32,
}

impl Default for PowerConfig {
    fn default() -> Self {
        Self { sync_secs: 60 }
    }
}

/// `[limits]`: limits of the API, the agent port and the boot listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitConfig {
    /// Connections of all ports: half of them for the boot listener, a quarter for each other port. Fewer if the
    /// limit of open files is lower.
    pub connections: usize,
    /// The share of a port's connections, in percent, for one peer: an IPv4 address, an IPv6 /64, or a node whose
    /// machine has a valid ticket.
    pub peer_percent: u8,
    /// Addresses and networks of proxies and of NAT, which have no limit of their own.
    pub exempt: Vec<AddressOrNetwork>,
    /// Seconds until the first byte of a request.
    pub idle_secs: u32,
    /// Seconds from there until the end of its head.
    pub head_secs: u32,
    /// Seconds from there until the end of its body.
    pub body_secs: u32,
    /// Seconds without progress while a peer takes an answer.
    pub stall_secs: u32,
    /// Seconds without a successful answer on a connection.
    pub fruitless_secs: u32,
    /// Seconds for current answers when the service ends.
    pub end_secs: u32,
    /// Memory for the bodies of current requests on each port, in MiB.
    pub bodies_mib: u32,
    /// Memory for current answers of the API and of the agent port each, in MiB; at most a quarter for one peer,
    /// except for a single answer.
    pub answers_mib: u32,
}

impl Default for LimitConfig {
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

impl LimitConfig {
    /// The limits of a port with this share of connections, a quarter of which wait for a place.
    #[must_use]
    pub fn of_port(&self, share: usize) -> ConnectionLimits {
        let waiting = share / 4;
        let connections = share - waiting;
        let secs = |secs: u32| Duration::from_secs(secs.into());
        ConnectionLimits {
            connections,
            waiting,
            per_peer: (connections * usize::from(self.peer_percent) / 100).max(1),
            exempt: self.exempt.iter().map(|AddressOrNetwork(net)| *net).collect(),
            idle: secs(self.idle_secs),
            head: secs(self.head_secs),
            body: secs(self.body_secs),
            stall: secs(self.stall_secs),
            fruitless: secs(self.fruitless_secs),
            end: secs(self.end_secs),
        }
    }

    /// The limits of bodies, with `each` as the length of one in bytes.
    #[must_use]
    pub fn of_bodies(&self, each: usize) -> BodyLimits {
        BodyLimits { each: each as u64, all: u64::from(self.bodies_mib) << 20 }
    }

    /// Memory for current answers, in bytes.
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
pub struct AddressOrNetwork(pub IpNet);

impl TryFrom<String> for AddressOrNetwork {
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
    /// The file, and the invalid line.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        text.parse().with_context(|| format!("the configuration {} is wrong", path.display()))
    }

    /// This daemon's name.
    #[must_use]
    pub fn host(&self) -> String {
        let own = || gethostname().ok().and_then(|name| name.into_string().ok());
        self.host.clone().or_else(own).unwrap_or_else(|| "ferroboot".to_owned())
    }

    /// The state directory.
    ///
    /// # Errors
    /// Neither a setting nor the environment determines it.
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

    /// The database's URL.
    #[must_use]
    pub fn database_url(&self, state_dir: &Path) -> String {
        let own = || format!("sqlite://{}", state_dir.join("ferroboot.db").display());
        self.database.url.clone().unwrap_or_else(own)
    }

    /// The key file, which encrypts secrets in the database.
    #[must_use]
    pub fn key_file(&self, state_dir: &Path) -> PathBuf {
        self.database.key_file.clone().unwrap_or_else(|| state_dir.join("ferroboot.key"))
    }

    /// The folder of the boot set for x64, with subfolders for other architectures.
    pub(crate) fn boot_sets_in(&self, state_dir: &Path) -> PathBuf {
        self.boot.ramdisk.clone().unwrap_or_else(|| state_dir.join("ramdisk"))
    }

    /// The servers from which images may be fetched.
    pub(crate) fn image_reach(&self) -> ImageReach {
        ImageReach {
            loopback: self.images.loopback,
            link_local: self.images.link_local,
            own_ports: [self.api.listen, self.agent.listen, self.boot.listen]
                .map(|address| address.port())
                .into(),
        }
    }

    /// The boot and agent URLs; `address` is the service's on the first DHCP network.
    #[must_use]
    pub fn urls(&self, address: Option<IpAddr>) -> Urls {
        Urls::new(self.url_settings(), address)
    }

    /// The settings for the URLs.
    #[must_use]
    pub fn url_settings(&self) -> UrlSettings {
        UrlSettings {
            boot: self.boot.url.clone(),
            boot6: self.boot.url6.clone(),
            agent: self.agent.url.clone(),
            boot_port: self.boot.listen.port(),
            agent_port: self.agent.listen.port(),
        }
    }

    /// The settings of the boot listener.
    #[must_use]
    pub fn artifacts(&self, state_dir: &Path, urls: Urls) -> artifacts::ArtifactSettings {
        let own = |name: &str| state_dir.join(name);
        let boot = &self.boot;
        artifacts::ArtifactSettings {
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

    /// Interval of power readings of resting machines.
    #[must_use]
    pub fn power_sync(&self) -> Option<Duration> {
        let secs = self.power.sync_secs;
        (secs > 0).then(|| Duration::from_secs(secs.into()))
    }

    /// The settings that affect transitions.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let timeout = |seconds: u32| SignedDuration::from_secs(seconds.into());
        Policy {
            automated_clean: self.clean.automated,
            clean_callback_timeout: timeout(self.clean.callback_timeout_secs),
            deploy_callback_timeout: timeout(self.deploy.callback_timeout_secs),
        }
    }

    /// Checks the settings for contradictions.
    ///
    /// # Errors
    /// The wrong setting.
    pub fn check(&self) -> Result<()> {
        self.api.check()?;
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
                "{name} must not hold a user name or a password: every machine gets it"
            );
        }
        self.images.check()?;
        self.limits.check()?;
        self.dhcp.check()
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
    use netboot::network_settings::NetworkSettings;

    use super::*;

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
        let flag: NetworkSettings = "eth1=192.0.2.10-192.0.2.20".parse().unwrap();
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
        assert_eq!(ImageConfig::default().limits(), ImageLimits::default());
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
    fn a_provider_that_lacks_a_setting_is_refused_in_words() {
        let provider = |settings: &str| refusal(&format!("[dhcp]\nprovider = {settings}"));

        assert!(provider("\"isc\"").contains("isc"));
        assert!(provider("\"kea\"").contains("socket4"));
        assert!(provider("\"neutron\"").contains("url or auth_url"));
        let half = "\"neutron\"\n[dhcp.neutron]\nauth_url = \"http://keystone:5000\"";
        assert!(provider(half).contains("password_file"));
        let config: Config = "[dhcp]\nprovider = \"dnsmasq\"".parse().unwrap();
        assert_eq!(config.dhcp.provider, DhcpProvider::Dnsmasq);
    }
}
