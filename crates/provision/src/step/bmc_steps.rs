//! Steps that the daemon carries out at the BMC itself: before the boot of the ramdisk, or between steps of its agent.

use uuid::Uuid;

use super::{Outcome, Transition};
use crate::event::Work;
use crate::procedure::{ProcedureRow, Stage};
use crate::refused::Refused;
use crate::trace::TransitionReason;

impl Transition<'_> {
    /// Plans the current step, which is the daemon's own.
    pub(super) fn run_bmc_step(mut self) -> Outcome {
        let attempt = self.attempt();
        let (id, index) = (attempt.id, attempt.run.done);
        let step = attempt.run.current().cloned();
        let reason = step.as_ref().map(|step| TransitionReason::Step { step: step.name() });
        self.node.current_step = step;
        self.go_on(Stage::AtWork, reason);
        self.then(Work::RunBmcStep { attempt: id, index })
    }

    pub(super) fn bmc_step_done(
        mut self,
        attempt: Uuid,
        index: usize,
        reset: bool,
    ) -> Result<Outcome, Refused> {
        self.expect_bmc_step(attempt, index)?;
        let live = self.attempt();
        live.run.done += 1;
        let agent_is_up = live.agent.is_some() && !reset;
        if live.run.is_at_bmc_step() {
            return Ok(self.run_bmc_step());
        }
        let is_over = live.run.is_over_without_agent()
            || (live.run.hardware_manager_version.is_some() && live.run.current().is_none());
        if agent_is_up || is_over {
            return Ok(self.next_step());
        }
        Ok(self.boot_after_bmc_step())
    }

    pub(super) fn bmc_step_failed(
        self,
        attempt: Uuid,
        index: usize,
        reason: &str,
    ) -> Result<Outcome, Refused> {
        let row = self.expect_bmc_step(attempt, index)?;
        let step = self.node.current_step.as_ref().map(|step| step.name()).unwrap_or_default();
        let reason = TransitionReason::BmcStepFailed { step, error: reason.to_owned() };
        Ok(self.fail(row, reason))
    }

    /// Checks that this step of the daemon's own is being carried out.
    fn expect_bmc_step(
        &self,
        attempt: Uuid,
        index: usize,
    ) -> Result<&'static ProcedureRow, Refused> {
        let row = self.expect_stage(attempt, Stage::AtWork)?;
        let run = self.node.live_attempt().map(|live| &live.run);
        let is_it = run.is_some_and(|run| run.done == index && run.is_at_bmc_step());
        if is_it { Ok(row) } else { Err(Refused::Stale) }
    }
}
