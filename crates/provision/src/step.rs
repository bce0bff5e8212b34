//! Every transition there is: `(node, event) → the next node, the work to do, the trace of it`.
//!
//! Pure and total: a pair that has no transition is [`Refused`] with the reason, and changes
//! nothing. `tests/snapshots` holds the table of all pairs on one page.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use uuid::Uuid;

use crate::addresses::{
    ForeignLookup, MachineAddresses, TOKEN_AGAIN, TokenHolder, belongs, boots_own_iso,
};
use crate::clean::{self, CleanStep};
use crate::diagnosis::KERNEL_START;
use crate::event::{AgentLookup, Event, Heartbeat, Silence, Work};
use crate::node::{Agent, Attempt, Clean, Node, Secret};
use crate::state::{PowerState, PowerTarget, ProvisionState as State};
use crate::text::{masked, printable, shortened, shown_url};
use crate::trace::What;

/// What a decision may depend on besides the node and the event.
#[derive(Clone, Debug)]
pub struct Context {
    /// The time of the event.
    pub now: Timestamp,
    /// The service's settings.
    pub policy: Policy,
    /// Random values, used if an attempt begins.
    pub fresh: Fresh,
}

/// The service's settings that decide transitions.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Whether `provide` cleans first (Ironic's `[conductor]automated_clean`, on by default).
    pub automated_clean: bool,
    /// Silence in `clean wait` after which a clean has failed
    /// (Ironic's `[conductor]clean_callback_timeout`, 1800 s).
    pub clean_callback_timeout: SignedDuration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { automated_clean: true, clean_callback_timeout: SignedDuration::from_secs(1_800) }
    }
}

/// Characters of an error that are kept with a node. The longest of our own has some hundreds, and some hundreds
/// of a BMC's or an agent's in it.
const REASON_LIMIT: usize = 4_000;

/// Why a node goes from waiting to `cleaning` when its machine is started anew within an attempt.
pub(crate) const REBOOT: &str = "a clean step asked for a reboot";

/// Why it does so when the daemon was away while the machine booted.
pub(crate) const MISSED: &str = "the daemon was away while the machine booted";

/// Random values for a new [`Attempt`].
#[derive(Clone, Debug, PartialEq)]
pub struct Fresh {
    /// Its identity.
    pub attempt: Uuid,
    /// Its ticket: 22 characters of base64url.
    pub ticket: Secret,
    /// Its agent token: at least 32 characters, or IPA ignores it.
    pub agent_token: Secret,
}

/// What follows from an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The node as it is from now on.
    pub node: Node,
    /// What a worker is to do next. `None` leaves what is already planned as it is.
    pub work: Option<Work>,
    /// What the trace of the attempt gets.
    pub trace: Vec<What>,
}

