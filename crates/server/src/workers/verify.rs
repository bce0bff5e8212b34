//! `manage`: does the BMC answer, and to this name and password?

use provision::{Event, Node, PowerState};
use redfish::boot::Power;

use super::Workers;
use crate::bmcs::{Bmc, BmcError, look};

/// Whether it can boot the machine over HTTP is asked when the machine is to boot: until then an
/// operator may still choose the boot interface.
pub(super) async fn run(workers: &Workers, node: &Node) -> Event {
    match power(workers, node).await {
        Ok(power) => Event::Verified(power),
        Err(failed) => Event::VerifyFailed(failed.to_string()),
    }
}

/// What the BMC says of the power.
pub(super) async fn power(workers: &Workers, node: &Node) -> Result<PowerState, BmcError> {
    let bmc = Bmc::of(node, &workers.recorder)?;
    let machine = bmc.machine().await?;
    match look(&machine).await?.power() {
        Power::Off => Ok(PowerState::Off),
        Power::On | Power::Changing => Ok(PowerState::On),
    }
}
