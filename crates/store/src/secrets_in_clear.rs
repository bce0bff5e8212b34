//! The encryption of secrets that an older version stored in clear.

use provision::Node;
use provision::node_secrets::{NodeSecret, visit_secrets};
use serde_json::Value;
use sqlx::{AnyConnection, Row as _};
use tracing::info;
use uuid::Uuid;

use crate::error::StoreError;
use crate::key::is_encrypted;
use crate::open::Store;
use crate::sql::{document, uuid};

/// Number of nodes whose secrets are encrypted in one transaction.
const NODES_AT_ONCE: usize = 100;

impl Store {
    /// Encrypts secrets that an older version stored in clear. Returns the number of such nodes.
    pub(crate) async fn encrypt_what_is_in_clear(&self) -> Result<usize, StoreError> {
        let rows = self.rows(sqlx::query("SELECT uuid, document FROM nodes ORDER BY uuid")).await?;
        let mut in_clear = Vec::new();
        for row in &rows {
            if is_in_clear(document(row, "document")?) {
                in_clear.push(uuid(row, "uuid")?);
            }
        }
        if in_clear.is_empty() {
            return Ok(0);
        }
        for nodes in in_clear.chunks(NODES_AT_ONCE) {
            self.transact(async |connection| self.encrypt_in(connection, nodes).await).await?;
        }
        let nodes = in_clear.len();
        info!(nodes, "encrypted the secrets that were stored in clear");
        Ok(nodes)
    }

    async fn encrypt_in(
        &self,
        connection: &mut AnyConnection,
        nodes: &[Uuid],
    ) -> Result<(), StoreError> {
        for node in nodes {
            let take = "UPDATE nodes SET version = version WHERE uuid = $1 RETURNING document";
            let taken = sqlx::query(take).bind(node.to_string());
            // Another daemon may have deleted it.
            let Some(row) = taken.fetch_optional(&mut *connection).await? else { continue };
            let node_in_clear = self.key.node_of(row.try_get("document")?)?;
            let document = self.key.node_document(&node_in_clear);
            let update = sqlx::query("UPDATE nodes SET document = $2 WHERE uuid = $1");
            update.bind(node.to_string()).bind(document).execute(&mut *connection).await?;
        }
        Ok(())
    }
}

/// Whether a stored node has a secret in clear.
fn is_in_clear(mut node: Node) -> bool {
    let visited = visit_secrets(&mut node, &mut |_, secret| {
        let encrypted = match secret {
            NodeSecret::Value(Value::String(text)) => is_encrypted(text),
            NodeSecret::Value(_) => false,
            NodeSecret::Text(text) => is_encrypted(text),
        };
        if encrypted { Ok(()) } else { Err(()) }
    });
    visited.is_err()
}
