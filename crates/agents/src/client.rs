//! The client of an agent's command API.

use ironic::agent::{Command, CommandList, CommandRequest, Fault};
use ironic::agent_channel::CommandApiCall;
use provision::node::Agent;
use provision::text::shown_url_text;
use provision::{Attempt, Node, StepFailure};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use thiserror::Error;
use transport::answers::{ERROR_LIMIT, read_json};

use crate::agent_answer::AgentAnswer;
use crate::dialed::DialedAgent;
use crate::mailbox::{AgentMailbox, FetchingAgent};

/// Number of characters of an agent's refusal that are kept.
const WORDS_LIMIT: usize = 200;

/// The client of one agent.
#[derive(Debug)]
pub struct AgentClient<'a> {
    url: String,
    carrier: CallCarrier<'a>,
}

/// The way of a call to an agent and of its answer.
#[derive(Debug)]
enum CallCarrier<'a> {
    Dialed(DialedAgent<'a>),
    Fetching(FetchingAgent<'a>),
}

/// The reason why a call to an agent failed.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The agent was unreachable, or its answer malformed; a retry may succeed.
    #[error("the agent at {at} could not be called: {why}")]
    Unreachable {
        /// The agent's URL.
        at: String,
        /// The innermost cause.
        why: String,
    },
    /// The agent runs another command.
    #[error("the agent is busy: {0}")]
    Busy(String),
    /// The agent refused.
    #[error("{0}")]
    Refused(StepFailure),
}

impl<'a> AgentClient<'a> {
    /// The client of the agent of a node's attempt. The mailbox holds the calls to agents that fetch them.
    ///
    /// # Errors
    /// [`StepFailure::BadCertificate`]
    pub fn new(
        node: &Node,
        attempt: &'a Attempt,
        agent: &Agent,
        mailbox: &'a AgentMailbox,
    ) -> Result<Self, StepFailure> {
        let carrier = match agent.channel_key {
            Some(_) => CallCarrier::Fetching(mailbox.agent(node.uuid, attempt.id)),
            None => CallCarrier::Dialed(DialedAgent::new(attempt, agent)?),
        };
        Ok(Self { url: shown_url_text(agent.callback_url.as_str()), carrier })
    }

    /// All commands since the agent's start, oldest first.
    ///
    /// # Errors
    /// [`AgentError`]
    pub async fn commands(&self) -> Result<Vec<Command>, AgentError> {
        Ok(self.ask::<CommandList>(CommandApiCall::List).await?.commands)
    }

    /// Sends a command, and waits for its end if `wait`.
    ///
    /// # Errors
    /// [`AgentError`]
    pub async fn run(
        &self,
        name: &str,
        params: Map<String, Value>,
        wait: bool,
    ) -> Result<Command, AgentError> {
        let command = CommandRequest { name: name.to_owned(), params };
        self.ask(CommandApiCall::Run { command, wait }).await
    }

    async fn ask<T: DeserializeOwned>(&self, call: CommandApiCall) -> Result<T, AgentError> {
        let answer = match &self.carrier {
            CallCarrier::Dialed(agent) => agent.exchange(&call).await,
            CallCarrier::Fetching(agent) => agent.exchange(call).await,
        };
        let AgentAnswer { status, body } = answer.map_err(|why| self.unreachable(why))?;
        if (200..300).contains(&status) {
            return read_json(body)
                .await
                .map_err(|error| self.unreachable(format!("it answered something else: {error}")));
        }
        let words = words_of(&body);
        match status {
            409 => Err(AgentError::Busy(words)),
            _ => Err(AgentError::Refused(StepFailure::CallRefused { status, words })),
        }
    }

    fn unreachable(&self, why: String) -> AgentError {
        AgentError::Unreachable { at: self.url.clone(), why }
    }
}

/// The beginning of an agent's refusal.
fn words_of(body: &[u8]) -> String {
    let body = &body[..body.len().min(ERROR_LIMIT)];
    let words = match serde_json::from_slice::<Fault>(body) {
        Ok(fault) => fault.faultstring,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    words.chars().take(WORDS_LIMIT).collect()
}
