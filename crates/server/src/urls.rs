//! The URLs that machines are given: ours, as machines reach us.

use std::net::{IpAddr, SocketAddr};

use provision::boot::Artifact;
use provision::{Attempt, Node};
use thiserror::Error;
use url::{Host, Url};

use crate::config::Config;

/// How machines reach us.
#[derive(Clone, Debug)]
pub struct Urls {
    boot: Option<Url>,
    boot6: Option<Url>,
    agent: Option<String>,
    boot_port: u16,
    agent_port: u16,
    /// Ours on the first DHCP network.
    address: Option<IpAddr>,
}

/// Of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// Machines cannot be told where to fetch from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "it is not known at which address machines reach this service: set url in [boot], or \
     external_http_url in the node's driver_info"
)]
pub struct Unreachable;

impl Urls {
    /// As the settings say; `address` is ours on the first DHCP network.
    #[must_use]
    pub fn new(config: &Config, address: Option<IpAddr>) -> Self {
        Self {
            boot: config.boot.url.clone(),
            boot6: config.boot.url6.clone(),
            agent: config.agent.url.as_ref().map(base),
            boot_port: config.boot.listen.port(),
            agent_port: config.agent.listen.port(),
            address,
        }
    }

    /// Where the machine of `node` fetches an artifact of an attempt.
    ///
    /// `near` is our address on the network it asks on, if it asks.
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
            return self.artifact_over(Family::V4, node, attempt, artifact);
        };
        Ok(link(&self.near(self.set(node, Family::of(near)), near), attempt, artifact))
    }

    /// Where the machines fetch from that have no URL of their own and ask us at this address.
    #[must_use]
    pub fn fetched_from(&self, near: IpAddr) -> String {
        self.near(self.setting(Family::of(near)), near)
    }

    fn near(&self, set: Option<String>, near: IpAddr) -> String {
        // Over IPv6 firmware has no use for an IPv4 address, nor the reverse.
        let reaches =
            |url: &String| Url::parse(url).map_or(true, |url| Family::of(near).reaches(&url));
        set.filter(reaches).unwrap_or_else(|| self.at(near))
    }

    /// Where a machine fetches it that asks over this family, on a network which is not known.
    ///
    /// # Errors
    /// [`Unreachable`]
    pub fn artifact_over(
        &self,
        family: Family,
        node: &Node,
        attempt: &Attempt,
        artifact: Artifact,
    ) -> Result<String, Unreachable> {
        Ok(link(&self.base_over(node, family)?, attempt, artifact))
    }

    fn base_over(&self, node: &Node, family: Family) -> Result<String, Unreachable> {
        let at = || Some(self.at(self.address?));
        self.set(node, family).or_else(at).ok_or(Unreachable)
    }

    /// Whether it is known where the machine of `node` fetches on a network which is not known.
    ///
    /// # Errors
    /// [`Unreachable`]
    pub(crate) fn reaches(&self, node: &Node) -> Result<(), Unreachable> {
        self.base_over(node, Family::V4).map(drop)
    }

    /// Whether that is known of machines whose nodes say nothing of their own.
    pub(crate) fn is_known(&self) -> bool {
        self.setting(Family::V6).is_some() || self.address.is_some()
    }

    fn set(&self, node: &Node, family: Family) -> Option<String> {
        let own = node.driver_text("external_http_url").map(|url| url.trim_end_matches('/'));
        own.map(str::to_owned).or_else(|| self.setting(family))
    }

    fn setting(&self, family: Family) -> Option<String> {
        let boot = match family {
            Family::V4 => self.boot.as_ref(),
            Family::V6 => self.boot6.as_ref().or(self.boot.as_ref()),
        };
        boot.map(base)
    }

    fn at(&self, address: IpAddr) -> String {
        at(address, self.boot_port)
    }

    /// Where an agent calls: `ipa-api-url`. `near` is our address that its machine fetched from.
    #[must_use]
    pub fn agent(&self, near: IpAddr) -> String {
        self.agent.clone().unwrap_or_else(|| at(near, self.agent_port))
    }
}

