//! The purpose of a call to a BMC, by which the Redfish client, the trace of a boot and its diagnosis know the call.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The purpose of a call to a BMC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedfishPurpose {
    /// To list the systems behind the BMC.
    ListSystems,
    /// To see the state of the system: power, boot override, actions.
    LookAtSystem,
    /// To set the boot override.
    BootOverride,
    /// To clear the boot override.
    ClearOverride,
    /// To switch the machine on.
    PowerOn,
    /// To switch the machine off at once.
    PowerOff,
    /// To ask the operating system to shut down.
    Shutdown,
}

/// As a noun: `the BMC refused the power on`.
impl fmt::Display for RedfishPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ListSystems => "list of systems",
            Self::LookAtSystem => "look at the system",
            Self::BootOverride => "boot override",
            Self::ClearOverride => "clearing of the boot override",
            Self::PowerOn => "power on",
            Self::PowerOff => "power off",
            Self::Shutdown => "shutdown",
        })
    }
}
