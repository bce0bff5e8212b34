//! What can be done to a node: each procedure of Ironic's is a row of one table.
//!
//! [`step()`](crate::step()) asks for the stage of a node's state and for the row of its procedure, never for a state
//! alone. A procedure that is built is its row, and what it does between its beginning and its end.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::policy::Policy;
use crate::state::{Position, ProvisionState};

/// What is being done to a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Procedure {
    /// Its BMC is asked for the first time.
    Verify,
    /// Its disks are erased, or whatever else the steps do.
    #[default]
    Clean,
    /// It is given an instance.
    Deploy,
    /// The instance is taken from it.
    Undeploy,
    /// Its hardware is looked at.
    Inspect,
    /// It is booted into a rescue ramdisk beside its instance.
    Rescue,
    /// Its instance is booted again.
    Unrescue,
    /// Its hardware is looked after while it has an instance.
    Service,
    /// An instance that runs already is taken over.
    Adopt,
}

/// How far a procedure is. Not every procedure has each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// A worker acts.
    AtWork,
    /// The machine's next word is waited for.
    Waiting,
    /// A step said to wait for an operator.
    Held,
    /// It went wrong.
    Failed,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::AtWork, Self::Waiting, Self::Held, Self::Failed];
}

/// What a client may ask for with `PUT …/states/provision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// `manage`.
    Manage,
    /// `provide`.
    Provide,
    /// `clean`.
    Clean,
    /// `abort`.
    Abort,
    /// `active`, since 1.73 also `deploy`.
    Deploy,
    /// `rebuild`.
    Rebuild,
    /// `deleted`, since 1.73 also `undeploy`.
    Undeploy,
    /// `inspect`.
    Inspect,
    /// `rescue`.
    Rescue,
    /// `unrescue`.
    Unrescue,
    /// `service`.
    Service,
    /// `adopt`.
    Adopt,
    /// `unhold`.
    Unhold,
}

impl Verb {
    /// The name by which clients of each version ask for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Manage => "manage",
            Self::Provide => "provide",
            Self::Clean => "clean",
            Self::Abort => "abort",
            Self::Deploy => "active",
            Self::Rebuild => "rebuild",
            Self::Undeploy => "deleted",
            Self::Inspect => "inspect",
            Self::Rescue => "rescue",
            Self::Unrescue => "unrescue",
            Self::Service => "service",
            Self::Adopt => "adopt",
            Self::Unhold => "unhold",
        }
    }

    /// Whether this service does it, in some state.
    #[must_use]
    pub fn is_built(self) -> bool {
        let asks_for = |row: &ProcedureRow| row.asks.iter().any(|ask| ask.verb == self);
        match self {
            Self::Manage | Self::Abort => true,
            // No step of ours holds a procedure.
            Self::Unhold => false,
            Self::Provide
            | Self::Clean
            | Self::Deploy
            | Self::Rebuild
            | Self::Undeploy
            | Self::Inspect
            | Self::Rescue
            | Self::Unrescue
            | Self::Service
            | Self::Adopt => ROWS.iter().any(|row| row.is_built && asks_for(row)),
        }
    }
}

/// One procedure: all in which it differs from the others.
#[derive(Debug)]
pub struct ProcedureRow {
    /// Which one.
    pub procedure: Procedure,
    /// What it is called in a sentence: "the clean was aborted".
    pub noun: &'static str,
    /// What it is called while it is done: "the cleaning operation".
    pub gerund: &'static str,
    /// Who may ask for it, and where it leads.
    pub asks: &'static [ProcedureAsk],
    /// The work that it begins with.
    pub begins: FirstWork,
    /// What the machine is booted with.
    pub boots: Boots,
    /// Where its steps come from.
    pub steps: StepSource,
    /// Whether `abort` ends it.
    pub is_abortable: bool,
    /// What follows once it is done.
    pub then: Option<Procedure>,
    /// What becomes of the node if it fails.
    pub fails: Failing,
    /// Silence of the machine after which it has failed; `None` if it waits for no machine.
    pub patience: Option<fn(&Policy) -> SignedDuration>,
    /// Whether this service does it. A verb that asks for a row that is not built is refused in words.
    pub is_built: bool,
}

