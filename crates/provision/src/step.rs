//! All transitions: `(node, event) → the next node, its work, its trace`.
//!
//! Pure and total: a pair without a transition is [`Refused`] with a reason, and changes nothing. `tests/snapshots`
//! holds the table of all pairs on one page.
//!
//! `verbs` decides clients' requests, `machine` events of BMCs and machines, `agent` calls of agents, `bmc_steps` results of
//! the daemon's own steps.

mod agent;
mod bmc_steps;
mod machine;
mod verbs;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::bmc_step::BmcStep;
use crate::boot::KERNEL_START;
use crate::event::{Event, Silence, Work};
use crate::node::{Attempt, FreshAttempt, Node};
use crate::policy::Policy;
use crate::position::Position;
use crate::procedure::{Boots, Procedure, ProcedureRow, Stage};
use crate::refused::{Refused, RequestedAction};
use crate::state::ProvisionState as State;
use crate::steps::{ProcedureStep, StepRun};
use crate::text::{masked, printable, shortened};
use crate::trace::{BootEventKind, TransitionReason};

/// The inputs of a decision besides the node and the event.
#[derive(Clone, Debug)]
pub struct Context {
    /// The time of the event.
    pub now: Timestamp,
    /// The service's settings.
    pub policy: Policy,
    /// Random values for a new attempt.
    pub fresh: FreshAttempt,
}

/// Number of kept characters of an error text. The longest text of our own has some hundreds, including some hundreds
/// of a BMC's or an agent's.
const REASON_LIMIT: usize = 4_000;

/// The result of an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The changed node.
    pub node: Node,
    /// The next work. `None` keeps the planned work.
    pub work: Option<Work>,
    /// New events of the attempt's trace.
    pub trace: Vec<BootEventKind>,
}

/// Applies `event` to `node`.
///
/// # Errors
/// [`Refused`] if the node's state does not permit the event; nothing changes then.
pub fn step(node: &Node, event: &Event, context: &Context) -> Result<Outcome, Refused> {
    let transition = Transition { before: node, node: node.clone(), context, trace: Vec::new() };
    match event {
        Event::VerbAsked(request) => transition.verb_asked(request),
        Event::PowerAsked(target) => transition.power_asked(*target),
        Event::PowerSeen(power) => Ok(transition.power_seen(*power)),
        Event::BootModeSeen(modes) => Ok(transition.boot_mode_seen(*modes)),
        Event::PowerFailed(reason) => Ok(transition.power_failed(reason)),
        Event::Verified(power, modes) => transition.verified(*power, *modes),
        Event::VerifyFailed(reason) => transition.verify_failed(reason),
        Event::Booting { attempt } => transition.booting(*attempt),
        Event::BootFailed { attempt, reason } => transition.boot_failed(*attempt, reason),
        Event::BootMissed { attempt } => transition.boot_missed(*attempt),
        Event::ImageFetched { attempt } => transition.image_fetched(*attempt),
        Event::InstanceBoots { attempt, next } => transition.instance_boots(*attempt, *next),
        Event::AgentLooksUp(lookup) => transition.agent_looks_up(lookup),
        Event::AddressesSeen { attempt, fetched, leased } => {
            transition.addresses_seen(*attempt, fetched, leased)
        }
        Event::AgentAlive(heartbeat) => transition.agent_alive(heartbeat),
        Event::StepsReported { attempt, steps, hardware_manager_version } => {
            transition.steps_reported(*attempt, steps, hardware_manager_version)
        }
        Event::StepStarted { attempt, command_id } => transition.step_started(*attempt, command_id),
        Event::StepSucceeded { attempt, command_id } => {
            transition.step_succeeded(*attempt, command_id)
        }
        Event::StepFailed { attempt, failure } => transition.step_failed(*attempt, failure),
        Event::StepStillRuns { attempt } => transition.step_still_runs(*attempt),
        Event::AgentSilent { attempt, reason } => transition.agent_silent(*attempt, reason),
        Event::BmcStepDone { attempt, index, reset } => {
            transition.bmc_step_done(*attempt, *index, *reset)
        }
        Event::BmcStepFailed { attempt, index, reason } => {
            transition.bmc_step_failed(*attempt, *index, reason)
        }
        Event::TornDown { attempt } => transition.torn_down(*attempt),
        Event::TearDownFailed { attempt, reason } => transition.tear_down_failed(*attempt, reason),
        Event::Tick { silence, why } => Ok(transition.tick(*silence, why.clone())),
    }
}

/// The time of the last sign of life of a node that waits for its machine; `None` for other nodes.
///
/// It identifies a silence but does not measure it: the system clock may have been set since then, or the daemon was
/// not running.
#[must_use]
pub fn last_heard(node: &Node) -> Option<Timestamp> {
    let attempt = waiting_attempt(node)?;
    let heard = attempt.agent.as_ref().map(|agent| agent.last_heartbeat);
    Some(heard.or(attempt.powered_on_at).unwrap_or(attempt.started_at))
}

