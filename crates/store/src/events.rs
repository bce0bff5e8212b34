//! The trace: the events of each boot attempt, limited in number and age.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use jiff::{SignedDuration, Timestamp};
use provision::{BootEvent, BootEventKind};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};
use uuid::Uuid;

use crate::error::StoreError;
use crate::open::Store;
use crate::sql::{Statement, Where, document, json, micros, micros_after, time, uuid};

/// Rows of one INSERT. SQLite looks up each value's name among all of the statement's, so longer statements are
/// slower than several short ones.
const BATCH: usize = 20;
/// Number of kept events of one attempt, besides changes of state. A boot has 50 to 100, a day of heartbeats 1,000.
const PER_ATTEMPT: i64 = 2_000;
/// Number of a full attempt's newest events among which the number of dropped events is looked for: only changes of state
/// come after it. Behind more of them, a second event counts the rest.
const AFTER_FULL: i64 = 32;
/// Number of events deleted in one transaction.
const PRUNED: i64 = 500;

/// Limits of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Largest number of events of one node; the newest stay.
    pub per_node: u32,
    /// Largest age of events.
    pub age: SignedDuration,
}

impl Default for Retention {
    /// About fifty boots of a node, with 50 to 100 events each, from the last 90 days.
    fn default() -> Self {
        Self { per_node: 5_000, age: SignedDuration::from_hours(90 * 24) }
    }
}

/// An attempt, as far as its trace goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptSummary {
    /// Its UUID.
    pub attempt: Uuid,
    /// The time of its first event.
    pub began: Timestamp,
    /// The time of its last event.
    pub last: Timestamp,
    /// Number of events.
    pub events: i64,
}

