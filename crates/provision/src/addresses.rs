//! The network addresses of a machine: the agent token of an operator's own image is given to no other address.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use thiserror::Error;

use crate::boot::boots_iso;
use crate::machine_addresses::TokenHolder;
use crate::node::{Attempt, Node, Secret};
use crate::procedure::Boots;

/// The key of `driver_info` with the networks of a node's agent.
pub const AGENT_NETWORKS: &str = "agent_networks";

/// Number of networks in `driver_info/agent_networks`.
const MOST_NETWORKS: usize = 32;

/// Time after which the token holder's address may get the token again, before the first heartbeat.
///
/// An answer can be lost, and a machine whose agent never gets the token is stuck for the rest of the attempt. An
/// agent that repeats its lookup has waited for an answer, or its connection broke; of two agents behind one address
/// with concurrent lookups, only one gets the token.
pub const TOKEN_AGAIN: SignedDuration = SignedDuration::from_secs(3);

/// Whether an address belongs to the node's machine in this attempt: it fetched the attempt's image, is leased to one
/// of the node's cards, or is in `driver_info/agent_networks`.
#[must_use]
pub fn belongs(node: &Node, attempt: &Attempt, address: IpAddr) -> bool {
    let address = address.to_canonical();
    let networks = agent_networks(node).unwrap_or_default();
    attempt.addresses.holds(address) || networks.iter().any(|network| network.contains(&address))
}

/// Whether the attempt boots an operator's own ISO image, which cannot carry the token: all images that the daemon
/// composes have it on the kernel command line.
#[must_use]
pub fn boots_own_iso(node: &Node, attempt: &Attempt) -> bool {
    attempt.boots() == Boots::Ramdisk && boots_iso(node, attempt)
}

/// The token for the answer to a lookup from `from` at `at`, once [`step()`](crate::step()) has accepted it; `node`
/// is the node after the lookup.
#[must_use]
pub fn token_for(node: &Node, from: IpAddr, at: Timestamp) -> Option<&Secret> {
    let attempt = node.live_attempt().filter(|attempt| boots_own_iso(node, attempt))?;
    let holder = TokenHolder { address: from.to_canonical(), at };
    let is_given = attempt.agent.is_none() && attempt.addresses.token_holder == Some(holder);
    is_given.then_some(&attempt.agent_token)
}

/// The error in `driver_info/agent_networks`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadAgentNetworks {
    /// It is neither a list of texts nor a text.
    #[error(
        "driver_info/agent_networks must be a list of networks, such as [\"192.0.2.0/24\", \"2001:db8::/64\"]"
    )]
    NotAList,
    /// An item is not a network.
    #[error(
        "driver_info/agent_networks has {0:?}, which is neither a network in CIDR notation, such as 192.0.2.0/24, nor an address"
    )]
    NotANetwork(String),
    /// A network has bits beyond its prefix.
    #[error(
        "driver_info/agent_networks has {given}, which is an address in a network: write {network} for the whole \
         network, or {address} for the address alone"
    )]
    HostBits {
        /// The given item.
        given: IpNet,
        /// The network.
        network: IpNet,
        /// The address.
        address: IpAddr,
    },
    /// There are too many networks.
    #[error("driver_info/agent_networks has {0} networks, and {MOST_NETWORKS} is the most")]
    TooMany(usize),
}

/// Parses `driver_info/agent_networks`: a list of texts or, since command lines pass only text, one text with commas.
///
/// # Errors
/// [`BadAgentNetworks`], worded for the operator.
pub fn agent_networks(node: &Node) -> Result<Vec<IpNet>, BadAgentNetworks> {
    let Some(value) = node.driver_info.get(AGENT_NETWORKS) else { return Ok(Vec::new()) };
    let texts: Vec<&str> = match value {
        Value::Null => Vec::new(),
        Value::String(text) => text.split(',').collect(),
        Value::Array(list) => list
            .iter()
            .map(|entry| entry.as_str().ok_or(BadAgentNetworks::NotAList))
            .collect::<Result<_, _>>()?,
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            return Err(BadAgentNetworks::NotAList);
        }
    };
    let texts: Vec<_> = texts.into_iter().map(str::trim).filter(|text| !text.is_empty()).collect();
    if texts.len() > MOST_NETWORKS {
        return Err(BadAgentNetworks::TooMany(texts.len()));
    }
    texts.into_iter().map(network).collect()
}

