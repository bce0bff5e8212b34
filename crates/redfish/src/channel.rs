//! What carries requests to a BMC: one HTTP exchange at a time.
//!
//! The conversations of this crate are `async` functions over [`BmcChannel`]. They open no socket and know no clock:
//! whoever drives them makes the exchanges and the pauses. Tests connect them to the emulator in memory.

use std::time::Duration;

use hardware::{HttpMethod, RedfishPurpose};
use http::StatusCode;
use serde_json::Value;
use thiserror::Error;
use url::Url;

/// Carries requests to one BMC, with its login.
pub trait BmcChannel: Sync {
    /// The URL of the BMC, by which redirects are judged.
    fn address(&self) -> &Url;

    /// Sends a request and receives the whole answer, whatever its status is. A redirect is an answer. A new session
    /// replaces one that has ended.
    ///
    /// # Errors
    /// [`ChannelFailure`]
    fn exchange(
        &self,
        request: &RedfishRequest,
    ) -> impl Future<Output = Result<RedfishAnswer, ChannelFailure>> + Send;

    /// Waits.
    fn pause(&self, how_long: Duration) -> impl Future<Output = ()> + Send;
}

/// A request to a BMC.
#[derive(Clone, Debug, PartialEq)]
pub struct RedfishRequest {
    /// Its purpose.
    pub purpose: RedfishPurpose,
    /// Its HTTP method.
    pub method: HttpMethod,
    /// Its path, which begins with `/`.
    pub path: String,
    /// `If-Match`.
    pub if_match: Option<String>,
    /// Its JSON body.
    pub body: Option<Value>,
}

/// The answer of a BMC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedfishAnswer {
    /// The status.
    pub status: StatusCode,
    /// `ETag`.
    pub etag: Option<String>,
    /// `Location`.
    pub location: Option<String>,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Vec<u8>,
}

/// The reason why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChannelFailure {
    /// Nothing was sent: no connection, or no TLS.
    #[error("{0}")]
    NotConnected(String),
    /// The request was sent, in part at least; the BMC may have carried it out.
    #[error("{0}")]
    BrokeOff(String),
    /// Another attempt would end in the same way: the answer is too long, or the settings are wrong.
    #[error("{0}")]
    Unusable(String),
}
