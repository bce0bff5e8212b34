//! The reason of a change of a node's state.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::procedure::Procedure;

/// The reason of a change of a node's state, if the two states do not imply it.
///
/// `error` contains the words of a BMC, of an agent, or of the code that called them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum TransitionReason {
    /// A step begins.
    Step {
        /// Its name: `deploy.erase_devices`.
        step: String,
    },
    /// A step requires a reboot: the machine boots again within the attempt.
    StepReboot,
    /// The daemon was not running during the boot: the machine boots again within the attempt.
    BootMissed,
    /// An operator aborted the procedure.
    Aborted {
        /// The procedure.
        procedure: Procedure,
    },
    /// The BMC does not answer, or does not support the boot interface.
    NotVerified {
        /// The error.
        error: String,
    },
    /// The boot override or the power-on failed.
    NotBooted {
        /// The error.
        error: String,
    },
    /// The agent does not have a requested step.
    StepNotOffered {
        /// The name of the step.
        step: String,
        /// The names of the agent's steps, separated by commas.
        offered: String,
    },
    /// A step failed or could not be started.
    StepFailed {
        /// The error.
        error: String,
    },
    /// The agent was unreachable. It will call again.
    AgentUnreachable {
        /// The error.
        error: String,
    },
    /// The ramdisk was silent for too long.
    RamdiskSilent {
        /// The limit in seconds.
        seconds: i64,
        /// The diagnosis of the boot at that time.
        diagnosis: Option<String>,
    },
    /// The image of an instance was not fetched completely in time.
    ImageNotFetched {
        /// The limit in seconds.
        seconds: i64,
        /// The diagnosis of the boot at that time.
        diagnosis: Option<String>,
    },
    /// The machine could not be switched off at the end of a procedure.
    NotSwitchedOff {
        /// The procedure.
        procedure: Procedure,
        /// The error.
        error: String,
    },
    /// A reason in the words of version 0.1.
    InWords {
        /// The words.
        words: String,
    },
}

impl TransitionReason {
    /// All texts of other parties.
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
