//! Redfish: boot overrides, quirks, and a BMC emulator.
//!
//! [`boot`] is the client, over nv-redfish's `Bmc` trait; [`emulator`] is the BMC, as a function from request to
//! response. Neither opens a socket; the tests connect one to the other.

pub mod boot;
pub mod channel;
pub mod emulator;
pub mod quirks;
pub mod system;

#[cfg(test)]
mod in_memory;
