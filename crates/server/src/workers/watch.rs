//! Time: boots that go nowhere are explained and, at last, given up; old traces are forgotten.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use provision::diagnosis::{Diagnosis, Verdict};
use provision::{Event, Node, diagnose, step};
use store::{ChangeError, Retention};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::Workers;

const EVERY: Duration = Duration::from_secs(5);
const FORGET_EVERY: Duration = Duration::from_secs(3_600);

/// What was last said of each attempt, so that it is said once.
type Said = HashMap<Uuid, (Verdict, Option<String>)>;

pub(super) async fn run(workers: Workers, end: CancellationToken) {
    let serving_since = Timestamp::now();
    let mut said = Said::new();
    let mut look = interval(EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut forget = interval(FORGET_EVERY);
    loop {
        tokio::select! {
            _ = look.tick() => look_at_all(&workers, &mut said, serving_since).await,
            _ = forget.tick() => forget_old(&workers).await,
            () = end.cancelled() => return,
        }
    }
}

async fn look_at_all(workers: &Workers, said: &mut Said, serving_since: Timestamp) {
    let booting = workers.nodes.index().booting();
    said.retain(|attempt, _| {
        booting.iter().any(|node| node.attempt.as_ref().is_some_and(|now| now.id == *attempt))
    });
    for node in booting {
        let diagnosis = read_trace(workers, &node).await;
        if let Some(diagnosis) = &diagnosis {
            say(&node, diagnosis, said);
        }
        let stuck = diagnosis.as_ref().is_some_and(|it| it.verdict == Verdict::Stuck);
        if stuck && step::may_have_missed(&node, serving_since, Timestamp::now()) {
            boot_again(workers, &node).await;
        }
        if step::is_overdue(&node, Timestamp::now(), &workers.policy) {
            give_up(workers, node.uuid, diagnosis.map(|diagnosis| diagnosis.text)).await;
        }
    }
}

async fn read_trace(workers: &Workers, node: &Node) -> Option<Diagnosis> {
    let attempt = node.live_attempt()?;
    match workers.nodes.store().events(node.uuid, Some(attempt.id)).await {
        Ok(events) => diagnose(attempt.boot_interface, workers.loader, &events, Timestamp::now()),
        Err(failed) => {
            error!(node.uuid = %node.uuid, error = %failed, "a trace could not be read");
            None
        }
    }
}

fn say(node: &Node, diagnosis: &Diagnosis, said: &mut Said) {
    let Some(attempt) = node.live_attempt() else { return };
    let saying = (diagnosis.verdict, diagnosis.hint.clone());
    if said.get(&attempt.id) == Some(&saying) {
        return;
    }
    let (name, hint) = (&node.name, diagnosis.hint.as_deref().unwrap_or("see the boot trace"));
    let name = name.clone().unwrap_or_else(|| node.uuid.to_string());
    match diagnosis.verdict {
        Verdict::Waiting => info!(node.uuid = %node.uuid, "node {name}: {}", diagnosis.text),
        Verdict::Stuck | Verdict::Failed => {
            warn!(node.uuid = %node.uuid, "node {name}: {}; {hint}", diagnosis.text);
        }
    }
    said.insert(attempt.id, saying);
}

/// Firmware whose fetch broke off when we ended does not try again by itself.
async fn boot_again(workers: &Workers, node: &Node) {
    let Some(attempt) = node.live_attempt().map(|attempt| attempt.id) else { return };
    match workers.nodes.happen(node.uuid, None, &Event::BootMissed { attempt }).await {
        Ok(_) => info!(node.uuid = %node.uuid, "booting it again: we were away when it did"),
        // It came up, or is worked on, in this moment; or it is looked at again.
        Err(ChangeError::Refused(_) | ChangeError::Locked { .. } | ChangeError::NoSuchNode(_)) => {}
        Err(failed) => error!(node.uuid = %node.uuid, error = %failed, "it was not booted again"),
    }
}

async fn give_up(workers: &Workers, node: Uuid, why: Option<String>) {
    match workers.nodes.happen(node, None, &Event::Tick { why }).await {
        // Whoever works on it will be heard of, or be overdue again.
        Ok(_) | Err(ChangeError::Locked { .. } | ChangeError::NoSuchNode(_)) => {}
        Err(failed) => error!(node.uuid = %node, error = %failed, "a clean was not given up"),
    }
}

async fn forget_old(workers: &Workers) {
    match workers.nodes.store().prune_events(Timestamp::now(), &Retention::default()).await {
        Ok(0) => {}
        Ok(events) => info!(events, "old events of traces are forgotten"),
        Err(failed) => error!(error = %failed, "old events of traces could not be forgotten"),
    }
}
