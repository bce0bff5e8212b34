//! Calls between the daemon and an agent, and their outcomes.

use std::fmt;

use hardware::Mac;
use serde::{Deserialize, Serialize};

use crate::agent_extension::AgentExtension;

/// A call between the daemon and an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum AgentCall {
    /// The agent looks up its node.
    Lookup,
    /// A heartbeat of the agent.
    Heartbeat,
    /// The daemon requests the agent's commands.
    ListCommands,
    /// The daemon requests the agent's steps.
    GetSteps {
        /// The extension that has them.
        #[serde(default, skip_serializing_if = "AgentExtension::is_default")]
        extension: AgentExtension,
    },
    /// The daemon sends a step.
    ExecuteStep {
        /// The extension that has it.
        #[serde(default, skip_serializing_if = "AgentExtension::is_default")]
        extension: AgentExtension,
        /// The step without its interface: `erase_devices`.
        step: String,
    },
    /// A step has ended.
    StepEnded {
        /// The step with its interface: `deploy.erase_devices`.
        step: String,
    },
}

impl AgentCall {
    /// Whether the agent calls the daemon, rather than the daemon the agent.
    #[must_use]
    pub fn is_from_agent(&self) -> bool {
        match self {
            Self::Lookup | Self::Heartbeat => true,
            Self::ListCommands
            | Self::GetSteps { .. }
            | Self::ExecuteStep { .. }
            | Self::StepEnded { .. } => false,
        }
    }

    pub(super) fn text(&mut self) -> Option<&mut String> {
        match self {
            Self::Lookup | Self::Heartbeat | Self::ListCommands | Self::GetSteps { .. } => None,
            Self::ExecuteStep { step, .. } | Self::StepEnded { step } => Some(step),
        }
    }
}

impl fmt::Display for AgentCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup => f.write_str("lookup"),
            Self::Heartbeat => f.write_str("heartbeat"),
            Self::ListCommands => f.write_str("list of commands"),
            Self::GetSteps { extension } => f.write_str(&extension.get_steps()),
            Self::ExecuteStep { extension, step } => {
                write!(f, "{} {step}", extension.execute_step())
            }
            Self::StepEnded { step } => f.write_str(step),
        }
    }
}

/// The outcome of an [`AgentCall`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum AgentOutcome {
    /// A lookup has found its node.
    Found {
        /// The first MAC addresses of the lookup; empty if it had the node's UUID.
        addresses: Vec<Mac>,
        /// Number of further MAC addresses of the lookup.
        more: usize,
    },
    /// A heartbeat was accepted.
    Alive {
        /// The address of the agent's command API.
        callback_url: String,
        /// The version of the agent, in its words.
        version: String,
        /// Whether the agent fetches the calls to it, so that nobody calls its command API.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        fetches_calls: bool,
    },
    /// The agent accepted the command.
    Accepted,
    /// A step was done.
    Done,
    /// The call was refused, could not be made, or the step failed.
    Failed {
        /// The error, in the agent's words or those of the refusal.
        error: String,
    },
    /// A success in the words of version 0.1.
    InWords {
        /// The words.
        words: String,
    },
}

impl AgentOutcome {
    /// The error of a call that failed.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Failed { error } => Some(error),
            Self::Found { .. }
            | Self::Alive { .. }
            | Self::Accepted
            | Self::Done
            | Self::InWords { .. } => None,
        }
    }

    pub(super) fn texts(&mut self) -> impl Iterator<Item = &mut String> {
        let (first, second) = match self {
            Self::Found { .. } | Self::Accepted | Self::Done => (None, None),
            Self::Alive { callback_url, version, .. } => (Some(callback_url), Some(version)),
            Self::Failed { error: text } | Self::InWords { words: text } => (Some(text), None),
        };
        first.into_iter().chain(second)
    }
}

impl fmt::Display for AgentOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found { addresses, .. } if addresses.is_empty() => {
                f.write_str("found by its UUID")
            }
            Self::Found { addresses, more } => {
                let addresses: Vec<_> = addresses.iter().map(Mac::to_string).collect();
                write!(f, "found by {}", addresses.join(", "))?;
                if *more > 0 { write!(f, " and {more} more") } else { Ok(()) }
            }
            Self::Alive { callback_url, version, fetches_calls } => {
                write!(f, "from {callback_url}, version {version}")?;
                if *fetches_calls { f.write_str(", fetches its commands") } else { Ok(()) }
            }
            Self::Accepted => f.write_str("taken on"),
            Self::Done => f.write_str("done"),
            Self::Failed { error } => write!(f, "failed: {error}"),
            Self::InWords { words } => f.write_str(words),
        }
    }
}
