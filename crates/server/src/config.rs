//! All settings of the daemon. Each section has a file of its own, with its defaults and its check. Values of several
//! sections are here.

mod addresses;
mod agent;
mod api;
#[cfg(test)]
mod book;
mod boot;
mod database;
mod dhcp;
mod images;
mod limits;
mod power;
mod procedures;
mod tls;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};
use certificates::CertificateNeeds;
use netboot::image_reach::ImageReach;
use netboot::listen_addresses::ListenAddresses;
use netboot::urls::{ListenAddress, UrlScheme, UrlSettings, Urls};
use nix::unistd::{Uid, gethostname};
use provision::Policy;
use serde::Deserialize;
use transport::settings_file::read_settings;
use url::{Host, Url};

pub use self::addresses::AddressOrNetwork;
pub use self::agent::AgentConfig;
pub use self::api::ApiConfig;
pub use self::boot::BootConfig;
pub use self::database::DatabaseConfig;
pub use self::dhcp::{DhcpConfig, DhcpLimits};
pub use self::images::ImageConfig;
pub use self::limits::LimitConfig;
pub use self::power::PowerConfig;
pub use self::procedures::{CleanConfig, DeployConfig};
pub use self::tls::ListenerTlsConfig;

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
    /// TLS of the listeners.
    pub tls: ListenerTlsConfig,
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

    /// The servers from which images may be fetched.
    pub(crate) fn image_reach(&self) -> ImageReach {
        ImageReach {
            loopback: self.images.loopback,
            link_local: self.images.link_local,
            own_ports: self.listeners().map(|listen| listen.address.port()).collect(),
        }
    }

    /// The addresses of all three ports.
    fn listeners(&self) -> impl Iterator<Item = ListenAddress> {
        let ports = [&self.api.listen, &self.agent.listen, &self.boot.listen];
        ports.into_iter().flat_map(|port| port.all(self.tls.only))
    }

    /// Whether any listener has TLS.
    pub(crate) fn has_tls(&self) -> bool {
        self.listeners().any(|listen| listen.scheme == UrlScheme::Https)
    }

    /// What the operator's certificate must fit.
    pub(crate) fn certificate_needs(&self) -> CertificateNeeds {
        let has_tls = |port: &ListenAddresses| {
            port.all(self.tls.only).any(|listen| listen.scheme == UrlScheme::Https)
        };
        CertificateNeeds {
            firmware: has_tls(&self.boot.listen).then(|| self.tls.firmware_ciphers()),
            others: has_tls(&self.api.listen) || has_tls(&self.agent.listen),
            authority: None,
        }
    }

    /// The names and the addresses of issued certificates, beside the address that is connected to.
    pub(crate) fn certificate_subjects(&self) -> (Vec<String>, Vec<IpAddr>) {
        let urls = [&self.api.public_url, &self.agent.url, &self.boot.url, &self.boot.url6];
        let hosts = urls.into_iter().flatten().filter_map(Url::host);
        let (mut names, addresses) = self.tls.subjects(hosts);
        names.extend(self.api.hosts.iter().filter(|name| name.parse::<IpAddr>().is_err()).cloned());
        (names, addresses)
    }

    /// The hosts of the https URLs at which clients reach this service's own TLS.
    pub(crate) fn tls_hosts(&self) -> BTreeSet<String> {
        let ports = [
            (&self.api.listen, &self.api.public_url),
            (&self.agent.listen, &self.agent.url),
            (&self.boot.listen, &self.boot.url),
            (&self.boot.listen, &self.boot.url6),
        ];
        // Behind a listener without TLS, a proxy has the certificate.
        let ours =
            |listen: &ListenAddresses| listen.of_urls(self.tls.only).scheme == UrlScheme::Https;
        let urls = ports
            .into_iter()
            .filter(|(listen, _)| ours(listen))
            .filter_map(|(_, url)| url.as_ref());
        let hosts = urls.filter(|url| url.scheme() == "https").filter_map(Url::host);
        let text = |host: Host<&str>| match host {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        hosts.map(text).collect()
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
            boot_port: self.boot.listen.url_port(self.tls.only),
            plain_boot_port: self.boot.listen.plain_port(self.tls.only),
            http_loader: self.boot.http_loader,
            agent_port: self.agent.listen.url_port(self.tls.only),
        }
    }

    /// The settings that affect transitions.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy {
            automated_clean: self.clean.automated,
            enable_http_boot_priority: self.clean.enable_http_boot_priority,
            clean_callback_timeout: self.clean.callback_timeout(),
            deploy_callback_timeout: self.deploy.callback_timeout(),
        }
    }

    /// Checks the settings for contradictions.
    ///
    /// # Errors
    /// The wrong setting.
    pub fn check(&self) -> Result<()> {
        self.tls.check(self.has_tls())?;
        self.api.listen.check("api", self.tls.only)?;
        self.agent.listen.check("agent", self.tls.only)?;
        self.boot.listen.check("boot", self.tls.only)?;
        self.check_urls()?;
        self.api.check()?;
        self.power.check()?;
        self.agent.check()?;
        self.boot.check()?;
        self.clean.check()?;
        self.deploy.check()?;
        self.images.check()?;
        self.limits.check()?;
        self.dhcp.check()
    }
}

