//! The daemon: API, DHCP, artifacts and workers.

pub mod nodes;
pub mod trace;
