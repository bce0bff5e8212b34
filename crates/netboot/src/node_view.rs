//! The registered machines, as the DHCP path sees them.

use std::sync::Arc;

use hardware::Mac;
use provision::{Node, Port};

/// A port of a node, and the node.
#[derive(Clone, Debug)]
pub struct RegisteredPort {
    /// The node.
    pub node: Arc<Node>,
    /// The port that was looked up.
    pub port: Arc<Port>,
}

/// Nodes and ports in memory: no packet waits for a database.
pub trait NodeView {
    /// The port with this MAC address.
    fn by_mac(&self, mac: Mac) -> Option<RegisteredPort>;

    /// The node with this SMBIOS UUID, and its boot port; `None` if several nodes have the UUID.
    fn by_machine_id(&self, id: [u8; 16]) -> Option<RegisteredPort>;

    /// Number of ports.
    fn port_count(&self) -> usize;
}