/// A verb that begins a procedure.
#[derive(Debug)]
pub struct ProcedureAsk {
    /// The verb.
    pub verb: Verb,
    /// The states in which it may be asked for.
    pub from: &'static [ProvisionState],
    /// Where the node rests in the end.
    pub to: ProvisionState,
}

/// What a procedure begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstWork {
    /// [`Work::Verify`](crate::Work::Verify).
    Verify,
    /// [`Work::Boot`](crate::Work::Boot), in a new attempt.
    Boot,
    /// [`Work::TearDown`](crate::Work::TearDown) of the attempt before.
    TearDown,
}

/// What a procedure boots the machine with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boots {
    /// Nothing: the machine is left alone, or switched off.
    Nothing,
    /// The ramdisk with the agent, which calls home.
    Ramdisk,
    /// The instance's own image, of which nothing is heard once it was fetched.
    Instance,
}

/// Where the steps of a procedure come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepSource {
    /// It has none.
    Nothing,
    /// The agent offers and runs them.
    Agent,
}

/// What becomes of a node whose procedure fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// The state that it goes to.
    pub to: ProvisionState,
    /// The fault that puts it into maintenance, if it does.
    pub fault: Option<&'static str>,
    /// Whether the machine is switched off, and its attempt ended.
    pub tears_down: bool,
}

/// What a verb means in a state.
#[derive(Clone, Copy, Debug)]
pub enum VerbMeaning {
    /// A procedure begins, and the node rests there in the end.
    Begin(&'static ProcedureRow, ProvisionState),
    /// The node rests elsewhere at once.
    Move(ProvisionState),
    /// The procedure under way ends.
    Abort(&'static ProcedureRow),
    /// This service does not do it.
    NotBuilt,
}

impl Procedure {
    /// All of them, in the order of [`ROWS`].
    pub const ALL: [Self; 9] = [
        Self::Verify,
        Self::Clean,
        Self::Deploy,
        Self::Undeploy,
        Self::Inspect,
        Self::Rescue,
        Self::Unrescue,
        Self::Service,
        Self::Adopt,
    ];

    /// The state of a node in which this procedure is at a stage, if it has that stage.
    #[must_use]
    pub fn state(self, stage: Stage) -> Option<ProvisionState> {
        let here = Position::In(self, stage);
        ProvisionState::ALL.into_iter().find(|state| state.position() == here)
    }

    /// Its row.
    #[must_use]
    pub fn row(self) -> &'static ProcedureRow {
        let [verify, clean, deploy, undeploy, inspect, rescue, unrescue, service, adopt] = &ROWS;
        match self {
            Self::Verify => verify,
            Self::Clean => clean,
            Self::Deploy => deploy,
            Self::Undeploy => undeploy,
            Self::Inspect => inspect,
            Self::Rescue => rescue,
            Self::Unrescue => unrescue,
            Self::Service => service,
            Self::Adopt => adopt,
        }
    }
}

/// What a verb means in a state; `None` if it has no place there.
#[must_use]
pub fn meaning(verb: Verb, state: ProvisionState) -> Option<VerbMeaning> {
    if verb == Verb::Abort {
        return abortable(state).map(VerbMeaning::Abort);
    }
    if verb == Verb::Manage && MANAGED.contains(&state) {
        return Some(VerbMeaning::Move(ProvisionState::Manageable));
    }
    if !verb.is_built() {
        return Some(VerbMeaning::NotBuilt);
    }
    ROWS.iter().find_map(|row| {
        let ask = row.asks.iter().find(|ask| ask.verb == verb && ask.from.contains(&state))?;
        let begin = VerbMeaning::Begin(row, ask.to);
        Some(if row.is_built { begin } else { VerbMeaning::NotBuilt })
    })
}

/// The states that `manage` leaves at once for `manageable`.
const MANAGED: [ProvisionState; 4] = [
    ProvisionState::Available,
    ProvisionState::CleanFailed,
    ProvisionState::InspectFailed,
    ProvisionState::AdoptFailed,
];

fn abortable(state: ProvisionState) -> Option<&'static ProcedureRow> {
    let row = state.procedure().filter(|_| state.is_under_way())?.row();
    row.is_abortable.then_some(row)
}

