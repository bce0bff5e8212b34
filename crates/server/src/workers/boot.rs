//! All that a boot needs is made ready, and then the machine is told what to boot and switched on.

use provision::{BootInterface, Event};
use redfish::boot::HttpBootOverride;
use store::{Claimed, WorkError};
use thiserror::Error;
use uuid::Uuid;

use super::power::plan::PowerPlan;
use super::power::{BMC_PATIENCE, NotCarriedOut, carry_out};
use super::{WorkPlace, Workers, attempt_of};
use crate::urls::Unreachable;

/// Why a machine was not booted.
#[derive(Debug, Error)]
enum NotBooted {
    #[error("its attempt is over")]
    Over,
    #[error("its boot interface is {0}, and it has no port with pxe_enabled")]
    NoPort(BootInterface),
    #[error("{0:#}")]
    Images(anyhow::Error),
    #[error("{0:#}")]
    Provider(anyhow::Error),
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    #[error(transparent)]
    Machine(#[from] NotCarriedOut),
}

pub(super) async fn run(
    workers: &Workers,
    claimed: &Claimed,
    attempt: Uuid,
    place: &WorkPlace,
) -> Result<Event, WorkError> {
    match boot(workers, claimed, attempt, place).await {
        Ok(()) => Ok(Event::Booting { attempt }),
        Err(NotBooted::Machine(NotCarriedOut::Work(failed))) => Err(failed),
        Err(reason) => Ok(Event::BootFailed { attempt, reason: reason.to_string() }),
    }
}

async fn boot(
    workers: &Workers,
    claimed: &Claimed,
    attempt: Uuid,
    place: &WorkPlace,
) -> Result<(), NotBooted> {
    let node = &claimed.node;
    // All that can fail without the machine fails before it is touched.
    let uri = uri(workers, claimed, attempt)?;
    // A service that cannot answer is cheaper to find out than images are to make; where these fail, it
    // is made to forget.
    let told = workers.providers.announce(node, &claimed.ports).await;
    told.map_err(NotBooted::Provider)?;
    place.lend(workers.artifacts.prepare(node)).await.map_err(NotBooted::Images)?;
    let plan = PowerPlan::boot(HttpBootOverride::once(uri), claimed.progress);
    Ok(carry_out(workers, claimed, plan, BMC_PATIENCE).await?)
}

/// What the BMC is to be told, where it is told a URL. Refuses what can be seen to fail.
fn uri(workers: &Workers, claimed: &Claimed, attempt: Uuid) -> Result<Option<String>, NotBooted> {
    let node = &claimed.node;
    let attempt = attempt_of(node, attempt).ok_or(NotBooted::Over)?;
    if let Some(artifact) = attempt.boot_interface.http_boot_uri() {
        return Ok(Some(workers.urls.artifact(node, attempt, artifact, None)?));
    }
    if !claimed.ports.iter().any(|port| port.pxe_enabled) {
        return Err(NotBooted::NoPort(attempt.boot_interface));
    }
    Ok(None)
}