/// An event that has no place in the node's present state.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The verb is not one of this state.
    #[error(
        "the requested action \"{verb}\" can not be performed on node \"{node}\" \
         while it is in state \"{state}\""
    )]
    InvalidState {
        /// The API's verb.
        verb: &'static str,
        /// The node's UUID.
        node: Uuid,
        /// Where it stands.
        state: State,
    },
    /// Something is done with the node that will end soon; to be tried again then.
    #[error(
        "node {node} is being worked on, please retry after the current operation is completed"
    )]
    Busy {
        /// The node's UUID.
        node: Uuid,
    },
    /// A manual clean without steps.
    #[error("clean_steps must be given, and not be empty, with the target \"clean\"")]
    NoSteps,
    /// Not in maintenance.
    #[error(
        "the {operation} operation can't be performed on node {node} because it's in maintenance mode"
    )]
    InMaintenance {
        /// `cleaning`.
        operation: &'static str,
        /// The node's UUID.
        node: Uuid,
    },
    /// Not any more: it is retired.
    #[error("the {operation} operation can't be performed on node {node} because it is retired")]
    Retired {
        /// `providing`.
        operation: &'static str,
        /// The node's UUID.
        node: Uuid,
    },
    /// Its `disable_power_off` says that its power must stay on.
    #[error("failed to set node power state to {}", .0.name())]
    StaysOn(PowerTarget),
    /// So it says, and a clean switches the machine off and on.
    #[error(
        "the cleaning operation can't be performed on node {0} because it switches the machine off, \
         which disable_power_off forbids"
    )]
    CleanPowersOff(Uuid),
    /// It belongs to an attempt that is over.
    #[error("it belongs to a boot attempt that is over")]
    Stale,
    /// The state does not expect an agent.
    #[error("node \"{node}\" is in state \"{state}\", where no agent is expected")]
    NoAgentExpected {
        /// The node's UUID.
        node: Uuid,
        /// Where it stands.
        state: State,
    },
    /// A lookup whose answer would hold the token came before the machine was switched on.
    #[error(
        "the lookup came before the machine of node \"{0}\" was switched on for this boot: nobody gets its token then"
    )]
    LookupTooEarly(Uuid),
    /// A lookup whose answer would hold the token came from an address that is not known to be the machine's.
    #[error("{0}")]
    ForeignLookup(ForeignLookup),
    /// The token was given to another address of the machine.
    #[error(
        "the token was given to {} before, and {from} asks for it too: it is given once",
        .holder.map_or_else(|| "somebody".to_owned(), |holder| holder.to_string())
    )]
    TokenTaken {
        /// Who has it, if that is known.
        holder: Option<IpAddr>,
        /// Who asks.
        from: IpAddr,
    },
    /// The token was given to this address a moment ago.
    #[error(
        "the token was given to {from} a moment ago: if that answer was lost, it is told again {} s later",
        TOKEN_AGAIN.as_secs()
    )]
    TokenJustGiven {
        /// Who has it, and asks again.
        from: IpAddr,
    },
    /// A heartbeat came before the machine was switched on, and waited since.
    #[error("the heartbeat came before the machine of node \"{0}\" was switched on for this boot")]
    HeartbeatTooEarly(Uuid),
    /// The token is not this attempt's.
    #[error("the agent token is not valid for node \"{0}\"")]
    WrongToken(Uuid),
    /// Another agent owns the token.
    #[error(
        "an agent at {owner} already uses this token; the one at {caller} is refused: \
         either it changed its address, or somebody copied the token"
    )]
    SecondAgent {
        /// Where the owner's command API is.
        owner: String,
        /// Where the caller says its own is.
        caller: String,
    },
}

/// Decides what `event` makes of `node`.
///
/// # Errors
/// [`Refused`] when the event has no place in the node's state; nothing changes then.
pub fn step(node: &Node, event: &Event, context: &Context) -> Result<Outcome, Refused> {
    let turn = Turn { before: node, node: node.clone(), context, trace: Vec::new() };
    match event {
        Event::Manage => turn.manage(),
        Event::Provide => turn.provide(),
        Event::Clean(steps) => turn.clean(steps),
        Event::Abort => turn.abort(),
        Event::PowerAsked(target) => turn.power_asked(*target),
        Event::PowerSeen(power) => Ok(turn.power_seen(*power)),
        Event::PowerFailed(reason) => Ok(turn.power_failed(reason)),
        Event::Verified(power) => turn.verified(*power),
        Event::VerifyFailed(reason) => turn.verify_failed(reason),
        Event::Booting { attempt } => turn.booting(*attempt),
        Event::BootFailed { attempt, reason } => turn.boot_failed(*attempt, reason),
        Event::BootMissed { attempt } => turn.boot_missed(*attempt),
        Event::AgentLooksUp(lookup) => turn.agent_looks_up(lookup),
        Event::AddressesSeen { attempt, fetched, leased } => {
            turn.addresses_seen(*attempt, fetched, leased)
        }
        Event::AgentAlive(heartbeat) => turn.agent_alive(heartbeat),
        Event::StepsReported { attempt, steps, hardware_manager_version } => {
            turn.steps_reported(*attempt, steps, hardware_manager_version)
        }
        Event::StepStarted { attempt, command_id } => turn.step_started(*attempt, command_id),
        Event::StepSucceeded { attempt, command_id } => turn.step_succeeded(*attempt, command_id),
        Event::StepFailed { attempt, reason } => turn.step_failed(*attempt, reason),
        Event::StepStillRuns { attempt } => turn.step_still_runs(*attempt),
        Event::AgentSilent { attempt, reason } => turn.agent_silent(*attempt, reason),
        Event::TornDown { attempt } => turn.torn_down(*attempt),
        Event::TearDownFailed { attempt, reason } => turn.tear_down_failed(*attempt, reason),
        Event::Tick { silence, why } => Ok(turn.tick(*silence, why.as_deref())),
    }
}