fn network(text: &str) -> Result<IpNet, BadAgentNetworks> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let given: IpNet =
        text.parse().map_err(|_| BadAgentNetworks::NotANetwork(text.chars().take(60).collect()))?;
    let network = given.trunc();
    if network == given {
        return Ok(network);
    }
    Err(BadAgentNetworks::HostBits { given, network, address: given.addr() })
}

/// A lookup without a token in its answer, since its address is not known to be the machine's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignLookup {
    /// The address of the lookup.
    pub from: IpAddr,
    /// Whether the image is in the virtual CD drive of the BMC, which reads it from an address of its own.
    pub is_read_by_bmc: bool,
    /// Addresses that fetched the attempt's image.
    pub fetched: Vec<IpAddr>,
    /// Addresses that DHCP leased to the node's cards in this attempt.
    pub leased: Vec<IpAddr>,
}

impl fmt::Display for ForeignLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, is_read_by_bmc, fetched, leased } = self;
        match fetched.is_empty() {
            true if *is_read_by_bmc => f.write_str("the image is read by the BMC")?,
            true => f.write_str("the image was fetched by nobody yet")?,
            false => write!(f, "the image was fetched by {}", list(fetched))?,
        }
        if !leased.is_empty() {
            write!(f, ", DHCP gave the machine {}", list(leased))?;
        }
        write!(
            f,
            ", and the lookup came from {from}: an address that is not known to be the machine's gets no token"
        )
    }
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn node(networks: Value) -> Node {
        let mut node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
        node.driver_info.insert(AGENT_NETWORKS.to_owned(), networks);
        node
    }

    fn words(networks: Value) -> String {
        agent_networks(&node(networks)).unwrap_err().to_string()
    }

    #[test]
    fn networks_are_a_list_or_one_text_with_commas() {
        let list = agent_networks(&node(json!(["192.0.2.0/24", "2001:db8::/64", "10.0.0.1"])));
        let text = agent_networks(&node(json!("192.0.2.0/24, 2001:db8::/64,10.0.0.1")));

        assert_eq!(list.as_ref().unwrap().len(), 3);
        assert_eq!(list, text);
        assert_eq!(agent_networks(&node(json!(null))).unwrap(), []);
        assert_eq!(agent_networks(&node(json!(""))).unwrap(), []);
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_to_write() {
        assert!(words(json!({ "a": 1 })).contains("must be a list of networks"));
        assert!(words(json!([1])).contains("must be a list of networks"));
        assert!(words(json!(["192.0.2.0/33"])).contains("\"192.0.2.0/33\""));
        assert!(words(json!(["x".repeat(10_000)])).len() < 300);
        let host = words(json!(["192.0.2.7/24"]));
        assert!(host.contains("write 192.0.2.0/24") && host.contains("or 192.0.2.7 for"), "{host}");
        assert!(words(json!(vec!["192.0.2.0/24"; 33])).contains("32 is the most"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_networks_or_refused_in_few_words(text in "\\PC{0,80}|[0-9a-f:./, ]{0,60}") {
            match agent_networks(&node(json!(text))) {
                Ok(networks) => prop_assert!(networks.len() <= MOST_NETWORKS),
                Err(bad) => prop_assert!(bad.to_string().len() < 600),
            }
        }

        #[test]
        fn what_is_written_is_read_back(octets in any::<[u8; 4]>(), len in 0_u8..=32) {
            let network = IpNet::new(IpAddr::from(octets), len).unwrap().trunc();
            let read = agent_networks(&node(json!([network.to_string()])));
            prop_assert_eq!(read.unwrap(), vec![network]);
        }
    }
}
