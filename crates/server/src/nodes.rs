//! Nodes by MAC address and by ticket, in memory, so that no packet waits for SQL.
//!
//! Filled from the store at start, and told of every change by whoever made it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use provision::{Mac, Node, Port};
use uuid::Uuid;

/// The index; clones share one.
#[derive(Clone, Debug, Default)]
pub struct Index(Arc<RwLock<Maps>>);

#[derive(Debug, Default)]
struct Maps {
    nodes: HashMap<Uuid, Entry>,
    by_mac: HashMap<Mac, Uuid>,
    by_ticket: HashMap<String, Uuid>,
    by_machine_id: HashMap<[u8; 16], Uuid>,
}

#[derive(Debug)]
struct Entry {
    node: Arc<Node>,
    ports: Vec<Arc<Port>>,
}

/// A port and its node.
#[derive(Clone, Debug)]
pub struct Found {
    /// The node.
    pub node: Arc<Node>,
    /// Its port that was asked for.
    pub port: Arc<Port>,
}

impl Index {
    /// Takes a node as it now is; its ports stay as they are.
    pub fn put_node(&self, node: Node) {
        self.write(|maps| {
            let ports = maps.remove(node.uuid).map(|entry| entry.ports).unwrap_or_default();
            maps.insert(Entry { node: Arc::new(node), ports });
        });
    }

    /// Takes the ports of a node as they now are; does nothing for an unknown node.
    pub fn put_ports(&self, node: Uuid, ports: Vec<Port>) {
        self.write(|maps| {
            if let Some(entry) = maps.remove(node) {
                maps.insert(Entry { ports: ports.into_iter().map(Arc::new).collect(), ..entry });
            }
        });
    }

    /// Forgets a node and its ports.
    pub fn remove(&self, node: Uuid) {
        self.write(|maps| drop(maps.remove(node)));
    }

    /// The port with this address, and its node.
    #[must_use]
    pub fn by_mac(&self, mac: Mac) -> Option<Found> {
        self.read(|maps| {
            let entry = maps.nodes.get(maps.by_mac.get(&mac)?)?;
            let port = entry.ports.iter().find(|port| port.address == mac)?;
            Some(Found { node: Arc::clone(&entry.node), port: Arc::clone(port) })
        })
    }

    /// The node of a machine whose SMBIOS UUID is known, and the port it boots from. `id` is as firmware
    /// sends it: the first three fields are little-endian.
    #[must_use]
    pub fn by_machine_id(&self, id: [u8; 16]) -> Option<Found> {
        self.read(|maps| {
            let entry = maps.nodes.get(maps.by_machine_id.get(&id)?)?;
            let port =
                entry.ports.iter().find(|port| port.pxe_enabled).or_else(|| entry.ports.first())?;
            Some(Found { node: Arc::clone(&entry.node), port: Arc::clone(port) })
        })
    }

    /// The node whose latest attempt has this ticket, whether the ticket is still good or not.
    #[must_use]
    pub fn by_ticket(&self, ticket: &str) -> Option<Arc<Node>> {
        self.read(|maps| {
            let entry = maps.nodes.get(maps.by_ticket.get(ticket)?)?;
            Some(Arc::clone(&entry.node))
        })
    }

    /// The node, and its ports.
    #[must_use]
    pub fn by_uuid(&self, uuid: Uuid) -> Option<(Arc<Node>, Vec<Arc<Port>>)> {
        self.read(|maps| {
            maps.nodes.get(&uuid).map(|entry| (Arc::clone(&entry.node), entry.ports.clone()))
        })
    }

    /// How many ports there are.
    #[must_use]
    pub fn ports(&self) -> usize {
        self.read(|maps| maps.by_mac.len())
    }

    /// Every node.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Node>> {
        self.read(|maps| maps.nodes.values().map(|entry| Arc::clone(&entry.node)).collect())
    }

    /// The nodes whose machines are being booted or cleaned.
    #[must_use]
    pub fn booting(&self) -> Vec<Arc<Node>> {
        let live = |entry: &&Entry| entry.node.live_attempt().is_some();
        self.read(|maps| {
            maps.nodes.values().filter(live).map(|entry| Arc::clone(&entry.node)).collect()
        })
    }

    // A panic elsewhere cannot leave the maps half-changed in a way that matters here: every
    // change removes and inserts whole entries.
    fn read<T>(&self, look: impl FnOnce(&Maps) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, change: impl FnOnce(&mut Maps)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Maps {
    fn insert(&mut self, entry: Entry) {
        let uuid = entry.node.uuid;
        for port in &entry.ports {
            self.by_mac.insert(port.address, uuid);
        }
        if let Some(attempt) = &entry.node.attempt {
            self.by_ticket.insert(attempt.ticket.0.clone(), uuid);
        }
        for id in machine_ids(&entry.node) {
            self.by_machine_id.insert(id, uuid);
        }
        self.nodes.insert(uuid, entry);
    }

    fn remove(&mut self, uuid: Uuid) -> Option<Entry> {
        let entry = self.nodes.remove(&uuid)?;
        for port in &entry.ports {
            // A port may have gone to another node in between.
            if self.by_mac.get(&port.address) == Some(&uuid) {
                self.by_mac.remove(&port.address);
            }
        }
        if let Some(attempt) = &entry.node.attempt {
            self.by_ticket.remove(&attempt.ticket.0);
        }
        for id in machine_ids(&entry.node) {
            if self.by_machine_id.get(&id) == Some(&uuid) {
                self.by_machine_id.remove(&id);
            }
        }
        Some(entry)
    }
}

/// The SMBIOS UUIDs that a node may have: what its operator wrote down as `system_uuid`, and the
/// node's own, which is the same where nodes were enrolled by it.
fn machine_ids(node: &Node) -> impl Iterator<Item = [u8; 16]> {
    let told = [&node.properties, &node.extra].map(|map| {
        let uuid = map.get("system_uuid")?.as_str()?;
        Uuid::try_parse(uuid).ok()
    });
    told.into_iter().flatten().chain([node.uuid]).map(|uuid| uuid.to_bytes_le())
}