/// When something was last heard of a node that waits for its agent; `None` for any other.
///
/// It says which silence is meant. How long that lasts cannot be read off it: the system's clock may have been set since
/// then, or the daemon was away.
#[must_use]
pub fn last_heard(node: &Node) -> Option<Timestamp> {
    let attempt = node.live_attempt().filter(|_| node.provision_state == State::CleanWait)?;
    let heard = attempt.agent.as_ref().map(|agent| agent.last_heartbeat);
    Some(heard.or(attempt.powered_on_at).unwrap_or(attempt.started_at))
}

/// Whether a node has waited for its agent for longer than it may: the silence is its own, and too long.
#[must_use]
pub fn is_overdue(node: &Node, silence: Silence, policy: &Policy) -> bool {
    last_heard(node) == Some(silence.since) && silence.lasts > policy.clean_callback_timeout
}

/// Whether a boot may have failed because the daemon was away: it has served for `served` only, and the machine was
/// switched on before.
///
/// The kernel of a machine that has all it needs is given time to bring its agent up.
#[must_use]
pub fn may_have_missed(node: &Node, booted_before: bool, served: SignedDuration) -> bool {
    node.provision_state == State::CleanWait
        && booted_before
        && served > KERNEL_START
        && node.live_attempt().is_some_and(|attempt| {
            attempt.agent.is_none() && !attempt.token_given && attempt.powered_on_at.is_some()
        })
}

/// One event being decided.
struct Turn<'a> {
    before: &'a Node,
    node: Node,
    context: &'a Context,
    trace: Vec<What>,
}

// What operators ask for.
impl Turn<'_> {
    fn manage(mut self) -> Result<Outcome, Refused> {
        match self.node.provision_state {
            State::Enroll => {
                self.node.last_error = None;
                self.go(State::Verifying, Some(State::Manageable), None);
                Ok(self.then(Work::Verify))
            }
            State::Available => Ok(self.rest(State::Manageable)),
            State::CleanFailed => {
                self.forgive_clean_failure();
                Ok(self.rest(State::Manageable))
            }
            State::Verifying | State::Manageable | State::Cleaning | State::CleanWait => {
                Err(self.invalid("manage"))
            }
        }
    }

    fn provide(mut self) -> Result<Outcome, Refused> {
        match self.node.provision_state {
            State::Manageable if self.node.is_set("retired") => {
                Err(Refused::Retired { operation: "providing", node: self.node.uuid })
            }
            State::Manageable => {
                self.node.last_error = None;
                let clean =
                    self.node.automated_clean.unwrap_or(self.context.policy.automated_clean);
                if !clean {
                    return Ok(self.rest(State::Available));
                }
                self.expect_power_may_go()?;
                self.begin(Clean { automated: true, ..Clean::default() }, State::Available);
                Ok(self.boot())
            }
            State::Enroll
            | State::Verifying
            | State::Available
            | State::Cleaning
            | State::CleanWait
            | State::CleanFailed => Err(self.invalid("provide")),
        }
    }

    fn clean(mut self, steps: &[CleanStep]) -> Result<Outcome, Refused> {
        match self.node.provision_state {
            State::Manageable if steps.is_empty() => Err(Refused::NoSteps),
            State::Manageable if self.node.maintenance => {
                Err(Refused::InMaintenance { operation: "cleaning", node: self.node.uuid })
            }
            State::Manageable => {
                self.expect_power_may_go()?;
                let clean = Clean { steps: steps.to_vec(), ..Clean::default() };
                self.begin(clean, State::Manageable);
                Ok(self.boot())
            }
            State::Enroll
            | State::Verifying
            | State::Available
            | State::Cleaning
            | State::CleanWait
            | State::CleanFailed => Err(self.invalid("clean")),
        }
    }

    /// Upstream refuses it in `cleaning`. There a BMC, an image server or an agent is waited for, any of which
    /// may take its time, and an operator must have a way out.
    fn abort(self) -> Result<Outcome, Refused> {
        match self.node.provision_state {
            State::Cleaning | State::CleanWait => {
                Ok(self.fail_clean("the clean was aborted by an operator"))
            }
            State::Enroll
            | State::Verifying
            | State::Manageable
            | State::Available
            | State::CleanFailed => Err(self.invalid("abort")),
        }
    }

    fn power_asked(mut self, target: PowerTarget) -> Result<Outcome, Refused> {
        match self.node.provision_state {
            // The clean switches the power itself, and a hand on the switch would break it.
            State::Cleaning | State::CleanWait => Err(self.invalid(target.name())),
            State::Verifying => Err(self.busy()),
            State::Enroll | State::Manageable | State::Available | State::CleanFailed => {
                if self.node.live_attempt().is_some() {
                    // A failed clean is still being torn down, and that work must not be lost.
                    return Err(self.busy());
                }
                if target != PowerTarget::On && self.node.is_set("disable_power_off") {
                    return Err(Refused::StaysOn(target));
                }
                self.node.last_error = None;
                self.node.target_power_state = Some(target.leads_to());
                Ok(self.then(Work::SetPower { target }))
            }
        }
    }
}

