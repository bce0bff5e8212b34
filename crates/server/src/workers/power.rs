//! Operators' power requests, and the execution of a [`PowerPlan`] for all work that has one.

pub(super) mod plan;

use std::time::Duration;

use hardware::BmcObservation;
use ironic::validate::power_change_timeout;
use provision::boot::instance_attempt;
use provision::state::{PowerState, PowerTarget};
use provision::{BootEventKind, Event, Node};
use redfish::system::SystemPower;
use redfish::ways::ChosenWay;
use store::{Claimed, WorkError};
use thiserror::Error;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use self::plan::{PlannedAction, PowerPlan};
use super::boot_target::{NoBootTarget, prepare_override};
use super::context::WorkerContext;
use super::not_carried_out::NotCarriedOut;
use super::way::WayOfBoot;
use crate::bmcs::{BmcClient, BmcError, WORK_PATIENCE};

const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// Time limit of all BMC calls together: a slow BMC must not hold the node longer.
pub(super) const BMC_PATIENCE: Duration = Duration::from_secs(900);

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
    let ports = claimed.ports.iter().map(|port| &**port);
    let mut way = instance.map(|attempt| WayOfBoot::new(node, attempt, ports));
    let mut plan = PowerPlan::power(target, instance.is_some(), claimed.progress)
        .within(power_change(context, node))
        .with_certificates(!context.firmware_care(node).is_nothing());
    while carry_out(context, claimed, &mut plan, way.as_mut(), BMC_PATIENCE).await?
        == PlanPause::Prepare
    {
        let Some(attempt) = instance else { break };
        plan.prepared(prepare_override(context, node, &claimed.ports, attempt).await?);
    }
    Ok(())
}

/// Time within which the power of the node's machine must follow a reset.
pub(super) fn power_change(context: &WorkerContext, node: &Node) -> Duration {
    let own = power_change_timeout(node).ok().flatten();
    own.map_or(context.power_change, |secs| Duration::from_secs(secs.into()))
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
    way: Option<&mut WayOfBoot<'_>>,
    patience: Duration,
) -> Result<PlanPause, NotCarriedOut> {
    let done = timeout(patience, carry_out_all(context, claimed, plan, way)).await;
    done.map_err(|_| BmcError::Slow(patience))?
}

async fn carry_out_all(
    context: &WorkerContext,
    claimed: &Claimed,
    plan: &mut PowerPlan,
    mut way: Option<&mut WayOfBoot<'_>>,
) -> Result<PlanPause, NotCarriedOut> {
    let node = &claimed.node;
    let bmc = BmcClient::of(&context.bmcs, node, &context.recorder, WORK_PATIENCE).await?;
    let machine = bmc.machine().await?;
    let mut shown = machine.look().await?;
    loop {
        match plan.next(&shown)? {
            PlannedAction::Note(phase) => {
                context.nodes.store().note_progress(&claimed.claim, phase).await?;
            }
            PlannedAction::PowerOff => machine.power_off(&shown).await?,
            PlannedAction::ShutDown => machine.shut_down(&shown).await?,
            PlannedAction::AwaitOff { patience } => {
                shown = machine.await_power(SystemPower::Off, patience).await?;
            }
            PlannedAction::ChooseWay => {
                if let Some(way) = &mut way {
                    way.choose(context, &machine, &shown).await?;
                }
            }
            PlannedAction::EnrolCertificates(_) => {
                if let Some(way) = chosen(way.as_deref()) {
                    let care = context.firmware_care(node);
                    let seen = machine.care_for_firmware(&shown, way, care).await;
                    seen.into_iter().for_each(|seen| record_seen(context, node, seen));
                }
            }
            PlannedAction::SetBoot(boot) => {
                if let Some(way) = chosen(way.as_deref()) {
                    let job = machine.set_boot(&shown, way, &boot).await.map_err(BmcError::from)?;
                    job.into_iter().for_each(|job| record_job(context, node, job));
                }
            }
            PlannedAction::ReadBack(boot) => {
                if let Some(way) = chosen(way.as_deref()) {
                    let read = machine.read_back(way, &boot).await.map_err(BmcError::from)?;
                    record_warnings(context, node, read.warnings);
                    shown = read.view;
                }
            }
            PlannedAction::UndoBoot(changes) => {
                let still_shown = machine.undo_boot(&shown, &changes).await?;
                record_warnings(context, node, still_shown);
            }
            PlannedAction::RemoveCertificates => {
                let removed = context.removed_certificates(node);
                let seen = machine.remove_certificates(&shown, removed).await;
                seen.into_iter().for_each(|seen| record_seen(context, node, seen));
            }
            PlannedAction::PowerOn => {
                info!("switching the machine on");
                machine.power_on(&shown).await?;
            }
            PlannedAction::AwaitOn { patience } => {
                shown = machine.await_power(SystemPower::On, patience).await?;
            }
            PlannedAction::LookAgain => {
                sleep(BETWEEN_LOOKS).await;
                shown = machine.look().await?;
            }
            PlannedAction::Prepare => return Ok(PlanPause::Prepare),
            PlannedAction::Done => return Ok(PlanPause::Done),
        }
    }
}

fn chosen<'w>(way: Option<&'w WayOfBoot<'_>>) -> Option<&'w ChosenWay> {
    way.and_then(WayOfBoot::chosen)
}

/// Records what a BMC shows otherwise than it was set.
fn record_warnings(context: &WorkerContext, node: &Node, warnings: Vec<String>) {
    for warning in warnings {
        warn!("{warning}");
        let observation = BmcObservation::ReadBack { warning };
        context.recorder.record(node, BootEventKind::BmcShows { observation });
    }
}

/// Records what a BMC shows, in the log, and in the trace of the attempt under way.
pub(super) fn record_seen(context: &WorkerContext, node: &Node, observation: BmcObservation) {
    info!(node.uuid = %node.uuid, "{observation}");
    if node.live_attempt().is_some() {
        context.recorder.record(node, BootEventKind::BmcShows { observation });
    }
}

/// Records the job that the next reset runs for the boot. Looks at the silent boot read it.
fn record_job(context: &WorkerContext, node: &Node, job: String) {
    let (state, message) = ("Scheduled".to_owned(), String::new());
    record_seen(context, node, BmcObservation::Job { job, state, message });
}
