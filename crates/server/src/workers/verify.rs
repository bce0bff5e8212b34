//! `manage`: does the BMC answer, and to this name and password?

use std::time::Duration;

use provision::{Event, Node, PowerState};
use redfish::boot::Power;

use tokio::time::timeout;

use super::Workers;
use crate::bmcs::{Bmc, BmcError, look};

/// For all that a BMC is asked: one that answers each question at the last moment holds the node no longer.
const PATIENCE: Duration = Duration::from_secs(180);

/// Whether it can boot the machine over HTTP is asked when the machine is to boot: until then an
/// operator may still choose the boot interface.
pub(super) async fn run(workers: &Workers, node: &Node) -> Event {
    match timeout(PATIENCE, power(workers, node)).await {
        Ok(Ok(power)) => Event::Verified(power),
        Ok(Err(failed)) => Event::VerifyFailed(failed.to_string()),
        Err(_) => Event::VerifyFailed(format!("the BMC took longer than {} s", PATIENCE.as_secs())),
    }
}

/// What the BMC says of the power.
pub(super) async fn power(workers: &Workers, node: &Node) -> Result<PowerState, BmcError> {
    let seen = timeout(PATIENCE, see_power(workers, node)).await;
    seen.map_err(|_| BmcError::Slow(PATIENCE)).flatten()
}

async fn see_power(workers: &Workers, node: &Node) -> Result<PowerState, BmcError> {
    let bmc = Bmc::of(node, &workers.recorder).await?;
    let machine = bmc.machine().await?;
    match look(&machine).await?.power() {
        Power::Off => Ok(PowerState::Off),
        Power::On | Power::Changing => Ok(PowerState::On),
    }
}
