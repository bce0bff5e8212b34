//! The authority that issues the certificates of all daemons of a database.

use std::fmt;

use sqlx::Row as _;
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::error::StoreError;
use crate::key::DecryptError;
use crate::open::Store;

/// The place of the key, for its encryption.
const KEY: (Uuid, &str) = (Uuid::nil(), "authority/private_key");

const SELECT: &str = "SELECT certificate, private_key FROM authority";

/// An authority in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredAuthority {
    /// The certificate.
    pub certificate: String,
    /// The private key; encrypted in the database.
    pub key: String,
}

impl fmt::Debug for StoredAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("StoredAuthority");
        shown.field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Store {
    /// The authority, if one was saved.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn authority(&self) -> Result<Option<StoredAuthority>, StoreError> {
        let row = self.row(sqlx::query(SELECT)).await?;
        row.map(|row| self.read_authority(&row)).transpose()
    }

    /// Saves an authority, unless there is one. Returns the one that is saved: daemons that start at the same time use
    /// the same one.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn add_authority(
        &self,
        new: &StoredAuthority,
    ) -> Result<StoredAuthority, StoreError> {
        let insert = "INSERT INTO authority (id, certificate, private_key) VALUES (1, $1, $2) \
                      ON CONFLICT (id) DO NOTHING";
        let (node, place) = KEY;
        let added = self.transact(async |connection| {
            sqlx::query(insert)
                .bind(new.certificate.clone())
                .bind(self.key.encrypt(node, place, &new.key))
                .execute(&mut *connection)
                .await?;
            Ok::<_, StoreError>(sqlx::query(SELECT).fetch_one(connection).await?)
        });
        self.read_authority(&added.await?)
    }

    fn read_authority(&self, row: &AnyRow) -> Result<StoredAuthority, StoreError> {
        let (node, place) = KEY;
        let key: String = row.try_get("private_key")?;
        let key =
            self.key.decrypt(node, place, &key).and_then(|key| key.ok_or(DecryptError::Forged));
        let key = key.map_err(|source| StoreError::AuthorityKey { source })?;
        Ok(StoredAuthority { certificate: row.try_get("certificate")?, key })
    }
}
