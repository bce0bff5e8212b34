//! Properties of a machine: MAC addresses, architecture, kinds of DHCP clients, purposes of calls to its BMC, HTTP methods,
//! boot modes, Secure Boot and BIOS attributes.
//!
//! All crates share these types. Everything here is a function of its arguments.

pub mod architecture;
pub mod bios_change;
pub mod bmc_observation;
pub mod boot_mode;
pub mod boot_way;
pub mod client_kind;
pub mod http_method;
pub mod mac;
pub mod redfish_purpose;
pub mod secure_boot;

pub use architecture::{ClientArchitecture, CpuArch, NoSuchCpuArch};
pub use bios_change::BiosChange;
pub use bmc_observation::{BmcObservation, EnrolmentOutcome};
pub use boot_mode::{BootMode, ShownBootMode};
pub use boot_way::{BootChange, BootWayKind};
pub use client_kind::ClientKind;
pub use http_method::HttpMethod;
pub use mac::{Mac, NotAMac};
pub use redfish_purpose::RedfishPurpose;
pub use secure_boot::{HeldSigners, MicrosoftUefiCa, SecureBootDatabase, SecureBootTrust};
