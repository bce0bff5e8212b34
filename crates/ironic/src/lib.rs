//! The Ironic REST wire: JSON, microversions, errors, the agent protocol.

pub mod agent;
