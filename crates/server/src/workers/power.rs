//! What operators ask of a machine's power.

use std::time::Duration;

use provision::Event;
use provision::event::BootPhase;
use provision::state::{PowerState, PowerTarget};
use redfish::boot::{Power, Sight};
use store::{Claimed, WorkError};
use thiserror::Error;

use super::Workers;
use crate::bmcs::{Bmc, BmcError, BmcMachine, await_power, look};

/// How long a system may take to end itself: Ironic's `[conductor]soft_power_off_timeout`.
const SHUT_DOWN: Duration = Duration::from_secs(600);

/// For all that the BMC does: one that answers each question at the last moment holds the node no longer.
const PATIENCE: Duration = Duration::from_secs(900);

#[derive(Debug, Error)]
enum NotSwitched {
    #[error(transparent)]
    Bmc(#[from] BmcError),
    #[error("the system did not end itself within {} s", SHUT_DOWN.as_secs())]
    StillRuns,
    #[error(transparent)]
    Work(#[from] WorkError),
}

pub(super) async fn run(
    workers: &Workers,
    claimed: &Claimed,
    target: PowerTarget,
) -> Result<Event, WorkError> {
    let switched = tokio::time::timeout(PATIENCE, switch(workers, claimed, target)).await;
    match switched.map_err(|_| BmcError::Slow(PATIENCE).into()).flatten() {
        Ok(power) => Ok(Event::PowerSeen(power)),
        Err(NotSwitched::Work(failed)) => Err(failed),
        Err(failed) => Ok(Event::PowerFailed(failed.to_string())),
    }
}

async fn switch(
    workers: &Workers,
    claimed: &Claimed,
    target: PowerTarget,
) -> Result<PowerState, NotSwitched> {
    let bmc = Bmc::of(&claimed.node, &workers.recorder).await?;
    let machine = bmc.machine().await?;
    let mut sight = look(&machine).await?;
    let to = target.leads_to();
    let off_first = match target {
        PowerTarget::On => false,
        PowerTarget::Off | PowerTarget::SoftOff => true,
        // Once it was off, a restart of ours must not switch it off again.
        PowerTarget::Reboot | PowerTarget::SoftReboot => claimed.progress < BootPhase::PoweringOn,
    };
    if off_first && sight.power() != Power::Off {
        match target {
            PowerTarget::On | PowerTarget::Off | PowerTarget::Reboot => {
                machine.power_off(&sight).await.map_err(BmcError::from)?;
                sight = await_power(&machine, Power::Off).await?;
            }
            PowerTarget::SoftOff | PowerTarget::SoftReboot => {
                sight = shut_down(&machine, &sight).await?;
            }
        }
    }
    if to == PowerState::On && sight.power() != Power::On {
        workers.nodes.store().note_progress(&claimed.claim, BootPhase::PoweringOn).await?;
        machine.power_on(&sight).await.map_err(BmcError::from)?;
        await_power(&machine, Power::On).await?;
    }
    Ok(to)
}

async fn shut_down(machine: &BmcMachine<'_>, sight: &Sight) -> Result<Sight, NotSwitched> {
    machine.shut_down(sight).await.map_err(BmcError::from)?;
    let until = tokio::time::Instant::now() + SHUT_DOWN;
    loop {
        match await_power(machine, Power::Off).await {
            Err(BmcError::Power { .. }) if tokio::time::Instant::now() < until => {}
            Err(BmcError::Power { .. }) => return Err(NotSwitched::StillRuns),
            off => return Ok(off?),
        }
    }
}
