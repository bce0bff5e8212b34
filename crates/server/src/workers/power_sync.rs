//! Power readings of machines without work: other parties may have switched them (Ironic's
//! `[conductor]sync_power_state_interval`).

use std::collections::HashSet;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{Stream, unfold};
use provision::Event;
use provision::power_readings::{ReadingPace, is_resting, is_turn_of_modes};
use store::{ChangeError, log_store_failure};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::context::WorkerContext;
use super::verify;

pub(super) async fn run(context: WorkerContext, every: Duration, end: CancellationToken) {
    let (mut silent, mut round) = (HashSet::new(), 0_u128);
    let mut look = interval(every);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = end.cancelled() => return,
        }
        let all = context.nodes.index().all();
        let resting: Vec<_> =
            all.iter().filter(|node| is_resting(node)).map(|node| node.uuid).collect();
        drop(all);
        let (begun, count) = (Instant::now(), resting.len());
        let pace = ReadingPace::of(count, every);
        round = round.wrapping_add(1);
        let looks = paced(resting, pace.gap)
            .map(|node| look_at(&context, node, is_turn_of_modes(round, node)));
        let found: Vec<_> = looks.buffer_unordered(pace.at_once).collect().await;
        silent = note(&silent, found);
        debug!(
            machines = count,
            silent = silent.len(),
            secs = begun.elapsed().as_secs_f64(),
            "read the power of the machines without work"
        );
    }
}

/// The nodes, one after each gap. A delay is caught up.
fn paced(nodes: Vec<Uuid>, gap: Duration) -> impl Stream<Item = Uuid> {
    let ticks = interval(gap.max(Duration::from_nanos(1)));
    unfold((nodes.into_iter(), ticks), |(mut nodes, mut ticks)| async move {
        let node = nodes.next()?;
        ticks.tick().await;
        Some((node, (nodes, ticks)))
    })
}

/// Returns the node and the BMC's failure, if it does not answer.
///
/// The reading takes time. A change of the node meanwhile, such as an operator's power request, is newer than the
/// result, which is dropped then until the next reading.
async fn look_at(context: &WorkerContext, uuid: Uuid, with_modes: bool) -> Option<(Uuid, String)> {
    // The node may have waited for its turn.
    let (node, since) = context.nodes.index().numbered(uuid)?;
    if !is_resting(&node) {
        return None;
    }
    let seen = match verify::look_at(context, &node, with_modes).await {
        Ok(seen) => seen,
        Err(failed) => return Some((uuid, failed.to_string())),
    };
    // Nothing is known that is newer, if the BMC shows none.
    let power = seen.power.filter(|power| node.power_state != Some(*power));
    let modes = seen.modes.filter(|modes| node.shown_boot_mode() != *modes);
    let (event, words) = match (power, modes) {
        (Some(power), _) => (
            Event::PowerSeen(power),
            format!("its power was changed by others: it is {}", power.name()),
        ),
        // With a change of the power, it is saved after the next reading.
        (None, Some(modes)) => {
            (Event::BootModeSeen(modes), format!("its BMC shows another boot mode: {modes}"))
        }
        (None, None) => return None,
    };
    match context.nodes.happen_unless_changed(uuid, since, &event).await {
        Ok(Some(_)) => info!(node.uuid = %uuid, "{words}"),
        Ok(None) => {
            debug!(node.uuid = %uuid, "the node was changed while its machine was looked at")
        }
        // A worker with the node has newer data.
        Err(ChangeError::Locked { .. } | ChangeError::NoSuchNode(_)) => {}
        Err(failed) => {
            log_store_failure(&failed, &format!("the state of node {uuid} was not saved"));
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
