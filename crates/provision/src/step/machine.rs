//! Events of BMCs and machines: power, boots, fetched images.

use hardware::ShownBootMode;
use uuid::Uuid;

use super::{Outcome, Transition};
use crate::position::Position;
use crate::procedure::{Boots, Procedure, Stage};
use crate::refused::Refused;
use crate::state::{PowerState, ProvisionState as State};
use crate::trace::TransitionReason;

impl Transition<'_> {
    pub(super) fn power_seen(mut self, power: PowerState) -> Outcome {
        self.node.power_state = Some(power);
        self.node.target_power_state = None;
        self.done()
    }

    pub(super) fn boot_mode_seen(mut self, modes: ShownBootMode) -> Outcome {
        self.note_boot_mode(modes);
        self.done()
    }

    fn note_boot_mode(&mut self, modes: ShownBootMode) {
        self.node.boot_mode = modes.boot_mode;
        self.node.secure_boot = modes.secure_boot;
        // Most readings leave the databases out.
        if modes.trust.is_some() || modes.secure_boot != Some(true) {
            self.node.secure_boot_trust = modes.trust;
        }
    }

    pub(super) fn power_failed(mut self, reason: &str) -> Outcome {
        self.node.target_power_state = None;
        self.node.last_error = Some(format!("changing the power failed: {reason}"));
        self.done()
    }

    pub(super) fn verified(
        mut self,
        power: Option<PowerState>,
        modes: ShownBootMode,
    ) -> Result<Outcome, Refused> {
        self.expect_verification()?;
        self.node.power_state = power;
        self.note_boot_mode(modes);
        let to = self.node.target_provision_state.unwrap_or(State::Manageable);
        Ok(self.rest(to))
    }

    pub(super) fn verify_failed(self, reason: &str) -> Result<Outcome, Refused> {
        self.expect_verification()?;
        let reason = TransitionReason::NotVerified { error: reason.to_owned() };
        Ok(self.fail(Procedure::Verify.row(), reason))
    }

    fn expect_verification(&self) -> Result<(), Refused> {
        match self.node.provision_state.position() {
            Position::In(Procedure::Verify, Stage::AtWork) => Ok(()),
            Position::In(..) | Position::Rest => Err(Refused::Stale),
        }
    }

    pub(super) fn booting(mut self, attempt: Uuid) -> Result<Outcome, Refused> {
        self.expect_boot(attempt)?;
        let now = self.context.now;
        self.node.power_state = Some(PowerState::On);
        self.attempt().powered_on_at = Some(now);
        if self.attempt().image_fetched_at.is_some() {
            // The machine was faster than its BMC.
            return Ok(self.instance_runs());
        }
        self.go_on(Stage::Waiting, None);
        Ok(self.done())
    }

    pub(super) fn boot_failed(self, attempt: Uuid, reason: &str) -> Result<Outcome, Refused> {
        self.expect_boot(attempt)?;
        let row = self.expect_stage(attempt, Stage::AtWork)?;
        Ok(self.fail(row, TransitionReason::NotBooted { error: reason.to_owned() }))
    }

    pub(super) fn boot_missed(mut self, attempt: Uuid) -> Result<Outcome, Refused> {
        self.expect_stage(attempt, Stage::Waiting)?;
        let live = self.attempt();
        if live.agent.is_some() || live.token_given {
            // The machine has come up after all, and a live agent's machine is never switched off.
            return Err(Refused::Stale);
        }
        Ok(self.boot_again(TransitionReason::BootMissed))
    }

    /// An image without an agent makes no calls: once it is complete, the machine has all it needs.
    pub(super) fn image_fetched(mut self, attempt: Uuid) -> Result<Outcome, Refused> {
        self.expect_attempt(attempt)?;
        let state = self.node.provision_state;
        let now = self.context.now;
        let live = self.attempt();
        if live.boots() != Boots::Instance || live.image_fetched_at.is_some() {
            return Err(Refused::Stale);
        }
        live.image_fetched_at = Some(now);
        match state.position() {
            Position::In(Procedure::Deploy, Stage::Waiting) => Ok(self.instance_runs()),
            // The worker has not reported yet that the machine is on.
            Position::In(Procedure::Deploy, Stage::AtWork) => Ok(self.done()),
            Position::Rest if state == State::Active => Ok(self.done()),
            Position::In(..) | Position::Rest => Err(Refused::Stale),
        }
    }

    fn instance_runs(mut self) -> Outcome {
        self.node.power_state = Some(PowerState::On);
        let to = self.node.target_provision_state.unwrap_or(State::Active);
        self.rest(to)
    }

    /// The ticket stays: the BMC or the DHCP service still gives the URL with it.
    pub(super) fn instance_boots(mut self, attempt: Uuid, next: Uuid) -> Result<Outcome, Refused> {
        self.expect_attempt(attempt)?;
        let (state, now) = (self.node.provision_state, self.context.now);
        let live = self.attempt();
        if state != State::Active || live.image_fetched_at.is_none() {
            return Err(Refused::Stale);
        }
        live.follows = Some(attempt);
        live.id = next;
        live.started_at = now;
        live.powered_on_at = Some(now);
        live.image_fetched_at = None;
        self.node.power_state = Some(PowerState::On);
        Ok(self.done())
    }

    pub(super) fn torn_down(mut self, attempt: Uuid) -> Result<Outcome, Refused> {
        self.expect_torn_down(attempt)?;
        self.node.power_state = Some(PowerState::Off);
        self.attempt().ended_at = Some(self.context.now);
        match self.node.provision_state.position() {
            Position::In(procedure, Stage::AtWork)
                if procedure.row().then == Some(Procedure::Clean) =>
            {
                Ok(self.instance_is_gone())
            }
            Position::In(_, Stage::AtWork) => {
                let to = self.node.target_provision_state.unwrap_or(State::Manageable);
                Ok(self.rest(to))
            }
            Position::In(..) | Position::Rest => Ok(self.done()),
        }
    }

    pub(super) fn tear_down_failed(
        mut self,
        attempt: Uuid,
        reason: &str,
    ) -> Result<Outcome, Refused> {
        self.expect_torn_down(attempt)?;
        self.attempt().ended_at = Some(self.context.now);
        let error = reason.to_owned();
        match self.node.provision_state.position() {
            Position::In(procedure, Stage::AtWork) => {
                let reason = TransitionReason::NotSwitchedOff { procedure, error };
                self.mark_failed(procedure.row(), reason);
            }
            Position::In(..) | Position::Rest => {
                // The procedure's own failure is more important to the operator.
                let procedure = self.attempt().procedure;
                let reason = TransitionReason::NotSwitchedOff { procedure, error }.to_string();
                let first = self.node.last_error.take().map(|first| first + "; ");
                self.node.last_error = Some(first.unwrap_or_default() + &reason);
            }
        }
        Ok(self.done())
    }

    /// Checks that the machine is being started for the attempt.
    fn expect_boot(&self, attempt: Uuid) -> Result<(), Refused> {
        let row = self.expect_stage(attempt, Stage::AtWork)?;
        let live = self.node.live_attempt();
        let is_booting = live.is_some_and(|live| {
            let run = &live.run;
            live.agent.is_none() && !run.is_at_bmc_step() && !run.is_over_without_agent()
        });
        let boots = row.boots != Boots::Nothing;
        if boots && is_booting { Ok(()) } else { Err(Refused::Stale) }
    }

    /// Checks that the attempt may be in tear-down: at the end of its steps, with its instance, or after a failure,
    /// whatever an operator has done with the node since then.
    fn expect_torn_down(&self, attempt: Uuid) -> Result<(), Refused> {
        self.expect_attempt(attempt)?;
        let state = self.node.provision_state;
        let may_be = match state.position() {
            Position::In(procedure, Stage::AtWork) => match procedure.row().boots {
                Boots::Nothing => true,
                Boots::Ramdisk => !self.steps_left(),
                Boots::Instance => false,
            },
            Position::In(_, Stage::Waiting | Stage::Held) => false,
            Position::In(_, Stage::Failed) => true,
            // A live attempt at rest belongs to an instance.
            Position::Rest => state != State::Active,
        };
        if may_be { Ok(()) } else { Err(Refused::Stale) }
    }
}