impl Store {
    /// Adds events of any nodes, all or none.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn append_events(&self, events: &[(Uuid, BootEvent)]) -> Result<(), StoreError> {
        self.transact(async |connection| Ok(self.insert_events(connection, events).await?)).await
    }

    /// The trace of a node, or of one of its attempts, ordered by time.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn events(
        &self,
        node: Uuid,
        attempt: Option<Uuid>,
    ) -> Result<Vec<BootEvent>, StoreError> {
        let mut fits = Where::default();
        fits.equals("node_uuid", Some(node));
        fits.equals("attempt", attempt);
        let select = format!("SELECT event FROM boot_events{} ORDER BY at, seq", fits.text());
        let rows = self.rows(fits.bind(sqlx::query(AssertSqlSafe(select)))).await?;
        rows.iter().map(|row| document(row, "event")).collect()
    }

    /// The traces of several attempts, by attempt, ordered by time; without attempts that have no events.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn traces(
        &self,
        attempts: &[(Uuid, Uuid)],
    ) -> Result<HashMap<Uuid, Vec<BootEvent>>, StoreError> {
        let mut fits = Where::default();
        fits.is_one_of("node_uuid", attempts.iter().map(|(node, _)| *node));
        fits.is_one_of("attempt", attempts.iter().map(|(_, attempt)| *attempt));
        let order = "ORDER BY node_uuid, attempt, at, seq";
        let select = format!("SELECT event FROM boot_events{} {order}", fits.text());
        let rows = self.rows(fits.bind(sqlx::query(AssertSqlSafe(select)))).await?;
        let mut traces = HashMap::<_, Vec<_>>::new();
        for row in &rows {
            let event: BootEvent = document(row, "event")?;
            traces.entry(event.attempt).or_default().push(event);
        }
        Ok(traces)
    }

    /// The attempts of a node with events, newest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn attempts(&self, node: Uuid) -> Result<Vec<AttemptSummary>, StoreError> {
        let select = "SELECT attempt, MIN(at) AS began, MAX(at) AS last, COUNT(*) AS events \
                      FROM boot_events WHERE node_uuid = $1 GROUP BY attempt \
                      ORDER BY MIN(at) DESC, attempt";
        let rows = self.rows(sqlx::query(select).bind(node.to_string())).await?;
        rows.iter().map(summary).collect()
    }

    /// Gives the events of one attempt of a node to another one: all or none.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn move_events(&self, node: Uuid, from: Uuid, to: Uuid) -> Result<(), StoreError> {
        let delete = "DELETE FROM boot_events WHERE node_uuid = $1 AND attempt = $2 RETURNING at, seq, event";
        let moved = self.transact(async |connection| {
            let delete = sqlx::query(delete).bind(node.to_string()).bind(from.to_string());
            let mut rows = delete.fetch_all(&mut *connection).await?;
            rows.sort_by_key(|row| (row.get::<i64, _>("at"), row.get::<i64, _>("seq")));
            let events: Result<Vec<_>, StoreError> = (rows.iter())
                .map(|row| Ok((node, BootEvent { attempt: to, ..document(row, "event")? })))
                .collect();
            Ok(self.insert_events(connection, &events?).await?)
        });
        moved.await
    }

    /// Deletes events beyond the limits, and returns their number.
    ///
    /// It proceeds node by node, with few events at a time: a change of a node waits for at most one batch.
    ///
    /// # Errors
    /// [`StoreError`]; some events may be deleted then.
    pub async fn prune_events(&self, now: Timestamp, keep: &Retention) -> Result<u64, StoreError> {
        let mut removed = 0;
        let old = micros_after(now, -keep.age);
        let delete = "DELETE FROM boot_events WHERE (node_uuid, attempt, at, seq) IN \
                      (SELECT node_uuid, attempt, at, seq FROM boot_events WHERE at < $1 \
                       ORDER BY at LIMIT $2)";
        loop {
            let deleted = self.delete(sqlx::query(delete).bind(old).bind(PRUNED)).await?;
            removed += deleted;
            if deleted == 0 {
                break;
            }
        }
        let mut last = String::new();
        while let Some(node) = self.next_traced_node(&last).await? {
            removed += self.thin_out(&node, keep.per_node).await?;
            last = node;
        }
        Ok(removed)
    }

    /// The next node with a trace, in the order of UUIDs.
    async fn next_traced_node(&self, last: &str) -> Result<Option<String>, StoreError> {
        let select = "SELECT node_uuid FROM boot_events WHERE node_uuid > $1 \
                      ORDER BY node_uuid LIMIT 1";
        let row = self.row(sqlx::query(select).bind(last.to_owned())).await?;
        Ok(row.map(|row| row.try_get("node_uuid")).transpose()?)
    }

    /// Deletes all events of a node but the newest `keep`.
    async fn thin_out(&self, node: &str, keep: u32) -> Result<u64, StoreError> {
        let count = "SELECT COUNT(*) AS events FROM boot_events WHERE node_uuid = $1";
        let row = self.row(sqlx::query(count).bind(node.to_owned())).await?;
        let events: i64 = row.map_or(Ok(0), |row| row.try_get("events"))?;
        let delete = "DELETE FROM boot_events WHERE node_uuid = $1 AND (attempt, at, seq) IN \
                      (SELECT attempt, at, seq FROM boot_events WHERE node_uuid = $1 \
                       ORDER BY at, seq LIMIT $2)";
        let (mut left, mut removed) = (events - i64::from(keep), 0);
        while left > 0 {
            let batch = left.min(PRUNED);
            let delete = sqlx::query(delete).bind(node.to_owned()).bind(batch);
            removed += self.delete(delete).await?;
            left -= batch;
        }
        Ok(removed)
    }

    async fn delete(&self, statement: Statement<'_>) -> Result<u64, StoreError> {
        let deleted = self.transact(async |connection| {
            Ok::<_, StoreError>(statement.execute(connection).await?.rows_affected())
        });
        deleted.await
    }

    pub(crate) async fn insert_events(
        &self,
        connection: &mut AnyConnection,
        events: &[(Uuid, BootEvent)],
    ) -> Result<(), sqlx::Error> {
        let kept = keep(connection, events).await?;
        for batch in kept.chunks(BATCH) {
            let insert = format!(
                "INSERT INTO boot_events (node_uuid, attempt, at, seq, event) VALUES {}",
                rows_of_five(batch.len())
            );
            let mut statement = sqlx::query(AssertSqlSafe(insert));
            for (node, event) in batch {
                statement = statement
                    .bind(node.to_string())
                    .bind(event.attempt.to_string())
                    .bind(micros(event.at))
                    .bind(self.next_sequence())
                    .bind(json(&event.clone().shortened()));
            }
            statement.execute(&mut *connection).await?;
        }
        Ok(())
    }
}

