//! The procedures of Ironic, each a row of one table.
//!
//! [`step()`](crate::step()) uses the stage of a node's state and the row of its procedure, never the state alone. A
//! supported procedure is its row, and its actions between beginning and end.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::agent_extension::AgentExtension;
use crate::policy::Policy;
use crate::state::ProvisionState;

/// A procedure on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Procedure {
    /// The first contact with its BMC.
    Verify,
    /// The clean steps, such as erasing disks.
    #[default]
    Clean,
    /// An instance is deployed to it.
    Deploy,
    /// The instance is removed from it.
    Undeploy,
    /// Its hardware is inspected.
    Inspect,
    /// It is booted into a rescue ramdisk beside its instance.
    Rescue,
    /// Its instance is booted again.
    Unrescue,
    /// Its hardware is serviced while it has an instance.
    Service,
    /// A running instance is adopted.
    Adopt,
}

/// The stage of a procedure. Not every procedure has each stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// A worker is acting.
    AtWork,
    /// The procedure waits for the machine.
    Waiting,
    /// A step holds the procedure for an operator.
    Held,
    /// The procedure failed.
    Failed,
}

impl Stage {
    /// All stages.
    pub const ALL: [Self; 4] = [Self::AtWork, Self::Waiting, Self::Held, Self::Failed];
}

/// A target of `PUT …/states/provision`.
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
    /// `active`, or `deploy` since 1.73.
    Deploy,
    /// `rebuild`.
    Rebuild,
    /// `deleted`, or `undeploy` since 1.73.
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
    /// The name that works in every API version.
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

    /// Whether this service supports the verb in some state.
    #[must_use]
    pub fn is_built(self) -> bool {
        let asks_for = |row: &ProcedureRow| row.asks.iter().any(|ask| ask.verb == self);
        match self {
            Self::Manage | Self::Abort => true,
            // No supported step holds a procedure.
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

/// The row of a procedure: all its differences from the others.
#[derive(Debug)]
pub struct ProcedureRow {
    /// The procedure.
    pub procedure: Procedure,
    /// Its name in a sentence: "the clean was aborted".
    pub noun: &'static str,
    /// Its name while it runs: "the cleaning operation".
    pub gerund: &'static str,
    /// The verbs that begin it, and the resulting states.
    pub asks: &'static [ProcedureAsk],
    /// Its first work.
    pub begins: FirstWork,
    /// The kind of image.
    pub boots: Boots,
    /// The source of its steps.
    pub steps: StepSource,
    /// Whether `abort` ends it.
    pub is_abortable: bool,
    /// The procedure that follows on success.
    pub then: Option<Procedure>,
    /// The result of a failure.
    pub fails: Failing,
    /// Silence of the machine after which it has failed; `None` if it waits for no machine.
    pub patience: Option<fn(&Policy) -> SignedDuration>,
    /// Whether this service supports it. A verb for an unsupported row is refused.
    pub is_built: bool,
}

/// A verb that begins a procedure.
#[derive(Debug)]
pub struct ProcedureAsk {
    /// The verb.
    pub verb: Verb,
    /// The states that permit the verb.
    pub from: &'static [ProvisionState],
    /// The state after success.
    pub to: ProvisionState,
}

/// The first work of a procedure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstWork {
    /// [`Work::Verify`](crate::Work::Verify).
    Verify,
    /// [`Work::Boot`](crate::Work::Boot), in a new attempt.
    Boot,
    /// [`Work::TearDown`](crate::Work::TearDown) of the previous attempt.
    TearDown,
}

/// The kind of image that a procedure boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boots {
    /// None: the machine is left alone, or switched off.
    Nothing,
    /// The ramdisk with the agent, which calls the daemon.
    Ramdisk,
    /// The instance's own image, which makes no calls.
    Instance,
}

/// The source of a procedure's steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepSource {
    /// No steps.
    Nothing,
    /// The list of this extension of the agent.
    Agent(AgentExtension),
}

/// The result of a failed procedure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// The resulting state.
    pub to: ProvisionState,
    /// The fault for maintenance, if the node is put into maintenance.
    pub fault: Option<&'static str>,
    /// Whether the machine is switched off and its attempt ended.
    pub tears_down: bool,
}

impl Procedure {
    /// All procedures, in the order of [`ROWS`].
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

    /// The procedure's row.
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

/// The procedures, in the order of [`Procedure::ALL`]; states and verbs are those in Ironic's `common/states.py`.
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
        steps: StepSource::Agent(AgentExtension::Clean),
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
        steps: StepSource::Agent(AgentExtension::Service),
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

/// The common part of unsupported procedures.
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
    use super::*;

    #[test]
    fn a_procedure_that_is_built_has_a_patience_exactly_if_it_waits_for_its_machine() {
        for row in ROWS.iter().filter(|row| row.is_built) {
            let waits = row.boots != Boots::Nothing;
            assert_eq!(row.patience.is_some(), waits, "{:?}", row.procedure);
        }
    }
}
