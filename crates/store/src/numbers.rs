//! Change numbers, by which each daemon follows the other daemons' changes.
//!
//! A transaction that changes a node or its ports takes the next number from a single row, as its last statement. The
//! row is locked until the commit, so that numbers have the order of commits. A sequence would not do: a transaction
//! that commits late would have a number below one that a follower has already passed.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use provision::{Node, Port};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use uuid::Uuid;

use crate::error::StoreError;
use crate::key::DatabaseKey;
use crate::open::Store;
use crate::sql::{document, micros, micros_after, uuid};

/// Time for which deletions are kept. A follower with a longer gap reloads everything.
const DELETIONS_KEPT: SignedDuration = SignedDuration::from_hours(24);

/// The position of a change in the order of all changes; 0 precedes the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeNumber(i64);

impl From<i64> for ChangeNumber {
    fn from(number: i64) -> Self {
        Self(number)
    }
}

impl fmt::Display for ChangeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A node after a change.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedNode {
    /// The change number.
    pub number: ChangeNumber,
    /// The node.
    pub node: Node,
}

/// The ports of a node after a change.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedPorts {
    /// The change number.
    pub number: ChangeNumber,
    /// The node.
    pub node: Uuid,
    /// All its ports, oldest first.
    pub ports: Vec<Port>,
}

/// The last change of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeChange {
    /// The change number.
    pub number: ChangeNumber,
    /// The node's UUID.
    pub uuid: Uuid,
    /// The node with its ports, oldest first; `None` if it was deleted.
    pub state: Option<(Node, Vec<Port>)>,
}

/// Changes in the order of their numbers; only the last change of each node.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangePage {
    /// The changes follow this number.
    pub since: ChangeNumber,
    /// The changes.
    pub changes: Vec<NodeChange>,
    /// A reader of all pages up to this one has every change up to this number.
    pub reaches: ChangeNumber,
    /// Whether this was the last page when it was read.
    pub is_last: bool,
}

impl Store {
    /// At most this many changes after a number, from one snapshot. `None` if some are missing and everything must be
    /// reloaded: the number is older than the kept deletions, or comes from a time after a restored backup.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn changes_since(
        &self,
        since: ChangeNumber,
        most: u32,
    ) -> Result<Option<ChangePage>, StoreError> {
        let read = self.read_changes(since, i64::from(most)).await?;
        let missing = since < read.forgotten || since > read.last;
        Ok((!missing).then_some(read.page))
    }

    /// Every node, as changes from an empty database.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn all_changes(&self) -> Result<ChangePage, StoreError> {
        Ok(self.read_changes(ChangeNumber::default(), i64::MAX).await?.page)
    }

    /// Deletes the records of old deletions, and returns their number.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn prune_deletions(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.transact(async |connection| self.prune_deletions_in(connection, now).await).await
    }

    async fn read_changes(
        &self,
        since: ChangeNumber,
        most: i64,
    ) -> Result<ReadChanges, StoreError> {
        // One statement, so that nodes, ports and numbers come from one snapshot.
        let select = "WITH changed AS (SELECT number, node_uuid FROM node_changes \
                        WHERE number > $1 ORDER BY number LIMIT $2) \
                      SELECT counter.number AS last, counter.forgotten AS forgotten, \
                        changed.number AS number, changed.node_uuid AS node_uuid, \
                        CAST(0 AS BIGINT) AS is_port, nodes.document AS document \
                      FROM change_counter AS counter LEFT JOIN changed ON 1 = 1 \
                        LEFT JOIN nodes ON nodes.uuid = changed.node_uuid \
                      UNION ALL SELECT CAST(0 AS BIGINT), CAST(0 AS BIGINT), changed.number, \
                        changed.node_uuid, CAST(1 AS BIGINT), ports.document \
                      FROM changed JOIN ports ON ports.node_uuid = changed.node_uuid \
                      ORDER BY number, is_port";
        let rows = self.rows(sqlx::query(select).bind(since.0).bind(most)).await?;
        ReadChanges::of(&rows, &self.key, since, most)
    }

    async fn prune_deletions_in(
        &self,
        connection: &mut AnyConnection,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let before = micros_after(self.lease_time(connection, now).await?, -DELETIONS_KEPT);
        // The counter's row is locked first, as in changes of nodes.
        let forget = "UPDATE change_counter SET forgotten = COALESCE(\
                      (SELECT MAX(number) FROM node_changes WHERE deleted_at < $1), forgotten)";
        sqlx::query(forget).bind(before).execute(&mut *connection).await?;
        let delete = "DELETE FROM node_changes WHERE deleted_at < $1";
        Ok(sqlx::query(delete).bind(before).execute(connection).await?.rows_affected())
    }
}