/// The events that fit within their attempts' limits and, for each full attempt, a last event with the number of
/// dropped ones. Changes of state are always kept: only the service makes them.
async fn keep(
    connection: &mut AnyConnection,
    events: &[(Uuid, BootEvent)],
) -> Result<Vec<(Uuid, BootEvent)>, sqlx::Error> {
    let mut rooms = HashMap::new();
    let mut kept = Vec::with_capacity(events.len());
    let mut left_out = HashMap::<_, (u64, Timestamp)>::new();
    for (node, event) in events {
        let attempt = (*node, event.attempt);
        let room = match rooms.entry(attempt) {
            Entry::Occupied(room) => room.into_mut(),
            Entry::Vacant(room) => room.insert(PER_ATTEMPT - count(connection, attempt).await?),
        };
        if *room > 0 || matches!(event.what, BootEventKind::State { .. }) {
            *room -= 1;
            kept.push((*node, event.clone()));
        } else {
            let (more, last) = left_out.entry(attempt).or_insert((0, event.at));
            (*more, *last) = (*more + 1, event.at);
        }
    }
    for ((node, attempt), (more, at)) in left_out {
        let before = take_left_out(connection, (node, attempt)).await?;
        kept.push((
            node,
            BootEvent { at, attempt, what: BootEventKind::LeftOut { events: before + more } },
        ));
    }
    Ok(kept)
}

/// Number of kept events of an attempt.
async fn count(
    connection: &mut AnyConnection,
    (node, attempt): (Uuid, Uuid),
) -> Result<i64, sqlx::Error> {
    let count = "SELECT COUNT(*) FROM boot_events WHERE node_uuid = $1 AND attempt = $2";
    let count = sqlx::query_scalar(count).bind(node.to_string()).bind(attempt.to_string());
    count.fetch_one(connection).await
}

/// Removes an attempt's last event with the number of dropped events, and returns that number.
async fn take_left_out(
    connection: &mut AnyConnection,
    (node, attempt): (Uuid, Uuid),
) -> Result<u64, sqlx::Error> {
    // By the index, from its end: a search through all events would take longer than the batch.
    let newest = "SELECT at, seq, event FROM boot_events WHERE node_uuid = $1 AND attempt = $2 \
                  ORDER BY at DESC, seq DESC LIMIT $3";
    let newest =
        sqlx::query(newest).bind(node.to_string()).bind(attempt.to_string()).bind(AFTER_FULL);
    let rows = newest.fetch_all(&mut *connection).await?;
    let found = rows.iter().find_map(|row| Some((row, left_out(row)?)));
    let Some((row, events)) = found else { return Ok(0) };
    let delete =
        "DELETE FROM boot_events WHERE node_uuid = $1 AND attempt = $2 AND at = $3 AND seq = $4";
    let delete = sqlx::query(delete).bind(node.to_string()).bind(attempt.to_string());
    let delete = delete.bind(row.try_get::<i64, _>("at")?).bind(row.try_get::<i64, _>("seq")?);
    delete.execute(connection).await?;
    Ok(events)
}

/// The number of dropped events, if the row is an event with it.
fn left_out(row: &AnyRow) -> Option<u64> {
    let event = document::<BootEvent>(row, "event").ok()?;
    let BootEventKind::LeftOut { events } = event.what else { return None };
    Some(events)
}

/// `($1, $2, $3, $4, $5), ($6, …), …`
fn rows_of_five(rows: usize) -> String {
    let row = |row: usize| {
        let places: Vec<_> = (1..=5).map(|column| format!("${}", row * 5 + column)).collect();
        format!("({})", places.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

fn summary(row: &AnyRow) -> Result<AttemptSummary, StoreError> {
    Ok(AttemptSummary {
        attempt: uuid(row, "attempt")?,
        began: time(row, "began")?,
        last: time(row, "last")?,
        events: row.try_get("events")?,
    })
}