// What the BMC says.
impl Turn<'_> {
    fn power_seen(mut self, power: PowerState) -> Outcome {
        self.node.power_state = Some(power);
        self.node.target_power_state = None;
        self.done()
    }

    fn power_failed(mut self, reason: &str) -> Outcome {
        self.node.target_power_state = None;
        self.node.last_error = Some(format!("changing the power failed: {reason}"));
        self.done()
    }

    fn verified(mut self, power: PowerState) -> Result<Outcome, Refused> {
        self.expect_state(State::Verifying)?;
        self.node.power_state = Some(power);
        Ok(self.rest(State::Manageable))
    }

    fn verify_failed(mut self, reason: &str) -> Result<Outcome, Refused> {
        self.expect_state(State::Verifying)?;
        self.node.last_error = Some(format!("the BMC could not be verified: {reason}"));
        self.go(State::Enroll, None, Some(reason));
        Ok(self.done())
    }

    fn booting(mut self, attempt: Uuid) -> Result<Outcome, Refused> {
        self.expect_boot(attempt)?;
        let now = self.context.now;
        self.node.power_state = Some(PowerState::On);
        self.attempt().powered_on_at = Some(now);
        let target = self.node.target_provision_state;
        self.go(State::CleanWait, target, None);
        Ok(self.done())
    }

    fn boot_failed(self, attempt: Uuid, reason: &str) -> Result<Outcome, Refused> {
        self.expect_boot(attempt)?;
        Ok(self.fail_clean(&format!("the machine could not be booted: {reason}")))
    }

    fn boot_missed(mut self, attempt: Uuid) -> Result<Outcome, Refused> {
        self.expect_attempt(attempt, State::CleanWait)?;
        let live = self.attempt();
        if live.agent.is_some() || live.token_given {
            // It has come up after all, and the power of a live agent is never cut.
            return Err(Refused::Stale);
        }
        Ok(self.boot_again(MISSED))
    }

    fn torn_down(mut self, attempt: Uuid) -> Result<Outcome, Refused> {
        self.expect_torn_down(attempt)?;
        self.node.power_state = Some(PowerState::Off);
        self.attempt().ended_at = Some(self.context.now);
        match self.node.provision_state {
            State::Cleaning => {
                let target = self.node.target_provision_state.unwrap_or(State::Manageable);
                Ok(self.rest(target))
            }
            State::Enroll
            | State::Verifying
            | State::Manageable
            | State::Available
            | State::CleanWait
            | State::CleanFailed => Ok(self.done()),
        }
    }

    fn tear_down_failed(mut self, attempt: Uuid, reason: &str) -> Result<Outcome, Refused> {
        self.expect_torn_down(attempt)?;
        self.attempt().ended_at = Some(self.context.now);
        let reason = format!("after the clean, the machine could not be switched off: {reason}");
        match self.node.provision_state {
            State::Cleaning => self.mark_clean_failed(&reason),
            State::Enroll
            | State::Verifying
            | State::Manageable
            | State::Available
            | State::CleanWait
            | State::CleanFailed => {
                // The clean's own failure is what the operator must read first.
                let first = self.node.last_error.take().map(|first| first + "; ");
                self.node.last_error = Some(first.unwrap_or_default() + &reason);
            }
        }
        Ok(self.done())
    }
}