/// The result of reading changes.
struct ReadChanges {
    page: ChangePage,
    /// The number of the newest change.
    last: ChangeNumber,
    /// Deletions up to this number may be missing.
    forgotten: ChangeNumber,
}

impl ReadChanges {
    fn of(
        rows: &[AnyRow],
        key: &DatabaseKey,
        since: ChangeNumber,
        most: i64,
    ) -> Result<Self, StoreError> {
        let (mut last, mut forgotten) = <(ChangeNumber, ChangeNumber)>::default();
        let mut changes: Vec<NodeChange> = Vec::new();
        for row in rows {
            if row.try_get::<i64, _>("is_port")? == 1 {
                let port = document(row, "document")?;
                // The row of its node precedes it.
                if let Some((_, ports)) = changes.last_mut().and_then(|it| it.state.as_mut()) {
                    ports.push(port);
                }
                continue;
            }
            last = ChangeNumber(row.try_get("last")?);
            forgotten = ChangeNumber(row.try_get("forgotten")?);
            let Some(number) = row.try_get::<Option<i64>, _>("number")? else { continue };
            let node: Option<String> = row.try_get("document")?;
            let node = node.map(|node| key.node_of(&node)).transpose()?;
            changes.push(NodeChange {
                number: ChangeNumber(number),
                uuid: uuid(row, "node_uuid")?,
                state: node.map(|node| (node, Vec::new())),
            });
        }
        for (_, ports) in changes.iter_mut().filter_map(|change| change.state.as_mut()) {
            ports.sort_by_key(|port: &Port| (port.created_at, port.uuid));
        }
        let is_last = i64::try_from(changes.len()).is_ok_and(|changes| changes < most);
        let reached = changes.last().map(|change| change.number).filter(|_| !is_last);
        let page = ChangePage { since, reaches: reached.unwrap_or(last), changes, is_last };
        Ok(Self { page, last, forgotten })
    }
}

/// The number of a node's last change. The caller has locked the node's row.
pub(crate) async fn last_change(
    connection: &mut AnyConnection,
    node: Uuid,
) -> Result<Option<ChangeNumber>, sqlx::Error> {
    let select = "SELECT number FROM node_changes WHERE node_uuid = $1";
    let number = sqlx::query_scalar(select).bind(node.to_string());
    Ok(number.fetch_optional(connection).await?.map(ChangeNumber))
}

/// Numbers a change of a node or its ports. It is the transaction's last statement, since other changes wait from
/// here on.
pub(crate) async fn number_change(
    connection: &mut AnyConnection,
    node: Uuid,
) -> Result<ChangeNumber, sqlx::Error> {
    note_change(connection, node, None).await
}

/// [`number_change`] for the deletion of a node.
pub(crate) async fn number_deletion(
    connection: &mut AnyConnection,
    node: Uuid,
    now: Timestamp,
) -> Result<ChangeNumber, sqlx::Error> {
    note_change(connection, node, Some(micros(now))).await
}

async fn note_change(
    connection: &mut AnyConnection,
    node: Uuid,
    deleted_at: Option<i64>,
) -> Result<ChangeNumber, sqlx::Error> {
    let count = "UPDATE change_counter SET number = number + 1 RETURNING number";
    let number: i64 = sqlx::query_scalar(count).fetch_one(&mut *connection).await?;
    let note = "INSERT INTO node_changes (node_uuid, number, deleted_at) VALUES ($1, $2, $3) \
                ON CONFLICT (node_uuid) DO UPDATE SET number = excluded.number, \
                deleted_at = excluded.deleted_at";
    sqlx::query(note)
        .bind(node.to_string())
        .bind(number)
        .bind(deleted_at)
        .execute(connection)
        .await?;
    Ok(ChangeNumber(number))
}
