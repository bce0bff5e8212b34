//! What a machine is: its MAC addresses, its architecture, the kind of its clients, the purposes of calls to its BMC.
//!
//! Each has one type here, for all crates that speak of machines. Everything here is a function of its arguments.

pub mod architecture;
pub mod client_kind;
pub mod mac;
pub mod redfish_purpose;

pub use architecture::{ClientArchitecture, CpuArch, NoSuchCpuArch};
pub use client_kind::ClientKind;
pub use mac::{Mac, NotAMac};
pub use redfish_purpose::RedfishPurpose;
