//! The end of an attempt: power off, and nothing left that a later boot could run into.

use std::time::Duration;

use futures::future::join;
use provision::{Event, Node};
use redfish::boot::Power;
use tokio::time::{sleep, timeout};
use tracing::warn;
use uuid::Uuid;

use super::Workers;
use crate::bmcs::{Bmc, BmcError, await_power, look};

/// A machine that stays on is a machine that boots into what it should not: try more than once.
const TRIES: u32 = 3;
const BETWEEN_TRIES: Duration = Duration::from_secs(5);

/// How long the end waits for another DHCP service to forget the boot, which is tried again later.
const PATIENCE: Duration = Duration::from_secs(10);

/// For one try: one that answers each question at the last moment holds the node no longer.
const TRY: Duration = Duration::from_secs(300);

/// The machine is switched off whatever becomes of the DHCP service.
pub(super) async fn run(workers: &Workers, node: &Node, attempt: Uuid) -> Event {
    let forgotten = timeout(PATIENCE, workers.providers.withdraw(node.uuid));
    let (event, forgotten) = join(switch_off(workers, node, attempt), forgotten).await;
    if forgotten.is_err() {
        warn!("the DHCP service does not forget the boot in {PATIENCE:?}; trying again later");
    }
    event
}

async fn switch_off(workers: &Workers, node: &Node, attempt: Uuid) -> Event {
    for tried in 1.. {
        let done = timeout(TRY, tear_down(workers, node)).await;
        match done.map_err(|_| BmcError::Slow(TRY)).flatten() {
            Ok(()) => break,
            Err(failed) if tried == TRIES => {
                return Event::TearDownFailed { attempt, reason: failed.to_string() };
            }
            Err(failed) => {
                warn!(error = %failed, "the machine could not be switched off; trying again");
                sleep(BETWEEN_TRIES).await;
            }
        }
    }
    Event::TornDown { attempt }
}

async fn tear_down(workers: &Workers, node: &Node) -> Result<(), BmcError> {
    let bmc = Bmc::of(node, &workers.recorder).await?;
    let machine = bmc.machine().await?;
    let mut sight = look(&machine).await?;
    if sight.power() != Power::Off {
        machine.power_off(&sight).await?;
        sight = await_power(&machine, Power::Off).await?;
    }
    if sight.is_overridden() {
        machine.clear_override(&sight).await?;
    }
    Ok(())
}