/// Whether a node has waited for its machine too long: the silence is the node's current one, and exceeds the limit.
#[must_use]
pub fn is_overdue(node: &Node, silence: Silence, policy: &Policy) -> bool {
    let patience = patience_with(node, policy);
    last_heard(node) == Some(silence.since)
        && patience.is_some_and(|patience| silence.lasts > patience)
}

/// The time limit of a node's procedure for the machine's silence; `None` without a procedure or a limit.
fn patience_with(node: &Node, policy: &Policy) -> Option<SignedDuration> {
    let row = node.provision_state.procedure()?.row();
    row.patience.map(|patience| patience(policy))
}

/// Whether a boot may have failed because the daemon was not running: it has run only for `served`, and the machine
/// was switched on before.
///
/// A machine with all its files gets extra time for its kernel to start the agent.
#[must_use]
pub fn may_have_missed(node: &Node, booted_before: bool, served: SignedDuration) -> bool {
    booted_before
        && served > KERNEL_START
        && waiting_attempt(node).is_some_and(|attempt| {
            attempt.agent.is_none() && !attempt.token_given && attempt.powered_on_at.is_some()
        })
}

/// The attempt of a node that waits for its machine.
fn waiting_attempt(node: &Node) -> Option<&Attempt> {
    node.live_attempt().filter(|_| node.provision_state.stage() == Some(Stage::Waiting))
}

/// The decision about one event.
struct Transition<'a> {
    before: &'a Node,
    node: Node,
    context: &'a Context,
    trace: Vec<BootEventKind>,
}

