//! The states of a node, by the names Ironic's API gives them (`ironic/common/states.py`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where a node stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProvisionState {
    /// Known, its credentials not yet tried.
    #[serde(rename = "enroll")]
    Enroll,
    /// Its BMC is being asked for the first time.
    #[serde(rename = "verifying")]
    Verifying,
    /// Under management, not offered to users.
    #[serde(rename = "manageable")]
    Manageable,
    /// Clean and free to be deployed.
    #[serde(rename = "available")]
    Available,
    /// We act on a clean: booting the ramdisk, sending a step, tearing down.
    #[serde(rename = "cleaning")]
    Cleaning,
    /// A clean waits for the machine: its boot, or the end of a step.
    #[serde(rename = "clean wait")]
    CleanWait,
    /// A clean went wrong; `last_error` says how.
    #[serde(rename = "clean failed")]
    CleanFailed,
}

impl ProvisionState {
    /// Every state, in the order of a node's life.
    pub const ALL: [Self; 7] = [
        Self::Enroll,
        Self::Verifying,
        Self::Manageable,
        Self::Available,
        Self::Cleaning,
        Self::CleanWait,
        Self::CleanFailed,
    ];

    /// The API's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Enroll => "enroll",
            Self::Verifying => "verifying",
            Self::Manageable => "manageable",
            Self::Available => "available",
            Self::Cleaning => "cleaning",
            Self::CleanWait => "clean wait",
            Self::CleanFailed => "clean failed",
        }
    }
}

impl fmt::Display for ProvisionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no state.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a provision state")]
pub struct NoSuchState(pub String);

impl FromStr for ProvisionState {
    type Err = NoSuchState;

    fn from_str(text: &str) -> Result<Self, NoSuchState> {
        Self::ALL
            .into_iter()
            .find(|state| state.name() == text)
            .ok_or_else(|| NoSuchState(text.to_owned()))
    }
}

/// Whether a machine has power, in the API's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PowerState {
    /// `power on`.
    #[serde(rename = "power on")]
    On,
    /// `power off`.
    #[serde(rename = "power off")]
    Off,
}

impl PowerState {
    /// The API's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::On => "power on",
            Self::Off => "power off",
        }
    }
}

/// What an operator may ask of a machine's power (`PUT /v1/nodes/{}/states/power`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PowerTarget {
    /// `power on`.
    #[serde(rename = "power on")]
    On,
    /// `power off`: at once.
    #[serde(rename = "power off")]
    Off,
    /// `rebooting`: off, then on.
    #[serde(rename = "rebooting")]
    Reboot,
    /// `soft power off`: the system is asked to end itself.
    #[serde(rename = "soft power off")]
    SoftOff,
    /// `soft rebooting`: asked to end itself, then on.
    #[serde(rename = "soft rebooting")]
    SoftReboot,
}

impl PowerTarget {
    /// The API's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::On => "power on",
            Self::Off => "power off",
            Self::Reboot => "rebooting",
            Self::SoftOff => "soft power off",
            Self::SoftReboot => "soft rebooting",
        }
    }

    /// The power state it leads to.
    #[must_use]
    pub fn leads_to(self) -> PowerState {
        match self {
            Self::On | Self::Reboot | Self::SoftReboot => PowerState::On,
            Self::Off | Self::SoftOff => PowerState::Off,
        }
    }
}
