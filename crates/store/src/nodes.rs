//! Nodes: create, find, list by page.

use std::fmt;

use provision::Node;
use serde_json::Value as Json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};
use uuid::Uuid;

use crate::error::{CreateNodeError, ListError, StoreError};
use crate::key::DatabaseKey;
use crate::numbers::{ChangeNumber, number_change};
use crate::open::Store;
use crate::sql::{Statement, Value, Where, duplicates, micros};

/// A node with its reservation.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredNode {
    /// The node.
    pub node: Node,
    /// The daemon that works on the node. After a crash it stays until the work is claimed again.
    pub reservation: Option<String>,
}

/// An identifier of a node in the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKey {
    /// Its UUID.
    Uuid(Uuid),
    /// Its name.
    Name(String),
}

impl From<&str> for NodeKey {
    /// A UUID if the text is one (no name may be), otherwise a name.
    fn from(text: &str) -> Self {
        Uuid::parse_str(text).map_or_else(|_| Self::Name(text.to_owned()), Self::Uuid)
    }
}

impl From<Uuid> for NodeKey {
    fn from(uuid: Uuid) -> Self {
        Self::Uuid(uuid)
    }
}

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(uuid) => uuid.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// The filter of a node list; by default all nodes, oldest first.
///
/// `owner` and others without a field in [`Node`] are looked up in [`Node::kept`].
#[derive(Clone, Debug, Default)]
pub struct NodeFilter {
    /// The provision state.
    pub provision_state: Option<String>,
    /// The driver.
    pub driver: Option<String>,
    /// Whether in maintenance.
    pub maintenance: Option<bool>,
    /// The fault.
    pub fault: Option<String>,
    /// The instance's UUID.
    pub instance_uuid: Option<String>,
    /// Whether the node has an instance.
    pub associated: Option<bool>,
    /// The resource class.
    pub resource_class: Option<String>,
    /// The owner.
    pub owner: Option<String>,
    /// The lessee.
    pub lessee: Option<String>,
    /// The conductor group.
    pub conductor_group: Option<String>,
    /// One of these shards; any if the list is empty.
    pub shard: Vec<String>,
    /// Whether the node has a shard.
    pub sharded: Option<bool>,
    /// Whether the node is retired.
    pub retired: Option<bool>,
    /// A part of the description; case-insensitive.
    pub description_contains: Option<String>,
    /// The sort key; ties are sorted by UUID.
    pub sort_key: NodeSort,
    /// The sort direction.
    pub sort_dir: SortDirection,
    /// The last node of the previous page.
    pub marker: Option<Uuid>,
    /// The page size.
    pub limit: Option<u32>,
}

/// A sort key of node lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeSort {
    /// The time of enrollment.
    #[default]
    CreatedAt,
    /// The time of the last change.
    UpdatedAt,
    /// UUID.
    Uuid,
    /// Name.
    Name,
    /// Provision state, alphabetically.
    ProvisionState,
    /// Power state.
    PowerState,
    /// Driver.
    Driver,
    /// Maintenance.
    Maintenance,
    /// Instance.
    InstanceUuid,
    /// Resource class.
    ResourceClass,
    /// Owner.
    Owner,
}

impl NodeSort {
    /// All sort keys.
    pub const ALL: [Self; 11] = [
        Self::CreatedAt,
        Self::UpdatedAt,
        Self::Uuid,
        Self::Name,
        Self::ProvisionState,
        Self::PowerState,
        Self::Driver,
        Self::Maintenance,
        Self::InstanceUuid,
        Self::ResourceClass,
        Self::Owner,
    ];

    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CreatedAt => "created_at",
            Self::UpdatedAt => "updated_at",
            Self::Uuid => "uuid",
            Self::Name => "name",
            Self::ProvisionState => "provision_state",
            Self::PowerState => "power_state",
            Self::Driver => "driver",
            Self::Maintenance => "maintenance",
            Self::InstanceUuid => "instance_uuid",
            Self::ResourceClass => "resource_class",
            Self::Owner => "owner",
        }
    }

    /// The sort key with this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.name() == name)
    }

    /// The SQL expression. NULL is replaced, since the two databases sort it differently, and a page cannot begin
    /// after one.
    fn expression(self) -> &'static str {
        match self {
            Self::CreatedAt => "created_at",
            Self::UpdatedAt => "COALESCE(updated_at, 0)",
            Self::Uuid => "uuid",
            Self::Name => "COALESCE(name, '')",
            Self::ProvisionState => "provision_state",
            Self::PowerState => "COALESCE(power_state, '')",
            Self::Driver => "driver",
            Self::Maintenance => "maintenance",
            Self::InstanceUuid => "COALESCE(instance_uuid, '')",
            Self::ResourceClass => "COALESCE(resource_class, '')",
            Self::Owner => "COALESCE(owner, '')",
        }
    }
}

