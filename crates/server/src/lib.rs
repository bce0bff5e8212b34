//! The daemon: API, DHCP, artifacts and workers.

pub mod change;
pub mod error;
pub mod nodes;
pub mod trace;
