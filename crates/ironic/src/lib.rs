//! The Ironic REST wire: JSON, microversions, errors, the agent protocol.
//!
//! `faultstring` has Ironic's wording where clients or their users depend on it, so these texts begin with a capital
//! and end with a full stop.

pub mod agent;
pub mod agent_channel;
pub mod boots;
pub mod driver;
pub mod error;
pub mod field;
pub mod guards;
pub mod interface;
mod local_link;
pub mod management;
mod network_data;
pub mod node;
pub mod patch;
pub mod port;
pub mod python;
pub mod query;
pub mod states;
pub mod step_plan;
pub mod trace;
pub mod traits;
pub mod validate;
pub mod version;

pub use field::{ClientView, Fields};
// For crates that may use this crate and not `provision`.
pub use provision::text;
pub use version::Version;
