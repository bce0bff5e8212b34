//! What a BMC shows of a boot, beside its answers to the boot's own requests.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bios_change::BiosChange;
use crate::secure_boot::SecureBootTrust;

/// Something that a BMC shows of a boot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "shows")]
pub enum BmcObservation {
    /// BIOS attributes, otherwise than a step wants them: it stages the changes for a reset.
    BiosStaged {
        /// The path of the BIOS settings resource.
        settings: String,
        /// The changes.
        changes: Vec<BiosChange>,
    },
    /// BIOS attributes as a step wants them.
    BiosAsWanted,
    /// The boot, otherwise than it was set, without harm.
    ReadBack {
        /// The difference, in a sentence.
        warning: String,
    },
    /// `BootProgress` (Redfish, ComputerSystem).
    BootProgress {
        /// `LastState`.
        state: String,
        /// `OemLastState`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        oem_state: Option<String>,
        /// `LastBootTimeSeconds`, of the last boot that came to the operating system.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_boot_secs: Option<u64>,
    },
    /// `Oem.Hpe.PostState` (HPE, ComputerSystem).
    PostState {
        /// Its value.
        state: String,
    },
    /// An entry of a log, from this boot (Redfish, LogEntry).
    LogEntry {
        /// The path of the entry.
        entry: String,
        /// `Severity`: `OK`, `Warning` or `Critical`.
        severity: String,
        /// `Message`.
        message: String,
    },
    /// A job that changes BIOS attributes during the self-test (Dell).
    Job {
        /// The path of the job.
        job: String,
        /// `JobState`, or `TaskState`.
        state: String,
        /// Its message.
        message: String,
    },
    /// This service's CA among the certificates that the firmware trusts (Redfish, ComputerSystem, `Boot.Certificates`).
    BootCertificate {
        /// What became of it.
        outcome: EnrolmentOutcome,
        /// Why it is not as it should be.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The certificate that signs this service's images, in `db` of Secure Boot (Redfish, SecureBootDatabase).
    SecureBootCertificate {
        /// What became of it.
        outcome: EnrolmentOutcome,
        /// Why it is not as it should be.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Secure Boot is on: the firmware refuses what `db` does not allow or `dbx` forbids (Redfish, SecureBoot).
    SecureBootOn {
        /// What the databases hold; `None` if `db` could not be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trust: Option<SecureBootTrust>,
        /// Why it could not be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

/// What became of a certificate of this service in the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnrolmentOutcome {
    /// The firmware had it.
    Found,
    /// It was added.
    Enrolled,
    /// It could not be added.
    NotEnrolled,
    /// It was removed.
    Removed,
    /// It could not be removed.
    NotRemoved,
}

impl EnrolmentOutcome {
    /// What became of `certificate` in `place`, in words.
    fn of(self, certificate: &str, place: &str) -> String {
        match self {
            Self::Found => format!("{place} has {certificate}"),
            Self::Enrolled => format!("{certificate} was enrolled in {place}"),
            Self::NotEnrolled => format!("{certificate} was not enrolled in {place}"),
            Self::Removed => format!("{certificate} was removed from {place}"),
            Self::NotRemoved => format!("{certificate} was not removed from {place}"),
        }
    }
}

impl BmcObservation {
    /// The texts of the BMC.
    pub fn texts(&mut self) -> impl Iterator<Item = &mut String> {
        let mut changed: &mut [BiosChange] = &mut [];
        let texts = match self {
            Self::BiosStaged { settings, changes } => {
                changed = changes;
                [Some(settings), None, None]
            }
            Self::BiosAsWanted => [None, None, None],
            Self::ReadBack { warning } => [Some(warning), None, None],
            Self::BootProgress { state, oem_state, .. } => [Some(state), oem_state.as_mut(), None],
            Self::PostState { state } => [Some(state), None, None],
            Self::LogEntry { entry, severity, message } => {
                [Some(entry), Some(severity), Some(message)]
            }
            Self::Job { job, state, message } => [Some(job), Some(state), Some(message)],
            Self::BootCertificate { reason, .. }
            | Self::SecureBootCertificate { reason, .. }
            | Self::SecureBootOn { reason, .. } => [reason.as_mut(), None, None],
        };
        let changed =
            changed.iter_mut().flat_map(|it| [&mut it.attribute, &mut it.from, &mut it.to]);
        texts.into_iter().flatten().chain(changed)
    }

    /// Whether the machine runs a system, as BootProgress and PostState say: `None` if they do not. Firmware that stops at
    /// `SystemHardwareInitializationComplete` may show that for ever.
    #[must_use]
    pub fn runs_system(&self) -> Option<bool> {
        let state = match self {
            Self::BootProgress { state, oem_state, .. } => match state.as_str() {
                "OEM" => oem_state.as_deref()?,
                state => state,
            },
            Self::PostState { state } => state,
            Self::BiosStaged { .. }
            | Self::BiosAsWanted
            | Self::ReadBack { .. }
            | Self::LogEntry { .. }
            | Self::Job { .. }
            | Self::BootCertificate { .. }
            | Self::SecureBootCertificate { .. }
            | Self::SecureBootOn { .. } => return None,
        };
        match state {
            "OSBootStarted" | "OSRunning" | "OsIsRunning" | "FinishedPost" => Some(true),
            "PrimaryProcessorInitializationStarted"
            | "BusInitializationStarted"
            | "MemoryInitializationStarted"
            | "SecondaryProcessorInitializationStarted"
            | "PCIResourceConfigStarted"
            | "SetupEntered"
            | "PowerOff"
            | "InPost"
            | "InPostDiscoveryComplete" => Some(false),
            _ => None,
        }
    }

    /// Whether a job has failed (Dell: `Failed`, `CompletedWithErrors`).
    #[must_use]
    pub fn is_failed_job(&self) -> bool {
        matches!(self, Self::Job { state, .. } if matches!(
            state.as_str(),
            "Failed" | "CompletedWithErrors" | "RebootFailed" | "Exception" | "Killed" | "Cancelled"
        ))
    }

    /// Whether a job is over, well or not.
    #[must_use]
    pub fn is_ended_job(&self) -> bool {
        self.is_failed_job() || matches!(self, Self::Job { state, .. } if state == "Completed")
    }
}

impl fmt::Display for BmcObservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BiosStaged { settings, changes } => {
                write!(f, "BIOS attributes are changed at {settings}, for the next reset:")?;
                let mut between = "";
                changes.iter().try_for_each(|change| {
                    write!(f, "{between} {change}")?;
                    between = ",";
                    Ok(())
                })
            }
            Self::BiosAsWanted => f.write_str("the BIOS attributes are as wanted"),
            Self::ReadBack { warning } => f.write_str(warning),
            Self::BootProgress { state, oem_state, last_boot_secs } => {
                write!(f, "the BMC shows BootProgress {state}")?;
                oem_state.iter().try_for_each(|oem| write!(f, " ({oem})"))?;
                last_boot_secs
                    .iter()
                    .try_for_each(|secs| write!(f, ", the last boot took {secs} s"))
            }
            Self::PostState { state } => write!(f, "the BMC shows PostState {state}"),
            Self::LogEntry { entry, severity, message } => {
                write!(f, "the BMC's log: {severity}: {message} ({entry})")
            }
            Self::Job { job, state, message } => {
                write!(f, "the BMC's job {job} is {state}")?;
                if message.is_empty() { Ok(()) } else { write!(f, ": {message}") }
            }
            Self::BootCertificate { outcome, reason } => {
                f.write_str(&outcome.of("this service's CA", "the firmware"))?;
                reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
            }
            Self::SecureBootCertificate { outcome, reason } => {
                f.write_str(&outcome.of("the certificate that signs images", "db of Secure Boot"))?;
                reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
            }
            Self::SecureBootOn { trust, reason } => {
                f.write_str("the BMC shows Secure Boot on")?;
                trust.iter().try_for_each(|trust| write!(f, "; {trust}"))?;
                reason
                    .iter()
                    .try_for_each(|reason| write!(f, "; what db holds is unknown: {reason}"))
            }
        }
    }
}
