//! Work: claimed by one daemon at a time, as long as it renews its lease.
//!
//! A claim includes the node's reservation, so that other changes of the node are refused meanwhile. A dead daemon
//! leaves both behind. When the lease runs out, or when that daemon starts again, the work is claimed again, with its
//! recorded progress.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use provision::event::BootPhase;
use provision::{Node, Port, Work};
use sqlx::{AnyConnection, Row};
use tracing::info;
use uuid::Uuid;

use crate::daemons::DaemonIdentity;
use crate::error::{StoreError, WorkError};
use crate::key::DatabaseKey;
use crate::open::Store;
use crate::ports::ports_of;
use crate::sql::{document, json, micros, micros_after, uuid};
use crate::taken_node::take_node;

/// The right to do a piece of work and to change its node. Lost when another daemon claims the work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The node.
    pub node: Uuid,
    /// The identity of the working daemon.
    pub daemon: Uuid,
    id: String,
    claims: i64,
}

/// A claimed piece of work.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// The claim, needed to finish the work.
    pub claim: Claim,
    /// The current node.
    pub node: Node,
    /// Its current ports, oldest first.
    pub ports: Vec<Arc<Port>>,
    /// The work.
    pub work: Work,
    /// Number of claims, including this one: from 2 on, the work may have been begun, and the real state must be read
    /// first.
    pub claims: i64,
    /// The recorded progress.
    pub progress: BootPhase,
}

/// Number of pieces of work to try in one call: more concurrent daemons are rare.
const CANDIDATES: u8 = 16;

