//! The states of a node, by their names in Ironic's API (`ironic/common/states.py`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The provision state of a node: all of Ironic's stable and waiting states. [`position`](Self::position) gives the
/// procedure and its stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProvisionState {
    /// Enrolled; the credentials are untested.
    #[serde(rename = "enroll")]
    Enroll,
    /// The BMC is being contacted for the first time.
    #[serde(rename = "verifying")]
    Verifying,
    /// Managed, but not available to users.
    #[serde(rename = "manageable")]
    Manageable,
    /// Cleaned and ready for deployment.
    #[serde(rename = "available")]
    Available,
    /// A worker acts on a deployment: it boots the instance's image.
    #[serde(rename = "deploying")]
    Deploying,
    /// A deployment waits for the machine.
    #[serde(rename = "wait call-back")]
    DeployWait,
    /// A step holds a deployment.
    #[serde(rename = "deploy hold")]
    DeployHold,
    /// A deployment failed; see `last_error`.
    #[serde(rename = "deploy failed")]
    DeployFailed,
    /// An instance runs on it.
    #[serde(rename = "active")]
    Active,
    /// The instance is being removed.
    #[serde(rename = "deleting")]
    Deleting,
    /// The instance could not be removed; see `last_error`.
    #[serde(rename = "error")]
    Error,
    /// A worker acts on a clean: it boots the ramdisk, sends a step, or tears down.
    #[serde(rename = "cleaning")]
    Cleaning,
    /// A clean waits for the machine: its boot, or the end of a step.
    #[serde(rename = "clean wait")]
    CleanWait,
    /// A step holds a clean.
    #[serde(rename = "clean hold")]
    CleanHold,
    /// A clean failed; see `last_error`.
    #[serde(rename = "clean failed")]
    CleanFailed,
    /// A worker acts on an inspection.
    #[serde(rename = "inspecting")]
    Inspecting,
    /// An inspection waits for the machine.
    #[serde(rename = "inspect wait")]
    InspectWait,
    /// An inspection failed.
    #[serde(rename = "inspect failed")]
    InspectFailed,
    /// A running instance is being adopted.
    #[serde(rename = "adopting")]
    Adopting,
    /// The adoption failed.
    #[serde(rename = "adopt failed")]
    AdoptFailed,
    /// A worker acts on a rescue: it boots the rescue ramdisk.
    #[serde(rename = "rescuing")]
    Rescuing,
    /// A rescue waits for the machine.
    #[serde(rename = "rescue wait")]
    RescueWait,
    /// A rescue failed.
    #[serde(rename = "rescue failed")]
    RescueFailed,
    /// The rescue ramdisk runs on it.
    #[serde(rename = "rescue")]
    Rescue,
    /// The instance is being booted again.
    #[serde(rename = "unrescuing")]
    Unrescuing,
    /// The instance could not be booted again.
    #[serde(rename = "unrescue failed")]
    UnrescueFailed,
    /// A worker acts on a service of an instance's machine.
    #[serde(rename = "servicing")]
    Servicing,
    /// A service waits for the machine.
    #[serde(rename = "service wait")]
    ServiceWait,
    /// A step holds a service.
    #[serde(rename = "service hold")]
    ServiceHold,
    /// A service failed.
    #[serde(rename = "service failed")]
    ServiceFailed,
}

impl ProvisionState {
    /// Every state, in the order of a node's life.
    pub const ALL: [Self; 30] = [
        Self::Enroll,
        Self::Verifying,
        Self::Manageable,
        Self::Available,
        Self::Deploying,
        Self::DeployWait,
        Self::DeployHold,
        Self::DeployFailed,
        Self::Active,
        Self::Deleting,
        Self::Error,
        Self::Cleaning,
        Self::CleanWait,
        Self::CleanHold,
        Self::CleanFailed,
        Self::Inspecting,
        Self::InspectWait,
        Self::InspectFailed,
        Self::Adopting,
        Self::AdoptFailed,
        Self::Rescuing,
        Self::RescueWait,
        Self::RescueFailed,
        Self::Rescue,
        Self::Unrescuing,
        Self::UnrescueFailed,
        Self::Servicing,
        Self::ServiceWait,
        Self::ServiceHold,
        Self::ServiceFailed,
    ];

    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Enroll => "enroll",
            Self::Verifying => "verifying",
            Self::Manageable => "manageable",
            Self::Available => "available",
            Self::Deploying => "deploying",
            Self::DeployWait => "wait call-back",
            Self::DeployHold => "deploy hold",
            Self::DeployFailed => "deploy failed",
            Self::Active => "active",
            Self::Deleting => "deleting",
            Self::Error => "error",
            Self::Cleaning => "cleaning",
            Self::CleanWait => "clean wait",
            Self::CleanHold => "clean hold",
            Self::CleanFailed => "clean failed",
            Self::Inspecting => "inspecting",
            Self::InspectWait => "inspect wait",
            Self::InspectFailed => "inspect failed",
            Self::Adopting => "adopting",
            Self::AdoptFailed => "adopt failed",
            Self::Rescuing => "rescuing",
            Self::RescueWait => "rescue wait",
            Self::RescueFailed => "rescue failed",
            Self::Rescue => "rescue",
            Self::Unrescuing => "unrescuing",
            Self::UnrescueFailed => "unrescue failed",
            Self::Servicing => "servicing",
            Self::ServiceWait => "service wait",
            Self::ServiceHold => "service hold",
            Self::ServiceFailed => "service failed",
        }
    }
}

impl fmt::Display for ProvisionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is not a state.
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

/// A machine's power state, by its name in the API.
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
    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::On => "power on",
            Self::Off => "power off",
        }
    }
}

/// A power target in the API (`PUT /v1/nodes/{}/states/power`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PowerTarget {
    /// `power on`.
    #[serde(rename = "power on")]
    On,
    /// `power off`: immediately.
    #[serde(rename = "power off")]
    Off,
    /// `rebooting`: off, then on.
    #[serde(rename = "rebooting")]
    Reboot,
    /// `soft power off`: a shutdown by the operating system.
    #[serde(rename = "soft power off")]
    SoftOff,
    /// `soft rebooting`: a shutdown by the operating system, then on.
    #[serde(rename = "soft rebooting")]
    SoftReboot,
}

impl PowerTarget {
    /// The name in the API.
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

    /// The resulting power state.
    #[must_use]
    pub fn leads_to(self) -> PowerState {
        match self {
            Self::On | Self::Reboot | Self::SoftReboot => PowerState::On,
            Self::Off | Self::SoftOff => PowerState::Off,
        }
    }
}
