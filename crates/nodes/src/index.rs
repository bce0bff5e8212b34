//! The in-memory index of nodes by MAC address and by ticket, so that no packet waits for SQL.
//!
//! It follows the store by change numbers. This daemon's own changes are in the index at once; a late change never
//! replaces a newer one.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use hardware::Mac;
use provision::{Node, Port};
use store::{ChangeNumber, ChangePage, NodeChange, SavedNode, SavedPorts};
use uuid::Uuid;

/// Number of tickets of earlier attempts that are kept for each node: machines ask with the last ones.
const EARLIER_TICKETS: usize = 2;

/// The index; clones share one.
#[derive(Clone, Debug, Default)]
pub struct NodeIndex(Arc<RwLock<NodeMaps>>);

#[derive(Debug, Default)]
struct NodeMaps {
    /// The maps contain all changes up to this one.
    followed: ChangeNumber,
    nodes: HashMap<Uuid, IndexedNode>,
    /// Nodes that this daemon deleted after the last followed change.
    deleted: HashMap<Uuid, ChangeNumber>,
    by_mac: HashMap<Mac, Uuid>,
    by_ticket: HashMap<String, Uuid>,
    by_earlier_ticket: HashMap<String, Uuid>,
    /// All nodes with this machine ID.
    by_machine_id: HashMap<[u8; 16], Vec<Uuid>>,
}

#[derive(Debug)]
struct IndexedNode {
    node: Arc<Node>,
    ports: Vec<Arc<Port>>,
    /// The number of the node's last change.
    node_number: ChangeNumber,
    /// The number of the last change of its ports.
    ports_number: ChangeNumber,
    /// The tickets of earlier attempts since the start of the daemon, the latest last.
    earlier_tickets: Vec<String>,
}

/// A port and its node.
#[derive(Clone, Debug)]
pub struct FoundPort {
    /// The node.
    pub node: Arc<Node>,
    /// The port that was looked up.
    pub port: Arc<Port>,
}

impl NodeIndex {
    /// Replaces the contents of the index.
    pub fn load(&self, everything: ChangePage) {
        self.write(|maps| {
            *maps = NodeMaps::default();
            maps.follow(everything);
        });
    }

    /// Applies changes that directly follow those in the index; ignores a page with a gap before it.
    pub fn follow(&self, page: ChangePage) {
        self.write(|maps| maps.follow(page));
    }

    /// The last followed change.
    #[must_use]
    pub fn followed(&self) -> ChangeNumber {
        self.read(|maps| maps.followed)
    }

    /// Records a node that this daemon has saved. Its ports stay as they are.
    pub fn note_node(&self, saved: SavedNode) {
        self.write(|maps| maps.note_node(saved));
    }

    /// Records the ports of a node that this daemon has saved. Ports of a node that is not in the index yet come with
    /// the node.
    pub fn note_ports(&self, saved: SavedPorts) {
        self.write(|maps| maps.note_ports(saved));
    }

    /// Removes a node that this daemon has deleted.
    pub fn note_deletion(&self, node: Uuid, number: ChangeNumber) {
        self.write(|maps| maps.note_deletion(node, number));
    }

    /// The port with this MAC address, and its node.
    #[must_use]
    pub fn by_mac(&self, mac: Mac) -> Option<FoundPort> {
        self.read(|maps| {
            let entry = maps.nodes.get(maps.by_mac.get(&mac)?)?;
            let port = entry.ports.iter().find(|port| port.address == mac)?;
            Some(FoundPort { node: Arc::clone(&entry.node), port: Arc::clone(port) })
        })
    }

    /// The node with this SMBIOS UUID, and its boot port; `None` if several nodes have the UUID. `id` is in the
    /// machine's byte order: firmware sends the first three fields little-endian, iPXE and others big-endian.
    #[must_use]
    pub fn by_machine_id(&self, id: [u8; 16]) -> Option<FoundPort> {
        self.read(|maps| {
            let [only] = maps.by_machine_id.get(&id)?[..] else { return None };
            let entry = maps.nodes.get(&only)?;
            let port =
                entry.ports.iter().find(|port| port.pxe_enabled).or_else(|| entry.ports.first())?;
            Some(FoundPort { node: Arc::clone(&entry.node), port: Arc::clone(port) })
        })
    }

    /// The node whose latest attempt has this ticket, valid or not.
    #[must_use]
    pub fn by_ticket(&self, ticket: &str) -> Option<Arc<Node>> {
        self.read(|maps| {
            let entry = maps.nodes.get(maps.by_ticket.get(ticket)?)?;
            Some(Arc::clone(&entry.node))
        })
    }

