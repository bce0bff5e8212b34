//! One step of a procedure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One step of a procedure, in the words of the APIs of Ironic and of the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcedureStep {
    /// The interface: `deploy` for all steps of the agent.
    pub interface: String,
    /// Its name.
    pub step: String,
    /// Arguments.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub args: Map<String, Value>,
    /// Automated cleaning runs those above zero, highest first.
    #[serde(default)]
    pub priority: i64,
    /// Whether the machine must reboot after the step.
    #[serde(default)]
    pub reboot_requested: bool,
    /// Whether `abort` is safe during the step.
    #[serde(default)]
    pub abortable: bool,
}

impl ProcedureStep {
    /// `deploy.erase_devices_metadata`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.interface, self.step)
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        self.interface == other.interface && self.step == other.step
    }
}