/// A sort direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortDirection {
    /// Smallest first.
    #[default]
    Ascending,
    /// Largest first.
    Descending,
}

impl Store {
    /// Adds a node, and returns the change number.
    ///
    /// # Errors
    /// [`CreateNodeError`] if its name, UUID or instance is taken.
    pub async fn create_node(&self, node: &Node) -> Result<ChangeNumber, CreateNodeError> {
        self.transact(async |connection| create_in(connection, &self.key, node).await).await
    }

    /// The node with this UUID or name.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn node(&self, key: &NodeKey) -> Result<Option<StoredNode>, StoreError> {
        let statement = match key {
            NodeKey::Uuid(uuid) => {
                sqlx::query("SELECT document, reservation FROM nodes WHERE uuid = $1")
                    .bind(uuid.to_string())
            }
            NodeKey::Name(name) => {
                sqlx::query("SELECT document, reservation FROM nodes WHERE name = $1")
                    .bind(name.clone())
            }
        };
        let row = self.row(statement).await?;
        row.map(|row| stored(&row, &self.key)).transpose()
    }

    /// A page of the nodes that match a filter.
    ///
    /// # Errors
    /// [`ListError`] if the marker does not exist.
    pub async fn nodes(&self, filter: &NodeFilter) -> Result<Vec<StoredNode>, ListError> {
        let key = filter.sort_key.expression();
        let (direction, beyond) = match filter.sort_dir {
            SortDirection::Ascending => ("ASC", ">"),
            SortDirection::Descending => ("DESC", "<"),
        };
        let mut fits = conditions(filter);
        if let Some(marker) = filter.marker {
            self.expect_marker("nodes", marker).await?;
            let place = fits.place(marker);
            fits.holds(&format!(
                "({key}, uuid) {beyond} (SELECT {key}, uuid FROM nodes WHERE uuid = {place})"
            ));
        }
        let limit = filter.limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
        let select = format!(
            "SELECT document, reservation FROM nodes{} ORDER BY {key} {direction}, \
             uuid {direction}{limit}",
            fits.text()
        );
        let rows = self.rows(fits.bind(sqlx::query(AssertSqlSafe(select)))).await?;
        Ok(rows.iter().map(|row| stored(row, &self.key)).collect::<Result<_, _>>()?)
    }

    pub(crate) async fn expect_marker(
        &self,
        table: &'static str,
        marker: Uuid,
    ) -> Result<(), ListError> {
        let select = format!("SELECT 1 FROM {table} WHERE uuid = $1");
        let row = self.row(sqlx::query(AssertSqlSafe(select)).bind(marker.to_string())).await?;
        if row.is_some() { Ok(()) } else { Err(ListError::NoSuchMarker(marker)) }
    }
}

async fn create_in(
    connection: &mut AnyConnection,
    key: &DatabaseKey,
    node: &Node,
) -> Result<ChangeNumber, CreateNodeError> {
    let insert = format!(
        "INSERT INTO nodes ({NODE_COLUMNS}, uuid, created_at, version) VALUES \
         ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, 1)"
    );
    let insert =
        bind_node(sqlx::query(AssertSqlSafe(insert)), key, node).bind(micros(node.created_at));
    insert.execute(&mut *connection).await.map_err(|error| {
        if duplicates(&error, "nodes", "name") {
            CreateNodeError::DuplicateName(node.name.clone().unwrap_or_default())
        } else if duplicates(&error, "nodes", "instance_uuid") {
            CreateNodeError::DuplicateInstance(instance(node).unwrap_or_default())
        } else if duplicates(&error, "nodes", "uuid") {
            CreateNodeError::DuplicateUuid(node.uuid)
        } else {
            error.into()
        }
    })?;
    Ok(number_change(connection, node.uuid).await?)
}

