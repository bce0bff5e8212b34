//! The daemon: API, DHCP, artifacts and workers.

pub mod agents;
pub mod artifacts;
pub mod bmcs;
pub mod change;
pub mod config;
pub mod error;
pub mod nodes;
pub mod trace;
pub mod urls;
