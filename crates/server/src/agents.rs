//! The client of the agents' command APIs.
//!
//! An agent's heartbeat contains its API's URL and certificate. Only this certificate, byte for byte, is trusted. So
//! the server of the API has the private key of the agent that knew the token.

use std::time::Duration;

use ironic::agent::{Command, CommandList, CommandRequest, Fault};
use provision::node::Agent;
use provision::text::shown_url_text;
use provision::{Attempt, StepFailure};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, StatusCode};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use thiserror::Error;
use transport::answers::{ANSWER_LIMIT, AnswerError, read_body, read_error, read_json, reason};
use transport::tls::TrustedCertificate;

/// Connection timeout: an agent in the machine's network answers sooner.
const CONNECT: Duration = Duration::from_secs(10);
/// Ironic's `[agent]command_timeout`, for the whole exchange, from the connection to the last byte.
const ANSWER: Duration = Duration::from_secs(60);
/// Number of characters of an agent's refusal that are kept.
const WORDS_LIMIT: usize = 200;

/// The client of one agent.
#[derive(Debug)]
pub struct AgentClient<'a> {
    http: Client,
    commands: String,
    token: &'a str,
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
    /// The client of an attempt's agent.
    ///
    /// # Errors
    /// [`StepFailure::BadCertificate`]
    pub fn new(attempt: &'a Attempt, agent: &Agent) -> Result<Self, StepFailure> {
        let client = Client::builder()
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .redirect(Policy::none())
            .no_proxy();
        let client = match &agent.verify_ca {
            Some(pem) => client.use_preconfigured_tls(pinned(pem)?),
            None => client,
        };
        let http = client.build().map_err(|error| bad_certificate(&error))?;
        let commands =
            format!("{}/v1/commands/", agent.callback_url.as_str().trim_end_matches('/'));
        Ok(Self { http, commands, token: &attempt.agent_token.0 })
    }

    /// All commands since the agent's start, oldest first.
    ///
    /// # Errors
    /// [`AgentError`]
    pub async fn commands(&self) -> Result<Vec<Command>, AgentError> {
        let request = self.http.get(&self.commands).query(&[("agent_token", self.token)]);
        Ok(self.ask::<CommandList>(request).await?.commands)
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
        let wait = if wait { "true" } else { "false" };
        let request = self
            .http
            .post(&self.commands)
            .query(&[("wait", wait), ("agent_token", self.token)])
            .json(&CommandRequest { name: name.to_owned(), params });
        self.ask(request).await
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, AgentError> {
        let answer = request.send().await.map_err(|error| self.broken(&error))?;
        let status = answer.status();
        if status.is_success() {
            let body = read_body(answer, ANSWER_LIMIT).await.map_err(|error| match error {
                AnswerError::BrokeOff(error) => self.broken(&error),
                too_long @ AnswerError::TooLong { .. } => self.unreachable(too_long.to_string()),
            })?;
            return read_json(body)
                .await
                .map_err(|error| self.unreachable(format!("it answered something else: {error}")));
        }
        let body = read_error(answer).await;
        let fault = serde_json::from_str::<Fault>(&body);
        let words = fault.map_or(body, |fault| fault.faultstring);
        let words = words.chars().take(WORDS_LIMIT).collect();
        match status {
            StatusCode::CONFLICT => Err(AgentError::Busy(words)),
            _ => {
                let status = status.as_u16();
                Err(AgentError::Refused(StepFailure::CallRefused { status, words }))
            }
        }
    }

    fn broken(&self, error: &reqwest::Error) -> AgentError {
        self.unreachable(if error.is_timeout() {
            "it took too long".to_owned()
        } else {
            reason(error)
        })
    }

    fn unreachable(&self, why: String) -> AgentError {
        AgentError::Unreachable { at: shown_url_text(&self.commands), why }
    }
}

/// The TLS configuration that trusts only this certificate: ironic-python-agent marks its own as an authority's, and
/// the clock of a machine that just started may be wrong.
fn pinned(pem: &str) -> Result<ClientConfig, StepFailure> {
    let certificate =
        CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| bad_certificate(&error))?;
    TrustedCertificate::Pinned(certificate).client().map_err(|error| bad_certificate(&error))
}

fn bad_certificate(error: &dyn std::error::Error) -> StepFailure {
    StepFailure::BadCertificate { error: error.to_string() }
}
