//! The position of a node's state among the procedures: which of them it belongs to, and at which stage.

use crate::procedure::{Boots, Procedure, Stage};
use crate::state::ProvisionState;

/// The position of a [`ProvisionState`] among procedures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// In a procedure, at a stage.
    In(Procedure, Stage),
    /// At rest until a request.
    Rest,
}

impl ProvisionState {
    /// The procedure and stage of this state, or rest.
    #[must_use]
    pub fn position(self) -> Position {
        use Procedure::{
            Adopt, Clean, Deploy, Inspect, Rescue, Service, Undeploy, Unrescue, Verify,
        };
        use Stage::{AtWork, Failed, Held, Waiting};

        let (procedure, stage) = match self {
            Self::Verifying => (Verify, AtWork),
            Self::Deploying => (Deploy, AtWork),
            Self::DeployWait => (Deploy, Waiting),
            Self::DeployHold => (Deploy, Held),
            Self::DeployFailed => (Deploy, Failed),
            Self::Deleting => (Undeploy, AtWork),
            Self::Cleaning => (Clean, AtWork),
            Self::CleanWait => (Clean, Waiting),
            Self::CleanHold => (Clean, Held),
            Self::CleanFailed => (Clean, Failed),
            Self::Inspecting => (Inspect, AtWork),
            Self::InspectWait => (Inspect, Waiting),
            Self::InspectFailed => (Inspect, Failed),
            Self::Adopting => (Adopt, AtWork),
            Self::AdoptFailed => (Adopt, Failed),
            Self::Rescuing => (Rescue, AtWork),
            Self::RescueWait => (Rescue, Waiting),
            Self::RescueFailed => (Rescue, Failed),
            Self::Unrescuing => (Unrescue, AtWork),
            Self::UnrescueFailed => (Unrescue, Failed),
            Self::Servicing => (Service, AtWork),
            Self::ServiceWait => (Service, Waiting),
            Self::ServiceHold => (Service, Held),
            Self::ServiceFailed => (Service, Failed),
            Self::Enroll
            | Self::Manageable
            | Self::Available
            | Self::Active
            | Self::Error
            | Self::Rescue => {
                return Position::Rest;
            }
        };
        Position::In(procedure, stage)
    }

    /// The procedure of this state.
    #[must_use]
    pub fn procedure(self) -> Option<Procedure> {
        match self.position() {
            Position::In(procedure, _) => Some(procedure),
            Position::Rest => None,
        }
    }

    /// The stage of the procedure.
    #[must_use]
    pub fn stage(self) -> Option<Stage> {
        match self.position() {
            Position::In(_, stage) => Some(stage),
            Position::Rest => None,
        }
    }

    /// Whether the machine of a node in this state may fetch its boot files.
    #[must_use]
    pub fn may_boot(self) -> bool {
        match self.position() {
            Position::In(procedure, Stage::AtWork | Stage::Waiting) => {
                procedure.row().is_built && procedure.row().boots != Boots::Nothing
            }
            Position::In(_, Stage::Held | Stage::Failed) => false,
            Position::Rest => self == Self::Active,
        }
    }

    /// Whether a procedure is under way: neither at rest nor failed.
    #[must_use]
    pub fn is_under_way(self) -> bool {
        match self.position() {
            Position::In(_, Stage::AtWork | Stage::Waiting | Stage::Held) => true,
            Position::In(_, Stage::Failed) | Position::Rest => false,
        }
    }
}

impl Procedure {
    /// The state of a node at this stage of the procedure, if the procedure has the stage.
    #[must_use]
    pub fn state(self, stage: Stage) -> Option<ProvisionState> {
        let here = Position::In(self, stage);
        ProvisionState::ALL.into_iter().find(|state| state.position() == here)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::procedure::ROWS;

    #[test]
    fn each_state_but_six_is_one_stage_of_one_procedure() {
        let mut seen = HashSet::new();
        for procedure in Procedure::ALL {
            assert_eq!(procedure.row().procedure, procedure);
            for stage in Stage::ALL {
                let Some(state) = procedure.state(stage) else { continue };
                assert_eq!(state.position(), Position::In(procedure, stage));
                assert!(seen.insert(state), "{state} is two stages");
            }
        }
        let rests: Vec<_> =
            ProvisionState::ALL.into_iter().filter(|state| !seen.contains(state)).collect();
        assert!(rests.iter().all(|state| state.position() == Position::Rest));
        let names: Vec<_> = rests.iter().map(|state| state.name()).collect();
        assert_eq!(names, ["enroll", "manageable", "available", "active", "error", "rescue"]);
    }

    #[test]
    fn a_procedure_leads_to_a_rest_and_fails_into_its_own_state_or_a_rest() {
        for row in &ROWS {
            for ask in row.asks {
                assert_eq!(ask.to.position(), Position::Rest, "{:?}", row.procedure);
            }
            match row.fails.to.position() {
                Position::Rest => {}
                Position::In(procedure, stage) => {
                    assert_eq!((procedure, stage), (row.procedure, Stage::Failed));
                }
            }
        }
    }
}
