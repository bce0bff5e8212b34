//! Operators' power requests, and the execution of a [`PowerPlan`] for all work that has one.

pub(super) mod plan;

use std::time::Duration;

use provision::Event;
use provision::state::{PowerState, PowerTarget};
use redfish::boot::{BmcFailure, SystemPower};
use store::{Claimed, WorkError};
use thiserror::Error;
use tokio::time::{sleep, timeout};
use tracing::info;

use self::plan::{PlannedAction, PowerPlan, PowerPlanFailure};
use super::boot_target::{NoBootTarget, instance_attempt, prepare_override};
use super::context::WorkerContext;
use crate::bmcs::{BETWEEN_LOOKS, BmcClient, BmcError, await_power, look};

/// Time limit of all BMC calls together: a slow BMC must not hold the node longer.
pub(super) const BMC_PATIENCE: Duration = Duration::from_secs(900);

/// The reason why a plan was not completed.
#[derive(Debug, Error)]
pub(super) enum NotCarriedOut {
    #[error(transparent)]
    Bmc(#[from] BmcError),
    #[error(transparent)]
    Call(#[from] BmcFailure),
    #[error(transparent)]
    Plan(#[from] PowerPlanFailure),
    #[error(transparent)]
    Work(#[from] WorkError),
}

pub(super) async fn run(
    context: &WorkerContext,
    claimed: &Claimed,
    target: PowerTarget,
) -> Result<Event, WorkError> {
    match set_power(context, claimed, target).await {
        Ok(()) => Ok(Event::PowerSeen(target.leads_to())),
        Err(PowerNotSet::Machine(NotCarriedOut::Work(failed))) => Err(failed),
        Err(failed) => Ok(Event::PowerFailed(failed.to_string())),
    }
}

/// The reason why the power state was not set.
#[derive(Debug, Error)]
enum PowerNotSet {
    #[error(transparent)]
    Target(#[from] NoBootTarget),
    #[error(transparent)]
    Machine(#[from] NotCarriedOut),
}

async fn set_power(
    context: &WorkerContext,
    claimed: &Claimed,
    target: PowerTarget,
) -> Result<(), PowerNotSet> {
    let node = &claimed.node;
    // The machine of an instance boots from its URL, which its BMC may have lost.
    let instance = instance_attempt(node).filter(|_| target.leads_to() == PowerState::On);
    let has_uri = instance.map(|attempt| attempt.boot_interface.http_boot_uri().is_some());
    let mut plan = PowerPlan::power(target, has_uri, claimed.progress);
    while carry_out(context, claimed, &mut plan, BMC_PATIENCE).await? == PlanPause::Prepare {
        let Some(attempt) = instance else { break };
        plan.prepared(prepare_override(context, node, &claimed.ports, attempt).await?);
    }
    Ok(())
}

/// The point at which the execution of a plan paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlanPause {
    /// At its end.
    Done,
    /// Before the preparation of the boot target, which may take longer than any BMC.
    Prepare,
}

/// Executes `plan`, up to the next pause or for `patience`.
pub(super) async fn carry_out(
    context: &WorkerContext,
    claimed: &Claimed,
    plan: &mut PowerPlan,
    patience: Duration,
) -> Result<PlanPause, NotCarriedOut> {
    let done = timeout(patience, carry_out_all(context, claimed, plan)).await;
    done.map_err(|_| BmcError::Slow(patience))?
}

async fn carry_out_all(
    context: &WorkerContext,
    claimed: &Claimed,
    plan: &mut PowerPlan,
) -> Result<PlanPause, NotCarriedOut> {
    let bmc = BmcClient::of(&claimed.node, &context.recorder).await?;
    let machine = bmc.machine().await?;
    let mut shown = look(&machine).await?;
    loop {
        match plan.next(&shown)? {
            PlannedAction::Note(phase) => {
                context.nodes.store().note_progress(&claimed.claim, phase).await?;
            }
            PlannedAction::PowerOff => machine.power_off(&shown).await?,
            PlannedAction::ShutDown => machine.shut_down(&shown).await?,
            PlannedAction::AwaitOff { patience } => {
                shown = await_power(&machine, SystemPower::Off, patience).await?;
            }
            PlannedAction::SetOverride(boot) => machine.override_boot(&shown, &boot).await?,
            PlannedAction::ReadBack => shown = look(&machine).await?,
            PlannedAction::ClearOverride => machine.clear_override(&shown).await?,
            PlannedAction::PowerOn => {
                info!("switching the machine on");
                machine.power_on(&shown).await?;
            }
            PlannedAction::AwaitOn { patience } => {
                shown = await_power(&machine, SystemPower::On, patience).await?;
            }
            PlannedAction::LookAgain => {
                sleep(BETWEEN_LOOKS).await;
                shown = look(&machine).await?;
            }
            PlannedAction::Prepare => return Ok(PlanPause::Prepare),
            PlannedAction::Done => return Ok(PlanPause::Done),
        }
    }
}
