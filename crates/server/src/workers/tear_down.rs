//! The end of an attempt: power off, and the override and announcements removed.

use std::time::Duration;

use futures::future::join;
use provision::Event;
use provision::tear_down::{TearDownAction, TearDownPlan};
use store::{Claimed, WorkError};
use tokio::time::{sleep, timeout};
use tracing::warn;
use uuid::Uuid;

use super::context::WorkerContext;
use super::not_carried_out::NotCarriedOut;
use super::power::plan::PowerPlan;
use super::power::{carry_out, power_change};

/// Time limit for an external DHCP service's withdrawal, which is retried later.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time limit of one try: a slow BMC must not hold the node longer.
const TRY: Duration = Duration::from_secs(300);

/// The machine is switched off, whatever the DHCP service does.
pub(super) async fn run(
    context: &WorkerContext,
    claimed: &Claimed,
    attempt: Uuid,
) -> Result<Event, WorkError> {
    let forgotten = timeout(PATIENCE, context.providers.withdraw(claimed.node.uuid));
    let (event, forgotten) = join(switch_off(context, claimed, attempt), forgotten).await;
    if forgotten.is_err() {
        warn!("the DHCP service does not remove the boot in {PATIENCE:?}; trying again later");
    }
    event
}

async fn switch_off(
    context: &WorkerContext,
    claimed: &Claimed,
    attempt: Uuid,
) -> Result<Event, WorkError> {
    let mut plan = TearDownPlan::new(attempt);
    loop {
        let (store, node) = (context.nodes.store(), claimed.node.uuid);
        let changes = store.boot_changes(node).await?;
        let is_changed = !changes.is_empty();
        let change = power_change(context, &claimed.node);
        let mut power = PowerPlan::tear_down(changes)
            .within(change)
            .with_certificates(!context.removed_certificates(&claimed.node).is_none());
        let tried = match carry_out(context, claimed, &mut power, None, TRY + change).await {
            Err(NotCarriedOut::Work(failed)) => return Err(failed),
            tried => tried.map(drop).map_err(|failed| failed.to_string()),
        };
        if let Err(failed) = &tried {
            warn!(error = failed, "the machine could not be switched off");
        } else if is_changed {
            store.forget_boot_changes(node).await?;
        }
        match plan.next(tried) {
            TearDownAction::TryAgain { after } => sleep(after).await,
            TearDownAction::Done(event) => return Ok(event),
        }
    }
}
