//! The reasons why the steps of a procedure cannot go on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::agent_extension::AgentExtension;

/// The reason why the steps of a procedure cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "failure", rename_all = "snake_case")]
pub enum StepFailure {
    /// The agent did not report its steps.
    NotReported {
        /// The extension that was asked.
        extension: AgentExtension,
        /// The result of the command.
        command: CommandFailure,
    },
    /// The agent's list of steps is malformed.
    BadList {
        /// The extension that was asked.
        extension: AgentExtension,
        /// The parser's error.
        error: String,
    },
    /// The step failed.
    Ended {
        /// The extension of the step.
        extension: AgentExtension,
        /// The step with its interface: `deploy.erase_devices`.
        step: String,
        /// The result of the command.
        command: CommandFailure,
    },
    /// The agent does not know the command of the current step: it was started after that command was sent.
    Forgotten,
    /// The agent's version is not the one that reported the steps.
    OtherVersion {
        /// The step with its interface: `deploy.erase_devices`.
        step: String,
    },
    /// The certificate in the agent's heartbeat cannot be used.
    BadCertificate {
        /// The error of the TLS implementation.
        error: String,
    },
    /// The agent refused a call.
    CallRefused {
        /// The HTTP status of its answer.
        status: u16,
        /// The agent's words.
        words: String,
    },
}

/// The result of an agent's command that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum CommandFailure {
    /// The command has an error.
    Error {
        /// The agent's words.
        words: String,
    },
    /// The command failed without an error.
    NoReason,
    /// The command still runs.
    StillRuns,
    /// The agent's version is not the one that the command expects.
    OtherVersion,
}

impl StepFailure {
    /// All texts of other parties.
    pub(crate) fn texts(&mut self) -> impl Iterator<Item = &mut String> {
        let (first, second) = match self {
            Self::NotReported { command, .. } => (command.text(), None),
            Self::Ended { step, command, .. } => (Some(step), command.text()),
            Self::BadList { error: text, .. }
            | Self::OtherVersion { step: text }
            | Self::BadCertificate { error: text }
            | Self::CallRefused { words: text, .. } => (Some(text), None),
            Self::Forgotten => (None, None),
        };
        first.into_iter().chain(second)
    }
}

impl CommandFailure {
    fn text(&mut self) -> Option<&mut String> {
        match self {
            Self::Error { words } => Some(words),
            Self::NoReason | Self::StillRuns | Self::OtherVersion => None,
        }
    }
}

impl fmt::Display for StepFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReported { extension, command } => {
                write!(f, "the agent could not say which {extension} steps it has: {command}")
            }
            Self::BadList { extension, error } => {
                write!(f, "the agent's list of {extension} steps is not one: {error}")
            }
            Self::Ended { extension, step, command } => {
                write!(f, "the {extension} step {step} failed: {command}")
            }
            Self::Forgotten => f.write_str(
                "the agent does not know the step that it was running: its machine was restarted",
            ),
            Self::OtherVersion { step } => {
                write!(f, "the agent is not the one that reported its steps; it refused {step}")
            }
            Self::BadCertificate { error } => {
                write!(f, "the agent's certificate cannot be used: {error}")
            }
            Self::CallRefused { status, words } => {
                write!(f, "the agent answered {status}: {words}")
            }
        }
    }
}

impl fmt::Display for CommandFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error { words } => words,
            Self::NoReason => "it gave no reason",
            Self::StillRuns => "its command still runs",
            Self::OtherVersion => "its version is not the one that reported the steps",
        })
    }
}