/// The procedures, in the order of [`Procedure::ALL`]; states and verbs are those of Ironic's `common/states.py`.
pub static ROWS: [ProcedureRow; 9] = [
    ProcedureRow {
        procedure: Procedure::Verify,
        noun: "verification",
        gerund: "verifying",
        asks: &[ProcedureAsk {
            verb: Verb::Manage,
            from: &[ProvisionState::Enroll],
            to: ProvisionState::Manageable,
        }],
        begins: FirstWork::Verify,
        boots: Boots::Nothing,
        steps: StepSource::Nothing,
        is_abortable: false,
        then: None,
        fails: Failing { to: ProvisionState::Enroll, fault: None, tears_down: false },
        patience: None,
        is_built: true,
    },
    ProcedureRow {
        procedure: Procedure::Clean,
        noun: "clean",
        gerund: "cleaning",
        asks: &[
            ProcedureAsk {
                verb: Verb::Provide,
                from: &[ProvisionState::Manageable],
                to: ProvisionState::Available,
            },
            ProcedureAsk {
                verb: Verb::Clean,
                from: &[ProvisionState::Manageable],
                to: ProvisionState::Manageable,
            },
        ],
        begins: FirstWork::Boot,
        boots: Boots::Ramdisk,
        steps: StepSource::Agent,
        is_abortable: true,
        then: None,
        fails: Failing {
            to: ProvisionState::CleanFailed,
            fault: Some("clean failure"),
            tears_down: true,
        },
        patience: Some(Policy::clean_patience),
        is_built: true,
    },
    ProcedureRow {
        procedure: Procedure::Deploy,
        noun: "deployment",
        gerund: "provisioning",
        asks: &[
            ProcedureAsk {
                verb: Verb::Deploy,
                from: &[ProvisionState::Available, ProvisionState::DeployFailed],
                to: ProvisionState::Active,
            },
            ProcedureAsk {
                verb: Verb::Rebuild,
                from: &[
                    ProvisionState::Active,
                    ProvisionState::DeployFailed,
                    ProvisionState::Error,
                ],
                to: ProvisionState::Active,
            },
        ],
        begins: FirstWork::Boot,
        boots: Boots::Instance,
        steps: StepSource::Nothing,
        is_abortable: true,
        then: None,
        fails: Failing { to: ProvisionState::DeployFailed, fault: None, tears_down: true },
        patience: Some(Policy::deploy_patience),
        is_built: true,
    },
    ProcedureRow {
        procedure: Procedure::Undeploy,
        noun: "tear-down of the instance",
        gerund: "unprovisioning",
        asks: &[ProcedureAsk {
            verb: Verb::Undeploy,
            from: &[
                ProvisionState::Active,
                ProvisionState::DeployWait,
                ProvisionState::DeployFailed,
                ProvisionState::Error,
                ProvisionState::Rescue,
                ProvisionState::RescueFailed,
                ProvisionState::UnrescueFailed,
                ProvisionState::ServiceFailed,
            ],
            to: ProvisionState::Available,
        }],
        begins: FirstWork::TearDown,
        boots: Boots::Nothing,
        steps: StepSource::Nothing,
        is_abortable: false,
        then: Some(Procedure::Clean),
        fails: Failing { to: ProvisionState::Error, fault: None, tears_down: false },
        patience: None,
        is_built: true,
    },
    ProcedureRow {
        asks: &[ProcedureAsk {
            verb: Verb::Inspect,
            from: &[ProvisionState::Manageable, ProvisionState::InspectFailed],
            to: ProvisionState::Manageable,
        }],
        boots: Boots::Ramdisk,
        is_abortable: true,
        fails: Failing { to: ProvisionState::InspectFailed, fault: None, tears_down: true },
        ..not_built(Procedure::Inspect, "inspection", "inspecting")
    },
    ProcedureRow {
        asks: &[ProcedureAsk {
            verb: Verb::Rescue,
            from: &[
                ProvisionState::Active,
                ProvisionState::Rescue,
                ProvisionState::RescueFailed,
                ProvisionState::UnrescueFailed,
                ProvisionState::ServiceFailed,
            ],
            to: ProvisionState::Rescue,
        }],
        boots: Boots::Ramdisk,
        is_abortable: true,
        fails: Failing { to: ProvisionState::RescueFailed, fault: None, tears_down: true },
        ..not_built(Procedure::Rescue, "rescue", "rescuing")
    },
    ProcedureRow {
        asks: &[ProcedureAsk {
            verb: Verb::Unrescue,
            from: &[
                ProvisionState::Rescue,
                ProvisionState::RescueFailed,
                ProvisionState::UnrescueFailed,
            ],
            to: ProvisionState::Active,
        }],
        boots: Boots::Instance,
        fails: Failing { to: ProvisionState::UnrescueFailed, fault: None, tears_down: false },
        ..not_built(Procedure::Unrescue, "end of the rescue", "unrescuing")
    },
    ProcedureRow {
        asks: &[ProcedureAsk {
            verb: Verb::Service,
            from: &[ProvisionState::Active, ProvisionState::ServiceFailed],
            to: ProvisionState::Active,
        }],
        boots: Boots::Ramdisk,
        steps: StepSource::Agent,
        is_abortable: true,
        fails: Failing {
            to: ProvisionState::ServiceFailed,
            fault: Some("service failure"),
            tears_down: true,
        },
        ..not_built(Procedure::Service, "service", "servicing")
    },
    ProcedureRow {
        asks: &[ProcedureAsk {
            verb: Verb::Adopt,
            from: &[ProvisionState::Manageable, ProvisionState::AdoptFailed],
            to: ProvisionState::Active,
        }],
        begins: FirstWork::Verify,
        fails: Failing { to: ProvisionState::AdoptFailed, fault: None, tears_down: false },
        ..not_built(Procedure::Adopt, "adoption", "adopting")
    },
];

/// The part of a row that those have in common which are not built.
const fn not_built(procedure: Procedure, noun: &'static str, gerund: &'static str) -> ProcedureRow {
    ProcedureRow {
        procedure,
        noun,
        gerund,
        asks: &[],
        begins: FirstWork::Boot,
        boots: Boots::Nothing,
        steps: StepSource::Nothing,
        is_abortable: false,
        then: None,
        fails: Failing { to: ProvisionState::Error, fault: None, tears_down: false },
        patience: None,
        is_built: false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

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

    #[test]
    fn a_procedure_that_is_built_has_a_patience_exactly_if_it_waits_for_its_machine() {
        for row in ROWS.iter().filter(|row| row.is_built) {
            let waits = row.boots != Boots::Nothing;
            assert_eq!(row.patience.is_some(), waits, "{:?}", row.procedure);
        }
    }

    #[test]
    fn a_verb_that_is_not_built_is_so_in_each_state_from_which_it_leads() {
        for row in ROWS.iter().filter(|row| !row.is_built) {
            for ask in row.asks {
                for state in ask.from {
                    assert!(matches!(meaning(ask.verb, *state), Some(VerbMeaning::NotBuilt)));
                }
            }
        }
    }
}
