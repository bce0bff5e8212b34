//! Redfish: conversations with BMCs, whatever their platform; and a BMC emulator.
//!
//! [`machine::RedfishSystem`] is a system of a BMC. [`ways`] has the ways in which platforms boot from a URL. All of it
//! is a conversation over [`channel::BmcChannel`]. [`emulator`] is the BMC, as a function from request to response.
//! Neither opens a socket; the tests connect one to the other.

pub mod boot_certificates;
pub mod channel;
pub mod emulator;
pub mod facts;
pub mod failure;
pub mod firmware_care;
pub mod firmware_certificates;
mod lenient_json;
pub mod machine;
pub mod messages;
pub mod observe;
pub mod platform;
pub mod quirks;
pub mod resource;
pub mod secure_boot_databases;
pub mod service;
pub mod system;
pub mod ways;

#[cfg(test)]
mod in_memory;
