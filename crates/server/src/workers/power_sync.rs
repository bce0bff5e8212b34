//! Power readings of machines without work: other parties may have switched them (Ironic's
//! `[conductor]sync_power_state_interval`).

use std::collections::HashSet;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::iter;
use provision::{Event, Node, ProvisionState};
use store::{ChangeError, log_store_failure};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::context::WorkerContext;
use super::verify;

/// Ironic's `[conductor]sync_power_state_workers`.
const AT_ONCE: usize = 8;

pub(super) async fn run(context: WorkerContext, every: Duration, end: CancellationToken) {
    let mut silent = HashSet::new();
    let mut look = interval(every);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = end.cancelled() => return,
        }
        let resting = context.nodes.index().all().into_iter().filter(|node| is_resting(node));
        let looks = iter(resting).map(|node| look_at(&context, node.uuid));
        let found: Vec<_> = looks.buffer_unordered(AT_ONCE).collect().await;
        silent = note(&silent, found);
    }
}

/// Whether the node has no work, and a BMC that has answered before.
fn is_resting(node: &Node) -> bool {
    let state = node.provision_state;
    let managed = state != ProvisionState::Enroll && !state.is_under_way();
    let has_instance = state == ProvisionState::Active;
    let torn_down = has_instance || node.live_attempt().is_none();
    managed && torn_down && node.target_power_state.is_none()
}

/// Returns the node and the BMC's failure, if it does not answer.
///
/// The reading takes time. A change of the node meanwhile, such as an operator's power request, is newer than the
/// result, which is dropped then until the next reading.
async fn look_at(context: &WorkerContext, uuid: Uuid) -> Option<(Uuid, String)> {
    // The node may have waited for its turn.
    let (node, since) = context.nodes.index().numbered(uuid)?;
    if !is_resting(&node) {
        return None;
    }
    let power = match verify::power(context, &node).await {
        Ok(Some(power)) => power,
        // Nothing is known that is newer.
        Ok(None) => return None,
        Err(failed) => return Some((uuid, failed.to_string())),
    };
    if node.power_state == Some(power) {
        return None;
    }
    match context.nodes.happen_unless_changed(uuid, since, &Event::PowerSeen(power)).await {
        Ok(Some(_)) => {
            info!(node.uuid = %uuid, "its power was changed by others: it is {}", power.name());
        }
        Ok(None) => {
            debug!(node.uuid = %uuid, "the node was changed while its power state was read")
        }
        // A worker with the node has newer data.
        Err(ChangeError::Locked { .. } | ChangeError::NoSuchNode(_)) => {}
        Err(failed) => {
            log_store_failure(&failed, &format!("the power of node {uuid} was not saved"));
        }
    }
    None
}

/// Logs once that a BMC is silent, and once that it answers again.
fn note(before: &HashSet<Uuid>, found: Vec<Option<(Uuid, String)>>) -> HashSet<Uuid> {
    let mut now = HashSet::new();
    for (node, why) in found.into_iter().flatten() {
        if before.contains(&node) {
            debug!(node.uuid = %node, "its BMC still does not answer: {why}");
        } else {
            warn!(node.uuid = %node, "its BMC does not answer: {why}");
        }
        now.insert(node);
    }
    for node in before.difference(&now) {
        info!(node.uuid = %node, "its BMC answers again");
    }
    now
}
