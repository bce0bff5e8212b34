//! Extractors: path, peer, time of arrival, raw query and JSON body of a request.

use std::convert::Infallible;
use std::error::Error;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::RequestExt as _;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;
use store::Clock;
use transport::http_server::BodyError;

use crate::error::ApiError;

/// The variable segments of the path. A segment with a NUL matches nothing, so the answer is 404.
pub(super) struct PathParams<T>(pub(super) T);

impl<S, T> FromRequestParts<S> for PathParams<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(at)) if !parts.uri.path().contains("%00") => Ok(Self(at)),
            Ok(_) | Err(_) => Err(ApiError::nothing_here()),
        }
    }
}

/// The peer's address of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerAddress(pub(super) IpAddr);

impl<S: Send + Sync> FromRequestParts<S> for PeerAddress {
    type Rejection = Infallible;

    /// A request without a connection has the unspecified address.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let address = peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.0.ip());
        Ok(Self(address.to_canonical()))
    }
}

/// The time at which the head of a request was read, before its body.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceivedAt(pub(super) Timestamp);

impl<S: Send + Sync> FromRequestParts<S> for ReceivedAt {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(Clock::process().now()))
    }
}

/// The query string, undecoded.
pub(super) struct RawQuery(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for RawQuery {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.uri.query().unwrap_or_default().to_owned()))
    }
}

/// The body as JSON; null for an empty body.
pub(super) struct JsonBody(pub(super) Value);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let mut body = request.into_limited_body();
        let mut bytes = Vec::new();
        // The bytes are copied: each frame is a slice of an 8 KiB buffer, so a body sent byte by byte would occupy
        // thousands of times its length.
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| unread(&error))?;
            bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        }
        if bytes.is_empty() {
            return Ok(Self(Value::Null));
        }
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| ApiError::bad_request(format!("The body is not JSON: {error}.")))
    }
}

fn unread(error: &axum::Error) -> ApiError {
    if let Some(why) = cause::<BodyError>(error) {
        return ApiError::from(why);
    }
    if cause::<LengthLimitError>(error).is_some() {
        return ApiError::application(StatusCode::PAYLOAD_TOO_LARGE, "Request is too large.");
    }
    ApiError::bad_request(format!("The body cannot be read: {error}."))
}

/// The first cause of an error that is a `T`.
fn cause<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    error.downcast_ref().or_else(|| cause(error.source()?))
}
