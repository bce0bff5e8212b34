//! Calls of the daemon to the agents of machines.
//!
//! An agent serves ironic-python-agent's command API at the URL in its heartbeats, and the daemon dials it. An agent
//! that took the [channel](ironic::agent_channel) fetches the same calls over its own connections; then the daemon
//! needs no way to the machine. [`AgentClient`] makes a call either way.

mod agent_answer;
mod client;
mod dialed;
mod mailbox;

pub use self::client::{AgentClient, AgentError};
pub use self::mailbox::{AgentMailbox, NextAgentCall};
