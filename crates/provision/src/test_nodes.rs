//! Nodes and ports for the tests of all crates.

use hardware::Mac;
use jiff::Timestamp;
use serde_json::Map;
use uuid::Uuid;

use crate::node::{FreshAttempt, Secret};
use crate::{Attempt, BootInterface, Node, Port, Procedure, ProvisionState};

/// The UUID of the attempt of [`booting_node`].
pub const ATTEMPT: Uuid = Uuid::from_u128(1);

/// The ticket of the attempt of [`booting_node`].
pub const TICKET: &str = "TICKET";

/// A node during a clean that boots by `http`.
#[must_use]
pub fn booting_node() -> Node {
    let mut node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
    node.provision_state = ProvisionState::CleanWait;
    node.attempt = Some(Attempt::begun(
        FreshAttempt {
            attempt: ATTEMPT,
            ticket: Secret(TICKET.to_owned()),
            agent_token: Secret("TOKEN".to_owned()),
        },
        Procedure::Clean,
        BootInterface::Http,
        "2026-01-02T03:04:05Z".parse().expect("it is a time"),
    ));
    node
}

/// A boot port of the node with this UUID.
#[must_use]
pub fn boot_port(node_uuid: Uuid, address: Mac) -> Port {
    Port {
        uuid: Uuid::from_u128(2),
        node_uuid,
        address,
        pxe_enabled: true,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: None,
        extra: Map::new(),
        kept: Map::new(),
    }
}
