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
    /// Send the machine a non-maskable interrupt.
    Nmi,
    /// Read the settings that the next reset applies (`@Redfish.Settings`).
    ReadSettings,
    /// Read the BIOS attributes, or their registry.
    ReadBios,
    /// Read the boot options.
    ReadBootOptions,
    /// Read the network interfaces.
    ReadInterfaces,
    /// Read the reset types that are allowed (`ActionInfo`).
    ReadActionInfo,
    /// Read the virtual media.
    ReadVirtualMedia,
    /// Set the boot mode.
    SetBootMode,
    /// Read the state of Secure Boot.
    ReadSecureBoot,
    /// Switch Secure Boot on or off.
    SetSecureBoot,
    /// Set BIOS attributes.
    SetBios,
    /// Set the boot order.
    SetBootOrder,
    /// Restore the boot order.
    RestoreBootOrder,
    /// Insert an image into a virtual drive.
    InsertMedia,
    /// Eject an image from a virtual drive.
    EjectMedia,
    /// Read the jobs.
    ReadJobs,
    /// Read a log.
    ReadLog,
    /// Delete a job that waits for a reset.
    DeleteJob,
    /// Read a task until it is over.
    AwaitTask,
    /// Read the certificates that the firmware trusts (`Boot.Certificates`).
    ReadBootCertificates,
    /// Add a certificate to those that the firmware trusts.
    AddBootCertificate,
    /// Remove a certificate from those that the firmware trusts.
    RemoveBootCertificate,
    /// Read the databases of Secure Boot, and the certificates in `db` (`SecureBootDatabases`).
    ReadSecureBootDatabase,
    /// Add a certificate to `db`.
    AddSecureBootCertificate,
    /// Remove a certificate from `db`.
    RemoveSecureBootCertificate,
}

impl RedfishPurpose {
    /// Whether a boot goes on without what was asked for.
    #[must_use]
    pub fn is_optional(self) -> bool {
        matches!(
            self,
            Self::ReadBootCertificates
                | Self::AddBootCertificate
                | Self::RemoveBootCertificate
                | Self::ReadSecureBootDatabase
                | Self::AddSecureBootCertificate
                | Self::RemoveSecureBootCertificate
        )
    }
}

/// A noun: `the BMC refused the power on`.
impl fmt::Display for RedfishPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenSession => "login",
            Self::CloseSession => "logout",
            Self::ListSystems => "list of systems",
            Self::LookAtSystem => "look at the system",
            Self::BootOverride => "boot override",
            Self::ClearOverride => "clearing of the boot override",
            Self::PowerOn => "power on",
            Self::PowerOff => "power off",
            Self::Shutdown => "shutdown",
            Self::Nmi => "NMI",
            Self::ReadServiceRoot => "look at the service root",
            Self::ReadSettings => "look at the pending settings",
            Self::ReadBios => "look at the BIOS attributes",
            Self::ReadBootOptions => "look at the boot options",
            Self::ReadInterfaces => "look at the network interfaces",
            Self::ReadActionInfo => "look at the reset types",
            Self::ReadVirtualMedia => "look at the virtual media",
            Self::SetBootMode => "change of the boot mode",
            Self::ReadSecureBoot => "look at Secure Boot",
            Self::SetSecureBoot => "change of Secure Boot",
            Self::SetBios => "change of BIOS attributes",
            Self::SetBootOrder => "boot order",
            Self::RestoreBootOrder => "restoring of the boot order",
            Self::InsertMedia => "insertion of the image",
            Self::EjectMedia => "ejection of the image",
            Self::ReadJobs => "look at the jobs",
            Self::ReadLog => "look at the log",
            Self::DeleteJob => "deletion of a job",
            Self::AwaitTask => "look at the task",
            Self::ReadBootCertificates => "look at the firmware's certificates",
            Self::AddBootCertificate => "addition of a certificate to the firmware's",
            Self::RemoveBootCertificate => "removal of a certificate from the firmware's",
            Self::ReadSecureBootDatabase => "look at the databases of Secure Boot",
            Self::AddSecureBootCertificate => "addition of a certificate to db of Secure Boot",
            Self::RemoveSecureBootCertificate => "removal of a certificate from db of Secure Boot",
        })
    }
}
