//! What handlers work with: the nodes, the recorder of traces, the settings; and the node that a path names.

use std::sync::Arc;

use ironic::version::since;
use ironic::{Version, guards};
use provision::Node;
use provision::boot::HttpLoader;
use store::{NodeKey, StoredNode};

use super::agent_calls::AgentCalls;
use crate::change::Nodes;
use crate::dhcp::BootingStrangers;
use crate::error::ApiError;
use crate::means::BootMeans;
use crate::trace::Recorder;

/// What handlers work with; clones share it.
#[derive(Clone, Debug)]
pub struct ApiContext {
    pub(super) nodes: Nodes,
    pub(super) recorder: Recorder,
    pub(super) settings: Arc<ApiSettings>,
    pub(super) agent_calls: Arc<AgentCalls>,
}

/// What the API is told at its start.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// What this daemon calls itself: `conductor` of its nodes.
    pub host: String,
    /// Where clients reach us, for links; by default where each says that it did.
    pub public_url: Option<String>,
    /// What agents are told: seconds of silence after which they count as lost.
    pub heartbeat_timeout_secs: u32,
    /// Whether an agent's command API must be HTTPS, since its token travels in the URL.
    pub agent_require_tls: bool,
    /// Lookups and heartbeats that one address may send per second; 0 for as many as it likes.
    pub agent_calls_per_sec: u32,
    /// What the `http` boot interface starts first, for diagnoses.
    pub loader: HttpLoader,
    /// What this host boots machines with; without, a boot is not judged before it is begun.
    pub means: Option<BootMeans>,
    /// Who asked for a boot and is nobody's port, for diagnoses.
    pub strangers: BootingStrangers,
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
            agent_calls_per_sec: 20,
            loader: HttpLoader::default(),
        }
    }
}

impl ApiContext {
    /// The API to `nodes`.
    #[must_use]
    pub fn new(nodes: Nodes, recorder: Recorder, settings: ApiSettings) -> Self {
        let agent_calls = Arc::new(AgentCalls::new(settings.agent_calls_per_sec));
        Self { nodes, recorder, settings: Arc::new(settings), agent_calls }
    }
}

impl ApiContext {
    /// The node that a URL names, by UUID or, from 1.5 on, by name.
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

    /// Whether the node that was found under `ident` has not been given another name since: what a
    /// request does is done to the node that has the name then, or to none.
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