// What the agent says.
impl Turn<'_> {
    fn agent_looks_up(mut self, lookup: &AgentLookup) -> Result<Outcome, Refused> {
        self.expect_agent()?;
        let from = lookup.from.to_canonical();
        self.attempt().addresses.add(&lookup.fetched, &lookup.leased);
        let attempt = self.node.attempt.as_ref().expect("an agent is expected in an attempt");
        let is_known = belongs(&self.node, attempt, from);
        let is_on = attempt.powered_on_at.is_some_and(|on| on <= lookup.at);
        if !boots_own_iso(&self.node, attempt) {
            // Its image carries the token, so the answer holds none, and anybody may have it. Only a lookup from the
            // machine shows that the machine is up.
            self.attempt().token_given |= is_known && is_on;
            return Ok(self.forgetting_addresses());
        }
        if !is_on {
            return Err(Refused::LookupTooEarly(self.node.uuid));
        }
        if !is_known {
            let MachineAddresses { fetched, leased, .. } = attempt.addresses.clone();
            return Err(Refused::ForeignLookup(ForeignLookup { from, fetched, leased }));
        }
        if attempt.agent.is_some() {
            // The agent that was started anew kept its token; nobody is told it any more.
            return Ok(self.done());
        }
        self.give_token(from, lookup.at)?;
        Ok(self.done())
    }

    /// The token is given once: to the first address of the machine that asks for it. That address is told it again
    /// until the first heartbeat, as its answer may have been lost.
    fn give_token(&mut self, from: IpAddr, at: Timestamp) -> Result<(), Refused> {
        let attempt = self.attempt();
        match attempt.addresses.token_holder {
            Some(holder) if holder.address != from => {
                return Err(Refused::TokenTaken { holder: Some(holder.address), from });
            }
            Some(holder) if at.duration_since(holder.at).abs() < TOKEN_AGAIN => {
                return Err(Refused::TokenJustGiven { from });
            }
            // An earlier version has given it, and did not note to whom.
            None if attempt.token_given => return Err(Refused::TokenTaken { holder: None, from }),
            Some(_) | None => {}
        }
        attempt.token_given = true;
        attempt.addresses.token_holder = Some(TokenHolder { address: from, at });
        Ok(())
    }

    /// Whoever needs no address to be told its token has none kept: they are known in memory.
    fn forgetting_addresses(mut self) -> Outcome {
        let before = self.before.attempt.as_ref().map(|attempt| attempt.addresses.clone());
        self.attempt().addresses = before.unwrap_or_default();
        self.done()
    }

    fn addresses_seen(
        mut self,
        attempt: Uuid,
        fetched: &[IpAddr],
        leased: &[IpAddr],
    ) -> Result<Outcome, Refused> {
        self.expect_some_attempt(attempt)?;
        self.attempt().addresses.add(fetched, leased);
        Ok(self.done())
    }

    fn agent_alive(mut self, heartbeat: &Heartbeat) -> Result<Outcome, Refused> {
        self.expect_agent()?;
        let (uuid, state) = (self.node.uuid, self.node.provision_state);
        let attempt = self.attempt();
        if !same(&attempt.agent_token.0, &heartbeat.agent_token) {
            return Err(Refused::WrongToken(uuid));
        }
        match &attempt.agent {
            Some(owner) if owner.callback_url != heartbeat.callback_url => {
                return Err(Refused::SecondAgent {
                    owner: shown_url(&owner.callback_url),
                    caller: shown_url(&heartbeat.callback_url),
                });
            }
            // The machine is being switched off and on. Were this the agent that is about to be
            // cut off, it would own the token, and close the images to its successor.
            None if state == State::Cleaning => {
                return Err(Refused::NoAgentExpected { node: uuid, state });
            }
            // It waited for the node while the machine was switched off and on: that agent is gone.
            None if attempt.powered_on_at.is_some_and(|on| heartbeat.at < on) => {
                return Err(Refused::HeartbeatTooEarly(uuid));
            }
            Some(_) | None => {}
        }
        attempt.token_given = true;
        attempt.agent = Some(Agent {
            callback_url: heartbeat.callback_url.clone(),
            version: heartbeat.agent_version.clone(),
            verify_ca: heartbeat.agent_verify_ca.clone(),
            last_heartbeat: heartbeat.at,
        });
        self.node.power_state = Some(PowerState::On);
        if state == State::Cleaning {
            // Work is under way already; its result comes as an event of its own.
            return Ok(self.done());
        }
        Ok(self.ask_agent())
    }

    fn steps_reported(
        mut self,
        attempt: Uuid,
        offers: &[CleanStep],
        hardware_manager_version: &serde_json::Value,
    ) -> Result<Outcome, Refused> {
        self.expect_work_of_agent(attempt, State::CleanWait)?;
        if self.attempt().clean.hardware_manager_version.is_some() {
            // They were reported before; what was chosen then may already run.
            return Err(Refused::Stale);
        }
        match clean::choose(&self.attempt().clean, offers) {
            Err(reason) => Ok(self.fail_clean(&reason)),
            Ok(steps) => {
                let clean = &mut self.attempt().clean;
                clean.steps = steps;
                clean.hardware_manager_version = Some(hardware_manager_version.clone());
                Ok(self.next_step())
            }
        }
    }

    fn step_started(mut self, attempt: Uuid, command_id: &str) -> Result<Outcome, Refused> {
        self.expect_work_of_agent(attempt, State::Cleaning)?;
        self.attempt().clean.command_id = Some(command_id.to_owned());
        let target = self.node.target_provision_state;
        self.go(State::CleanWait, target, None);
        Ok(self.done())
    }

    fn step_succeeded(mut self, attempt: Uuid, command_id: &str) -> Result<Outcome, Refused> {
        self.expect_work_of_agent(attempt, State::CleanWait)?;
        let clean = &mut self.attempt().clean;
        if clean.command_id.as_deref() != Some(command_id) {
            return Err(Refused::Stale);
        }
        let reboot = clean.current().is_some_and(|step| step.reboot_requested);
        clean.command_id = None;
        clean.settled_commands.push(command_id.to_owned());
        clean.done += 1;
        if reboot && clean.current().is_some() {
            return Ok(self.boot_again(REBOOT));
        }
        Ok(self.next_step())
    }

    fn step_failed(self, attempt: Uuid, reason: &str) -> Result<Outcome, Refused> {
        self.expect_work_of_agent(attempt, self.node.provision_state)?;
        Ok(self.fail_clean(reason))
    }

    fn step_still_runs(self, attempt: Uuid) -> Result<Outcome, Refused> {
        self.expect_work_of_agent(attempt, State::CleanWait)?;
        Ok(self.done())
    }

    fn agent_silent(mut self, attempt: Uuid, reason: &str) -> Result<Outcome, Refused> {
        self.expect_work_of_agent(attempt, self.node.provision_state)?;
        if self.node.provision_state == State::Cleaning {
            // Back to waiting: its next heartbeat asks again, and the silence is bounded.
            let target = self.node.target_provision_state;
            self.go(State::CleanWait, target, Some(reason));
        }
        Ok(self.done())
    }
}

