//! The daemons that share a database, and whether they are alive. All times are the database's.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use sqlx::{AnyConnection, Row};
use uuid::Uuid;

use crate::error::{RegistrationError, StoreError};
use crate::open::Store;
use crate::pools::{DaemonPools, PoolOverlap, PoolRange, ReservationConflict};
use crate::sql::{document, json, micros, micros_after, time, uuid};

/// A daemon without a sign of life for this long is dead. Each daemon reports several times within this period.
const ALIVE_FOR: SignedDuration = SignedDuration::from_secs(20);
/// A daemon without a sign of life for this long is forgotten, once its leases have ended.
const KNOWN_FOR: SignedDuration = SignedDuration::from_hours(24);

/// The identity of a daemon in its claims.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DaemonIdentity {
    /// Random, one for each state directory: unique, whatever the host's name is.
    pub id: Uuid,
    /// Random, one for each process.
    pub run: Uuid,
    /// Its name for operators.
    pub host: String,
}

impl DaemonIdentity {
    /// The identity of this process, with its state directory's ID.
    #[must_use]
    pub fn new(id: Uuid, host: String) -> Self {
        Self { id, run: Uuid::new_v4(), host }
    }
}

/// The daemons of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDaemon {
    /// The name.
    pub host: String,
    /// The time of the last sign of life.
    pub seen_at: Timestamp,
    /// Whether it has reported recently, and has not ended since.
    pub is_alive: bool,
}

impl Store {
    /// Registers a starting daemon with its pools. An earlier process with its identity is dead.
    ///
    /// Returns the addresses of the other daemons of its site, living or dead, whose leases may not have ended.
    ///
    /// # Errors
    /// [`RegistrationError`]: a living daemon has an overlapping pool.
    pub async fn register_daemon(
        &self,
        daemon: &DaemonIdentity,
        pools: &DaemonPools,
        now: Timestamp,
    ) -> Result<Vec<PoolRange>, RegistrationError> {
        let registered = self.transact(async |connection| {
            let now = self.take_turn(connection, now).await?;
            let foreign = others(connection, daemon, pools, now).await?;
            insert(connection, daemon, pools, now).await?;
            Ok(foreign)
        });
        registered.await
    }

    /// Reports that a daemon is alive; otherwise as [`Store::register_daemon`].
    ///
    /// # Errors
    /// [`RegistrationError`]: also if another process has registered with the same identity since, because two
    /// processes with one identity would free each other's claims. A daemon without a sign of life for long may find
    /// that another daemon has its pool now.
    pub async fn note_alive(
        &self,
        daemon: &DaemonIdentity,
        pools: &DaemonPools,
        now: Timestamp,
    ) -> Result<Vec<PoolRange>, RegistrationError> {
        let noted = self.transact(async |connection| {
            let now = self.take_turn(connection, now).await?;
            let select = sqlx::query_scalar("SELECT run FROM daemons WHERE id = $1");
            let select = select.bind(daemon.id.to_string());
            let run: Option<String> = select.fetch_optional(&mut *connection).await?;
            if run.as_ref().is_some_and(|run| *run != daemon.run.to_string()) {
                return Err(RegistrationError::Replaced);
            }
            let foreign = others(connection, daemon, pools, now).await?;
            match run {
                Some(_) => renew(connection, daemon, pools, now).await?,
                None => insert(connection, daemon, pools, now).await?,
            }
            Ok(foreign)
        });
        noted.await
    }

    /// Reports the end of a daemon.
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

    /// The daemons that reported within a day, by name.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn daemons(&self, now: Timestamp) -> Result<Vec<KnownDaemon>, StoreError> {
        let now = self.lease_time_read(now).await?;
        let select = "SELECT host, seen_at, ended FROM daemons WHERE seen_at >= $1 ORDER BY host";
        let rows = self.rows(sqlx::query(select).bind(micros_after(now, -KNOWN_FOR))).await?;
        let alive_since = micros_after(now, -ALIVE_FOR);
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