impl Family {
    /// That of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Whether machines that have this family alone can fetch it: a name may have both.
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

/// An IPv6 address stands in brackets (RFC 3986 §3.2.2).
fn at(address: IpAddr, port: u16) -> String {
    format!("http://{}", SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use provision::node::{FreshAttempt, Secret};
    use provision::{BootInterface, Procedure};
    use uuid::Uuid;

    use super::*;

    fn node() -> (Node, Attempt) {
        let node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
        let attempt = Attempt::begun(
            FreshAttempt {
                attempt: Uuid::nil(),
                ticket: Secret("TICKET".to_owned()),
                agent_token: Secret("TOKEN".to_owned()),
            },
            Procedure::Clean,
            BootInterface::RedfishHttps,
            Timestamp::UNIX_EPOCH,
        );
        (node, attempt)
    }

    fn iso(urls: &Urls, node: &Node, near: Option<IpAddr>) -> Result<String, Unreachable> {
        urls.artifact(node, &node_attempt(), Artifact::Iso, near)
    }

    fn node_attempt() -> Attempt {
        node().1
    }

    #[test]
    fn the_nodes_own_url_wins_over_the_setting_and_that_over_addresses() {
        let config: Config = "[boot]\nurl = \"http://boot.example/\"".parse().unwrap();
        let (mut node, _) = node();
        let address = Some([10, 0, 0, 1].into());

        let plain = Urls::new(&Config::default(), address);
        assert_eq!(iso(&plain, &node, None).unwrap(), "http://10.0.0.1:8080/boot/TICKET/boot.iso");
        let near = iso(&plain, &node, Some([10, 1, 0, 1].into())).unwrap();
        assert_eq!(near, "http://10.1.0.1:8080/boot/TICKET/boot.iso");
        let six = iso(&plain, &node, Some("fd00::1".parse().unwrap())).unwrap();
        assert_eq!(six, "http://[fd00::1]:8080/boot/TICKET/boot.iso");
        let set = Urls::new(&config, address);
        assert_eq!(iso(&set, &node, None).unwrap(), "http://boot.example/boot/TICKET/boot.iso");
        node.driver_info.insert("external_http_url".into(), "https://edge.example/x/".into());
        assert_eq!(iso(&set, &node, None).unwrap(), "https://edge.example/x/boot/TICKET/boot.iso");
    }

    #[test]
    fn over_ipv6_machines_get_the_url_for_it_and_never_one_that_they_cannot_reach() {
        let config = |boot: &str| -> Config { format!("[boot]\n{boot}").parse().unwrap() };
        let four = Urls::new(&config("url = \"http://10.0.0.1\""), None);
        let both = "url = \"http://10.0.0.1\"\nurl6 = \"http://[fd00::1]\"";
        let both = Urls::new(&config(both), None);
        let (node, attempt) = node();
        let near = |urls: &Urls, near: &str| iso(urls, &node, Some(near.parse().unwrap())).unwrap();
        let over = |family| both.artifact_over(family, &node, &attempt, Artifact::Iso).unwrap();

        assert_eq!(near(&four, "10.0.0.2"), "http://10.0.0.1/boot/TICKET/boot.iso");
        assert_eq!(near(&four, "fd00::2"), "http://[fd00::2]:8080/boot/TICKET/boot.iso");
        assert_eq!(near(&both, "10.0.0.2"), "http://10.0.0.1/boot/TICKET/boot.iso");
        assert_eq!(near(&both, "fd00::2"), "http://[fd00::1]/boot/TICKET/boot.iso");
        assert_eq!(over(Family::V4), "http://10.0.0.1/boot/TICKET/boot.iso");
        assert_eq!(over(Family::V6), "http://[fd00::1]/boot/TICKET/boot.iso");
    }

    #[test]
    fn without_any_address_the_setting_to_make_is_named() {
        let urls = Urls::new(&Config::default(), None);

        let unreachable = iso(&urls, &node().0, None).unwrap_err();

        assert!(unreachable.to_string().contains("external_http_url"));
    }

    #[test]
    fn an_agent_calls_where_its_machine_fetched_from() {
        let urls = Urls::new(&Config::default(), None);

        assert_eq!(urls.agent([10, 0, 0, 1].into()), "http://10.0.0.1:6386");
        assert_eq!(urls.agent("2001:db8::1".parse().unwrap()), "http://[2001:db8::1]:6386");
    }
}
