//! The calls to Ironic's API: versions, lookup, heartbeat.

use std::error::Error;
use std::io;
use std::time::Duration;

use hardware::Mac;
use ironic::agent::{HeartbeatBody, Lookup, Root, TOKEN_MINOR, VERIFY_CA_MINOR};
use ironic::agent_channel::{self, AgentCallAnswer, FetchedAgentCall};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{DATE, RETRY_AFTER};
use reqwest::{Certificate, Client, ClientBuilder, Response, StatusCode};
use rustls::CertificateError;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error as ThisError;
use url::Url;
use uuid::Uuid;

use crate::cmdline::AgentOptions;

/// Time limit of a request for a call: more than the service lets it wait, by as much as a slow network needs.
const CALL_WAIT: Duration = Duration::from_secs(agent_channel::WAIT_SECS + 20);

/// Size limit of an answer in bytes. A node in a lookup's answer has at most 256 KiB.
const ANSWER_LIMIT: usize = 1 << 20;

const VERSION_HEADER: &str = "x-openstack-ironic-api-version";

/// A client of one Ironic.
#[derive(Debug, Clone)]
pub struct IronicClient {
    client: Client,
    base: String,
    request_id: Option<String>,
}

/// The reason why a call failed.
#[derive(Debug, ThisError)]
pub enum CallError {
    /// The API refused the call.
    #[error("the API answered {status}: {words}")]
    Refused {
        /// The status; 409 while the node is locked.
        status: StatusCode,
        /// The error message, shortened.
        words: String,
    },
    /// The server's certificate is not trusted.
    #[error(
        "the API's certificate is not trusted: {cause} (this machine's clock says {now}; \
         `ferroboot image build --ca` makes the ramdisk trust an authority)"
    )]
    Untrusted {
        /// The error in the certificate.
        cause: CertificateError,
        /// The machine's time, which decides whether the certificate has expired or is not valid yet.
        now: Timestamp,
    },
    /// The answer was missing or unreadable.
    #[error("no usable answer from the API")]
    Unreachable(#[source] reqwest::Error),
    /// The answer is too long.
    #[error("the API's answer has more than {ANSWER_LIMIT} bytes")]
    TooLong,
    /// The answer is not of the expected form.
    #[error("the API's answer cannot be understood")]
    Form(#[source] serde_json::Error),
}

/// The contents of `GET /`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// The highest minor version that both sides support.
    pub minor: u16,
    /// The API's time, to the second.
    pub now: Option<Timestamp>,
}

/// The answer to a request for the next call to this agent.
#[derive(Debug)]
pub enum NextCall {
    /// A call.
    Call(FetchedAgentCall),
    /// There is none; the last answer has arrived.
    Nothing {
        /// The time until the next request.
        ask_after: Duration,
    },
}

impl IronicClient {
    /// A client of the API at `url`. CAs in `authorities` (PEM) are trusted besides the public ones.
    ///
    /// # Errors
    ///
    /// TLS cannot be set up, or `authorities` has something else than certificates.
    pub fn new(url: &Url, options: &AgentOptions, authorities: &[u8]) -> reqwest::Result<Self> {
        let authorities = Certificate::from_pem_bundle(authorities)?;
        let builder = Client::builder().no_proxy();
        let client = authorities
            .into_iter()
            .fold(builder, ClientBuilder::add_root_certificate)
            .connect_timeout(Duration::from_secs(10))
            .timeout(options.request_timeout)
            .danger_accept_invalid_certs(options.insecure)
            .build()?;
        let base = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { client, base, request_id: options.request_id.clone() })
    }

    /// Reads the API version and the time.
    ///
    /// # Errors
    ///
    /// There is no answer. If the API sends no version, the lowest one with tokens is used.
    pub async fn greet(&self) -> Result<Greeting, CallError> {
        let request = self.client.get(format!("{}/", self.base));
        let response = self.send(request).await?;
        let now = time_of(&response);
        let root: Result<Root, CallError> = json(response).await;
        let minor = root.ok().and_then(|root| root.minor()).unwrap_or(TOKEN_MINOR);
        Ok(Greeting { minor: minor.min(VERIFY_CA_MINOR), now })
    }

    /// Looks up the node with one of these MAC addresses.
    ///
    /// # Errors
    ///
    /// 404 while there is no such node, or none that expects an agent.
    pub async fn lookup(
        &self,
        addresses: &[Mac],
        node: Option<Uuid>,
        minor: u16,
    ) -> Result<Lookup, CallError> {
        let addresses: Vec<_> = addresses.iter().map(Mac::to_string).collect();
        let mut query = vec![("addresses", addresses.join(","))];
        query.extend(node.map(|node| ("node_uuid", node.to_string())));
        let request = self
            .client
            .get(format!("{}/v1/lookup", self.base))
            .header(VERSION_HEADER, format!("1.{}", minor.min(TOKEN_MINOR)))
            .header(agent_channel::HEADER, agent_channel::VERSION)
            .query(&query);
        json(self.send(request).await?).await
    }

    /// Sends a heartbeat with the agent's address.
    ///
    /// # Errors
    ///
    /// 409 while the node is locked: retry soon.
    pub async fn heartbeat(
        &self,
        node: Uuid,
        heartbeat: &HeartbeatBody,
        minor: u16,
    ) -> Result<(), CallError> {
        let request = self
            .client
            .post(format!("{}/v1/heartbeat/{node}", self.base))
            .header(VERSION_HEADER, format!("1.{minor}"))
            .json(heartbeat);
        self.send(request).await.map(drop)
    }

    /// Passes the answer to the last call, if there is one, and fetches the next call; waits for it if there is no
    /// answer to pass.
    ///
    /// # Errors
    ///
    /// 404 if the service does not expect this agent (any more).
    pub async fn next_call(
        &self,
        node: Uuid,
        key: &str,
        answer: Option<&AgentCallAnswer>,
    ) -> Result<NextCall, CallError> {
        let request = self
            .client
            .post(format!("{}/v1/heartbeat/{node}/calls", self.base))
            .header(VERSION_HEADER, format!("1.{TOKEN_MINOR}"))
            .header(agent_channel::KEY_HEADER, key)
            .timeout(CALL_WAIT);
        let request = match answer {
            Some(answer) => request.json(answer),
            None => request,
        };
        let response = self.send(request).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(NextCall::Nothing { ask_after: seconds_of(&response) });
        }
        Ok(NextCall::Call(json(response).await?))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, CallError> {
        let request = match &self.request_id {
            Some(id) => request.header("x-openstack-request-id", id),
            None => request,
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = body(response).await.unwrap_or_default();
        Err(CallError::Refused { status, words: fault(&String::from_utf8_lossy(&body)) })
    }
}

