//! The boot and agent URLs, as machines reach the service.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use provision::artifact::Artifact;
use provision::boot_ca::BootCa;
use provision::{Attempt, Node};
use thiserror::Error;
use url::{Host, Url};

/// The URLs of the service, as seen by machines.
#[derive(Clone, Debug)]
pub struct Urls {
    settings: UrlSettings,
    /// The service's address on the first DHCP network.
    address: Option<IpAddr>,
}

/// The settings for the URLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlSettings {
    /// The URL before `/boot/`, as seen by machines; `None` means this host's address and `boot_port`.
    pub boot: Option<Url>,
    /// The same for machines that boot over IPv6, if it differs.
    pub boot6: Option<Url>,
    /// The URL for agents; `None` means this host's address and `agent_port`.
    pub agent: Option<Url>,
    /// The port of the boot listener.
    pub boot_port: UrlPort,
    /// The port for agents.
    pub agent_port: UrlPort,
}

/// The scheme of a URL for HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlScheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl UrlScheme {
    /// As in a URL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A port in URLs, with its scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UrlPort {
    /// The scheme.
    pub scheme: UrlScheme,
    /// The TCP port.
    pub port: u16,
}

impl UrlPort {
    /// A port with plain HTTP.
    #[must_use]
    pub const fn http(port: u16) -> Self {
        Self { scheme: UrlScheme::Http, port }
    }

    /// The URL of this port at an address. An IPv6 address is in brackets (RFC 3986 §3.2.2).
    fn at(self, address: IpAddr) -> String {
        ListenAddress { scheme: self.scheme, address: SocketAddr::new(address, self.port) }
            .to_string()
    }
}

/// The address of a listener, as in a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// The scheme.
    pub scheme: UrlScheme,
    /// The address and port.
    pub address: SocketAddr,
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.address)
    }
}

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpFamily {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// No boot URL is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "it is not known at which address machines reach this service: set url in [boot], or \
     external_http_url in the node's driver_info"
)]
pub struct Unreachable;

impl Urls {
    /// The URLs from the settings; `address` is the service's address on the first DHCP network.
    #[must_use]
    pub fn new(settings: UrlSettings, address: Option<IpAddr>) -> Self {
        Self { settings, address }
    }

    /// The URL of an artifact of an attempt, for the machine of `node`.
    ///
    /// `near` is the service's address on the machine's network, if the machine sent a request.
    ///
    /// # Errors
    /// [`Unreachable`]
    pub fn artifact(
        &self,
        node: &Node,
        attempt: &Attempt,
        artifact: Artifact,
        near: Option<IpAddr>,
    ) -> Result<String, Unreachable> {
        let Some(near) = near else {
            return self.artifact_over(IpFamily::V4, node, attempt, artifact);
        };
        Ok(link(&self.near(self.set(node, IpFamily::of(near)), near), attempt, artifact))
    }

    /// The base URL for machines without a URL of their own, at this address of the service.
    #[must_use]
    pub fn fetched_from(&self, near: IpAddr) -> String {
        self.near(self.setting(IpFamily::of(near)), near)
    }

    fn near(&self, set: Option<String>, near: IpAddr) -> String {
        // Over IPv6, firmware cannot use an IPv4 address, and the other way round.
        let reaches =
            |url: &String| Url::parse(url).map_or(true, |url| IpFamily::of(near).reaches(&url));
        set.filter(reaches).unwrap_or_else(|| self.at(near))
    }

    /// The artifact's URL for a machine that boots over this family, on an unknown network.
    ///
    /// # Errors
    /// [`Unreachable`]
    pub fn artifact_over(
        &self,
        family: IpFamily,
        node: &Node,
        attempt: &Attempt,
        artifact: Artifact,
    ) -> Result<String, Unreachable> {
        Ok(link(&self.base_over(node, family)?, attempt, artifact))
    }

    fn base_over(&self, node: &Node, family: IpFamily) -> Result<String, Unreachable> {
        let at = || Some(self.at(self.address?));
        self.set(node, family).or_else(at).ok_or(Unreachable)
    }

    /// The URL before `/boot/` for the machine of `node`, on an unknown network; `None` if none is known.
    #[must_use]
    pub fn base_of(&self, node: &Node) -> Option<Url> {
        Url::parse(&self.base_over(node, IpFamily::V4).ok()?).ok()
    }

    /// Checks that a boot URL for the machine of `node` is known, on an unknown network.
    ///
    /// # Errors
    /// [`Unreachable`]
    pub fn reaches(&self, node: &Node) -> Result<(), Unreachable> {
        self.base_over(node, IpFamily::V4).map(drop)
    }

