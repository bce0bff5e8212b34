//! The daemon's own steps: BIOS attributes are staged while the machine is off, one start applies them, and they are read
//! back.
//!
//! [`BootPhase`] says how far the work came. Up to [`BootPhase::Overriding`] everything is begun anew: an attribute is
//! staged as often as needed. From [`BootPhase::PoweringOn`] on, the machine is not switched off any more, so it is
//! reset once.

use std::time::Duration;

use hardware::BmcObservation;
use provision::event::BootPhase;
use provision::state::PowerTarget;
use provision::{BmcStep, Event};
use redfish::failure::BmcFailure;
use redfish::ways::{BiosNotSet, BiosPlan, WantedBios};
use store::{Claimed, WorkError};
use thiserror::Error;
use tokio::time::timeout;
use tracing::warn;
use uuid::Uuid;

use super::context::{WorkerContext, attempt_of};
use super::not_carried_out::NotCarriedOut;
use super::power::plan::PowerPlan;
use super::power::{BMC_PATIENCE, carry_out, power_change, record_seen};
use crate::bmcs::{BmcClient, BmcError, WORK_PATIENCE, http_support};

/// Time from the start of the machine until the attributes are read back with their new values: a self-test, and on
/// some machines a further reset.
const APPLIED_WITHIN: Duration = Duration::from_secs(1_200);

/// The reason why a step was not done.
#[derive(Debug, Error)]
enum StepNotDone {
    #[error("its attempt is over")]
    Over,
    #[error(transparent)]
    Bios(#[from] BiosNotSet),
    #[error(transparent)]
    Machine(#[from] NotCarriedOut),
}

impl From<BmcError> for StepNotDone {
    fn from(error: BmcError) -> Self {
        Self::Machine(error.into())
    }
}

impl From<BmcFailure> for StepNotDone {
    fn from(failure: BmcFailure) -> Self {
        Self::Machine(failure.into())
    }
}

impl From<WorkError> for StepNotDone {
    fn from(error: WorkError) -> Self {
        Self::Machine(error.into())
    }
}

pub(super) async fn run(
    context: &WorkerContext,
    claimed: &Claimed,
    attempt: Uuid,
    index: usize,
) -> Result<Event, WorkError> {
    match carry_out_step(context, claimed, attempt, index).await {
        Ok(reset) => Ok(Event::BmcStepDone { attempt, index, reset }),
        Err(StepNotDone::Machine(NotCarriedOut::Work(failed))) => Err(failed),
        Err(reason) => Ok(Event::BmcStepFailed { attempt, index, reason: reason.to_string() }),
    }
}

/// Returns whether the machine was reset.
async fn carry_out_step(
    context: &WorkerContext,
    claimed: &Claimed,
    attempt: Uuid,
    index: usize,
) -> Result<bool, StepNotDone> {
    let run = &attempt_of(&claimed.node, attempt).ok_or(StepNotDone::Over)?.run;
    let step = run.steps.get(index).and_then(BmcStep::of).and_then(Result::ok);
    let wanted = wanted_bios(context, claimed, step.ok_or(StepNotDone::Over)?);
    let mut phase = claimed.progress;
    let mut job = None;
    if phase < BootPhase::PoweringOn {
        let planned = timeout(BMC_PATIENCE, plan(context, claimed, &wanted)).await;
        let plan = match planned.map_err(|_| BmcError::Slow(BMC_PATIENCE))? {
            Ok(plan) => plan,
            // Without attributes for it, whoever raised the priority for all machines did not mean this one.
            Err(StepNotDone::Bios(nothing)) if run.automated && nothing.is_absence() => {
                warn!("nothing is done for HTTP boot: {nothing}");
                return Ok(false);
            }
            Err(failed) => return Err(failed),
        };
        if plan.is_done() && phase == BootPhase::Untouched {
            record_seen(context, &claimed.node, BmcObservation::BiosAsWanted);
            return Ok(false);
        }
        if !plan.is_done() {
            job = stage(context, claimed, &plan).await?;
        }
        phase = BootPhase::Overriding;
    }
    let mut on = PowerPlan::power(PowerTarget::On, false, phase);
    on = on.within(power_change(context, &claimed.node));
    carry_out(context, claimed, &mut on, None, BMC_PATIENCE).await?;
    let bmc = BmcClient::of(&context.bmcs, &claimed.node, &context.recorder, WORK_PATIENCE).await?;
    let machine = bmc.machine().await?;
    machine.await_bios(&wanted, job.as_deref(), APPLIED_WITHIN).await?;
    record_seen(context, &claimed.node, BmcObservation::BiosAsWanted);
    Ok(true)
}

fn wanted_bios(context: &WorkerContext, claimed: &Claimed, step: BmcStep) -> WantedBios {
    match step {
        BmcStep::ApplyConfiguration { attributes } => WantedBios::Attributes(attributes),
        BmcStep::EnableHttpBoot { ip_version } => {
            let mut support = http_support(context.urls.base_of(&claimed.node).as_ref());
            support.ipv6 = ip_version.map_or(support.ipv6, |version| version == 6);
            WantedBios::HttpBoot(support)
        }
    }
}

async fn plan(
    context: &WorkerContext,
    claimed: &Claimed,
    wanted: &WantedBios,
) -> Result<BiosPlan, StepNotDone> {
    let bmc = BmcClient::of(&context.bmcs, &claimed.node, &context.recorder, WORK_PATIENCE).await?;
    let machine = bmc.machine().await?;
    Ok(machine.plan_bios(&machine.look().await?, wanted).await?)
}

/// Switches the machine off, and stages the changes. They are in the trace before the BMC has them.
async fn stage(
    context: &WorkerContext,
    claimed: &Claimed,
    plan: &BiosPlan,
) -> Result<Option<String>, StepNotDone> {
    let node = &claimed.node;
    let mut off = PowerPlan::power(PowerTarget::Off, false, BootPhase::Untouched);
    off = off.within(power_change(context, node));
    carry_out(context, claimed, &mut off, None, BMC_PATIENCE).await?;
    context.nodes.store().note_progress(&claimed.claim, BootPhase::Overriding).await?;
    let staged = BmcObservation::BiosStaged {
        settings: plan.settings.clone(),
        changes: plan.changes.clone(),
    };
    record_seen(context, &claimed.node, staged);
    context.recorder.flush().await;
    let bmc = BmcClient::of(&context.bmcs, node, &context.recorder, WORK_PATIENCE).await?;
    let machine = bmc.machine().await?;
    Ok(machine.stage_bios_plan(plan).await?)
}
