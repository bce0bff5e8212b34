//! Time: boots that go nowhere are explained and, at last, given up; old traces are forgotten.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::future::join;
use jiff::Timestamp;
use provision::diagnosis::{Diagnosis, Verdict};
use provision::{BootEvent, Event, Node, step};
use store::{ChangeError, Retention};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::Workers;
use crate::error::log_store_failure;

const EVERY: Duration = Duration::from_secs(5);
const FORGET_EVERY: Duration = Duration::from_secs(3_600);
/// Traces that are read each time: when a whole hall is switched on, the database has better to do.
const LOOKS: usize = 500;
/// Traces that are read at once.
const TOGETHER: usize = 20;

/// What is remembered of each attempt that is under way.
#[derive(Debug, Default)]
struct Watched {
    /// In which round its trace was last read.
    round: u64,
    /// What was last said of it, so that it is said once.
    said: Option<(Verdict, Option<String>)>,
}

/// Another DHCP service may take its time: boots are looked at meanwhile.
pub(super) async fn run(workers: Workers, end: CancellationToken) {
    tokio::select! {
        ((), ()) = join(watch(&workers), tidy(&workers)) => {}
        () = end.cancelled() => {}
    }
}

async fn tidy(workers: &Workers) {
    let mut look = interval(EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        workers.providers.tidy(&workers.nodes).await;
    }
}

async fn watch(workers: &Workers) {
    let serving_since = Timestamp::now();
    let mut watched = HashMap::new();
    let mut round = 0;
    let mut look = interval(EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut forget = interval(FORGET_EVERY);
    loop {
        tokio::select! {
            _ = look.tick() => {
                round += 1;
                workers.nodes.refresh_stale().await;
                look_at_all(workers, &mut watched, round, serving_since).await;
            }
            _ = forget.tick() => forget_old(workers).await,
        }
    }
}

async fn look_at_all(
    workers: &Workers,
    watched: &mut HashMap<Uuid, Watched>,
    round: u64,
    serving_since: Timestamp,
) {
    let booting = workers.nodes.index().booting();
    let mut booting: Vec<_> =
        booting.iter().filter_map(|node| Some((node.live_attempt()?.id, node))).collect();
    let live: HashSet<_> = booting.iter().map(|(attempt, _)| *attempt).collect();
    watched.retain(|attempt, _| live.contains(attempt));
    booting.sort_by_key(|(attempt, _)| watched.get(attempt).map_or(0, |watched| watched.round));
    let overdue = |node| step::is_overdue(node, Timestamp::now(), &workers.policy);
    let looks = booting.into_iter().enumerate();
    let looks = looks.filter(|(at, (_, node))| *at < LOOKS || overdue(node));
    let looks: Vec<_> = looks.map(|(_, look)| look).collect();
    workers.recorder.flush().await;
    for looks in looks.chunks(TOGETHER) {
        let attempts: Vec<_> = looks.iter().map(|(attempt, node)| (node.uuid, *attempt)).collect();
        let traces = workers.nodes.store().traces(&attempts).await;
        let traces =
            traces.inspect_err(|failed| log_store_failure(failed, "traces could not be read"));
        for (attempt, node) in looks {
            let watched = watched.entry(*attempt).or_default();
            watched.round = round;
            let trace = |traces| HashMap::get(traces, attempt).map_or(&[][..], Vec::as_slice);
            let trace = traces.as_ref().ok().map(trace);
            look_at(workers, node, trace, watched, serving_since).await;
        }
    }
}

/// Without a trace, if it could not be read, a node is given up all the same once it is overdue.
async fn look_at(
    workers: &Workers,
    node: &Node,
    trace: Option<&[BootEvent]>,
    watched: &mut Watched,
    serving_since: Timestamp,
) {
    let Some(attempt) = node.live_attempt() else { return };
    let now = Timestamp::now();
    let boot = (attempt.boot_interface, workers.loader);
    let diagnosis = trace.and_then(|trace| {
        workers.strangers.diagnose(workers.nodes.index(), node.uuid, boot, trace, now)
    });
    if let Some(diagnosis) = &diagnosis {
        say(node, diagnosis, &mut watched.said);
    }
    let stuck = diagnosis.as_ref().is_some_and(|it| it.verdict == Verdict::Stuck);
    if stuck && step::may_have_missed(node, serving_since, now) {
        boot_again(workers, node).await;
    }
    if step::is_overdue(node, now, &workers.policy) {
        give_up(workers, node.uuid, diagnosis.map(|diagnosis| diagnosis.text)).await;
    }
}

fn say(node: &Node, diagnosis: &Diagnosis, said: &mut Option<(Verdict, Option<String>)>) {
    let saying = Some((diagnosis.verdict, diagnosis.hint.clone()));
    if *said == saying {
        return;
    }
    *said = saying;
    let (name, hint) = (&node.name, diagnosis.hint.as_deref().unwrap_or("see the boot trace"));
    let name = name.clone().unwrap_or_else(|| node.uuid.to_string());
    match diagnosis.verdict {
        Verdict::Waiting => {
            info!(node.uuid = %node.uuid, "node {name}: {}; {hint}", diagnosis.text);
        }
        Verdict::Stuck | Verdict::Failed => {
            warn!(node.uuid = %node.uuid, "node {name}: {}; {hint}", diagnosis.text);
        }
    }
}

/// Firmware whose fetch broke off when we ended does not try again by itself.
async fn boot_again(workers: &Workers, node: &Node) {
    let Some(attempt) = node.live_attempt().map(|attempt| attempt.id) else { return };
    match workers.nodes.happen(node.uuid, None, &Event::BootMissed { attempt }).await {
        Ok(_) => info!(node.uuid = %node.uuid, "booting it again: we were away when it did"),
        // It came up, or is worked on, in this moment; or it is looked at again.
        Err(ChangeError::Refused(_) | ChangeError::Locked { .. } | ChangeError::NoSuchNode(_)) => {}
        Err(failed) => {
            log_store_failure(&failed, &format!("node {} was not booted again", node.uuid));
        }
    }
}

async fn give_up(workers: &Workers, node: Uuid, why: Option<String>) {
    match workers.nodes.happen(node, None, &Event::Tick { why }).await {
        // Whoever works on it will be heard of, or be overdue again.
        Ok(_) | Err(ChangeError::Locked { .. } | ChangeError::NoSuchNode(_)) => {}
        Err(failed) => {
            log_store_failure(&failed, &format!("the clean of node {node} was not given up"));
        }
    }
}

async fn forget_old(workers: &Workers) {
    match workers.nodes.store().prune_events(Timestamp::now(), &Retention::default()).await {
        Ok(0) => {}
        Ok(events) => info!(events, "old events of traces are forgotten"),
        Err(failed) => {
            log_store_failure(&failed, "old events of traces could not be forgotten");
        }
    }
}