// Shared parts of several events, from the larger to the smaller.
impl Transition<'_> {
    /// Begins the boot of a procedure in a new attempt.
    fn begin_boot(mut self, row: &ProcedureRow, run: StepRun, to: State) -> Outcome {
        let fresh = self.context.fresh.clone();
        let id = fresh.attempt;
        self.node.last_error = None;
        let begun =
            Attempt::begun(fresh, row.procedure, self.node.boot_interface, self.context.now);
        let follows = self.before.attempt.as_ref().map(|before| before.id);
        self.node.attempt = Some(Attempt { run, follows, ..begun });
        self.enter(row.procedure, Stage::AtWork, to, None);
        let unknown = self.attempt().run.steps.iter().find(|step| BmcStep::is_unknown(step));
        if let Some(step) = unknown.map(ProcedureStep::name) {
            let error = BmcStep::why_unknown();
            return self.fail(row, TransitionReason::BmcStepFailed { step, error });
        }
        if self.attempt().run.is_at_bmc_step() {
            return self.run_bmc_step();
        }
        self.then(Work::Boot { attempt: id })
    }

    /// Begins a clean of the steps with a priority, or skips it if the settings say so.
    fn begin_automated_clean(self, to: State) -> Outcome {
        if !self.cleans_automatically() {
            return self.rest(to);
        }
        let run = StepRun::automated(self.context.policy.enable_http_boot_priority);
        self.begin_boot(Procedure::Clean.row(), run, to)
    }

    fn cleans_automatically(&self) -> bool {
        self.node.automated_clean.unwrap_or(self.context.policy.automated_clean)
    }

    /// Boots the machine again within the attempt, with a new token that the former agent does not have.
    fn boot_again(self, reason: TransitionReason) -> Outcome {
        self.boot_within_attempt(Some(reason))
    }

    /// Boots the ramdisk after a step of the daemon's own.
    fn boot_after_bmc_step(self) -> Outcome {
        self.boot_within_attempt(None)
    }

    fn boot_within_attempt(mut self, reason: Option<TransitionReason>) -> Outcome {
        let token = self.context.fresh.agent_token.clone();
        let attempt = self.attempt();
        attempt.agent_token = token;
        attempt.addresses.token_holder = None;
        attempt.agent = None;
        attempt.powered_on_at = None;
        attempt.token_given = false;
        attempt.image_fetched_at = None;
        attempt.run.settled_commands.clear();
        let id = attempt.id;
        self.node.current_step = None;
        self.go_on(Stage::AtWork, reason);
        self.then(Work::Boot { attempt: id })
    }

    fn tick(self, silence: Option<Silence>, diagnosis: Option<String>) -> Outcome {
        let policy = &self.context.policy;
        let Some(procedure) = self.node.provision_state.procedure() else { return self.done() };
        let Some(patience) = patience_with(&self.node, policy) else { return self.done() };
        if !silence.is_some_and(|silence| is_overdue(self.before, silence, policy)) {
            return self.done();
        }
        let (row, seconds) = (procedure.row(), patience.as_secs());
        let reason = match row.boots {
            Boots::Ramdisk | Boots::Nothing => {
                TransitionReason::RamdiskSilent { seconds, diagnosis }
            }
            Boots::Instance => TransitionReason::ImageNotFetched { seconds, diagnosis },
        };
        self.fail(row, reason)
    }

    /// Ends a procedure with a failure.
    fn fail(mut self, row: &ProcedureRow, reason: TransitionReason) -> Outcome {
        self.mark_failed(row, reason);
        match self.node.live_attempt().map(|attempt| attempt.id) {
            Some(attempt) if row.fails.tears_down => self.then(Work::TearDown { attempt }),
            Some(_) | None => self.done(),
        }
    }

    fn mark_failed(&mut self, row: &ProcedureRow, reason: TransitionReason) {
        let words = reason.to_string();
        self.node.last_error = Some(words.clone());
        if let Some(fault) = row.fails.fault {
            self.node.maintenance = true;
            self.node.fault = Some(fault.to_owned());
            self.node.maintenance_reason = Some(words);
        }
        self.node.current_step = None;
        // A node at rest has no target.
        let target = match row.fails.to.position() {
            Position::Rest => None,
            Position::In(..) => self.node.target_provision_state,
        };
        self.go(row.fails.to, target, Some(reason));
    }

    /// Ends the maintenance that a failed procedure began.
    fn forgive(&mut self) {
        let fault = self.node.provision_state.procedure().and_then(|it| it.row().fails.fault);
        if fault.is_some() && self.node.fault.as_deref() == fault {
            self.node.maintenance = false;
            self.node.maintenance_reason = None;
            self.node.fault = None;
        }
    }

    /// Ends in a state of rest.
    fn rest(mut self, state: State) -> Outcome {
        self.node.current_step = None;
        self.go(state, None, None);
        self.done()
    }

    /// Enters a stage of a procedure that leads `to` a state of rest.
    fn enter(
        &mut self,
        procedure: Procedure,
        stage: Stage,
        to: State,
        reason: Option<TransitionReason>,
    ) {
        let state = procedure.state(stage).expect("rows begin with a stage that there is");
        self.go(state, Some(to), reason);
    }

    /// Enters another stage of the current procedure.
    fn go_on(&mut self, stage: Stage, reason: Option<TransitionReason>) {
        let procedure = self.node.provision_state.procedure();
        let state = procedure.and_then(|procedure| procedure.state(stage));
        let state = state.expect("callers come from a procedure that has the stage");
        self.go(state, self.node.target_provision_state, reason);
    }

    fn go(&mut self, state: State, target: Option<State>, mut reason: Option<TransitionReason>) {
        for text in reason.iter_mut().flat_map(TransitionReason::texts) {
            *text = fit_reason(text);
        }
        self.trace.push(BootEventKind::State {
            from: self.node.provision_state,
            to: state,
            reason,
        });
        self.node.provision_state = state;
        self.node.target_provision_state = target;
        self.node.provision_updated_at = Some(self.context.now);
    }

    fn then(self, work: Work) -> Outcome {
        Outcome { work: Some(work), ..self.done() }
    }

    /// Cleans texts of BMCs and agents in the reasons: all clients show them, on terminals.
    fn done(mut self) -> Outcome {
        let reasons = [&mut self.node.last_error, &mut self.node.maintenance_reason];
        for text in reasons.into_iter().flatten() {
            *text = fit_reason(text);
        }
        if self.node != *self.before {
            self.node.updated_at = Some(self.context.now);
        }
        Outcome { node: self.node, work: None, trace: self.trace }
    }

    fn attempt(&mut self) -> &mut Attempt {
        self.node.attempt.as_mut().expect("callers come from states that have an attempt")
    }

    /// The row of the current procedure, if the attempt is live and the procedure is at this stage.
    fn expect_stage(&self, attempt: Uuid, stage: Stage) -> Result<&'static ProcedureRow, Refused> {
        self.expect_attempt(attempt)?;
        match self.node.provision_state.position() {
            Position::In(procedure, at) if at == stage => Ok(procedure.row()),
            Position::In(..) | Position::Rest => Err(Refused::Stale),
        }
    }

    fn expect_attempt(&self, attempt: Uuid) -> Result<(), Refused> {
        match self.node.live_attempt() {
            Some(live) if live.id == attempt => Ok(()),
            Some(_) | None => Err(Refused::Stale),
        }
    }

    /// Checks that the machine may be switched off, as in each procedure that boots it or removes its instance.
    fn expect_power_may_go(&self, row: &ProcedureRow) -> Result<(), Refused> {
        if self.node.is_set("disable_power_off") {
            return Err(Refused::PowersOff { operation: row.gerund, node: self.node.uuid });
        }
        Ok(())
    }

    fn busy(&self) -> Refused {
        Refused::Busy { node: self.node.uuid }
    }

    fn invalid(&self, action: RequestedAction) -> Refused {
        Refused::InvalidState { action, node: self.node.uuid, state: self.node.provision_state }
    }
}

/// A text made fit to be stored and shown.
fn fit_reason(text: &str) -> String {
    shortened(&printable(&masked(text)), REASON_LIMIT).into_owned()
}