    /// The addresses of all daemons of a site whose leases may not have ended.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn leased_ranges(
        &self,
        site: &str,
        now: Timestamp,
    ) -> Result<Vec<PoolRange>, StoreError> {
        let now = self.lease_time_read(now).await?;
        let select = "SELECT pools FROM daemons WHERE leases_until > $1 ORDER BY host, id";
        let rows = self.rows(sqlx::query(select).bind(micros(now))).await?;
        let mut ranges = Vec::new();
        for row in &rows {
            let pools: DaemonPools = document(row, "pools")?;
            ranges.extend(pools.all().filter(|_| pools.site == site));
        }
        Ok(ranges)
    }

    /// The reservations of `pools` that contradict those of other living daemons of the site.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn reservation_conflicts(
        &self,
        daemon: &DaemonIdentity,
        pools: &DaemonPools,
        now: Timestamp,
    ) -> Result<Vec<ReservationConflict>, StoreError> {
        let now = self.lease_time_read(now).await?;
        let select = "SELECT host, pools FROM daemons WHERE id <> $1 AND seen_at > $2 AND ended = 0 \
                      ORDER BY host, id";
        let select = sqlx::query(select).bind(daemon.id.to_string());
        let rows = self.rows(select.bind(micros_after(now, -ALIVE_FOR))).await?;
        let mut found = Vec::new();
        for row in &rows {
            let (others, other_host): (DaemonPools, String) =
                (document(row, "pools")?, row.try_get("host")?);
            found.extend(pools.conflicts(&others).map(|(own, other_mac)| {
                let other_host = other_host.clone();
                ReservationConflict { own, other_mac, other_host }
            }));
        }
        Ok(found)
    }

    /// Waits until no other daemon registers, and returns the time then. It locks the counter of changes, before any
    /// row of a daemon.
    async fn take_turn(
        &self,
        connection: &mut AnyConnection,
        now: Timestamp,
    ) -> Result<Timestamp, StoreError> {
        let take = sqlx::query("UPDATE change_counter SET number = number");
        take.execute(&mut *connection).await?;
        self.lease_time(connection, now).await
    }
}

/// The addresses of the other daemons of a site whose leases may not have ended.
async fn others(
    connection: &mut AnyConnection,
    daemon: &DaemonIdentity,
    pools: &DaemonPools,
    now: Timestamp,
) -> Result<Vec<PoolRange>, RegistrationError> {
    let select = "SELECT id, host, seen_at, ended, leases_until, pools FROM daemons \
                  WHERE id <> $1 ORDER BY host, id";
    let rows = sqlx::query(select).bind(daemon.id.to_string()).fetch_all(connection).await?;
    let alive_since = micros_after(now, -ALIVE_FOR);
    let mut foreign = Vec::new();
    for row in &rows {
        let others: DaemonPools = document(row, "pools")?;
        let (seen_at, ended): (i64, i64) = (row.try_get("seen_at")?, row.try_get("ended")?);
        if ended == 0
            && seen_at > alive_since
            && let Some((range, other_range)) = pools.overlap(&others)
        {
            let overlap = PoolOverlap {
                host: daemon.host.clone(),
                range,
                other_id: uuid(row, "id")?,
                other_host: row.try_get("host")?,
                other_range,
                other_seen_at: time(row, "seen_at")?,
            };
            return Err(RegistrationError::Overlap(Box::new(overlap)));
        }
        if others.site == pools.site && row.try_get::<i64, _>("leases_until")? > micros(now) {
            foreign.extend(others.all());
        }
    }
    Ok(foreign)
}

/// Inserts a daemon with its pools, and deletes those that are gone for good.
async fn insert(
    connection: &mut AnyConnection,
    daemon: &DaemonIdentity,
    pools: &DaemonPools,
    now: Timestamp,
) -> Result<(), StoreError> {
    let forget = "DELETE FROM daemons WHERE seen_at < $1 AND leases_until < $2";
    sqlx::query(forget)
        .bind(micros_after(now, -KNOWN_FOR))
        .bind(micros(now))
        .execute(&mut *connection)
        .await?;
    let insert = "INSERT INTO daemons (id, run, host, started_at, seen_at, ended, leases_until, pools) \
                  VALUES ($1, $2, $3, $4, $4, 0, $5, $6) ON CONFLICT (id) DO UPDATE SET \
                  run = excluded.run, host = excluded.host, started_at = excluded.started_at, \
                  seen_at = excluded.seen_at, ended = 0, leases_until = excluded.leases_until, \
                  pools = excluded.pools";
    sqlx::query(insert)
        .bind(daemon.id.to_string())
        .bind(daemon.run.to_string())
        .bind(daemon.host.clone())
        .bind(micros(now))
        .bind(leases_until(pools, now))
        .bind(json(pools))
        .execute(connection)
        .await?;
    Ok(())
}

/// Updates the times of a daemon.
async fn renew(
    connection: &mut AnyConnection,
    daemon: &DaemonIdentity,
    pools: &DaemonPools,
    now: Timestamp,
) -> Result<(), StoreError> {
    let update = "UPDATE daemons SET seen_at = $2, leases_until = $3, ended = 0 WHERE id = $1";
    sqlx::query(update)
        .bind(daemon.id.to_string())
        .bind(micros(now))
        .bind(leases_until(pools, now))
        .execute(connection)
        .await?;
    Ok(())
}

/// The end of the last lease of a daemon that dies before its next report.
fn leases_until(pools: &DaemonPools, now: Timestamp) -> i64 {
    micros_after(now, ALIVE_FOR + SignedDuration::from_secs(pools.lease_secs.into()))
}