impl Config {
    /// Checks that no URL is in clear, if all listeners must have TLS.
    fn check_urls(&self) -> Result<()> {
        let urls = [
            ("public_url in [api]", &self.api.public_url),
            ("url in [agent]", &self.agent.url),
            ("url in [boot]", &self.boot.url),
            ("url6 in [boot]", &self.boot.url6),
        ];
        for (setting, url) in urls {
            let plain = url.as_ref().filter(|url| self.tls.only && url.scheme() != "https");
            ensure!(
                plain.is_none(),
                "{setting} does not begin with https, and only = true in [tls] permits https alone"
            );
        }
        Ok(())
    }
}

impl FromStr for Config {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let config: Self = read_settings(text)?;
        config.check()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The refusal of settings, in words.
    pub(super) fn refusal(text: &str) -> String {
        format!("{:#}", text.parse::<Config>().unwrap_err())
    }

    #[test]
    fn nothing_need_be_set() {
        let config: Config = "".parse().unwrap();

        assert!(config.api.listen.is_local());
        assert!(config.dhcp.networks.is_empty());
        assert_eq!(config.policy(), Policy::default());
    }

    #[test]
    fn a_misspelt_setting_is_named() {
        assert!(refusal("[boot]\nlisten_on = 1").contains("listen_on"));
    }

    fn listeners(settings: &str) -> Vec<String> {
        let config: Config = settings.parse().unwrap();
        config.boot.listen.all(config.tls.only).map(|listen| listen.to_string()).collect()
    }

    #[test]
    fn a_port_has_one_address_or_a_list_with_and_without_tls() {
        assert_eq!(listeners("[boot]\nlisten = \"[::]:80\""), ["http://[::]:80"]);
        let both = "[boot]\nlisten = [\"http://[::]:80\", \"https://192.0.2.1:443\"]";
        assert_eq!(listeners(both), ["http://[::]:80", "https://192.0.2.1:443"]);
        assert_eq!(listeners("[tls]\nonly = true"), ["https://[::]:8080"]);
    }

    #[test]
    fn an_address_that_is_none_is_refused_in_words() {
        let listen = |listen: &str| refusal(&format!("[boot]\nlisten = {listen}"));

        assert!(listen("\"ftp://[::]:80\"").contains("neither http nor https"));
        assert!(listen("\"https://boot.example:443\"").contains("no address to listen on"));
        assert!(listen("[]").contains("1 to 16"));
    }

    #[test]
    fn one_setting_forbids_plain_http_on_all_ports() {
        for section in ["api", "agent", "boot"] {
            let said = refusal(&format!(
                "[tls]\nonly = true\n[{section}]\nlisten = \"http://127.0.0.1:1\""
            ));
            assert!(said.contains(&format!("[{section}]")) && said.contains("https"), "{said}");
        }
        for (section, name) in
            [("api", "public_url"), ("agent", "url"), ("boot", "url"), ("boot", "url6")]
        {
            let url = |scheme: &str| {
                format!("[tls]\nonly = true\n[{section}]\n{name} = \"{scheme}://h.example\"")
            };
            let said = refusal(&url("http"));
            assert!(said.contains(&format!("{name} in [{section}]")), "{said}");
            assert!(url("https").parse::<Config>().is_ok());
        }
    }

    #[test]
    fn urls_name_the_address_with_tls_if_there_is_one() {
        let both = "[boot]\nlisten = [\"[::]:8080\", \"https://[::]:8443\"]";
        let config: Config = both.parse().unwrap();

        let url = config.urls(None).fetched_from([192, 0, 2, 1].into());

        assert_eq!(url, "https://192.0.2.1:8443");
    }
}