fn conditions(filter: &NodeFilter) -> Where {
    let mut fits = Where::default();
    fits.equals("provision_state", filter.provision_state.as_deref());
    fits.equals("driver", filter.driver.as_deref());
    fits.equals("maintenance", filter.maintenance);
    fits.equals("fault", filter.fault.as_deref());
    fits.equals("instance_uuid", filter.instance_uuid.as_deref());
    fits.equals("resource_class", filter.resource_class.as_deref());
    fits.equals("owner", filter.owner.as_deref());
    fits.equals("lessee", filter.lessee.as_deref());
    fits.equals("conductor_group", filter.conductor_group.as_deref());
    fits.equals("retired", filter.retired);
    present(&mut fits, "instance_uuid", filter.associated);
    present(&mut fits, "shard", filter.sharded);
    if !filter.shard.is_empty() {
        fits.is_one_of("shard", filter.shard.iter().map(String::as_str));
    }
    if let Some(text) = &filter.description_contains {
        // `LIKE` is case-sensitive in PostgreSQL, but not in SQLite.
        let place = fits.place(Value::Text(format!("%{}%", escaped(text))));
        fits.holds(&format!("LOWER(description) LIKE LOWER({place}) ESCAPE '\\'"));
    }
    fits
}

fn present(fits: &mut Where, column: &str, wanted: Option<bool>) {
    match wanted {
        Some(true) => fits.holds(&format!("{column} IS NOT NULL")),
        Some(false) => fits.holds(&format!("{column} IS NULL")),
        None => {}
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

/// Saves an existing node, and numbers the change. The caller has locked the node's row.
pub(crate) async fn save(
    connection: &mut AnyConnection,
    key: &DatabaseKey,
    node: &Node,
) -> Result<(), sqlx::Error> {
    let update = "UPDATE nodes SET name = $1, document = $2, updated_at = $3, \
                  provision_state = $4, power_state = $5, driver = $6, maintenance = $7, \
                  fault = $8, instance_uuid = $9, resource_class = $10, owner = $11, \
                  lessee = $12, conductor_group = $13, shard = $14, description = $15, \
                  retired = $16, version = version + 1 WHERE uuid = $17";
    bind_node(sqlx::query(update), key, node).execute(connection).await.map(drop)
}

/// The values that [`bind_node`] binds from `$1` on, before the UUID.
const NODE_COLUMNS: &str = "name, document, updated_at, provision_state, power_state, driver, \
                            maintenance, fault, instance_uuid, resource_class, owner, lessee, \
                            conductor_group, shard, description, retired";

fn bind_node<'a>(statement: Statement<'a>, key: &DatabaseKey, node: &Node) -> Statement<'a> {
    let kept = |key: &str| node.kept.get(key).and_then(Json::as_str).map(str::to_owned);
    statement
        .bind(node.name.clone())
        .bind(key.node_document(node))
        .bind(node.updated_at.map(micros))
        .bind(node.provision_state.name())
        .bind(node.power_state.map(|power| power.name().to_owned()))
        .bind(node.driver.clone())
        .bind(i64::from(node.maintenance))
        .bind(node.fault.clone())
        .bind(instance(node))
        .bind(kept("resource_class"))
        .bind(kept("owner"))
        .bind(kept("lessee"))
        .bind(kept("conductor_group"))
        .bind(kept("shard"))
        .bind(kept("description"))
        .bind(i64::from(node.kept.get("retired").and_then(Json::as_bool).unwrap_or(false)))
        .bind(node.uuid.to_string())
}

pub(crate) fn instance(node: &Node) -> Option<String> {
    node.kept.get("instance_uuid").and_then(Json::as_str).map(str::to_owned)
}

fn stored(row: &AnyRow, key: &DatabaseKey) -> Result<StoredNode, StoreError> {
    let node = key.node_of(row.try_get("document")?)?;
    Ok(StoredNode { node, reservation: row.try_get("reservation")? })
}
