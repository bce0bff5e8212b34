//! Boots of instances: the complete fetch of an image, and later boots that machines begin by themselves.

use std::time::Duration;

use futures::future::join;
use nodes::LaterBoot;
use provision::boot::BootMethod;
use provision::instance_boot::{LaterBootFate, awaits_image, fate_of_later_boot, is_image_fetched};
use provision::{BootEvent, Event, Node, Refused};
use store::{ChangeError, Clock, NodeKey, StoreError, log_store_failure};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;
use uuid::Uuid;

use super::context::WorkerContext;

/// Retry interval for saving.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn run(context: WorkerContext, end: CancellationToken) {
    tokio::select! {
        ((), ()) = join(note_fetches(&context), save_later_boots(&context)) => {}
        () = end.cancelled() => {}
    }
}

/// Checks the trace of each instance with a fetch.
async fn note_fetches(context: &WorkerContext) {
    loop {
        for uuid in context.recorder.fetches().next().await {
            let Some((node, _)) = context.nodes.index().by_uuid(uuid) else { continue };
            let Some(attempt) = node.live_attempt().filter(|_| awaits_image(&node)) else {
                continue;
            };
            context.recorder.flush().await;
            match context.nodes.store().events(uuid, Some(attempt.id)).await {
                Ok(events) => note_fetched(context, &node, &events).await,
                // It is checked again with all current boots.
                Err(failed) => log_store_failure(&failed, "a trace could not be read"),
            }
        }
    }
}

/// Records the complete fetch of an instance's image, if its trace shows one.
pub(super) async fn note_fetched(context: &WorkerContext, node: &Node, trace: &[BootEvent]) {
    let Some(attempt) = node.live_attempt().filter(|_| awaits_image(node)) else { return };
    if !is_image_fetched(trace, BootMethod::of(attempt, context.loader), Clock::process().now()) {
        return;
    }
    let event = Event::ImageFetched { attempt: attempt.id };
    match context.nodes.happen(node.uuid, None, &event).await {
        Ok(_) => {
            info!(node.uuid = %node.uuid, "the machine has fetched its instance's image completely")
        }
        // A worker holds the node, or the boot has ended.
        Err(ChangeError::Refused(_) | ChangeError::Locked { .. } | ChangeError::NoSuchNode(_)) => {}
        Err(failed) => {
            log_store_failure(&failed, &format!("the boot of node {} was not saved", node.uuid));
        }
    }
}

async fn save_later_boots(context: &WorkerContext) {
    loop {
        let mut is_failing = false;
        for (node, later) in context.recorder.later_boots().unsaved().await {
            let settled = match save_later_boot(context, node, later).await {
                Ok(is_settled) => is_settled,
                Err(failed) => {
                    log_store_failure(&failed, &format!("a boot of node {node} was not saved"));
                    false
                }
            };
            is_failing |= !settled;
        }
        if is_failing {
            sleep(SAVE_AGAIN).await;
        }
    }
}

/// Saves a later boot; returns whether it is settled.
async fn save_later_boot(
    context: &WorkerContext,
    node: Uuid,
    later: LaterBoot,
) -> Result<bool, ChangeError<Refused>> {
    let event = Event::InstanceBoots { attempt: later.before, next: later.id };
    match context.nodes.happen(node, None, &event).await {
        Ok(_) => {
            info!(node.uuid = %node, "the machine boots its instance again");
            context.recorder.later_boots().forget(node, later);
            Ok(true)
        }
        Err(ChangeError::NoSuchNode(_)) => {
            context.recorder.later_boots().forget(node, later);
            Ok(true)
        }
        // The instance is being taken away, a worker has it in hand, or another daemon saw the boot begin.
        Err(ChangeError::Refused(_) | ChangeError::Locked { .. }) => {
            Ok(settle_later_boot(context, node, later).await?)
        }
        Err(failed) => Err(failed),
    }
}

/// Determines the fate of an unsaved boot; returns whether it is settled.
async fn settle_later_boot(
    context: &WorkerContext,
    node: Uuid,
    later: LaterBoot,
) -> Result<bool, StoreError> {
    let store = context.nodes.store();
    let stored = store.node(&NodeKey::Uuid(node)).await?;
    let fate = stored.map(|stored| fate_of_later_boot(&stored.node, later.before, later.id));
    match fate {
        Some(LaterBootFate::Unsaved) => return Ok(false),
        Some(LaterBootFate::Overtaken) => context.recorder.overtake(store, node, later).await?,
        Some(LaterBootFate::Attempt) | None => context.recorder.later_boots().forget(node, later),
    }
    Ok(true)
}
