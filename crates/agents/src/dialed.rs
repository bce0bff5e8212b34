//! Calls to an agent at the URL in its heartbeats.
//!
//! An agent's heartbeat contains its API's URL and certificate. Only this certificate, byte for byte, is trusted. So
//! the server of the API has the private key of the agent that knew the token.

use std::time::Duration;

use ironic::agent_channel::CommandApiCall;
use provision::node::Agent;
use provision::{Attempt, StepFailure};
use reqwest::Client;
use reqwest::redirect::Policy;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use transport::answers::{ANSWER_LIMIT, AnswerError, read_body, read_error, reason};
use transport::tls::TrustedCertificate;

use crate::agent_answer::AgentAnswer;

/// Connection timeout: an agent in the machine's network answers sooner.
const CONNECT: Duration = Duration::from_secs(10);
/// Ironic's `[agent]command_timeout`, for the whole exchange, from the connection to the last byte.
const ANSWER: Duration = Duration::from_secs(60);

/// An agent that is dialed.
#[derive(Debug)]
pub(crate) struct DialedAgent<'a> {
    http: Client,
    commands: String,
    token: &'a str,
}

impl<'a> DialedAgent<'a> {
    /// The agent of an attempt.
    ///
    /// # Errors
    /// [`StepFailure::BadCertificate`]
    pub(crate) fn new(attempt: &'a Attempt, agent: &Agent) -> Result<Self, StepFailure> {
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

    /// Makes a call.
    ///
    /// # Errors
    /// The reason why there is no answer.
    pub(crate) async fn exchange(&self, call: &CommandApiCall) -> Result<AgentAnswer, String> {
        let request = match call {
            CommandApiCall::List => self.http.get(&self.commands),
            CommandApiCall::Run { command, wait } => {
                self.http.post(&self.commands).query(&[("wait", wait)]).json(command)
            }
        };
        let request = request.query(&[("agent_token", self.token)]);
        let answer = request.send().await.map_err(|error| broken(&error))?;
        let status = answer.status();
        let body = if status.is_success() {
            read_body(answer, ANSWER_LIMIT).await.map_err(|error| match error {
                AnswerError::BrokeOff(error) => broken(&error),
                too_long @ AnswerError::TooLong { .. } => too_long.to_string(),
            })?
        } else {
            read_error(answer).await.into_bytes()
        };
        Ok(AgentAnswer { status: status.as_u16(), body })
    }
}

fn broken(error: &reqwest::Error) -> String {
    if error.is_timeout() { "it took too long".to_owned() } else { reason(error) }
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
