//! `manage`: checks that the BMC answers, and accepts the user name and password.

use std::time::Duration;

use provision::{Event, Node, PowerState};
use redfish::system::SystemPower;
use tokio::time::timeout;

use super::context::WorkerContext;
use crate::bmcs::{BmcClient, BmcError, WORK_PATIENCE};

/// Time limit of all BMC calls: a slow BMC must not hold the node longer.
const PATIENCE: Duration = Duration::from_secs(180);

/// Support of HTTP boot is checked at the boot: until then an operator may still change the boot interface.
pub(super) async fn run(context: &WorkerContext, node: &Node) -> Event {
    match power(context, node).await {
        Ok(power) => Event::Verified(power),
        Err(failed) => Event::VerifyFailed(failed.to_string()),
    }
}

/// The power state at the BMC; `None` if it shows none.
pub(super) async fn power(
    context: &WorkerContext,
    node: &Node,
) -> Result<Option<PowerState>, BmcError> {
    let seen = timeout(PATIENCE, see_power(context, node)).await;
    seen.map_err(|_| BmcError::Slow(PATIENCE)).flatten()
}

async fn see_power(context: &WorkerContext, node: &Node) -> Result<Option<PowerState>, BmcError> {
    let recorder = &context.recorder;
    let bmc = BmcClient::of(&context.bmcs, node, recorder, WORK_PATIENCE).await?.for_one_look();
    Ok(power_state(bmc.machine().await?.look().await?.power()))
}

/// A machine on its way to another state counts as on.
fn power_state(power: SystemPower) -> Option<PowerState> {
    match power {
        SystemPower::Off => Some(PowerState::Off),
        SystemPower::On | SystemPower::Changing => Some(PowerState::On),
        SystemPower::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_machine_that_is_seen_off_is_off() {
        assert_eq!(power_state(SystemPower::Off), Some(PowerState::Off));
        assert_eq!(power_state(SystemPower::On), Some(PowerState::On));
        assert_eq!(power_state(SystemPower::Changing), Some(PowerState::On));
        assert_eq!(power_state(SystemPower::Unknown), None);
    }
}