impl Store {
    /// Claims the oldest available work for `lease`.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn claim_work(
        &self,
        daemon: &DaemonIdentity,
        now: Timestamp,
        lease: SignedDuration,
    ) -> Result<Option<Claimed>, StoreError> {
        self.claim_work_beside(daemon, now, lease, &HashSet::new()).await
    }

    /// [`Store::claim_work`] without the nodes that this daemon already works on: its lease may have run out while
    /// the database could not be written, and it must not take the work over from itself.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn claim_work_beside(
        &self,
        daemon: &DaemonIdentity,
        now: Timestamp,
        lease: SignedDuration,
        in_hand: &HashSet<Uuid>,
    ) -> Result<Option<Claimed>, StoreError> {
        for (node, id) in self.candidates(now, in_hand.len()).await? {
            if in_hand.contains(&node) {
                continue;
            }
            if let Some(claimed) = self.try_claim(node, &id, daemon, now, lease).await? {
                // There may be more work, and one wake-up wakes one worker: pass the wake-up on.
                self.added.notify_one();
                return Ok(Some(claimed));
            }
        }
        Ok(None)
    }

    /// Waits until this process adds work. Other daemons' work must be polled for.
    pub async fn work_added(&self) {
        self.added.notified().await;
    }

    /// Records the progress of a boot; once this returns, the record survives any crash.
    ///
    /// # Errors
    /// [`WorkError::ClaimLost`]: the machine must not be touched any more.
    pub async fn note_progress(&self, claim: &Claim, progress: BootPhase) -> Result<(), WorkError> {
        let update = "UPDATE work SET progress = $4 \
                      WHERE id = $1 AND claimed_by = $2 AND claims = $3";
        let statement = fenced(update, claim).bind(json(&progress));
        self.transact(async |connection| expect_one(statement, connection, claim).await).await
    }

    /// Extends a claim to `lease` after `now`.
    ///
    /// # Errors
    /// [`WorkError::ClaimLost`]
    pub async fn renew(
        &self,
        claim: &Claim,
        now: Timestamp,
        lease: SignedDuration,
    ) -> Result<(), WorkError> {
        self.transact(async |connection| self.renew_in(connection, claim, now, lease).await).await
    }

    /// Ends a claim on obsolete work; the node stays as it is.
    ///
    /// # Errors
    /// [`WorkError::ClaimLost`]
    pub async fn drop_work(&self, claim: &Claim) -> Result<(), WorkError> {
        self.transact(async |connection| drop_in(connection, &self.key, claim).await).await
    }

    /// Ends a claim on work and puts the work back; it can be claimed again from `delay` after `now`.
    ///
    /// # Errors
    /// [`WorkError::ClaimLost`]
    pub async fn put_back(
        &self,
        claim: &Claim,
        now: Timestamp,
        delay: SignedDuration,
    ) -> Result<(), WorkError> {
        self.transact(async |connection| self.put_back_in(connection, claim, now, delay).await)
            .await
    }

    /// Frees the claims of a daemon that died, to be claimed at once; without a daemon, all claims. Returns their
    /// number.
    ///
    /// All claims are freed only in a database that no other daemon uses. Elsewhere other daemons may be alive, and
    /// the claims of dead ones end with their leases.
    ///
    /// It also shortens claims of others to a whole `lease` from `now`, and delays of work likewise: times further
    /// ahead mean that the clock was set back.
    ///
    /// A daemon calls this at its start, before its workers run.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn release_all(
        &self,
        of: Option<&DaemonIdentity>,
        now: Timestamp,
        lease: SignedDuration,
    ) -> Result<u64, StoreError> {
        let released =
            self.transact(async |connection| self.release_all_in(connection, of, now, lease).await);
        let released = released.await?;
        if released > 0 {
            info!(work = released, "taking over work from before the restart");
            self.added.notify_one();
        }
        Ok(released)
    }

    async fn candidates(
        &self,
        now: Timestamp,
        in_hand: usize,
    ) -> Result<Vec<(Uuid, String)>, StoreError> {
        let select = "SELECT node_uuid, id FROM work WHERE not_before <= $1 \
                      AND (claimed_until IS NULL OR claimed_until <= $1) \
                      ORDER BY not_before, node_uuid LIMIT $2";
        // Nodes in work here may be among the first.
        let now = self.lease_time_read(now).await?;
        let most = i64::from(CANDIDATES) + i64::try_from(in_hand).unwrap_or(i64::MAX / 2);
        let select = sqlx::query(select).bind(micros(now)).bind(most);
        let rows = self.rows(select).await?;
        rows.iter().map(|row| Ok((uuid(row, "node_uuid")?, row.try_get("id")?))).collect()
    }

    /// `None` if another daemon was faster.
    async fn try_claim(
        &self,
        node: Uuid,
        id: &str,
        daemon: &DaemonIdentity,
        now: Timestamp,
        lease: SignedDuration,
    ) -> Result<Option<Claimed>, StoreError> {
        let claimed = self.transact(async |connection| {
            self.claim_in(connection, node, id, daemon, now, lease).await
        });
        claimed.await
    }

    /// `None` if another daemon was faster.
    async fn claim_in(
        &self,
        connection: &mut AnyConnection,
        node: Uuid,
        id: &str,
        daemon: &DaemonIdentity,
        now: Timestamp,
        lease: SignedDuration,
    ) -> Result<Option<Claimed>, StoreError> {
        let Some(taken) = take_node(connection, &self.key, node).await? else { return Ok(None) };
        let now = self.lease_time(connection, now).await?;
        let until = micros_after(now, lease);
        if taken.expect_free(now).is_err() {
            return Ok(None);
        }
        let claim = "UPDATE work SET claimed_by = $2, claimed_until = $3, claims = claims + 1 \
                 WHERE id = $1 AND (claimed_until IS NULL OR claimed_until <= $4) \
                 RETURNING work, claims, progress";
        let row = sqlx::query(claim)
            .bind(id.to_owned())
            .bind(daemon.id.to_string())
            .bind(until)
            .bind(micros(now))
            .fetch_optional(&mut *connection)
            .await?;
        let Some(row) = row else { return Ok(None) };
        reserve(connection, node, &daemon.host, until).await?;
        let claims = row.try_get("claims")?;
        Ok(Some(Claimed {
            claim: Claim { node, daemon: daemon.id, id: id.to_owned(), claims },
            node: taken.node,
            ports: ports_of(connection, node).await?.into_iter().map(Arc::new).collect(),
            work: document(&row, "work")?,
            claims,
            progress: document(&row, "progress")?,
        }))
    }

    async fn renew_in(
        &self,
        connection: &mut AnyConnection,
        claim: &Claim,
        now: Timestamp,
        lease: SignedDuration,
    ) -> Result<(), WorkError> {
        let until = micros_after(self.lease_time(connection, now).await?, lease);
        // The node's row is locked first, as in every transaction that locks several rows.
        let prolong = "UPDATE nodes SET reservation_expires = $2 WHERE uuid = $1";
        let prolong = sqlx::query(prolong).bind(claim.node.to_string()).bind(until);
        prolong.execute(&mut *connection).await?;
        let update = "UPDATE work SET claimed_until = $4 \
                  WHERE id = $1 AND claimed_by = $2 AND claims = $3";
        expect_one(fenced(update, claim).bind(until), connection, claim).await
    }

    async fn put_back_in(
        &self,
        connection: &mut AnyConnection,
        claim: &Claim,
        now: Timestamp,
        delay: SignedDuration,
    ) -> Result<(), WorkError> {
        let not_before = micros_after(self.lease_time(connection, now).await?, delay);
        take_node(connection, &self.key, claim.node).await?;
        let update = "UPDATE work SET claimed_by = NULL, claimed_until = NULL, not_before = $4 \
                  WHERE id = $1 AND claimed_by = $2 AND claims = $3";
        expect_one(fenced(update, claim).bind(not_before), connection, claim).await?;
        Ok(release(connection, claim.node).await?)
    }

    /// Returns the number of freed claims.
    async fn release_all_in(
        &self,
        connection: &mut AnyConnection,
        of: Option<&DaemonIdentity>,
        now: Timestamp,
        lease: SignedDuration,
    ) -> Result<u64, StoreError> {
        let now = self.lease_time(connection, now).await?;
        let latest = micros_after(now, lease);
        for (shorten, to) in [
            ("UPDATE nodes SET reservation_expires = $1 WHERE reservation_expires > $2", latest),
            ("UPDATE work SET claimed_until = $1 WHERE claimed_until > $2", latest),
            ("UPDATE work SET not_before = $1 WHERE not_before > $2", micros(now)),
        ] {
            sqlx::query(shorten).bind(to).bind(latest).execute(&mut *connection).await?;
        }
        let id = of.map(|daemon| daemon.id.to_string());
        let nodes = "UPDATE nodes SET reservation = NULL, reservation_expires = NULL \
                     WHERE reservation IS NOT NULL AND ($1 IS NULL OR uuid IN \
                     (SELECT node_uuid FROM work WHERE claimed_by = $1))";
        sqlx::query(nodes).bind(id.clone()).execute(&mut *connection).await?;
        let work = "UPDATE work SET claimed_by = NULL, claimed_until = NULL \
                    WHERE claimed_by IS NOT NULL AND ($1 IS NULL OR claimed_by = $1)";
        let done = sqlx::query(work).bind(id).execute(connection).await?;
        Ok(done.rows_affected())
    }
}

