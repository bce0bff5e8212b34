//! Ports: the network cards of nodes, found by their MAC addresses.

use std::collections::{BTreeMap, BTreeSet};

use hardware::Mac;
use jiff::Timestamp;
use provision::limits::MAX_PORTS_OF_NODE;
use provision::{Node, Port};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};
use uuid::Uuid;

use crate::error::{ListError, PortChangeError, PortError, StoreError};
use crate::key::DatabaseKey;
use crate::nodes::SortDirection;
use crate::numbers::{SavedPorts, number_change};
use crate::open::Store;
use crate::sql::{Where, document, duplicates, json, micros};
use crate::taken_node::{TakenNode, take_node};

/// Number of tries to change a port that is moved to another node meanwhile.
const TRIES: u32 = 8;

/// An identifier of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKey {
    /// Its UUID.
    Uuid(Uuid),
    /// Its MAC address.
    Address(Mac),
}

/// The filter of a port list, in the order of creation; by default all ports.
#[derive(Clone, Debug, Default)]
pub struct PortFilter {
    /// One of these nodes; any if the list is empty.
    pub nodes: Vec<Uuid>,
    /// The MAC address.
    pub address: Option<Mac>,
    /// The sort direction: oldest or newest first.
    pub sort_dir: SortDirection,
    /// The last port of the previous page.
    pub marker: Option<Uuid>,
    /// The page size.
    pub limit: Option<u32>,
}

/// A changed port.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangedPort {
    /// The port after the change.
    pub port: Port,
    /// The ports of its node, and of its former node.
    pub of_nodes: Vec<SavedPorts>,
}

impl Store {
    /// Adds a port to a node that no daemon works on, and returns the node's ports.
    ///
    /// # Errors
    /// [`PortError`] if its address or UUID is taken, or its node is not there, is locked, or has as
    /// many ports as a node may have.
    pub async fn create_port(&self, port: &Port, now: Timestamp) -> Result<SavedPorts, PortError> {
        let created = self.transact(async |connection| {
            let now = self.lease_time(connection, now).await?;
            create_in(connection, &self.key, port, now).await
        });
        created.await
    }

    /// The port with this UUID or MAC address.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn port(&self, key: PortKey) -> Result<Option<Port>, StoreError> {
        let statement = match key {
            PortKey::Uuid(uuid) => {
                sqlx::query("SELECT document FROM ports WHERE uuid = $1").bind(uuid.to_string())
            }
            PortKey::Address(mac) => {
                sqlx::query("SELECT document FROM ports WHERE address = $1").bind(mac.to_string())
            }
        };
        let row = self.row(statement).await?;
        row.as_ref().map(port_of).transpose()
    }

    /// The ports with one of these MAC addresses.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn ports_at(&self, addresses: &[Mac]) -> Result<Vec<Port>, StoreError> {
        let mut fits = Where::default();
        fits.is_one_of("address", addresses.iter().copied());
        let select = format!("SELECT document FROM ports{}", fits.text());
        let rows = self.rows(fits.bind(sqlx::query(AssertSqlSafe(select)))).await?;
        rows.iter().map(port_of).collect()
    }

    /// A page of the ports that match a filter.
    ///
    /// # Errors
    /// [`ListError`] if the marker does not exist.
    pub async fn ports(&self, filter: &PortFilter) -> Result<Vec<Port>, ListError> {
        let (direction, beyond) = match filter.sort_dir {
            SortDirection::Ascending => ("ASC", ">"),
            SortDirection::Descending => ("DESC", "<"),
        };
        let mut fits = Where::default();
        fits.equals("address", filter.address.map(|mac| mac.to_string()).as_deref());
        if !filter.nodes.is_empty() {
            fits.is_one_of("node_uuid", filter.nodes.iter().copied());
        }
        if let Some(marker) = filter.marker {
            self.expect_marker("ports", marker).await?;
            let place = fits.place(marker);
            fits.holds(&format!(
                "(created_at, uuid) {beyond} \
                 (SELECT created_at, uuid FROM ports WHERE uuid = {place})"
            ));
        }
        let limit = filter.limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
        let select = format!(
            "SELECT document FROM ports{} ORDER BY created_at {direction}, uuid {direction}{limit}",
            fits.text()
        );
        let rows = self.rows(fits.bind(sqlx::query(AssertSqlSafe(select)))).await?;
        Ok(rows.iter().map(port_of).collect::<Result<_, _>>()?)
    }

    /// Changes a port with `decide`, which gets the port and its node; may move the port to another node. Returns the
    /// changed port. No daemon may work on either node.
    ///
    /// The transaction locks the rows of both nodes before it reads the port. So changes of one port queue, on both
    /// databases, and each is decided on the result of the one before.
    ///
    /// # Errors
    /// [`PortChangeError`]; nothing has changed then.
    pub async fn change_port<E>(
        &self,
        port: Uuid,
        now: Timestamp,
        decide: impl Fn(&Port, &Node) -> Result<Port, E>,
    ) -> Result<ChangedPort, PortChangeError<E>> {
        let mut nodes = self.nodes_of_port(port).await?;
        for _ in 0..TRIES {
            let changed = self.transact(async |connection| {
                let now = self.lease_time(connection, now).await.map_err(PortError::Store)?;
                change_in(connection, &self.key, port, &mut nodes, now, &decide).await
            });
            if let Some(changed) = changed.await? {
                return Ok(changed);
            }
        }
        Err(PortError::Moving(port).into())
    }

    /// Deletes a port of a node that no daemon works on, if `check` allows it, and returns the node's remaining
    /// ports.
    ///
    /// # Errors
    /// [`PortChangeError`]; the port is still there then.
    pub async fn delete_port<E>(
        &self,
        port: Uuid,
        now: Timestamp,
        check: impl Fn(&Port) -> Result<(), E>,
    ) -> Result<SavedPorts, PortChangeError<E>> {
        let mut nodes = self.nodes_of_port(port).await?;
        for _ in 0..TRIES {
            let deleted = self.transact(async |connection| {
                let now = self.lease_time(connection, now).await.map_err(PortError::Store)?;
                delete_in(connection, &self.key, port, &mut nodes, now, &check).await
            });
            if let Some(deleted) = deleted.await? {
                return Ok(deleted);
            }
        }
        Err(PortError::Moving(port).into())
    }

    /// The node of a port, whose row is to be locked.
    async fn nodes_of_port(&self, port: Uuid) -> Result<BTreeSet<Uuid>, PortError> {
        let found = self.port(PortKey::Uuid(port)).await?;
        Ok(BTreeSet::from([found.ok_or(PortError::NoSuchPort(port))?.node_uuid]))
    }
}

