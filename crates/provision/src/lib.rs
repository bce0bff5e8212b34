//! What happens to a node next: states, steps, boot plans, traces.
//!
//! Everything here is a function of its arguments. No sockets, files, clock or randomness: `now`,
//! fresh tickets and settings arrive as values, and what is to be done leaves as values.

pub mod addresses;
pub mod boot;
pub mod clean;
pub mod diagnosis;
pub mod event;
pub mod limits;
pub mod node;
pub mod state;
pub mod step;
pub mod stranger;
pub mod text;
pub mod trace;

pub use boot::{BootInterface, boot_for};
pub use diagnosis::diagnose;
pub use event::{Event, Work};
pub use node::{Attempt, Node, Port};
pub use state::{PowerState, ProvisionState};
pub use step::{Context, Outcome, Policy, Refused, step};
pub use stranger::{BootingStranger, Vicinity};
pub use trace::{BootEvent, What};