// Time.
impl Turn<'_> {
    fn tick(self, silence: Option<Silence>, why: Option<&str>) -> Outcome {
        let overdue = |silence| is_overdue(self.before, silence, &self.context.policy);
        if !silence.is_some_and(overdue) {
            return self.done();
        }
        let seconds = self.context.policy.clean_callback_timeout.as_secs();
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        self.fail_clean(&format!("nothing was heard from the ramdisk for {seconds} s{why}"))
    }
}

// What several of the above share, from the larger to the smaller.
impl Turn<'_> {
    /// Begins an attempt and the clean it is for.
    fn begin(&mut self, clean: Clean, target: State) {
        let fresh = self.context.fresh.clone();
        self.node.last_error = None;
        self.node.attempt = Some(Attempt {
            id: fresh.attempt,
            ticket: fresh.ticket,
            agent_token: fresh.agent_token,
            token_given: false,
            addresses: MachineAddresses::default(),
            boot_interface: self.node.boot_interface,
            started_at: self.context.now,
            powered_on_at: None,
            ended_at: None,
            agent: None,
            clean,
        });
        self.go(State::Cleaning, Some(target), None);
    }

    fn boot(self) -> Outcome {
        let attempt = self.context.fresh.attempt;
        self.then(Work::Boot { attempt })
    }

    /// Starts the machine anew within the attempt, with a token that the agent before does not have.
    fn boot_again(mut self, reason: &str) -> Outcome {
        let token = self.context.fresh.agent_token.clone();
        let attempt = self.attempt();
        attempt.agent_token = token;
        attempt.addresses.token_holder = None;
        attempt.agent = None;
        attempt.powered_on_at = None;
        attempt.token_given = false;
        attempt.clean.settled_commands.clear();
        let id = attempt.id;
        let target = self.node.target_provision_state;
        self.node.clean_step = None;
        self.go(State::Cleaning, target, Some(reason));
        self.then(Work::Boot { attempt: id })
    }

    /// The question that fits how far the clean has come.
    fn ask_agent(mut self) -> Outcome {
        let attempt = self.attempt();
        let (id, clean) = (attempt.id, &attempt.clean);
        let index = clean.done;
        match (&clean.hardware_manager_version, &clean.command_id) {
            (None, _) => self.then(Work::AskSteps { attempt: id }),
            (Some(_), Some(_)) => self.then(Work::CheckStep { attempt: id, index }),
            (Some(_), None) => self.next_step(),
        }
    }

    fn next_step(mut self) -> Outcome {
        let target = self.node.target_provision_state;
        let attempt = self.attempt();
        let (id, index) = (attempt.id, attempt.clean.done);
        let current = attempt.clean.current().cloned();
        self.node.clean_step.clone_from(&current);
        self.go(State::Cleaning, target, current.as_ref().map(CleanStep::name).as_deref());
        match current {
            Some(_) => self.then(Work::RunStep { attempt: id, index }),
            None => self.then(Work::TearDown { attempt: id }),
        }
    }

    fn fail_clean(mut self, reason: &str) -> Outcome {
        self.mark_clean_failed(reason);
        let attempt = self.attempt().id;
        self.then(Work::TearDown { attempt })
    }

    fn mark_clean_failed(&mut self, reason: &str) {
        self.node.last_error = Some(reason.to_owned());
        self.node.maintenance = true;
        self.node.fault = Some("clean failure".to_owned());
        self.node.maintenance_reason = Some(reason.to_owned());
        self.node.clean_step = None;
        let target = self.node.target_provision_state;
        self.go(State::CleanFailed, target, Some(reason));
    }

    fn forgive_clean_failure(&mut self) {
        if self.node.fault.as_deref() == Some("clean failure") {
            self.node.maintenance = false;
            self.node.maintenance_reason = None;
            self.node.fault = None;
        }
    }

    /// Arrives where nothing more is to be done.
    fn rest(mut self, state: State) -> Outcome {
        self.node.clean_step = None;
        self.go(state, None, None);
        self.done()
    }

    fn go(&mut self, state: State, target: Option<State>, reason: Option<&str>) {
        self.trace.push(What::State {
            from: self.before.provision_state,
            to: state,
            reason: reason.map(fit_reason),
        });
        self.node.provision_state = state;
        self.node.target_provision_state = target;
        self.node.provision_updated_at = Some(self.context.now);
    }

    fn then(self, work: Work) -> Outcome {
        Outcome { work: Some(work), ..self.done() }
    }

    /// What others say comes in here, in the reasons that events give: shown by every client, on terminals.
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

    fn expect_state(&self, state: State) -> Result<(), Refused> {
        if self.node.provision_state == state { Ok(()) } else { Err(Refused::Stale) }
    }

    fn expect_attempt(&self, attempt: Uuid, state: State) -> Result<(), Refused> {
        self.expect_state(state)?;
        self.expect_some_attempt(attempt)
    }

    fn expect_some_attempt(&self, attempt: Uuid) -> Result<(), Refused> {
        match self.node.live_attempt() {
            Some(live) if live.id == attempt => Ok(()),
            Some(_) | None => Err(Refused::Stale),
        }
    }

    /// Whether the machine is being started for the attempt.
    fn expect_boot(&self, attempt: Uuid) -> Result<(), Refused> {
        self.expect_attempt(attempt, State::Cleaning)?;
        let agent = self.node.live_attempt().and_then(|live| live.agent.as_ref());
        if agent.is_none() { Ok(()) } else { Err(Refused::Stale) }
    }

    /// Whether the attempt may be being torn down: at the end of its clean, or after its failure,
    /// whatever an operator has made of the node since then.
    fn expect_torn_down(&self, attempt: Uuid) -> Result<(), Refused> {
        self.expect_some_attempt(attempt)?;
        let waits = self.node.provision_state == State::CleanWait;
        if waits || self.steps_left() { Err(Refused::Stale) } else { Ok(()) }
    }

    /// Whether the attempt is in `state`, and its agent is what is being talked to: not while the
    /// machine boots, nor while it is torn down.
    fn expect_work_of_agent(&self, attempt: Uuid, state: State) -> Result<(), Refused> {
        self.expect_attempt(attempt, state)?;
        let agent = self.node.live_attempt().and_then(|live| live.agent.as_ref());
        let asked = state == State::CleanWait || self.steps_left();
        if agent.is_some() && asked { Ok(()) } else { Err(Refused::Stale) }
    }

    /// Whether the machine is being booted, or a step sent: work that is not the clean's last.
    fn steps_left(&self) -> bool {
        self.node.provision_state == State::Cleaning
            && self
                .node
                .live_attempt()
                .is_some_and(|live| live.agent.is_none() || live.clean.current().is_some())
    }

    fn expect_agent(&self) -> Result<(), Refused> {
        let state = self.node.provision_state;
        match state {
            State::Cleaning | State::CleanWait if self.node.live_attempt().is_some() => Ok(()),
            State::Enroll
            | State::Verifying
            | State::Manageable
            | State::Available
            | State::Cleaning
            | State::CleanWait
            | State::CleanFailed => Err(Refused::NoAgentExpected { node: self.node.uuid, state }),
        }
    }

    /// Whether the machine may be switched off, as every clean does.
    fn expect_power_may_go(&self) -> Result<(), Refused> {
        if self.node.is_set("disable_power_off") {
            return Err(Refused::CleanPowersOff(self.node.uuid));
        }
        Ok(())
    }

    fn busy(&self) -> Refused {
        Refused::Busy { node: self.node.uuid }
    }

    fn invalid(&self, verb: &'static str) -> Refused {
        Refused::InvalidState { verb, node: self.node.uuid, state: self.node.provision_state }
    }
}

/// What was said, fit to be kept and shown.
fn fit_reason(text: &str) -> String {
    shortened(&printable(&masked(text)), REASON_LIMIT).into_owned()
}

/// Compares in a time that does not depend on where the two differ.
fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}
