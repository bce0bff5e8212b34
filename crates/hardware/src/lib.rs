//! What a machine is: its MAC addresses, its architecture, the kind of its clients.
//!
//! Each has one type here, for all crates that speak of machines. Everything here is a function of its arguments.

pub mod architecture;
pub mod client_kind;
pub mod mac;

pub use architecture::{ClientArchitecture, CpuArch, NoSuchCpuArch};
pub use client_kind::ClientKind;
pub use mac::{Mac, NotAMac};
