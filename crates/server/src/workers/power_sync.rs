//! The power of machines that nobody works on, as their BMCs see it: somebody else may have a hand on
//! the switch (Ironic's `[conductor]sync_power_state_interval`).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::iter;
use provision::{Event, Node, ProvisionState};
use store::ChangeError;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{Workers, verify};
use crate::error::log_store_failure;

/// Ironic's `[conductor]sync_power_state_workers`.
const AT_ONCE: usize = 8;

pub(super) async fn run(workers: Workers, every: Duration, end: CancellationToken) {
    let mut silent = HashSet::new();
    let mut look = interval(every);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = end.cancelled() => return,
        }
        let resting: Vec<_> = workers.nodes.index().all().into_iter().filter(is_resting).collect();
        let looks = iter(resting).map(|node| look_at(&workers, node));
        let found: Vec<_> = looks.buffer_unordered(AT_ONCE).collect().await;
        silent = note(&silent, found);
    }
}

/// Whether a look at its BMC disturbs nobody, and there is one that was seen to answer.
fn is_resting(node: &Arc<Node>) -> bool {
    let managed = match node.provision_state {
        ProvisionState::Manageable | ProvisionState::Available | ProvisionState::CleanFailed => {
            true
        }
        ProvisionState::Enroll
        | ProvisionState::Verifying
        | ProvisionState::Cleaning
        | ProvisionState::CleanWait => false,
    };
    managed && node.live_attempt().is_none() && node.target_power_state.is_none()
}

/// Gives the node and why its BMC does not answer, if it does not.
async fn look_at(workers: &Workers, node: Arc<Node>) -> Option<(Uuid, String)> {
    let power = match verify::power(workers, &node).await {
        Ok(power) => power,
        Err(failed) => return Some((node.uuid, failed.to_string())),
    };
    if node.power_state == Some(power) {
        return None;
    }
    info!(node.uuid = %node.uuid, "somebody else has changed its power: it is {}", power.name());
    match workers.nodes.happen(node.uuid, None, &Event::PowerSeen(power)).await {
        // Whoever works on it now knows better.
        Ok(_) | Err(ChangeError::Locked { .. } | ChangeError::NoSuchNode(_)) => {}
        Err(failed) => {
            log_store_failure(&failed, &format!("the power of node {} was not saved", node.uuid));
        }
    }
    None
}

/// Says once of each BMC that it is silent, and once that it is back.
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
