//! What a machine is told: its URL, who may fetch what, and the scripts that boot loaders run.
//!
//! Everything here is a function of its arguments. Settings, nodes and the time arrive as values.

pub mod boot_set;
pub mod fetch_plan;
pub mod interface_addresses;
pub mod network_settings;
pub mod scripts;
pub mod ticket;
pub mod urls;
