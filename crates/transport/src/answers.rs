//! Bodies of HTTP answers from other servers, read up to a limit.
//!
//! The client's total timeout limits the duration, from the connection to the last byte of the body. No client here
//! decompresses bodies, so the number of received bytes is the memory in use.

use reqwest::Response;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::Semaphore;

/// Size limit in bytes of an answer of an agent or a BMC. A list of a hundred commands with results has 200 KiB, a
/// BMC's system resource 20.
pub const ANSWER_LIMIT: usize = 4 << 20;

/// Size limit in bytes of an error's body: longer than any useful message.
pub const ERROR_LIMIT: usize = 64 << 10;

/// Size in bytes of a long answer; few long answers are parsed at once.
const LONG_ANSWER: usize = 256 << 10;

/// The reason why an answer was not read.
#[derive(Debug, Error)]
pub enum AnswerError {
    /// The answer is longer than the limit.
    #[error("the answer has more than {limit} bytes")]
    TooLong {
        /// Bytes.
        limit: usize,
    },
    /// The connection broke, or the timeout expired.
    #[error("the answer broke off")]
    BrokeOff(#[source] reqwest::Error),
}

/// The whole body of an answer, of at most `limit` bytes.
///
/// # Errors
/// [`AnswerError`]
pub async fn read_body(mut answer: Response, limit: usize) -> Result<Vec<u8>, AnswerError> {
    let said = answer.content_length().unwrap_or(0);
    if said > limit as u64 {
        return Err(AnswerError::TooLong { limit });
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(AnswerError::BrokeOff)? {
        if body.len() + chunk.len() > limit {
            return Err(AnswerError::TooLong { limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Parses JSON. Few long texts are parsed at once, since a value can take sixteen times the memory of its text.
///
/// # Errors
/// The text is not JSON, or not a `T`.
pub async fn read_json<T: DeserializeOwned>(body: Vec<u8>) -> serde_json::Result<T> {
    static LONG: Semaphore = Semaphore::const_new(2);
    let _place = if body.len() > LONG_ANSWER { LONG.acquire().await.ok() } else { None };
    serde_json::from_slice(&body)
}

/// The text of an error's body, cut to [`ERROR_LIMIT`]; if reading fails, the reason for that.
pub async fn read_error(mut answer: Response) -> String {
    let mut body = Vec::new();
    while body.len() < ERROR_LIMIT
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        body.extend_from_slice(&chunk[..chunk.len().min(ERROR_LIMIT - body.len())]);
    }
    String::from_utf8_lossy(&body).into_owned()
}

/// The innermost cause of a failed exchange, without its URL, which may contain a token or a password.
#[must_use]
pub fn reason(error: &reqwest::Error) -> String {
    let error: &dyn std::error::Error = error;
    let mut innermost = error.source();
    while let Some(source) = innermost.and_then(std::error::Error::source) {
        innermost = Some(source);
    }
    match innermost {
        Some(innermost) => innermost.to_string(),
        None => "the exchange failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use reqwest::Client;

    use super::*;
    use crate::test_servers::{Hostility, hostile_server};

    async fn asked(hostility: Hostility, timeout: Duration) -> Result<Vec<u8>, String> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().timeout(timeout).no_proxy().build().unwrap();
        let url = format!("http://{}/", hostile_server(hostility).await);
        let answer = client.get(url).send().await.map_err(|error| reason(&error))?;
        read_body(answer, 1000).await.map_err(|error| error.to_string())
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn an_answer_without_end_is_left_at_its_limit() {
        let refused = asked(Hostility::Endless, LONG).await.unwrap_err();
        assert_eq!(refused, "the answer has more than 1000 bytes");
    }

    #[tokio::test]
    async fn a_length_beyond_the_limit_is_not_waited_for() {
        let started = Instant::now();
        let refused = asked(Hostility::LiesLong, LONG).await.unwrap_err();
        assert_eq!(refused, "the answer has more than 1000 bytes");
        assert!(started.elapsed() < LONG / 2);
    }

    #[tokio::test]
    async fn the_timeout_of_a_client_is_that_of_the_whole_exchange() {
        let short = Duration::from_millis(300);
        for hostility in [Hostility::Silent, Hostility::Trickles, Hostility::EndlessHead] {
            asked(hostility, short).await.unwrap_err();
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_no_answer() {
        let refused = asked(Hostility::BreaksOff, LONG).await.unwrap_err();
        assert_eq!(refused, "the answer broke off");
    }

    #[tokio::test]
    async fn compressed_bodies_are_not_unpacked() {
        let body = asked(Hostility::Bomb, LONG).await.unwrap();
        assert_eq!(body.len(), 16);
    }
}
