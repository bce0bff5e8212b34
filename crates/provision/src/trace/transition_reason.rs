//! The reason of a change of a node's state.

use std::{fmt, slice};

use serde::{Deserialize, Serialize};

use crate::agent_extension::AgentExtension;
use crate::procedure::Procedure;
use crate::step_failure::StepFailure;

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
    StepReboot {
        /// The extension that has the step.
        #[serde(default, skip_serializing_if = "AgentExtension::is_default")]
        extension: AgentExtension,
    },
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
        /// The extension that was asked for its steps.
        #[serde(default, skip_serializing_if = "AgentExtension::is_default")]
        extension: AgentExtension,
        /// The name of the step.
        step: String,
        /// The names of the agent's first steps.
        offered: Vec<String>,
        /// Number of its further steps.
        #[serde(default, skip_serializing_if = "is_zero")]
        more: usize,
    },
    /// A step failed or could not be started.
    StepFailed {
        /// The reason.
        failure: StepFailure,
    },
    /// A step of the daemon's own failed, or is none that it has.
    BmcStepFailed {
        /// Its name: `bios.enable_http_boot`.
        step: String,
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
    /// A reason in the words of an earlier version.
    InWords {
        /// The words.
        words: String,
    },
}

impl TransitionReason {
    /// All texts of other parties.
    pub(crate) fn texts(&mut self) -> impl Iterator<Item = &mut String> {
        let mut failure = None;
        let (text, list): (_, &mut [String]) = match self {
            Self::StepReboot { .. } | Self::BootMissed | Self::Aborted { .. } => (None, &mut []),
            Self::Step { step: text }
            | Self::NotVerified { error: text }
            | Self::NotBooted { error: text }
            | Self::AgentUnreachable { error: text }
            | Self::NotSwitchedOff { error: text, .. }
            | Self::InWords { words: text } => (Some(text), &mut []),
            Self::StepNotOffered { step, offered, .. } => (Some(step), offered),
            Self::BmcStepFailed { step, error } => (Some(error), slice::from_mut(step)),
            Self::StepFailed { failure: it } => {
                failure = Some(it);
                (None, &mut [])
            }
            Self::RamdiskSilent { diagnosis, .. } | Self::ImageNotFetched { diagnosis, .. } => {
                (diagnosis.as_mut(), &mut [])
            }
        };
        text.into_iter().chain(list).chain(failure.into_iter().flat_map(StepFailure::texts))
    }
}

impl fmt::Display for TransitionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step { step } => f.write_str(step),
            Self::StepReboot { extension } => write!(f, "a {extension} step asked for a reboot"),
            Self::BootMissed => f.write_str("the daemon was away while the machine booted"),
            Self::Aborted { procedure } => {
                write!(f, "the {} was aborted by an operator", procedure.row().noun)
            }
            Self::NotVerified { error } => write!(f, "the BMC could not be verified: {error}"),
            Self::NotBooted { error } => write!(f, "the machine could not be booted: {error}"),
            Self::StepNotOffered { extension, step, offered, more } => {
                write!(f, "node does not support this {extension} step: {step}; ")?;
                offers(f, offered, *more)
            }
            Self::StepFailed { failure } => failure.fmt(f),
            Self::BmcStepFailed { step, error } => write!(f, "the step {step} failed: {error}"),
            Self::AgentUnreachable { error } => f.write_str(error),
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

fn offers(f: &mut fmt::Formatter<'_>, offered: &[String], more: usize) -> fmt::Result {
    let names = if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
    write!(f, "the ramdisk offers {names}")?;
    if more > 0 { write!(f, " and {more} more") } else { Ok(()) }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

fn and_diagnosis(f: &mut fmt::Formatter<'_>, diagnosis: Option<&str>) -> fmt::Result {
    diagnosis.map_or(Ok(()), |diagnosis| write!(f, ": {diagnosis}"))
}
