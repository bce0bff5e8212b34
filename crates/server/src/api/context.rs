//! The context of all handlers: nodes, trace recorder, settings, rate limits; and the lookup of a path's node.

use std::sync::Arc;

use ::bmcs::ServiceCertificates;
use agents::AgentMailbox;
use ironic::version::since;
use ironic::{Version, guards};
use nodes::{Nodes, Recorder};
use provision::Node;
use provision::artifact::HttpLoader;
use store::{NodeKey, StoredNode};

use super::agent_calls::AgentCalls;
use crate::bmcs::DaemonBmcs;
use crate::dhcp::BootingStrangers;
use crate::error::ApiError;
use crate::means::BootMeans;

/// Number of agents that may wait for calls, without the limit of a port.
const WAITING_AGENTS: usize = 256;

/// The context of all handlers; clones share it.
#[derive(Clone, Debug)]
pub struct ApiContext {
    pub(super) nodes: Nodes,
    pub(super) recorder: Recorder,
    pub(super) settings: Arc<ApiSettings>,
    pub(super) agent_calls: Arc<AgentCalls>,
    pub(super) bmcs: DaemonBmcs,
    pub(super) mailbox: AgentMailbox,
}

/// Settings of the API.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// The daemon's name, the `conductor` of its nodes.
    pub host: String,
    /// The base URL of links in answers; by default from the request's `Host`.
    pub public_url: Option<String>,
    /// Seconds of silence after which an agent counts as lost. Agents get it in the lookup.
    pub heartbeat_timeout_secs: u32,
    /// Whether an agent's command API must be HTTPS. The token travels in its URLs.
    pub agent_require_tls: bool,
    /// Lookups and heartbeats per second and address; 0 means no limit.
    pub agent_calls_per_sec: u32,
    /// First loader of the `http` boot interface, for diagnoses.
    pub loader: HttpLoader,
    /// The host's means to boot machines. Without it, boots are not checked before they begin.
    pub means: Option<BootMeans>,
    /// Strangers that requested a boot by DHCP, for diagnoses.
    pub strangers: BootingStrangers,
    /// Whether requests by PXE are answered.
    pub allows_pxe: bool,
    /// The service's certificates.
    pub certificates: Arc<ServiceCertificates>,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            host: "ferroboot".to_owned(),
            public_url: None,
            heartbeat_timeout_secs: 300,
            agent_require_tls: true,
            means: None,
            strangers: BootingStrangers::default(),
            allows_pxe: false,
            certificates: Arc::default(),
            agent_calls_per_sec: 20,
            loader: HttpLoader::default(),
        }
    }
}

impl ApiContext {
    /// A context for `nodes`, within a tokio runtime.
    #[must_use]
    pub fn new(nodes: Nodes, recorder: Recorder, settings: ApiSettings) -> Self {
        let agent_calls = Arc::new(AgentCalls::new(settings.agent_calls_per_sec));
        let bmcs = DaemonBmcs::new();
        let mailbox = AgentMailbox::new(nodes.store().clone(), WAITING_AGENTS);
        Self { nodes, recorder, settings: Arc::new(settings), agent_calls, bmcs, mailbox }
    }

    /// With the connections to BMCs that the workers use.
    #[must_use]
    pub(crate) fn with_bmcs(self, bmcs: DaemonBmcs) -> Self {
        Self { bmcs, ..self }
    }

    /// With the mailbox that the workers use.
    #[must_use]
    pub fn with_mailbox(self, mailbox: AgentMailbox) -> Self {
        Self { mailbox, ..self }
    }
}

impl ApiContext {
    /// The node of a path segment: by UUID or, from 1.5 on, by name.
    pub(super) async fn find(&self, ident: &str, version: Version) -> Result<StoredNode, ApiError> {
        let key = NodeKey::from(ident);
        if matches!(key, NodeKey::Name(_)) {
            if !guards::is_name(ident, true) {
                let text = format!("Expected UUID or name for node_ident: {ident}");
                return Err(ApiError::bad_request(text));
            }
            if !version.has(since::NAMES) {
                return Err(ApiError::no_such_node(ident));
            }
        }
        self.nodes.store().node(&key).await?.ok_or_else(|| ApiError::no_such_node(ident))
    }

    /// Checks that `ident` still identifies the node. A request changes the node that has the name at the time of the
    /// change, or none.
    pub(super) fn still_called(node: &Node, ident: &str) -> Result<(), ApiError> {
        match NodeKey::from(ident) {
            NodeKey::Name(name) if node.name.as_ref() != Some(&name) => {
                Err(ApiError::no_such_node(ident))
            }
            NodeKey::Name(_) | NodeKey::Uuid(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_node_that_was_renamed_since_it_was_found_is_not_what_the_request_names() {
        let mut node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
        node.name = Some("n1".to_owned());
        assert!(ApiContext::still_called(&node, "n1").is_ok());

        node.name = Some("n2".to_owned());
        let gone = ApiContext::still_called(&node, "n1").unwrap_err();
        assert_eq!(gone.text(), "Node n1 could not be found.");
        assert!(ApiContext::still_called(&node, &Uuid::nil().to_string()).is_ok());
    }
}
