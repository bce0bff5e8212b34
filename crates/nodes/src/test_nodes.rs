//! An index that tests fill by hand.

use std::sync::atomic::{AtomicI64, Ordering};

use provision::{Node, Port};
use store::{ChangeNumber, SavedNode, SavedPorts};
use uuid::Uuid;

use crate::index::NodeIndex;

impl NodeIndex {
    /// Adds a node with a new change number; its ports stay as they are.
    pub fn put_node(&self, node: Node) {
        self.note_node(SavedNode { number: next_number(), node });
    }

    /// Adds the ports of a node with a new change number.
    pub fn put_ports(&self, node: Uuid, ports: Vec<Port>) {
        self.note_ports(SavedPorts { number: next_number(), node, ports });
    }
}

/// A new change number.
pub(crate) fn next_number() -> ChangeNumber {
    static NUMBERS: AtomicI64 = AtomicI64::new(1_000);
    ChangeNumber::from(NUMBERS.fetch_add(1, Ordering::Relaxed))
}