async fn create_in(
    connection: &mut AnyConnection,
    key: &DatabaseKey,
    port: &Port,
    now: Timestamp,
) -> Result<SavedPorts, PortError> {
    expect_free(connection, key, port.node_uuid, now).await?;
    expect_room(connection, port.node_uuid).await?;
    let insert = "INSERT INTO ports (uuid, node_uuid, address, created_at, document) \
                  VALUES ($1, $2, $3, $4, $5)";
    sqlx::query(insert)
        .bind(port.uuid.to_string())
        .bind(port.node_uuid.to_string())
        .bind(port.address.to_string())
        .bind(micros(port.created_at))
        .bind(json(port))
        .execute(&mut *connection)
        .await
        .map_err(|error| duplicate(error, port))?;
    saved(connection, port.node_uuid).await
}

/// `None` if another node's row must be locked, too; the node is then in `nodes`.
async fn change_in<E>(
    connection: &mut AnyConnection,
    key: &DatabaseKey,
    port: Uuid,
    nodes: &mut BTreeSet<Uuid>,
    now: Timestamp,
    decide: impl Fn(&Port, &Node) -> Result<Port, E>,
) -> Result<Option<ChangedPort>, PortChangeError<E>> {
    let Some(held) = hold_port(connection, key, port, nodes).await? else { return Ok(None) };
    let node = held.expect_free(held.port.node_uuid, now)?;
    let next = decide(&held.port, node).map_err(PortChangeError::Refused)?;
    if nodes.insert(next.node_uuid) {
        // Rows must be locked in the order of UUIDs, so that two moves in opposite directions do not deadlock.
        return Ok(None);
    }
    held.expect_free(next.node_uuid, now)?;
    if next.node_uuid != held.port.node_uuid {
        expect_room(connection, next.node_uuid).await?;
    }
    save(connection, &next).await?;
    let mut of_nodes = Vec::new();
    for node in BTreeSet::from([held.port.node_uuid, next.node_uuid]) {
        of_nodes.push(saved(connection, node).await?);
    }
    Ok(Some(ChangedPort { port: next, of_nodes }))
}

/// `None` if another node's row must be locked; the node is then in `nodes`.
async fn delete_in<E>(
    connection: &mut AnyConnection,
    key: &DatabaseKey,
    port: Uuid,
    nodes: &mut BTreeSet<Uuid>,
    now: Timestamp,
    check: impl Fn(&Port) -> Result<(), E>,
) -> Result<Option<SavedPorts>, PortChangeError<E>> {
    let Some(held) = hold_port(connection, key, port, nodes).await? else { return Ok(None) };
    held.expect_free(held.port.node_uuid, now)?;
    check(&held.port).map_err(PortChangeError::Refused)?;
    sqlx::query("DELETE FROM ports WHERE uuid = $1")
        .bind(port.to_string())
        .execute(&mut *connection)
        .await?;
    Ok(Some(saved(connection, held.port.node_uuid).await?))
}

