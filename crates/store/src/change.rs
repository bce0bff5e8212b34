//! Changes of a node: load, decide, save, all in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use hardware::BootChange;
use jiff::{SignedDuration, Timestamp};
use provision::event::BootPhase;
use provision::{BootEvent, BootEventKind, Node, Outcome, Work};
use sqlx::AnyConnection;
use uuid::Uuid;

use crate::boot_changes::boot_changes_of;
use crate::error::ChangeError;
use crate::nodes::{instance, save};
use crate::numbers::{ChangeNumber, SavedNode, last_change, number_change, number_deletion};
use crate::open::Store;
use crate::sql::{duplicates, json, micros};
use crate::taken_node::take_node;
use crate::work::{self, Claim};

/// The decision about a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The changed node; its UUID stays.
    pub node: Node,
    /// The next work. `None` keeps the planned work, except that the work of the change's claim is finished.
    pub work: Option<Work>,
    /// New events of the attempt's trace; ignored if no attempt was under way before or after.
    pub trace: Vec<BootEventKind>,
}

impl From<Outcome> for Change {
    fn from(outcome: Outcome) -> Self {
        Self { node: outcome.node, work: outcome.work, trace: outcome.trace }
    }
}

impl From<Node> for Change {
    /// A change of settings, which starts no work.
    fn from(node: Node) -> Self {
        Self { node, work: None, trace: Vec::new() }
    }
}

impl Store {
    /// Changes a node with `decide`, and returns the changed node.
    ///
    /// With a worker's `claim`, the claim's work is finished and its reservation ends. Without one, a node with a
    /// working daemon is [`ChangeError::Locked`].
    ///
    /// The transaction locks the node's row before it reads the node. So changes of one node queue, on both
    /// databases, and no decision has to be repeated.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed then.
    pub async fn change<C, E, F>(
        &self,
        node: Uuid,
        claim: Option<&Claim>,
        now: Timestamp,
        decide: F,
    ) -> Result<SavedNode, ChangeError<E>>
    where
        C: Into<Change>,
        F: FnOnce(&Node) -> Result<C, E>,
    {
        let change = self.transact(async |connection| {
            self.change_node_in(connection, node, claim, now, decide).await
        });
        let (change, number) = change.await?;
        if change.work.is_some() {
            self.added.notify_one();
        }
        Ok(SavedNode { number, node: change.node })
    }

    /// [`Store::change`] of several nodes without a claim, in one transaction: a storm's machines wait for it. Nodes
    /// that cannot be changed stay as they are, and each has its error in the result, in the order of `nodes`.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed then.
    pub async fn change_all<C, E, F>(
        &self,
        nodes: &[Uuid],
        now: Timestamp,
        decide: F,
    ) -> Result<Vec<Result<SavedNode, ChangeError<E>>>, ChangeError<E>>
    where
        C: Into<Change>,
        F: Fn(&Node) -> Result<C, E>,
    {
        let changed = self
            .transact(async |connection| self.change_all_in(connection, nodes, now, decide).await);
        let changed = changed.await?;
        let has_work = |(change, _): &(Change, ChangeNumber)| change.work.is_some();
        if changed.iter().flatten().any(has_work) {
            self.added.notify_one();
        }
        let saved = |(change, number): (Change, _)| SavedNode { number, node: change.node };
        Ok(changed.into_iter().map(|changed| changed.map(saved)).collect())
    }

    async fn change_all_in<C, E, F>(
        &self,
        connection: &mut AnyConnection,
        nodes: &[Uuid],
        now: Timestamp,
        decide: F,
    ) -> Result<Vec<Result<(Change, ChangeNumber), ChangeError<E>>>, ChangeError<E>>
    where
        C: Into<Change>,
        F: Fn(&Node) -> Result<C, E>,
    {
        // All transactions lock nodes in one order, and the counter of changes after them.
        let in_order: BTreeSet<_> = nodes.iter().copied().collect();
        let mut taken = BTreeMap::new();
        for node in in_order {
            taken.insert(node, take_node(connection, &self.key, node).await?);
        }
        let lease_time = self.lease_time(connection, now).await?;
        let mut changes = BTreeMap::new();
        for (node, taken) in taken {
            let decided = match taken {
                None => Err(ChangeError::NoSuchNode(node)),
                Some(taken) => match taken.expect_free(lease_time) {
                    Err(by) => Err(ChangeError::Locked { node, by }),
                    Ok(()) => decide(&taken.node).map_err(ChangeError::Refused).map(|change| {
                        let change: Change = change.into();
                        (taken, change)
                    }),
                },
            };
            if let Ok((taken, change)) = &decided {
                if taken.reservation.is_some() {
                    work::release(connection, node).await?;
                }
                self.keep_in(connection, &taken.node, change, now, lease_time).await?;
            }
            changes.insert(node, decided);
        }
        let mut numbered = Vec::new();
        for node in nodes {
            // Each node was taken once.
            let Some(decided) = changes.remove(node) else { continue };
            numbered.push(match decided {
                Ok((_, change)) => Ok((change, number_change(connection, *node).await?)),
                Err(why) => Err(why),
            });
        }
        Ok(numbered)
    }