async fn drop_in(
    connection: &mut AnyConnection,
    key: &DatabaseKey,
    claim: &Claim,
) -> Result<(), WorkError> {
    take_node(connection, key, claim.node).await?;
    let ours = finish(connection, claim).await?;
    if ours { Ok(()) } else { Err(WorkError::ClaimLost(claim.node)) }
}

/// Takes a node's work and reservation away from the claiming daemon. Returns the claim, and the recorded progress.
pub(crate) async fn take_away(
    connection: &mut AnyConnection,
    node: Uuid,
) -> Result<Option<(Claim, BootPhase)>, StoreError> {
    let delete = "DELETE FROM work WHERE node_uuid = $1 AND claimed_by IS NOT NULL \
                  RETURNING id, claimed_by, claims, progress";
    let row = sqlx::query(delete).bind(node.to_string()).fetch_optional(&mut *connection).await?;
    release(connection, node).await?;
    let Some(row) = row else { return Ok(None) };
    let claim = Claim {
        node,
        // Versions before this one stored a host name.
        daemon: uuid(&row, "claimed_by").unwrap_or_default(),
        id: row.try_get("id")?,
        claims: row.try_get("claims")?,
    };
    Ok(Some((claim, document(&row, "progress")?)))
}

/// Removes claimed work and its reservation; `false` if the claim is no longer valid.
pub(crate) async fn finish(
    connection: &mut AnyConnection,
    claim: &Claim,
) -> Result<bool, sqlx::Error> {
    let delete = "DELETE FROM work WHERE id = $1 AND claimed_by = $2 AND claims = $3";
    let done = fenced(delete, claim).execute(&mut *connection).await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    release(connection, claim.node).await?;
    Ok(true)
}

/// A statement whose `$1`, `$2`, `$3` match the work only while the claim is valid.
fn fenced(statement: &'static str, claim: &Claim) -> crate::sql::Statement<'static> {
    sqlx::query(statement).bind(claim.id.clone()).bind(claim.daemon.to_string()).bind(claim.claims)
}

/// Executes a statement that changes one row while the claim is valid.
async fn expect_one(
    statement: crate::sql::Statement<'_>,
    connection: &mut AnyConnection,
    claim: &Claim,
) -> Result<(), WorkError> {
    let done = statement.execute(connection).await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(WorkError::ClaimLost(claim.node)) }
}

async fn reserve(
    connection: &mut AnyConnection,
    node: Uuid,
    host: &str,
    until: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE nodes SET reservation = $2, reservation_expires = $3 WHERE uuid = $1")
        .bind(node.to_string())
        .bind(host.to_owned())
        .bind(until)
        .execute(connection)
        .await
        .map(drop)
}

pub(crate) async fn release(connection: &mut AnyConnection, node: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE nodes SET reservation = NULL, reservation_expires = NULL WHERE uuid = $1")
        .bind(node.to_string())
        .execute(connection)
        .await
        .map(drop)
}
