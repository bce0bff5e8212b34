//! The purpose of a call to a BMC, for the Redfish client, the trace of a boot and its diagnosis.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The purpose of a call to a BMC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedfishPurpose {
    /// Read the service root.
    ReadServiceRoot,
    /// Open a session.
    OpenSession,
    /// Close the session.
    CloseSession,
    /// List the systems behind the BMC.
    ListSystems,
    /// Read the system: power, boot override, actions.
    LookAtSystem,
    /// Set the boot override.
    BootOverride,
    /// Clear the boot override.
    ClearOverride,
    /// Switch the machine on.
    PowerOn,
    /// Switch the machine off at once.
    PowerOff,
    /// Request a shutdown of the operating system.
    Shutdown,
}

/// A noun: `the BMC refused the power on`.
impl fmt::Display for RedfishPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadServiceRoot => "look at the service root",
            Self::OpenSession => "login",
            Self::CloseSession => "logout",
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
