//! The channel by which an agent fetches the calls to its command API: an extension of ironic-python-agent's protocol,
//! for machines that nobody can call, as behind NAT.
//!
//! An agent that wants it sends [`HEADER`] with its lookup. If the answer's `config` has `ferroboot_channel`, its
//! heartbeats carry a random `ferroboot_channel_key`, and it sends `POST /v1/heartbeat/{node}/calls` with this key in
//! [`KEY_HEADER`], again and again. Without a body the request waits for a call; with the [`AgentCallAnswer`] of the
//! last call it does not wait. The answer is a [`FetchedAgentCall`], or 204 if there is none. Ironic ignores the header
//! of the lookup, and ironic-python-agent does not send it; so neither of them sees the rest.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::agent::CommandRequest;

/// The version of this protocol.
pub const VERSION: u32 = 1;

/// The header of a lookup, with the version as its value.
pub const HEADER: &str = "x-ferroboot-channel";

/// The header with the channel's key.
pub const KEY_HEADER: &str = "x-ferroboot-channel-key";

/// The longest wait of a request for a call, in seconds. NAT forgets an idle connection after some minutes, and
/// ironic-python-agent's clients wait 30 s for any answer.
pub const WAIT_SECS: u64 = 25;

/// Longest body of an agent's answer, in bytes. A list of a hundred commands with results has 200 KiB.
pub const LONGEST_ANSWER: usize = 1 << 20;

/// A call to an agent, with its ID.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FetchedAgentCall {
    /// Random: the agent carries out each call once, however often it fetches it.
    pub id: Uuid,
    /// The call.
    #[serde(flatten)]
    pub call: CommandApiCall,
}

/// A call to an agent's command API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum CommandApiCall {
    /// `GET /v1/commands/`
    List,
    /// `POST /v1/commands/?wait=`
    Run {
        /// The body.
        command: CommandRequest,
        /// Whether the answer waits for the end of the command.
        wait: bool,
    },
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentCallAnswer {
    /// The call's ID.
    pub id: Uuid,
    /// The status that the command API would answer with.
    pub status: u16,
    /// The body that the command API would answer with: a list of commands, a command, or a fault.
    pub body: Value,
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    #[test]
    fn calls_have_this_form() {
        let id = Uuid::nil();
        let command =
            CommandRequest { name: "clean.get_clean_steps".to_owned(), params: Map::new() };
        for (call, form) in [
            (CommandApiCall::List, json!({ "id": id, "call": "list" })),
            (
                CommandApiCall::Run { command, wait: true },
                json!({
                    "id": id, "call": "run", "wait": true,
                    "command": { "name": "clean.get_clean_steps", "params": {} },
                }),
            ),
        ] {
            let call = FetchedAgentCall { id, call };

            assert_eq!(json!(call), form);
            assert_eq!(serde_json::from_value::<FetchedAgentCall>(form).unwrap(), call);
        }
    }
}
