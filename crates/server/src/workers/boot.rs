//! A boot: prepares everything, then sets the override and switches the machine on.

use provision::Event;
use store::{Claimed, WorkError};
use thiserror::Error;
use uuid::Uuid;

use super::boot_target::{NoBootTarget, prepare_override};
use super::context::{WorkerContext, attempt_of};
use super::not_carried_out::NotCarriedOut;
use super::observe::observe_once;
use super::power::plan::{PowerPlan, PowerPlanFailure};
use super::power::{BMC_PATIENCE, PlanPause, carry_out, power_change};
use super::way::WayOfBoot;
use super::work_place::WorkPlace;

/// The reason why a machine was not booted.
#[derive(Debug, Error)]
enum NotBooted {
    #[error("its attempt is over")]
    Over,
    #[error("{0:#}")]
    Images(anyhow::Error),
    #[error(transparent)]
    Target(#[from] NoBootTarget),
    #[error(transparent)]
    Machine(#[from] NotCarriedOut),
}

pub(super) async fn run(
    context: &WorkerContext,
    claimed: &Claimed,
    attempt: Uuid,
    place: &WorkPlace,
) -> Result<Event, WorkError> {
    match boot(context, claimed, attempt, place).await {
        Ok(()) => Ok(Event::Booting { attempt }),
        Err(NotBooted::Machine(NotCarriedOut::Work(failed))) => Err(failed),
        Err(reason) => {
            if let NotBooted::Machine(NotCarriedOut::Plan(PowerPlanFailure::PowerStays {
                waited,
                ..
            })) = &reason
            {
                observe_once(context, &claimed.node, *waited).await;
            }
            Ok(Event::BootFailed { attempt, reason: reason.to_string() })
        }
    }
}

async fn boot(
    context: &WorkerContext,
    claimed: &Claimed,
    attempt: Uuid,
    place: &WorkPlace,
) -> Result<(), NotBooted> {
    let node = &claimed.node;
    let attempt = attempt_of(node, attempt).ok_or(NotBooted::Over)?;
    let ports = claimed.ports.iter().map(|port| &**port);
    let mut way = WayOfBoot::new(node, attempt, ports);
    let mut plan = PowerPlan::boot(claimed.progress)
        .within(power_change(context, node))
        .with_certificates(!context.firmware_care(node).is_nothing());
    // Preparation can fail, and the machine is then switched off. A machine that was switched on before a crash needs
    // no preparation, so the plan reads the machine's state first.
    while carry_out(context, claimed, &mut plan, Some(&mut way), BMC_PATIENCE).await?
        == PlanPause::Prepare
    {
        // The announcement comes before the images: it fails faster. If the images fail, it is withdrawn.
        let boot = prepare_override(context, node, &claimed.ports, attempt).await?;
        place.lend(context.artifacts.prepare(node)).await.map_err(NotBooted::Images)?;
        plan.prepared(boot);
    }
    Ok(())
}