    /// [`Store::change`] without a claim, unless the node or its ports were changed after `since`: then `None`, and
    /// nothing changes. For decisions based on observations that others may have outdated.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed then.
    pub async fn change_unless_changed<C, E, F>(
        &self,
        node: Uuid,
        since: ChangeNumber,
        now: Timestamp,
        decide: F,
    ) -> Result<Option<SavedNode>, ChangeError<E>>
    where
        C: Into<Change>,
        F: FnOnce(&Node) -> Result<C, E>,
    {
        let changed = self.transact(async |connection| {
            take_node(connection, &self.key, node).await?;
            if last_change(connection, node).await? > Some(since) {
                return Ok(None);
            }
            self.change_node_in(connection, node, None, now, decide).await.map(Some)
        });
        let Some((change, number)) = changed.await? else { return Ok(None) };
        if change.work.is_some() {
            self.added.notify_one();
        }
        Ok(Some(SavedNode { number, node: change.node }))
    }

    async fn change_node_in<C, E, F>(
        &self,
        connection: &mut AnyConnection,
        node: Uuid,
        claim: Option<&Claim>,
        now: Timestamp,
        decide: F,
    ) -> Result<(Change, ChangeNumber), ChangeError<E>>
    where
        C: Into<Change>,
        F: FnOnce(&Node) -> Result<C, E>,
    {
        let taken = take_node(connection, &self.key, node).await?;
        let taken = taken.ok_or(ChangeError::NoSuchNode(node))?;
        let lease_time = self.lease_time(connection, now).await?;
        match claim {
            None => {
                taken.expect_free(lease_time).map_err(|by| ChangeError::Locked { node, by })?;
                if taken.reservation.is_some() {
                    // The other daemon died. Its work, unless replaced below, is claimed again.
                    work::release(connection, node).await?;
                }
            }
            Some(claim) if work::finish(connection, claim).await? => {}
            Some(_) => return Err(ChangeError::ClaimLost(node)),
        }
        let change = decide(&taken.node).map_err(ChangeError::Refused)?.into();
        self.keep_in(connection, &taken.node, &change, now, lease_time).await?;
        Ok((change, number_change(connection, node).await?))
    }

    /// [`Store::change`], but takes the claim away from the daemon that works on the node. Returns that claim with
    /// the node; the new work replaces the old.
    ///
    /// If the machine may have been touched, the new work waits for `settle`: a last request of the former worker may
    /// still be on its way.
    ///
    /// # Errors
    /// [`ChangeError`], but neither [`ChangeError::Locked`] nor [`ChangeError::ClaimLost`]; nothing has
    /// changed then.
    pub async fn take_over<C, E, F>(
        &self,
        node: Uuid,
        now: Timestamp,
        settle: SignedDuration,
        decide: F,
    ) -> Result<(SavedNode, Option<Claim>), ChangeError<E>>
    where
        C: Into<Change>,
        F: FnOnce(&Node) -> Result<C, E>,
    {
        let taken = self.transact(async |connection| {
            self.take_over_in(connection, node, now, settle, decide).await
        });
        let (change, number, claim) = taken.await?;
        if change.work.is_some() {
            self.added.notify_one();
        }
        Ok((SavedNode { number, node: change.node }, claim))
    }

    async fn take_over_in<C, E, F>(
        &self,
        connection: &mut AnyConnection,
        node: Uuid,
        now: Timestamp,
        settle: SignedDuration,
        decide: F,
    ) -> Result<(Change, ChangeNumber, Option<Claim>), ChangeError<E>>
    where
        C: Into<Change>,
        F: FnOnce(&Node) -> Result<C, E>,
    {
        let taken = take_node(connection, &self.key, node).await?;
        let taken = taken.ok_or(ChangeError::NoSuchNode(node))?;
        let lease_time = self.lease_time(connection, now).await?;
        let change = decide(&taken.node).map_err(ChangeError::Refused)?.into();
        let lost = work::take_away(connection, node).await?;
        let not_before = match &lost {
            Some((_, phase)) if *phase > BootPhase::Untouched => lease_time + settle,
            Some(_) | None => lease_time,
        };
        self.keep_in(connection, &taken.node, &change, now, not_before).await?;
        let number = number_change(connection, node).await?;
        Ok((change, number, lost.map(|(claim, _)| claim)))
    }

