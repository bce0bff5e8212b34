//! Requests of clients: verbs and power.

use super::Transition;
use crate::event::{VerbRequest, Work};
use crate::image::{CONFIG_DRIVE, instance_image};
use crate::position::Position;
use crate::procedure::{FirstWork, Procedure, ProcedureRow, Stage, Verb};
use crate::refused::{Refused, RequestedAction};
use crate::state::{PowerTarget, ProvisionState as State};
use crate::step::Outcome;
use crate::steps::StepRun;
use crate::trace::TransitionReason;
use crate::verb_meaning::{VerbMeaning, meaning};

impl Transition<'_> {
    pub(super) fn verb_asked(self, request: &VerbRequest) -> Result<Outcome, Refused> {
        let verb = request.verb;
        match meaning(verb, self.node.provision_state) {
            None => Err(self.invalid(RequestedAction::Verb(verb))),
            Some(VerbMeaning::NotBuilt) => Err(Refused::NotBuilt(verb)),
            Some(VerbMeaning::Abort(row)) => Ok(self.abort(row)),
            Some(VerbMeaning::Move(to)) => Ok(self.move_to(to)),
            Some(VerbMeaning::Begin(row, to)) => self.begin(row, to, request),
        }
    }

    /// Ironic refuses an abort while a worker acts. Here a worker may wait long for a BMC, an image server or an
    /// agent, and an operator must have a way out.
    fn abort(self, row: &ProcedureRow) -> Outcome {
        self.fail(row, TransitionReason::Aborted { procedure: row.procedure })
    }

    fn move_to(mut self, to: State) -> Outcome {
        self.forgive();
        self.rest(to)
    }

    fn begin(
        mut self,
        row: &ProcedureRow,
        to: State,
        request: &VerbRequest,
    ) -> Result<Outcome, Refused> {
        self.expect_permitted(row, request)?;
        self.node.last_error = None;
        let is_provide = request.verb == Verb::Provide;
        if row.begins != FirstWork::Verify && (!is_provide || self.cleans_automatically()) {
            self.expect_power_may_go(row)?;
        }
        if is_provide {
            return Ok(self.begin_automated_clean(to));
        }
        if row.procedure == Procedure::Deploy {
            self.name_instance(request)?;
        }
        match row.begins {
            FirstWork::Verify => {
                self.enter(row.procedure, Stage::AtWork, to, None);
                Ok(self.then(Work::Verify))
            }
            FirstWork::Boot => {
                let run = StepRun { steps: request.steps.clone(), ..StepRun::default() };
                Ok(self.begin_boot(row, run, to))
            }
            FirstWork::TearDown => {
                self.enter(row.procedure, Stage::AtWork, to, None);
                match self.node.live_attempt().map(|attempt| attempt.id) {
                    Some(attempt) => Ok(self.then(Work::TearDown { attempt })),
                    // The failed deployment has torn it down already.
                    None => Ok(self.instance_is_gone()),
                }
            }
        }
    }

    /// Checks the conditions of a verb besides the state, in Ironic's order.
    fn expect_permitted(&self, row: &ProcedureRow, request: &VerbRequest) -> Result<(), Refused> {
        let node = self.node.uuid;
        match request.verb {
            Verb::Provide if self.node.is_set("retired") => {
                Err(Refused::Retired { operation: "providing", node })
            }
            Verb::Clean if request.steps.is_empty() => Err(Refused::NoSteps),
            Verb::Rebuild | Verb::Undeploy if self.node.is_set("protected") => {
                Err(Refused::Protected { operation: request.verb.name(), node })
            }
            Verb::Clean | Verb::Deploy | Verb::Rebuild if self.node.maintenance => {
                Err(Refused::InMaintenance { operation: row.gerund, node })
            }
            Verb::Manage
            | Verb::Provide
            | Verb::Clean
            | Verb::Abort
            | Verb::Deploy
            | Verb::Rebuild
            | Verb::Undeploy
            | Verb::Inspect
            | Verb::Rescue
            | Verb::Unrescue
            | Verb::Service
            | Verb::Adopt
            | Verb::Unhold => Ok(()),
        }
    }

    /// Stores the instance's config drive, and refuses a node without an image.
    fn name_instance(&mut self, request: &VerbRequest) -> Result<(), Refused> {
        if let Some(config_drive) = &request.config_drive {
            self.node.instance_info.insert(CONFIG_DRIVE.to_owned(), config_drive.clone());
        }
        let node = self.node.uuid;
        match instance_image(&self.node) {
            Ok(_) => Ok(()),
            Err(why) => Err(Refused::NoInstanceImage { node, why }),
        }
    }

    /// Ends the removal of the instance, and begins the next procedure.
    pub(super) fn instance_is_gone(mut self) -> Outcome {
        let to = self.node.target_provision_state.unwrap_or(State::Available);
        self.node.instance_info.clear();
        self.node.kept.remove("instance_uuid");
        self.begin_automated_clean(to)
    }

    pub(super) fn power_asked(mut self, target: PowerTarget) -> Result<Outcome, Refused> {
        let state = self.node.provision_state;
        match state.position() {
            Position::In(Procedure::Verify, _) => return Err(self.busy()),
            // The procedure switches the power itself, and another switch would disturb it.
            Position::In(..) if state.is_under_way() => {
                return Err(self.invalid(RequestedAction::Power(target)));
            }
            // The tear-down after the failure is still under way, and that work must not be lost.
            Position::In(..) | Position::Rest
                if self.node.live_attempt().is_some() && state != State::Active =>
            {
                return Err(self.busy());
            }
            Position::In(..) | Position::Rest => {}
        }
        if target != PowerTarget::On && self.node.is_set("disable_power_off") {
            return Err(Refused::StaysOn(target));
        }
        self.node.last_error = None;
        self.node.target_power_state = Some(target.leads_to());
        Ok(self.then(Work::SetPower { target }))
    }
}
