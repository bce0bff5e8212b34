//! The extensions of the agent that have steps.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An extension of the agent, with steps of its own: a procedure that runs steps names one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentExtension {
    /// `clean`. Traces of versions before it could be another one do not name it.
    #[default]
    Clean,
    /// `deploy`.
    Deploy,
    /// `service`.
    Service,
}

impl AgentExtension {
    /// The agent's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Deploy => "deploy",
            Self::Service => "service",
        }
    }

    /// The command that asks for its steps: `clean.get_clean_steps`.
    #[must_use]
    pub fn get_steps(self) -> String {
        format!("{self}.get_{self}_steps")
    }

    /// The command that runs a step: `clean.execute_clean_step`.
    #[must_use]
    pub fn execute_step(self) -> String {
        format!("{self}.execute_{self}_step")
    }

    /// Whether this is the default extension, which is not stored.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for AgentExtension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
