//! The life of a node: states, steps, boot plans, traces.
//!
//! Everything here is a function of its arguments: no sockets, files, clock or randomness. `now`, fresh tickets and
//! settings arrive as values, and resulting work is returned as values.

pub mod addresses;
pub mod agent_extension;
pub mod artifact;
pub mod bmc_step;
pub mod boot;
pub mod boot_interface;
pub mod boot_stage;
pub mod config_drive;
pub mod diagnosis;
pub mod enrolment;
pub mod event;
mod fetched_part;
pub mod firmware_look;
pub mod image;
pub mod image_memory;
pub mod instance_boot;
pub mod limits;
pub mod machine_addresses;
pub mod node;
pub mod node_secrets;
pub mod policy;
pub mod position;
pub mod power_readings;
pub mod procedure;
mod procedure_step;
pub mod refused;
pub mod secrets;
pub mod state;
pub mod step;
pub mod step_failure;
pub mod steps;
pub mod stranger;
pub mod tear_down;
#[cfg(any(test, feature = "test-nodes"))]
pub mod test_nodes;
pub mod text;
pub mod trace;
pub mod verb_meaning;
pub mod virtual_media;

pub use agent_extension::AgentExtension;
pub use artifact::Artifact;
pub use bmc_step::BmcStep;
pub use boot::boot_for;
pub use boot_interface::BootInterface;
pub use boot_stage::{BootProgress, BootStage};
pub use diagnosis::diagnose;
pub use event::{Event, VerbRequest, Work};
pub use node::{Attempt, Node, Port};
pub use policy::Policy;
pub use procedure::{Boots, Procedure, Stage, StepSource, Verb};
pub use refused::{Refused, RequestedAction};
pub use state::{PowerState, ProvisionState};
pub use step::{Context, Outcome, step};
pub use step_failure::{CommandFailure, StepFailure};
pub use stranger::{BootingStranger, Vicinity};
pub use trace::{BootEvent, BootEventKind};
