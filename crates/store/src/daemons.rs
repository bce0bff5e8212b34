//! The daemons that share a database, and which of them are alive. All times are the database's.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use sqlx::{AnyConnection, Row};
use uuid::Uuid;

use crate::error::StoreError;
use crate::open::Store;
use crate::sql::{micros, micros_after, time};

/// A daemon that was not heard of for this long is not alive. It says that it is alive a few times as often.
const ALIVE_FOR: SignedDuration = SignedDuration::from_secs(20);
/// A daemon that was not heard of for this long is forgotten.
const KNOWN_FOR: SignedDuration = SignedDuration::from_hours(24);

/// A daemon, as it claims work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DaemonIdentity {
    /// Random, and of one state directory: no other daemon has it, whatever its host is called.
    pub id: Uuid,
    /// Random, and of one process.
    pub run: Uuid,
    /// What it calls itself towards operators.
    pub host: String,
}

impl DaemonIdentity {
    /// That of this process, which serves from the state directory of an identity.
    #[must_use]
    pub fn new(id: Uuid, host: String) -> Self {
        Self { id, run: Uuid::new_v4(), host }
    }
}

/// What is known of the daemons of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDaemon {
    /// What it calls itself.
    pub host: String,
    /// When it was last heard of.
    pub seen_at: Timestamp,
    /// Whether it was heard of just now, and has not ended since.
    pub is_alive: bool,
}

impl Store {
    /// Registers a daemon that starts. Whatever ran with its identity before is dead.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn register_daemon(
        &self,
        daemon: &DaemonIdentity,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let registered = self.transact(async |connection| {
            let now = self.lease_time(connection, now).await?;
            register(connection, daemon, now).await
        });
        registered.await
    }

    /// Says that a daemon is alive. `false` if another process has registered as the same daemon since: of two that have
    /// one identity, each would free what the other has claimed.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn note_alive(
        &self,
        daemon: &DaemonIdentity,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let noted = self.transact(async |connection| {
            let now = self.lease_time(connection, now).await?;
            let select = sqlx::query_scalar("SELECT run FROM daemons WHERE id = $1");
            let select = select.bind(daemon.id.to_string());
            let run: Option<String> = select.fetch_optional(&mut *connection).await?;
            let is_ours = run.is_none_or(|run| run == daemon.run.to_string());
            if is_ours {
                register(connection, daemon, now).await?;
            }
            Ok::<_, StoreError>(is_ours)
        });
        noted.await
    }

    /// Says that a daemon ends.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn note_end(&self, daemon: &DaemonIdentity) -> Result<(), StoreError> {
        let update = "UPDATE daemons SET ended = 1 WHERE id = $1 AND run = $2";
        let update = sqlx::query(update).bind(daemon.id.to_string()).bind(daemon.run.to_string());
        let noted = self.transact(async |connection| {
            Ok::<_, StoreError>(update.execute(connection).await.map(drop)?)
        });
        noted.await
    }

    /// The daemons that were heard of within a day, by their names.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn daemons(&self, now: Timestamp) -> Result<Vec<KnownDaemon>, StoreError> {
        let select = "SELECT host, seen_at, ended FROM daemons ORDER BY host";
        let rows = self.rows(sqlx::query(select)).await?;
        let alive_since = micros_after(self.lease_time_read(now).await?, -ALIVE_FOR);
        let mut known = BTreeMap::<String, KnownDaemon>::new();
        for row in &rows {
            let (seen_at, ended): (_, i64) = (time(row, "seen_at")?, row.try_get("ended")?);
            let is_alive = ended == 0 && micros(seen_at) > alive_since;
            let host: String = row.try_get("host")?;
            let daemon = known.entry(host.clone());
            let daemon = daemon.or_insert(KnownDaemon { host, seen_at, is_alive });
            daemon.seen_at = daemon.seen_at.max(seen_at);
            daemon.is_alive |= is_alive;
        }
        Ok(known.into_values().collect())
    }
}

async fn register(
    connection: &mut AnyConnection,
    daemon: &DaemonIdentity,
    now: Timestamp,
) -> Result<(), StoreError> {
    let forget = "DELETE FROM daemons WHERE seen_at < $1";
    sqlx::query(forget).bind(micros_after(now, -KNOWN_FOR)).execute(&mut *connection).await?;
    let insert = "INSERT INTO daemons (id, run, host, started_at, seen_at, ended) \
                  VALUES ($1, $2, $3, $4, $4, 0) ON CONFLICT (id) DO UPDATE SET \
                  started_at = CASE WHEN daemons.run = excluded.run \
                    THEN daemons.started_at ELSE excluded.started_at END, \
                  run = excluded.run, host = excluded.host, seen_at = excluded.seen_at, ended = 0";
    sqlx::query(insert)
        .bind(daemon.id.to_string())
        .bind(daemon.run.to_string())
        .bind(daemon.host.clone())
        .bind(micros(now))
        .execute(connection)
        .await?;
    Ok(())
}
