//! The URLs that machines are given: ours, as machines reach us.

use std::net::{IpAddr, SocketAddr};

use provision::boot::Artifact;
use provision::{Attempt, Node};
use thiserror::Error;

use crate::config::Config;

/// How machines reach us.
#[derive(Clone, Debug)]
pub struct Urls {
    boot: Option<String>,
    agent: Option<String>,
    boot_port: u16,
    agent_port: u16,
    /// Ours on the first DHCP network.
    address: Option<IpAddr>,
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
        let base = |url: &url::Url| url.as_str().trim_end_matches('/').to_owned();
        Self {
            boot: config.boot.url.as_ref().map(base),
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
        let own = node.driver_text("external_http_url").map(|url| url.trim_end_matches('/'));
        let base = match (own.or(self.boot.as_deref()), near.or(self.address)) {
            (Some(base), _) => base.to_owned(),
            (None, Some(address)) => base(address, self.boot_port),
            (None, None) => return Err(Unreachable),
        };
        Ok(format!("{base}/boot/{}/{}", attempt.ticket.0, artifact.file_name()))
    }

    /// Where an agent calls: `ipa-api-url`. `near` is our address that its machine fetched from.
    #[must_use]
    pub fn agent(&self, near: IpAddr) -> String {
        self.agent.clone().unwrap_or_else(|| base(near, self.agent_port))
    }
}

/// An IPv6 address stands in brackets (RFC 3986 §3.2.2).
fn base(address: IpAddr, port: u16) -> String {
    format!("http://{}", SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use provision::node::{Clean, Secret};
    use provision::{BootInterface, Node};
    use uuid::Uuid;

    use super::*;

    fn node() -> (Node, Attempt) {
        let node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
        let attempt = Attempt {
            id: Uuid::nil(),
            ticket: Secret("TICKET".to_owned()),
            agent_token: Secret("TOKEN".to_owned()),
            token_given: false,
            boot_interface: BootInterface::RedfishHttps,
            started_at: Timestamp::UNIX_EPOCH,
            powered_on_at: None,
            ended_at: None,
            agent: None,
            clean: Clean::default(),
        };
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