/// Numbers the change of a node's ports, and returns the ports.
async fn saved(connection: &mut AnyConnection, node: Uuid) -> Result<SavedPorts, PortError> {
    let ports = ports_of(connection, node).await?;
    Ok(SavedPorts { number: number_change(connection, node).await?, node, ports })
}

/// The ports of a node, oldest first.
pub(crate) async fn ports_of(
    connection: &mut AnyConnection,
    node: Uuid,
) -> Result<Vec<Port>, StoreError> {
    let select = "SELECT document FROM ports WHERE node_uuid = $1 ORDER BY created_at, uuid";
    let rows = sqlx::query(select).bind(node.to_string()).fetch_all(&mut *connection).await?;
    rows.iter().map(port_of).collect()
}

/// A port that no other transaction can change.
struct HeldPort {
    /// The nodes whose rows are locked, if they exist.
    nodes: BTreeMap<Uuid, TakenNode>,
    port: Port,
}

impl HeldPort {
    fn expect_free(&self, node: Uuid, now: Timestamp) -> Result<&Node, PortError> {
        let taken = self.nodes.get(&node).ok_or(PortError::NoSuchNode(node))?;
        taken.expect_free(now).map_err(|by| PortError::Locked { node, by })?;
        Ok(&taken.node)
    }
}

/// Locks the rows of `nodes`, then reads the port. If the row of the port's own node is not among them, the node is
/// added to `nodes` and nothing is held yet.
async fn hold_port(
    connection: &mut AnyConnection,
    key: &DatabaseKey,
    port: Uuid,
    nodes: &mut BTreeSet<Uuid>,
) -> Result<Option<HeldPort>, PortError> {
    let mut taken = BTreeMap::new();
    for node in nodes.iter() {
        if let Some(row) = take_node(connection, key, *node).await? {
            taken.insert(*node, row);
        }
    }
    let port = present(connection, port).await?;
    let moved = nodes.insert(port.node_uuid);
    Ok((!moved).then_some(HeldPort { nodes: taken, port }))
}

async fn save(connection: &mut AnyConnection, port: &Port) -> Result<(), PortError> {
    let update = "UPDATE ports SET node_uuid = $2, address = $3, document = $4 WHERE uuid = $1";
    sqlx::query(update)
        .bind(port.uuid.to_string())
        .bind(port.node_uuid.to_string())
        .bind(port.address.to_string())
        .bind(json(port))
        .execute(connection)
        .await
        .map(drop)
        .map_err(|error| duplicate(error, port))
}

/// Whether a node whose row is locked may have another port.
async fn expect_room(connection: &mut AnyConnection, node: Uuid) -> Result<(), PortError> {
    let row = sqlx::query("SELECT COUNT(*) AS ports FROM ports WHERE node_uuid = $1")
        .bind(node.to_string())
        .fetch_one(connection)
        .await?;
    let there: i64 = row.try_get("ports")?;
    let room = usize::try_from(there).is_ok_and(|there| there < MAX_PORTS_OF_NODE);
    if room { Ok(()) } else { Err(PortError::TooMany { node, most: MAX_PORTS_OF_NODE }) }
}

async fn present(connection: &mut AnyConnection, port: Uuid) -> Result<Port, PortError> {
    let row = sqlx::query("SELECT document FROM ports WHERE uuid = $1")
        .bind(port.to_string())
        .fetch_optional(connection)
        .await?;
    let row = row.ok_or(PortError::NoSuchPort(port))?;
    Ok(port_of(&row)?)
}

async fn expect_free(
    connection: &mut AnyConnection,
    key: &DatabaseKey,
    node: Uuid,
    now: Timestamp,
) -> Result<(), PortError> {
    let taken = take_node(connection, key, node).await?.ok_or(PortError::NoSuchNode(node))?;
    taken.expect_free(now).map_err(|by| PortError::Locked { node, by })
}

fn duplicate(error: sqlx::Error, port: &Port) -> PortError {
    if duplicates(&error, "ports", "address") {
        PortError::DuplicateAddress(port.address)
    } else if duplicates(&error, "ports", "uuid") {
        PortError::DuplicateUuid(port.uuid)
    } else {
        error.into()
    }
}

fn port_of(row: &AnyRow) -> Result<Port, StoreError> {
    document(row, "document")
}