async fn json<T: DeserializeOwned>(response: Response) -> Result<T, CallError> {
    serde_json::from_slice(&body(response).await?).map_err(CallError::Form)
}

/// Reads a body up to a limit: the server must not fill the machine's memory.
async fn body(mut response: Response) -> Result<Vec<u8>, CallError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(CallError::Unreachable)? {
        if body.len() + chunk.len() > ANSWER_LIMIT {
            return Err(CallError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn unreachable(error: reqwest::Error) -> CallError {
    match certificate_error(&error) {
        Some(cause) => CallError::Untrusted { cause: cause.clone(), now: Timestamp::now() },
        None => CallError::Unreachable(error),
    }
}

fn certificate_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e CertificateError> {
    if let Some(rustls::Error::InvalidCertificate(cause)) = error.downcast_ref() {
        return Some(cause);
    }
    // An I/O error's `source` skips the error that it was made from.
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => certificate_error(inner),
        None => certificate_error(error.source()?),
    }
}

/// The message of an error, shortened: the fault in Ironic's `error_message`, which some releases encode twice, or
/// the whole body.
fn fault(body: &str) -> String {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let message = &json["error_message"];
    let decoded: Option<Value> = message.as_str().and_then(|it| serde_json::from_str(it).ok());
    let message = decoded.as_ref().unwrap_or(message);
    let words = message["faultstring"].as_str().unwrap_or(body);
    words.chars().take(300).collect()
}

/// `Retry-After` in seconds, at most a minute.
fn seconds_of(response: &Response) -> Duration {
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let seconds: u64 = seconds.and_then(|text| text.parse().ok()).unwrap_or(0);
    Duration::from_secs(seconds.min(60))
}

fn time_of(response: &Response) -> Option<Timestamp> {
    http_date(response.headers().get(DATE)?.to_str().ok()?)
}

/// RFC 9110 §5.6.7: RFC 5322's date, with the zone `GMT`.
fn http_date(date: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(date).ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_answer_without_end_is_left_at_its_limit() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 1000]).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await.unwrap();
            while stream.write_all(&[b'['; 65_536]).await.is_ok() {}
        });
        let api = IronicClient::new(&url, &AgentOptions::default(), &[]).unwrap();

        let refused = api.lookup(&[], None, TOKEN_MINOR).await.unwrap_err();

        assert!(matches!(refused, CallError::TooLong), "{refused}");
    }

    #[test]
    fn a_certificate_that_is_not_trusted_is_found_wherever_it_hides() {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);

        for error in [io::Error::other(unknown()), io::Error::other(io::Error::other(unknown()))] {
            assert_eq!(certificate_error(&error), Some(&CertificateError::UnknownIssuer));
        }
        assert_eq!(certificate_error(&io::Error::other("refused")), None);
    }

    #[test]
    fn a_fault_is_told_in_its_own_words() {
        let plain = r#"{"error_message": {"faultcode": "Client", "faultstring": "Not found."}}"#;
        let encoded = r#"{"error_message": "{\"faultstring\": \"Not found.\"}"}"#;

        assert_eq!(fault(plain), "Not found.");
        assert_eq!(fault(encoded), "Not found.");
        assert_eq!(fault("<h1>Bad Gateway</h1>"), "<h1>Bad Gateway</h1>");
        assert_eq!(fault(""), "");
    }

    #[test]
    fn the_time_is_read_from_an_http_date() {
        let now = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();

        assert_eq!(now.as_second(), 784_111_777);
        assert_eq!(http_date("yesterday"), None);
    }
}
