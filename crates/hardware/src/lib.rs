//! What a machine is: its MAC addresses, its architecture, its boot client.
//!
//! Each has one type here, for all crates that speak of machines. Everything here is a function of its arguments.

pub mod architecture;
pub mod mac;

pub use architecture::{CpuArch, NoSuchCpuArch};
pub use mac::{Mac, NotAMac};