    /// Saves a change without its number. Delays the next work until `not_before`.
    async fn keep_in<E>(
        &self,
        connection: &mut AnyConnection,
        before: &Node,
        change: &Change,
        now: Timestamp,
        not_before: Timestamp,
    ) -> Result<(), ChangeError<E>> {
        save(connection, &self.key, &change.node)
            .await
            .map_err(|error| duplicate(error, change))?;
        if let Some(planned) = &change.work {
            plan(connection, before.uuid, planned, not_before).await?;
        }
        let trace = traced(before, change, now);
        self.insert_events(connection, &trace).await?;
        Ok(())
    }

    /// Deletes a node with its ports, work and trace, if `check` allows it and no daemon works on it. Returns the
    /// deletion's change number, and what boots changed at the node's BMC and nothing undoes any more.
    ///
    /// # Errors
    /// [`ChangeError`]; the node is still there then.
    pub async fn delete_node<E>(
        &self,
        node: Uuid,
        now: Timestamp,
        check: impl FnOnce(&Node) -> Result<(), E>,
    ) -> Result<(ChangeNumber, Vec<BootChange>), ChangeError<E>> {
        let deleted = self
            .transact(async |connection| self.delete_node_in(connection, node, now, check).await);
        deleted.await
    }

    async fn delete_node_in<E>(
        &self,
        connection: &mut AnyConnection,
        node: Uuid,
        now: Timestamp,
        check: impl FnOnce(&Node) -> Result<(), E>,
    ) -> Result<(ChangeNumber, Vec<BootChange>), ChangeError<E>> {
        let taken = take_node(connection, &self.key, node).await?;
        let taken = taken.ok_or(ChangeError::NoSuchNode(node))?;
        let now = self.lease_time(connection, now).await?;
        taken.expect_free(now).map_err(|by| ChangeError::Locked { node, by })?;
        check(&taken.node).map_err(ChangeError::Refused)?;
        let left = boot_changes_of(connection, node).await?;
        for delete in
            ["DELETE FROM boot_events WHERE node_uuid = $1", "DELETE FROM nodes WHERE uuid = $1"]
        {
            sqlx::query(delete).bind(node.to_string()).execute(&mut *connection).await?;
        }
        Ok((number_deletion(connection, node, now).await?, left))
    }
}

/// Replaces the planned work of a node.
async fn plan(
    connection: &mut AnyConnection,
    node: Uuid,
    planned: &Work,
    not_before: Timestamp,
) -> Result<(), sqlx::Error> {
    let insert = "INSERT INTO work (node_uuid, id, work, claims, progress, not_before) \
                  VALUES ($1, $2, $3, 0, $4, $5) \
                  ON CONFLICT (node_uuid) DO UPDATE SET id = excluded.id, work = excluded.work, \
                  claims = 0, progress = excluded.progress, not_before = excluded.not_before, \
                  claimed_by = NULL, claimed_until = NULL";
    sqlx::query(insert)
        .bind(node.to_string())
        .bind(Uuid::new_v4().to_string())
        .bind(json(planned))
        .bind(json(&BootPhase::default()))
        .bind(micros(not_before))
        .execute(connection)
        .await
        .map(drop)
}

/// The events of a change, for the attempt under way after it, or for the attempt that it ended.
fn traced(before: &Node, change: &Change, now: Timestamp) -> Vec<(Uuid, BootEvent)> {
    let attempt = change.node.live_attempt().or_else(|| before.live_attempt());
    let Some(attempt) = attempt else { return Vec::new() };
    change
        .trace
        .iter()
        .map(|what| BootEvent { at: now, attempt: attempt.id, what: what.clone() })
        .map(|event| (before.uuid, event))
        .collect()
}

fn duplicate<E>(error: sqlx::Error, change: &Change) -> ChangeError<E> {
    if duplicates(&error, "nodes", "name") {
        ChangeError::DuplicateName(change.node.name.clone().unwrap_or_default())
    } else if duplicates(&error, "nodes", "instance_uuid") {
        ChangeError::DuplicateInstance(instance(&change.node).unwrap_or_default())
    } else {
        error.into()
    }
}
