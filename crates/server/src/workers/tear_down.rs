//! The end of an attempt: power off, and nothing left that a later boot could run into.

use std::time::Duration;

use futures::future::join;
use provision::Event;
use store::{Claimed, WorkError};
use tokio::time::{sleep, timeout};
use tracing::warn;
use uuid::Uuid;

use super::Workers;
use super::power::plan::PowerPlan;
use super::power::{NotCarriedOut, carry_out};

/// A machine that stays on is a machine that boots into what it should not: try more than once.
const TRIES: u32 = 3;
const BETWEEN_TRIES: Duration = Duration::from_secs(5);

/// How long the end waits for another DHCP service to forget the boot, which is tried again later.
const PATIENCE: Duration = Duration::from_secs(10);

/// For one try: one that answers each question at the last moment holds the node no longer.
const TRY: Duration = Duration::from_secs(300);

/// The machine is switched off whatever becomes of the DHCP service.
pub(super) async fn run(
    workers: &Workers,
    claimed: &Claimed,
    attempt: Uuid,
) -> Result<Event, WorkError> {
    let forgotten = timeout(PATIENCE, workers.providers.withdraw(claimed.node.uuid));
    let (event, forgotten) = join(switch_off(workers, claimed, attempt), forgotten).await;
    if forgotten.is_err() {
        warn!("the DHCP service does not forget the boot in {PATIENCE:?}; trying again later");
    }
    event
}

async fn switch_off(
    workers: &Workers,
    claimed: &Claimed,
    attempt: Uuid,
) -> Result<Event, WorkError> {
    for tried in 1.. {
        match carry_out(workers, claimed, PowerPlan::tear_down(), TRY).await {
            Ok(()) => break,
            Err(NotCarriedOut::Work(failed)) => return Err(failed),
            Err(failed) if tried == TRIES => {
                return Ok(Event::TearDownFailed { attempt, reason: failed.to_string() });
            }
            Err(failed) => {
                warn!(error = %failed, "the machine could not be switched off; trying again");
                sleep(BETWEEN_TRIES).await;
            }
        }
    }
    Ok(Event::TornDown { attempt })
}
