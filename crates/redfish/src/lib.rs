//! Redfish: boot overrides, quirks, and the emulator of a BMC.
//!
//! [`boot`] is the client's side, over nv-redfish's `Bmc` trait; [`emulator`] is the BMC's side, as a
//! function from request to response. Neither opens a socket; the tests put one behind the other.

pub mod boot;
pub mod emulator;
pub mod quirks;
pub mod system;

#[cfg(test)]
mod in_memory;
