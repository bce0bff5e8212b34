//! `manage`: checks that the BMC answers, and accepts the user name and password; reads power and boot mode.

use std::time::Duration;

use hardware::ShownBootMode;
use provision::{Event, Node, PowerState};
use redfish::system::SystemPower;
use tokio::time::timeout;
use tracing::debug;

use super::context::WorkerContext;
use super::power::record_seen;
use crate::bmcs::{BmcClient, BmcError, WORK_PATIENCE};

/// Time limit of all BMC calls: a slow BMC must not hold the node longer.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a BMC shows of its machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeenMachine {
    /// The power state; `None` if it shows none.
    pub(super) power: Option<PowerState>,
    /// The boot mode; `None` if it was not read.
    pub(super) modes: Option<ShownBootMode>,
}

/// What is read of a machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SeenParts {
    Power,
    /// The boot mode as well, which takes further requests.
    Modes,
    /// What the databases of Secure Boot hold as well.
    All,
}

/// Support of HTTP boot is checked at the boot: until then an operator may still change the boot interface.
pub(super) async fn run(context: &WorkerContext, node: &Node) -> Event {
    let seen = async {
        let seen = see_machine(context, node, SeenParts::All).await?;
        remove_certificates(context, node).await.map(|()| seen)
    };
    match timeout(PATIENCE, seen).await.map_err(|_| BmcError::Slow(PATIENCE)).flatten() {
        Ok(SeenMachine { power, modes }) => Event::Verified(power, modes.unwrap_or_default()),
        Err(failed) => Event::VerifyFailed(failed.to_string()),
    }
}

/// Removes the service's certificates from the firmware, if the node says so.
async fn remove_certificates(context: &WorkerContext, node: &Node) -> Result<(), BmcError> {
    let removed = context.removed_certificates(node);
    if removed.is_none() {
        return Ok(());
    }
    let bmc = BmcClient::of(&context.bmcs, node, &context.recorder, WORK_PATIENCE).await?;
    let machine = bmc.machine().await?;
    let seen = machine.remove_certificates(&machine.look().await?, removed).await;
    seen.into_iter().for_each(|seen| record_seen(context, node, seen));
    Ok(())
}

/// The power state at the BMC; `with_modes` also the boot mode, which takes further requests.
pub(super) async fn look_at(
    context: &WorkerContext,
    node: &Node,
    with_modes: bool,
) -> Result<SeenMachine, BmcError> {
    let parts = if with_modes { SeenParts::Modes } else { SeenParts::Power };
    let seen = timeout(PATIENCE, see_machine(context, node, parts)).await;
    seen.map_err(|_| BmcError::Slow(PATIENCE)).flatten()
}

async fn see_machine(
    context: &WorkerContext,
    node: &Node,
    parts: SeenParts,
) -> Result<SeenMachine, BmcError> {
    let recorder = &context.recorder;
    let bmc = BmcClient::of(&context.bmcs, node, recorder, WORK_PATIENCE).await?;
    let bmc = if parts == SeenParts::Power { bmc.for_one_look() } else { bmc };
    let machine = bmc.machine().await?;
    let view = machine.look().await?;
    let power = power_state(view.power());
    if parts == SeenParts::Power {
        return Ok(SeenMachine { power, modes: None });
    }
    // As in Ironic, the node does not depend on it.
    let modes = machine.shown_boot_mode(&view).await;
    let modes = modes.inspect_err(|error| debug!(%error, "the boot mode could not be read"));
    let mut modes = modes.ok();
    if let Some(modes) = modes.as_mut().filter(|_| parts == SeenParts::All) {
        let signer = context.certificates.signer.as_ref();
        modes.trust = machine.secure_boot_trust(&view, signer).await;
    }
    Ok(SeenMachine { power, modes })
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