    /// The node that had this ticket in one of the last attempts before its latest one. Those from before the start of
    /// the daemon are not known.
    #[must_use]
    pub fn by_earlier_ticket(&self, ticket: &str) -> Option<Arc<Node>> {
        self.read(|maps| {
            let entry = maps.nodes.get(maps.by_earlier_ticket.get(ticket)?)?;
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

    /// The node, and the number of the last change of it and of its ports.
    #[must_use]
    pub fn numbered(&self, uuid: Uuid) -> Option<(Arc<Node>, ChangeNumber)> {
        self.read(|maps| {
            let entry = maps.nodes.get(&uuid)?;
            Some((Arc::clone(&entry.node), entry.node_number.max(entry.ports_number)))
        })
    }

    /// Number of ports.
    #[must_use]
    pub fn ports(&self) -> usize {
        self.read(|maps| maps.by_mac.len())
    }

    /// Every node.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Node>> {
        self.read(|maps| maps.nodes.values().map(|entry| Arc::clone(&entry.node)).collect())
    }

    /// The nodes with a boot or cleaning under way.
    #[must_use]
    pub fn booting(&self) -> Vec<Arc<Node>> {
        let live = |entry: &&IndexedNode| entry.node.live_attempt().is_some();
        self.read(|maps| {
            maps.nodes.values().filter(live).map(|entry| Arc::clone(&entry.node)).collect()
        })
    }

    // A panic elsewhere cannot leave the maps in a harmful state: every change removes and inserts whole entries.
    fn read<T>(&self, look: impl FnOnce(&NodeMaps) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, change: impl FnOnce(&mut NodeMaps)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl IndexedNode {
    fn new(node: Node, number: ChangeNumber) -> Self {
        Self {
            node: Arc::new(node),
            ports: Vec::new(),
            node_number: number,
            ports_number: ChangeNumber::default(),
            earlier_tickets: Vec::new(),
        }
    }

    /// The same after a change of the node.
    fn changed(self, node: Node, number: ChangeNumber) -> Self {
        let ticket = |node: &Node| node.attempt.as_ref().map(|attempt| attempt.ticket.0.clone());
        let (before, now) = (ticket(&self.node), ticket(&node));
        let mut earlier_tickets = self.earlier_tickets;
        earlier_tickets.extend(before);
        // A later boot of an instance has the ticket of the attempt before it.
        earlier_tickets.retain(|ticket| Some(ticket) != now.as_ref());
        let surplus = earlier_tickets.len().saturating_sub(EARLIER_TICKETS);
        earlier_tickets.drain(..surplus);
        Self { node: Arc::new(node), node_number: number, earlier_tickets, ..self }
    }
}

impl NodeMaps {
    fn follow(&mut self, page: ChangePage) {
        if page.since > self.followed {
            return;
        }
        for NodeChange { number, uuid, state } in page.changes {
            match state {
                Some((node, ports)) => {
                    self.note_node(SavedNode { number, node });
                    self.note_ports(SavedPorts { number, node: uuid, ports });
                }
                None => self.note_deletion(uuid, number),
            }
        }
        self.followed = self.followed.max(page.reaches);
        self.deleted.retain(|_, number| *number > self.followed);
    }

    fn note_node(&mut self, SavedNode { number, node }: SavedNode) {
        let uuid = node.uuid;
        let known = self.nodes.get(&uuid).map(|entry| entry.node_number);
        if !self.is_news(uuid, number, known) {
            return;
        }
        let entry = match self.remove(uuid) {
            Some(entry) => entry.changed(node, number),
            None => IndexedNode::new(node, number),
        };
        self.insert(entry);
    }

    fn note_ports(&mut self, SavedPorts { number, node, ports }: SavedPorts) {
        let known = self.nodes.get(&node).map(|entry| entry.ports_number);
        if self.is_news(node, number, known)
            && let Some(entry) = self.remove(node)
        {
            let ports = ports.into_iter().map(Arc::new).collect();
            self.insert(IndexedNode { ports, ports_number: number, ..entry });
        }
    }

    fn note_deletion(&mut self, node: Uuid, number: ChangeNumber) {
        let known = self.nodes.get(&node).map(|entry| entry.node_number);
        if self.is_news(node, number, known) {
            self.remove(node);
            self.deleted.insert(node, number);
        }
    }

    /// Whether a change is newer than the known change of a node.
    fn is_news(&self, node: Uuid, number: ChangeNumber, known: Option<ChangeNumber>) -> bool {
        let deleted = self.deleted.get(&node).copied();
        number > self.followed && Some(number) > known && Some(number) > deleted
    }

    fn insert(&mut self, entry: IndexedNode) {
        let uuid = entry.node.uuid;
        for port in &entry.ports {
            self.by_mac.insert(port.address, uuid);
        }
        if let Some(attempt) = &entry.node.attempt {
            self.by_ticket.insert(attempt.ticket.0.clone(), uuid);
        }
        for ticket in &entry.earlier_tickets {
            self.by_earlier_ticket.insert(ticket.clone(), uuid);
        }
        for id in machine_ids(&entry.node) {
            let nodes = self.by_machine_id.entry(id).or_default();
            if !nodes.contains(&uuid) {
                nodes.push(uuid);
            }
        }
        self.nodes.insert(uuid, entry);
    }

    fn remove(&mut self, uuid: Uuid) -> Option<IndexedNode> {
        let entry = self.nodes.remove(&uuid)?;
        for port in &entry.ports {
            // The port may have moved to another node meanwhile.
            if self.by_mac.get(&port.address) == Some(&uuid) {
                self.by_mac.remove(&port.address);
            }
        }
        if let Some(attempt) = &entry.node.attempt {
            self.by_ticket.remove(&attempt.ticket.0);
        }
        for ticket in &entry.earlier_tickets {
            self.by_earlier_ticket.remove(ticket);
        }
        for id in machine_ids(&entry.node) {
            let Some(nodes) = self.by_machine_id.get_mut(&id) else { continue };
            nodes.retain(|other| *other != uuid);
            if nodes.is_empty() {
                self.by_machine_id.remove(&id);
            }
        }
        Some(entry)
    }
}

/// UUIDs that vendors use for all their boards: AMI's reference code in both byte orders, and a counting sequence.
const OF_ALL_BOARDS: [u128; 3] = [
    0x0300_0200_0400_0500_0006_0007_0008_0009,
    0x0002_0003_0004_0005_0006_0007_0008_0009,
    0x1234_5678_1234_5678_90ab_cdde_efaa_bbcc,
];

/// The SMBIOS UUIDs that a node may have: its `system_uuid`, and the node's own UUID, which is the same if nodes were
/// enrolled by it; each in both byte orders. All zeros, all ones and UUIDs shared by all boards are left out.
fn machine_ids(node: &Node) -> impl Iterator<Item = [u8; 16]> {
    let told = [&node.properties, &node.extra].map(|map| {
        let uuid = map.get("system_uuid")?.as_str()?;
        Uuid::try_parse(uuid).ok()
    });
    let all = told.into_iter().flatten().chain([node.uuid]);
    let of_all = |uuid: &Uuid| OF_ALL_BOARDS.contains(&uuid.as_u128());
    let named = all.filter(move |uuid| !uuid.is_nil() && !uuid.is_max() && !of_all(uuid));
    named.flat_map(|uuid| [uuid.to_bytes_le(), uuid.into_bytes()])
}

#[cfg(test)]
mod tests {
    use provision::node::Secret;
    use provision::test_nodes::{boot_port, booting_node};
    use serde_json::json;

    use super::*;
    use crate::test_nodes::next_number;

    fn saved(number: i64, name: &str) -> SavedNode {
        let node = Node { name: Some(name.to_owned()), ..booting_node() };
        SavedNode { number: number.into(), node }
    }

    fn page(reaches: i64, changes: Vec<NodeChange>) -> ChangePage {
        ChangePage {
            since: ChangeNumber::default(),
            changes,
            reaches: reaches.into(),
            is_last: true,
        }
    }

    fn followed(number: i64, name: &str, ports: Vec<Port>) -> NodeChange {
        let SavedNode { number, node } = saved(number, name);
        NodeChange { number, uuid: node.uuid, state: Some((node, ports)) }
    }

    fn name_in(index: &NodeIndex) -> Option<String> {
        index.all().first().and_then(|node| node.name.clone())
    }

    #[test]
    fn a_change_that_arrives_late_replaces_no_newer_one() {
        let index = NodeIndex::default();
        index.note_node(saved(3, "third"));

        index.note_node(saved(2, "second"));
        assert_eq!(name_in(&index).as_deref(), Some("third"));
        index.follow(page(2, vec![followed(2, "second", Vec::new())]));
        assert_eq!(name_in(&index).as_deref(), Some("third"));
        index.follow(page(5, vec![followed(5, "fifth", Vec::new())]));
        index.note_node(saved(4, "fourth"));
        assert_eq!(name_in(&index).as_deref(), Some("fifth"));
    }

    #[test]
    fn ports_that_another_daemon_changed_are_followed_though_the_node_is_newer_here() {
        let index = NodeIndex::default();
        let uuid = booting_node().uuid;
        index.follow(page(1, vec![followed(1, "n", Vec::new())]));
        // Another daemon added a port in change 2, and this daemon changed the node in change 3.
        index.note_node(saved(3, "mine"));

        let mac = Mac([2, 0, 0, 0, 0, 1]);
        index.follow(page(3, vec![followed(3, "mine", vec![boot_port(uuid, mac)])]));

        assert!(index.by_mac(mac).is_some());
    }

    #[test]
    fn a_deleted_node_stays_away_until_it_is_created_again() {
        let index = NodeIndex::default();
        let uuid = booting_node().uuid;
        index.follow(page(1, vec![followed(1, "n", Vec::new())]));

        index.note_deletion(uuid, 4.into());
        index.note_node(saved(3, "late"));
        index.follow(page(3, vec![followed(3, "late", Vec::new())]));
        assert!(index.all().is_empty(), "the deletion here came later");
        index.follow(page(4, vec![NodeChange { number: 4.into(), uuid, state: None }]));
        index.note_node(saved(2, "later still"));
        assert!(index.all().is_empty());
        index.note_node(saved(5, "anew"));
        assert_eq!(name_in(&index).as_deref(), Some("anew"));
    }

    #[test]
    fn a_deletion_of_another_daemons_is_followed() {
        let index = NodeIndex::default();
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let uuid = booting_node().uuid;
        index.follow(page(1, vec![followed(1, "n", vec![boot_port(uuid, mac)])]));

        index.follow(page(2, vec![NodeChange { number: 2.into(), uuid, state: None }]));

        assert!(index.all().is_empty() && index.by_mac(mac).is_none());
    }

    #[test]
    fn what_is_loaded_takes_the_place_of_everything() {
        let index = NodeIndex::default();
        index.note_node(saved(900, "of another time"));

        index.load(page(2, vec![followed(2, "restored", Vec::new())]));

        assert_eq!(name_in(&index).as_deref(), Some("restored"));
        assert_eq!(index.followed(), 2.into());
    }

    #[test]
    fn the_tickets_of_the_last_earlier_attempts_still_name_their_node() {
        let index = NodeIndex::default();
        let attempt = |number: i64, ticket: &str| {
            let mut saved = saved(number, "n");
            saved.node.attempt.as_mut().unwrap().ticket = Secret(ticket.to_owned());
            index.note_node(saved);
        };
        let uuid = booting_node().uuid;
        let earlier = |ticket| index.by_earlier_ticket(ticket).map(|node| node.uuid);

        for (number, ticket) in [(1, "one"), (2, "two"), (3, "two"), (4, "three"), (5, "four")] {
            attempt(number, ticket);
        }

        let known = ["one", "two", "three", "four"].map(earlier);
        assert_eq!(known, [None, Some(uuid), Some(uuid), None]);
        assert!(index.by_ticket("three").is_none() && index.by_ticket("four").is_some());
        index.note_node(SavedNode {
            node: Node { attempt: None, ..booting_node() },
            number: 6.into(),
        });
        assert_eq!(["two", "three", "four"].map(earlier), [None, Some(uuid), Some(uuid)]);
        index.note_deletion(uuid, 7.into());
        assert_eq!(["three", "four"].map(earlier), [None, None]);
    }

    fn index_of(system_uuid: Uuid) -> NodeIndex {
        let mut node = booting_node();
        node.properties.insert("system_uuid".to_owned(), json!(system_uuid));
        let (index, uuid) = (NodeIndex::default(), node.uuid);
        index.put_node(node);
        index.put_ports(uuid, vec![boot_port(uuid, Mac([2, 0, 0, 0, 0, 1]))]);
        index
    }

    #[test]
    fn a_machine_is_found_by_its_uuid_in_whichever_order_it_says_it() {
        let uuid = Uuid::from_u128(0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00);
        let index = index_of(uuid);

        assert!(index.by_machine_id(uuid.to_bytes_le()).is_some(), "as firmware");
        assert!(index.by_machine_id(uuid.into_bytes()).is_some(), "as iPXE");
    }

    #[test]
    fn a_uuid_that_every_board_without_one_has_is_no_machines() {
        let ami: Uuid = "03000200-0400-0500-0006-000700080009".parse().unwrap();
        for blank in [Uuid::nil(), Uuid::max(), ami] {
            for id in [blank.into_bytes(), blank.to_bytes_le()] {
                assert!(index_of(blank).by_machine_id(id).is_none());
            }
        }
    }

    #[test]
    fn a_uuid_of_two_nodes_is_neithers_until_one_is_gone() {
        let uuid = Uuid::from_u128(0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00);
        let index = index_of(uuid);
        let first = index.all()[0].uuid;
        let mut other = Node { uuid: Uuid::from_u128(5), ..booting_node() };
        other.properties.insert("system_uuid".to_owned(), json!(uuid));
        index.put_node(other.clone());
        index.put_ports(other.uuid, vec![boot_port(other.uuid, Mac([2, 0, 0, 0, 0, 2]))]);

        assert!(index.by_machine_id(uuid.into_bytes()).is_none());
        index.note_deletion(first, next_number());
        let found = index.by_machine_id(uuid.into_bytes()).unwrap();
        assert_eq!(found.node.uuid, other.uuid);
    }
}