    /// Whether a boot URL is known for nodes without one of their own.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.setting(IpFamily::V6).is_some() || self.address.is_some()
    }

    fn set(&self, node: &Node, family: IpFamily) -> Option<String> {
        let own = node.driver_text("external_http_url").map(|url| url.trim_end_matches('/'));
        own.map(str::to_owned).or_else(|| self.setting(family))
    }

    fn setting(&self, family: IpFamily) -> Option<String> {
        let boot = match family {
            IpFamily::V4 => self.settings.boot.as_ref(),
            IpFamily::V6 => self.settings.boot6.as_ref().or(self.settings.boot.as_ref()),
        };
        boot.map(base)
    }

    fn at(&self, address: IpAddr) -> String {
        self.settings.boot_port.at(address)
    }

    /// The scheme of the boot URL for the machine of `node`.
    #[must_use]
    pub fn boot_scheme(&self, node: &Node) -> UrlScheme {
        match self.set(node, IpFamily::V4) {
            Some(url) if url.starts_with("https:") => UrlScheme::Https,
            Some(_) => UrlScheme::Http,
            None => self.settings.boot_port.scheme,
        }
    }

    /// Whether the firmware of the machine of `node` gets the service's CA before a boot.
    #[must_use]
    pub fn enrols_ca(&self, node: &Node) -> bool {
        BootCa::of(node) != BootCa::Leave && self.boot_scheme(node) == UrlScheme::Https
    }

    /// The scheme of the agent URL.
    #[must_use]
    pub fn agent_scheme(&self) -> UrlScheme {
        match &self.settings.agent {
            Some(url) if url.scheme() == UrlScheme::Https.name() => UrlScheme::Https,
            Some(_) => UrlScheme::Http,
            None => self.settings.agent_port.scheme,
        }
    }

    /// The agent URL, `ipa-api-url`. `near` is the service's address that the machine fetched from.
    #[must_use]
    pub fn agent(&self, near: IpAddr) -> String {
        match &self.settings.agent {
            Some(url) => base(url),
            None => self.settings.agent_port.at(near),
        }
    }
}

impl IpFamily {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Whether machines with only this family can fetch from the URL: a host name may have both.
    #[must_use]
    pub fn reaches(self, url: &Url) -> bool {
        match (self, url.host()) {
            (Self::V4, Some(Host::Ipv6(_))) | (Self::V6, Some(Host::Ipv4(_))) | (_, None) => false,
            (Self::V4 | Self::V6, Some(Host::Domain(_) | Host::Ipv4(_) | Host::Ipv6(_))) => true,
        }
    }
}

fn link(base: &str, attempt: &Attempt, artifact: Artifact) -> String {
    format!("{base}/boot/{}/{}", attempt.ticket.0, artifact.file_name())
}

fn base(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use provision::test_nodes::booting_node;

    use super::*;

    fn urls(boot: Option<&str>, boot6: Option<&str>) -> Urls {
        Urls::new(settings(boot, boot6), None)
    }

    fn settings(boot: Option<&str>, boot6: Option<&str>) -> UrlSettings {
        let url = |url: &str| url.parse().unwrap();
        UrlSettings {
            boot: boot.map(url),
            boot6: boot6.map(url),
            agent: None,
            boot_port: UrlPort::http(8080),
            agent_port: UrlPort::http(6386),
        }
    }

    fn iso(urls: &Urls, node: &Node, near: Option<&str>) -> Result<String, Unreachable> {
        let near = near.map(|near| near.parse().unwrap());
        urls.artifact(node, node.attempt.as_ref().unwrap(), Artifact::Iso, near)
    }

    #[test]
    fn the_nodes_own_url_wins_over_the_setting_and_that_over_addresses() {
        let mut node = booting_node();
        let address = Some([10, 0, 0, 1].into());

        let plain = Urls::new(settings(None, None), address);
        assert_eq!(iso(&plain, &node, None).unwrap(), "http://10.0.0.1:8080/boot/TICKET/boot.iso");
        let near = iso(&plain, &node, Some("10.1.0.1")).unwrap();
        assert_eq!(near, "http://10.1.0.1:8080/boot/TICKET/boot.iso");
        let six = iso(&plain, &node, Some("fd00::1")).unwrap();
        assert_eq!(six, "http://[fd00::1]:8080/boot/TICKET/boot.iso");
        let set = Urls::new(settings(Some("http://boot.example/"), None), address);
        assert_eq!(iso(&set, &node, None).unwrap(), "http://boot.example/boot/TICKET/boot.iso");
        node.driver_info.insert("external_http_url".into(), "https://edge.example/x/".into());
        assert_eq!(iso(&set, &node, None).unwrap(), "https://edge.example/x/boot/TICKET/boot.iso");
    }

    #[test]
    fn over_ipv6_machines_get_the_url_for_it_and_never_one_that_they_cannot_reach() {
        let four = urls(Some("http://10.0.0.1"), None);
        let both = urls(Some("http://10.0.0.1"), Some("http://[fd00::1]"));
        let node = booting_node();
        let attempt = node.attempt.as_ref().unwrap();
        let near = |urls: &Urls, near: &str| iso(urls, &node, Some(near)).unwrap();
        let over = |family| both.artifact_over(family, &node, attempt, Artifact::Iso).unwrap();

        assert_eq!(near(&four, "10.0.0.2"), "http://10.0.0.1/boot/TICKET/boot.iso");
        assert_eq!(near(&four, "fd00::2"), "http://[fd00::2]:8080/boot/TICKET/boot.iso");
        assert_eq!(near(&both, "10.0.0.2"), "http://10.0.0.1/boot/TICKET/boot.iso");
        assert_eq!(near(&both, "fd00::2"), "http://[fd00::1]/boot/TICKET/boot.iso");
        assert_eq!(over(IpFamily::V4), "http://10.0.0.1/boot/TICKET/boot.iso");
        assert_eq!(over(IpFamily::V6), "http://[fd00::1]/boot/TICKET/boot.iso");
    }

    #[test]
    fn without_any_address_the_setting_to_make_is_named() {
        let unreachable = iso(&urls(None, None), &booting_node(), None).unwrap_err();

        assert!(unreachable.to_string().contains("external_http_url"));
    }

    #[test]
    fn an_agent_calls_where_its_machine_fetched_from() {
        let urls = urls(None, None);

        assert_eq!(urls.agent([10, 0, 0, 1].into()), "http://10.0.0.1:6386");
        assert_eq!(urls.agent("2001:db8::1".parse().unwrap()), "http://[2001:db8::1]:6386");
    }
}
