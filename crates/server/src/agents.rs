//! The way to the agents' command APIs.
//!
//! An agent says in its heartbeat where its API is and which certificate it shows there; that
//! certificate, byte for byte, is the only one that is taken. So whoever answers has the private
//! key of the agent that knew the token.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use ironic::agent::{Command, CommandList, CommandRequest, Fault};
use provision::Attempt;
use provision::node::Agent;
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, StatusCode};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use thiserror::Error;

/// An agent in the machine's network answers sooner.
const CONNECT: Duration = Duration::from_secs(10);
/// Ironic's `[agent]command_timeout`.
const ANSWER: Duration = Duration::from_secs(60);

/// The client of one agent.
#[derive(Debug)]
pub struct AgentClient<'a> {
    http: Client,
    commands: String,
    token: &'a str,
}

/// Why a call to an agent came to nothing.
#[derive(Debug, Error)]
pub enum AgentError {
    /// What it said about itself cannot be used.
    #[error("the agent's certificate cannot be used: {0}")]
    Certificate(String),
    /// It could not be reached, or what it said not be understood; a later try may go well.
    #[error("the agent at {at} could not be asked: {why}")]
    Unreachable {
        /// Its URL.
        at: String,
        /// The innermost reason.
        why: String,
    },
    /// It does something else at present.
    #[error("the agent is busy: {0}")]
    Busy(String),
    /// It said no.
    #[error("the agent answered {status}: {words}")]
    Refused {
        /// With which status.
        status: StatusCode,
        /// In its words.
        words: String,
    },
}

impl<'a> AgentClient<'a> {
    /// The agent of an attempt.
    ///
    /// # Errors
    /// [`AgentError::Certificate`]
    pub fn new(attempt: &'a Attempt, agent: &Agent) -> Result<Self, AgentError> {
        let client = Client::builder()
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .redirect(Policy::none())
            .no_proxy();
        let client = match &agent.verify_ca {
            Some(pem) => client.use_preconfigured_tls(pinned(pem)?),
            None => client,
        };
        let http = client.build().map_err(|error| AgentError::Certificate(error.to_string()))?;
        let commands =
            format!("{}/v1/commands/", agent.callback_url.as_str().trim_end_matches('/'));
        Ok(Self { http, commands, token: &attempt.agent_token.0 })
    }

    /// All commands since the agent started, oldest first.
    ///
    /// # Errors
    /// [`AgentError`]
    pub async fn commands(&self) -> Result<Vec<Command>, AgentError> {
        let request = self.http.get(&self.commands).query(&[("agent_token", self.token)]);
        Ok(self.ask::<CommandList>(request).await?.commands)
    }

    /// Gives it a command, and waits for its end if `wait`.
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
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        if status.is_success() {
            return answer.json().await.map_err(|error| self.unreachable(&error));
        }
        let body = answer.text().await.unwrap_or_default();
        let fault = serde_json::from_str::<Fault>(&body);
        let words =
            fault.map_or_else(|_| body.chars().take(200).collect(), |fault| fault.faultstring);
        match status {
            StatusCode::CONFLICT => Err(AgentError::Busy(words)),
            _ => Err(AgentError::Refused { status, words }),
        }
    }

    /// The error without its URL, which holds the token.
    fn unreachable(&self, error: &reqwest::Error) -> AgentError {
        let mut innermost = error.source();
        while let Some(source) = innermost.and_then(|error| error.source()) {
            innermost = Some(source);
        }
        let why = match innermost {
            Some(innermost) => innermost.to_string(),
            None if error.is_timeout() => "it took too long".to_owned(),
            None => "the exchange failed".to_owned(),
        };
        AgentError::Unreachable { at: self.commands.clone(), why }
    }
}

/// TLS that takes this one certificate.
fn pinned(pem: &str) -> Result<ClientConfig, AgentError> {
    let bad = |error: &dyn std::error::Error| AgentError::Certificate(error.to_string());
    let certificate =
        CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| bad(&error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Pinned { certificate, provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(config)
}

/// Agents sign their own certificates, and ironic-python-agent marks its one as an authority's, which
/// usual verification refuses for a server. Being the same bytes is the stronger condition anyway;
/// names and dates add nothing to it, and the clock of a machine that just started may be wrong.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::UnknownIssuer.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
