//! The reason of a change of a node's state.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::procedure::Procedure;

/// The reason of a change of a node's state, where the two states alone do not say it.
///
/// `error` holds the words of a BMC, of an agent, or of whoever talked to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum TransitionReason {
    /// A step begins.
    Step {
        /// Its name: `deploy.erase_devices`.
        step: String,
    },
    /// A step asked for a reboot: the machine boots again within the attempt.
    StepReboot,
    /// The daemon was away while the machine booted: the machine boots again within the attempt.
    BootMissed,
    /// An operator aborted the procedure.
    Aborted {
        /// The procedure.
        procedure: Procedure,
    },
    /// The BMC does not answer, or lacks something.
    NotVerified {
        /// Why.
        error: String,
    },
    /// The machine could not be told what to boot, or not be switched on.
    NotBooted {
        /// Why.
        error: String,
    },
    /// The agent does not have a step that was asked for.
    StepNotOffered {
        /// The name of the step.
        step: String,
        /// The names of the steps that the agent has, with commas between them.
        offered: String,
    },
    /// A step failed, or could not be run.
    StepFailed {
        /// Why.
        error: String,
    },
    /// The agent could not be called. It calls again.
    AgentUnreachable {
        /// Why.
        error: String,
    },
    /// The ramdisk was silent for too long.
    RamdiskSilent {
        /// The time allowed.
        seconds: i64,
        /// The diagnosis of the boot at that time.
        diagnosis: Option<String>,
    },
    /// The image of an instance was not fetched whole in time.
    ImageNotFetched {
        /// The time allowed.
        seconds: i64,
        /// The diagnosis of the boot at that time.
        diagnosis: Option<String>,
    },
    /// The machine could not be switched off at the end of a procedure.
    NotSwitchedOff {
        /// The procedure.
        procedure: Procedure,
        /// Why.
        error: String,
    },
    /// A reason that version 0.1 wrote in words.
    InWords {
        /// The words.
        words: String,
    },
}

impl TransitionReason {
    /// Each text of somebody else in it.
    pub(crate) fn texts(&mut self) -> impl Iterator<Item = &mut String> {
        let (first, second) = match self {
            Self::StepReboot | Self::BootMissed | Self::Aborted { .. } => (None, None),
            Self::Step { step: text }
            | Self::NotVerified { error: text }
            | Self::NotBooted { error: text }
            | Self::StepFailed { error: text }
            | Self::AgentUnreachable { error: text }
            | Self::NotSwitchedOff { error: text, .. }
            | Self::InWords { words: text } => (Some(text), None),
            Self::StepNotOffered { step, offered } => (Some(step), Some(offered)),
            Self::RamdiskSilent { diagnosis, .. } | Self::ImageNotFetched { diagnosis, .. } => {
                (diagnosis.as_mut(), None)
            }
        };
        first.into_iter().chain(second)
    }
}

impl fmt::Display for TransitionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step { step } => f.write_str(step),
            Self::StepReboot => f.write_str("a clean step asked for a reboot"),
            Self::BootMissed => f.write_str("the daemon was away while the machine booted"),
            Self::Aborted { procedure } => {
                write!(f, "the {} was aborted by an operator", procedure.row().noun)
            }
            Self::NotVerified { error } => write!(f, "the BMC could not be verified: {error}"),
            Self::NotBooted { error } => write!(f, "the machine could not be booted: {error}"),
            Self::StepNotOffered { step, offered } => {
                write!(
                    f,
                    "node does not support this clean step: {step}; the ramdisk offers {offered}"
                )
            }
            Self::StepFailed { error } | Self::AgentUnreachable { error } => f.write_str(error),
            Self::RamdiskSilent { seconds, diagnosis } => {
                write!(f, "nothing was heard from the ramdisk for {seconds} s")?;
                and_diagnosis(f, diagnosis.as_deref())
            }
            Self::ImageNotFetched { seconds, diagnosis } => {
                write!(f, "the image was not fetched whole within {seconds} s")?;
                and_diagnosis(f, diagnosis.as_deref())
            }
            Self::NotSwitchedOff { procedure, error } => {
                let after = match procedure {
                    Procedure::Undeploy => "instance",
                    Procedure::Verify
                    | Procedure::Clean
                    | Procedure::Deploy
                    | Procedure::Inspect
                    | Procedure::Rescue
                    | Procedure::Unrescue
                    | Procedure::Service
                    | Procedure::Adopt => procedure.row().noun,
                };
                write!(f, "after the {after}, the machine could not be switched off: {error}")
            }
            Self::InWords { words } => f.write_str(words),
        }
    }
}

fn and_diagnosis(f: &mut fmt::Formatter<'_>, diagnosis: Option<&str>) -> fmt::Result {
    diagnosis.map_or(Ok(()), |diagnosis| write!(f, ": {diagnosis}"))
}
