//! The daemon: API, DHCP and workers.

pub mod api;
pub mod bmcs;
mod boot_overview;
pub mod ca;
mod certificate_term;
pub mod check;
pub mod config;
mod daemons;
pub mod dhcp;
pub mod error;
pub mod means;
pub mod metrics;
mod serve;
mod signals;
mod state_dir;
pub mod workers;

#[cfg(test)]
#[path = "../../store/tests/small_disk/mod.rs"]
mod small_disk;
#[cfg(test)]
#[path = "../tests/boot_set/mod.rs"]
mod test_boot_set;

pub use serve::serve;
