//! An agent's answer to a call.

/// An agent's answer to a call.
#[derive(Debug)]
pub(crate) struct AgentAnswer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// JSON.
    pub(crate) body: Vec<u8>,
}
