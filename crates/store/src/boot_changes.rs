//! What boots changed at the BMC of their node, until it is undone. The trace has the same events, but only for so long.

use std::collections::HashSet;

use hardware::BootChange;
use provision::{BootEvent, BootEventKind};
use sqlx::AnyConnection;
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::error::StoreError;
use crate::open::Store;
use crate::sql::{document, json, micros};

const SELECT: &str = "SELECT event FROM boot_changes WHERE node_uuid = $1 ORDER BY at, seq";

impl Store {
    /// Adds the way of a boot to the trace, and keeps what it changes until [`Store::forget_boot_changes`], both or
    /// none.
    ///
    /// # Errors
    /// [`StoreError`]: the BMC must not be changed.
    pub async fn note_boot_way(&self, node: Uuid, way: BootEvent) -> Result<(), StoreError> {
        let noted = self.transact(async |connection| {
            self.insert_events(connection, &[(node, way.clone())]).await?;
            let known = boot_changes_of(connection, node).await?;
            // Each boot of an instance makes the same changes.
            if changes_in(&way).iter().all(|new| known.iter().any(|it| it.place() == new.place())) {
                return Ok(());
            }
            let insert =
                "INSERT INTO boot_changes (node_uuid, at, seq, event) VALUES ($1, $2, $3, $4)";
            sqlx::query(insert)
                .bind(node.to_string())
                .bind(micros(way.at))
                .bind(self.next_sequence())
                .bind(json(&way))
                .execute(connection)
                .await?;
            Ok::<_, StoreError>(())
        });
        noted.await
    }

    /// What boots of the node changed at its BMC and is not undone: one change for each place, the oldest, which knows
    /// the state before all of them.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn boot_changes(&self, node: Uuid) -> Result<Vec<BootChange>, StoreError> {
        changes_of(&self.rows(sqlx::query(SELECT).bind(node.to_string())).await?)
    }

    /// Forgets the changes of a node's boots: they are undone.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn forget_boot_changes(&self, node: Uuid) -> Result<(), StoreError> {
        let delete = sqlx::query("DELETE FROM boot_changes WHERE node_uuid = $1");
        let delete = delete.bind(node.to_string());
        let done = self.transact(async |connection| {
            delete.execute(connection).await?;
            Ok::<_, StoreError>(())
        });
        done.await
    }
}

/// [`Store::boot_changes`] within a transaction.
pub(crate) async fn boot_changes_of(
    connection: &mut AnyConnection,
    node: Uuid,
) -> Result<Vec<BootChange>, StoreError> {
    changes_of(&sqlx::query(SELECT).bind(node.to_string()).fetch_all(connection).await?)
}

fn changes_of(rows: &[AnyRow]) -> Result<Vec<BootChange>, StoreError> {
    let (mut places, mut changes) = (HashSet::new(), Vec::new());
    for row in rows {
        let way: BootEvent = document(row, "event")?;
        let new = changes_in(&way).iter().filter(|change| places.insert(change.place().to_owned()));
        changes.extend(new.cloned());
    }
    Ok(changes)
}

fn changes_in(way: &BootEvent) -> &[BootChange] {
    if let BootEventKind::BootWay { changes, .. } = &way.what { changes } else { &[] }
}
