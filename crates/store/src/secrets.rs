//! Secrets of nodes: encrypted in the database, in clear in memory.

use std::path::Path;

use provision::Node;
use provision::node_secrets::{NodeSecret, visit_secrets};
use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use uuid::Uuid;

use crate::error::StoreError;
use crate::key::{DatabaseKey, DecryptError, KeyError};
use crate::sql::{json, parsed};

/// The place and the text of the value that verifies the database's key.
const CHECK: (Uuid, &str, &str) = (Uuid::nil(), "database_key/check_value", "ferroboot");

/// Verifies that the file's key is the database's. A database without a key adopts it; if the file is missing, it is
/// created then.
pub(crate) async fn take_key(
    connection: &mut AnyConnection,
    path: &Path,
    key: Option<DatabaseKey>,
) -> Result<DatabaseKey, StoreError> {
    let row = check_row(connection).await?;
    let key = match (key, &row) {
        (Some(key), _) => key,
        (None, None) => DatabaseKey::make(path)?,
        // A process that opened the database at the same time may have created it.
        (None, Some(row)) => DatabaseKey::read(path)?.ok_or_else(|| missing(path, Some(row)))?,
    };
    let row = match row {
        Some(row) => row,
        None => note_key(connection, &key).await?,
    };
    expect_key(&row, &key, path)?;
    Ok(key)
}

/// Verifies that the file's key is the database's; creates nothing.
pub(crate) async fn read_key(
    connection: &mut AnyConnection,
    path: &Path,
) -> Result<DatabaseKey, StoreError> {
    let row = check_row(connection).await?;
    let key = DatabaseKey::read(path)?.ok_or_else(|| missing(path, row.as_ref()))?;
    row.map_or(Ok(()), |row| expect_key(&row, &key, path))?;
    Ok(key)
}

/// The error for a missing key file that the database needs.
pub(crate) async fn missing_key(connection: &mut AnyConnection, path: &Path) -> StoreError {
    // A database that no version with keys has opened has no such table.
    missing(path, check_row(connection).await.ok().flatten().as_ref())
}

/// Expects that a key is the database's, if that has one already. Its tables may be those of another version.
pub(crate) async fn expect_known_key(
    connection: &mut AnyConnection,
    key: &DatabaseKey,
    path: &Path,
) -> Result<(), StoreError> {
    let row = check_row(connection).await.ok().flatten();
    row.map_or(Ok(()), |row| expect_key(&row, key, path))
}

struct CheckRow {
    key_id: String,
    check_value: String,
}

fn missing(path: &Path, row: Option<&CheckRow>) -> StoreError {
    KeyError::Missing { path: path.to_owned(), key: row.map(|row| row.key_id.clone()) }.into()
}

async fn check_row(connection: &mut AnyConnection) -> Result<Option<CheckRow>, StoreError> {
    let select = sqlx::query("SELECT key_id, check_value FROM database_key");
    let row = select.fetch_optional(connection).await?;
    let read = |row: AnyRow| {
        Ok(CheckRow { key_id: row.try_get("key_id")?, check_value: row.try_get("check_value")? })
    };
    row.map(read).transpose()
}

/// Saves the key's row, and returns the row of the first process to do so.
async fn note_key(
    connection: &mut AnyConnection,
    key: &DatabaseKey,
) -> Result<CheckRow, StoreError> {
    let (node, place, text) = CHECK;
    let insert = "INSERT INTO database_key (id, key_id, check_value) VALUES (1, $1, $2) \
                  ON CONFLICT (id) DO NOTHING";
    sqlx::query(insert)
        .bind(key.id().to_owned())
        .bind(key.encrypt(node, place, text))
        .execute(&mut *connection)
        .await?;
    Ok(check_row(connection).await?.ok_or(sqlx::Error::RowNotFound)?)
}

fn expect_key(row: &CheckRow, key: &DatabaseKey, path: &Path) -> Result<(), StoreError> {
    let (node, place, text) = CHECK;
    match key.decrypt(node, place, &row.check_value) {
        Ok(Some(decrypted)) if decrypted == text => Ok(()),
        Ok(_) | Err(_) => Err(StoreError::Key(KeyError::Other {
            path: path.to_owned(),
            found: key.id().to_owned(),
            expected: row.key_id.clone(),
        })),
    }
}

impl DatabaseKey {
    /// The document of a node, with every secret encrypted.
    pub(crate) fn node_document(&self, node: &Node) -> String {
        let (mut encrypted, uuid) = (node.clone(), node.uuid);
        let visited = visit_secrets(&mut encrypted, &mut |place, secret| {
            match secret {
                NodeSecret::Value(value) => *value = self.encrypt(uuid, place, &json(value)).into(),
                NodeSecret::Text(text) => *text = self.encrypt(uuid, place, text),
            }
            Ok::<_, std::convert::Infallible>(())
        });
        let Ok(()) = visited;
        json(&encrypted)
    }

    /// The node of a document. Secrets in clear come from a version without encryption.
    pub(crate) fn node_of(&self, document: &str) -> Result<Node, StoreError> {
        let mut node: Node = parsed(document, "document")?;
        let uuid = node.uuid;
        visit_secrets(&mut node, &mut |place, secret| {
            let failed = |source: DecryptError| StoreError::Secret {
                node: uuid,
                place: place.to_owned(),
                source,
            };
            match secret {
                NodeSecret::Value(value) => {
                    let Value::String(text) = &*value else { return Ok::<_, StoreError>(()) };
                    if let Some(clear) = self.decrypt(uuid, place, text).map_err(failed)? {
                        *value = parsed(&clear, "secret")?;
                    }
                }
                NodeSecret::Text(text) => {
                    if let Some(clear) = self.decrypt(uuid, place, text).map_err(failed)? {
                        *text = clear;
                    }
                }
            }
            Ok(())
        })?;
        Ok(node)
    }
}
