//! The lock of a node's row within a transaction.

use jiff::Timestamp;
use provision::Node;
use sqlx::{AnyConnection, Row as _};
use uuid::Uuid;

use crate::error::StoreError;
use crate::key::DatabaseKey;
use crate::sql::micros;

/// A node whose row is locked until the transaction ends.
pub(crate) struct TakenNode {
    pub(crate) node: Node,
    /// The daemon that works on the node, and the end of its lease in microseconds since 1970.
    pub(crate) reservation: Option<(String, i64)>,
}

impl TakenNode {
    /// Fails with the name of the daemon that works on the node, if its lease has not run out.
    pub(crate) fn expect_free(&self, now: Timestamp) -> Result<(), String> {
        match &self.reservation {
            Some((by, until)) if *until > micros(now) => Err(by.clone()),
            Some(_) | None => Ok(()),
        }
    }
}

/// Locks a node's row, then reads the node. A transaction that locks several rows locks this one first.
pub(crate) async fn take_node(
    connection: &mut AnyConnection,
    key: &DatabaseKey,
    node: Uuid,
) -> Result<Option<TakenNode>, StoreError> {
    let take = "UPDATE nodes SET version = version WHERE uuid = $1 \
                RETURNING document, reservation, reservation_expires";
    let row = sqlx::query(take).bind(node.to_string()).fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(None) };
    let by: Option<String> = row.try_get("reservation")?;
    let until: Option<i64> = row.try_get("reservation_expires")?;
    Ok(Some(TakenNode { node: key.node_of(row.try_get("document")?)?, reservation: by.zip(until) }))
}
