//! Ports: the network cards of nodes, found by their addresses.

use jiff::Timestamp;
use provision::{Mac, Port};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe};
use uuid::Uuid;

use crate::change::take_node;
use crate::error::{ListError, PortError, StoreError};
use crate::nodes::SortDirection;
use crate::open::Store;
use crate::sql::{Where, document, duplicates, json, micros};

/// What a port can be called by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKey {
    /// Its UUID.
    Uuid(Uuid),
    /// Its address.
    Address(Mac),
}

/// Which ports to list, in the order of their creation; the default is all of them.
#[derive(Clone, Debug, Default)]
pub struct PortFilter {
    /// Those of one of these nodes, if there are any in the list.
    pub nodes: Vec<Uuid>,
    /// The one with this address.
    pub address: Option<Mac>,
    /// Oldest or newest first.
    pub sort_dir: SortDirection,
    /// The last port of the page before.
    pub marker: Option<Uuid>,
    /// How many at most.
    pub limit: Option<u32>,
}

impl Store {
    /// Adds a port to a node that nobody works on.
    ///
    /// # Errors
    /// [`PortError`] if its address or UUID is taken, or its node is not there or is locked.
    pub async fn create_port(&self, port: &Port, now: Timestamp) -> Result<(), PortError> {
        let mut transaction = self.begin().await?;
        expect_free(&mut transaction, port.node_uuid, now).await?;
        let insert = "INSERT INTO ports (uuid, node_uuid, address, created_at, document) \
                      VALUES ($1, $2, $3, $4, $5)";
        sqlx::query(insert)
            .bind(port.uuid.to_string())
            .bind(port.node_uuid.to_string())
            .bind(port.address.to_string())
            .bind(micros(port.created_at))
            .bind(json(port))
            .execute(&mut *transaction)
            .await
            .map_err(|error| duplicate(error, port))?;
        Ok(transaction.commit().await?)
    }

    /// The port of that UUID or address.
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
        let row = statement.fetch_optional(&self.read).await?;
        row.as_ref().map(port_of).transpose()
    }

    /// A page of the ports that fit a filter.
    ///
    /// # Errors
    /// [`ListError`] if the marker is not there.
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
        let rows = fits.bind(sqlx::query(AssertSqlSafe(select))).fetch_all(&self.read).await?;
        Ok(rows.iter().map(port_of).collect::<Result<_, _>>()?)
    }

    /// Replaces a port by one of the same UUID, perhaps on another node; nobody may work on either.
    ///
    /// # Errors
    /// [`PortError`]
    pub async fn update_port(&self, port: &Port, now: Timestamp) -> Result<(), PortError> {
        let mut transaction = self.begin().await?;
        let before = present(&mut transaction, port.uuid).await?;
        // In one order, so that two moves in opposite directions do not wait for each other.
        let mut nodes = [before.node_uuid, port.node_uuid];
        nodes.sort();
        for node in nodes {
            expect_free(&mut transaction, node, now).await?;
        }
        let update = "UPDATE ports SET node_uuid = $2, address = $3, document = $4 WHERE uuid = $1";
        sqlx::query(update)
            .bind(port.uuid.to_string())
            .bind(port.node_uuid.to_string())
            .bind(port.address.to_string())
            .bind(json(port))
            .execute(&mut *transaction)
            .await
            .map_err(|error| duplicate(error, port))?;
        Ok(transaction.commit().await?)
    }

    /// Deletes a port of a node that nobody works on, and gives it back.
    ///
    /// # Errors
    /// [`PortError`]
    pub async fn delete_port(&self, port: Uuid, now: Timestamp) -> Result<Port, PortError> {
        let mut transaction = self.begin().await?;
        let before = present(&mut transaction, port).await?;
        expect_free(&mut transaction, before.node_uuid, now).await?;
        sqlx::query("DELETE FROM ports WHERE uuid = $1")
            .bind(port.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(before)
    }
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
    node: Uuid,
    now: Timestamp,
) -> Result<(), PortError> {
    let taken = take_node(connection, node).await?.ok_or(PortError::NoSuchNode(node))?;
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
