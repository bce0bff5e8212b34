//! `manage`: checks that the BMC answers, and accepts the user name and password.

use std::time::Duration;

use provision::{Event, Node, PowerState};
use redfish::boot::SystemPower;
use tokio::time::timeout;

use super::context::WorkerContext;
use crate::bmcs::{BmcClient, BmcError, look};

/// Time limit of all BMC calls: a slow BMC must not hold the node longer.
const PATIENCE: Duration = Duration::from_secs(180);

/// Support of HTTP boot is checked at the boot: until then an operator may still change the boot interface.
pub(super) async fn run(context: &WorkerContext, node: &Node) -> Event {
    match power(context, node).await {
        Ok(power) => Event::Verified(power),
        Err(failed) => Event::VerifyFailed(failed.to_string()),
    }
}

/// The power state at the BMC.
pub(super) async fn power(context: &WorkerContext, node: &Node) -> Result<PowerState, BmcError> {
    let seen = timeout(PATIENCE, see_power(context, node)).await;
    seen.map_err(|_| BmcError::Slow(PATIENCE)).flatten()
}

async fn see_power(context: &WorkerContext, node: &Node) -> Result<PowerState, BmcError> {
    let bmc = BmcClient::of(node, &context.recorder).await?;
    let machine = bmc.machine().await?;
    Ok(power_state(look(&machine).await?.power()))
}

/// A machine whose power is not known to be off counts as on.
fn power_state(power: SystemPower) -> PowerState {
    match power {
        SystemPower::Off => PowerState::Off,
        SystemPower::On | SystemPower::Changing => PowerState::On,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_machine_that_is_seen_off_is_off() {
        assert_eq!(power_state(SystemPower::Off), PowerState::Off);
        assert_eq!(power_state(SystemPower::On), PowerState::On);
        assert_eq!(power_state(SystemPower::Changing), PowerState::On);
    }
}
