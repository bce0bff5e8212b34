//! What a handler reads of a request, but for its query.

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

use crate::error::ApiError;
use crate::http_server::BodyError;

/// What stands in the variable parts of the path; nothing has a NUL in its name.
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

/// Who asks: the address at the other end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerAddress(pub(super) IpAddr);

impl<S: Send + Sync> FromRequestParts<S> for PeerAddress {
    type Rejection = Infallible;

    /// A request that came over no connection has the address that is nobody's.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let address = peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.0.ip());
        Ok(Self(address.to_canonical()))
    }
}

/// When the head of a request was read: before its body came, and before it waited for anything.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceivedAt(pub(super) Timestamp);

impl<S: Send + Sync> FromRequestParts<S> for ReceivedAt {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(Clock::process().now()))
    }
}

/// The query as it came, before anything in it is read.
pub(super) struct RawQuery(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for RawQuery {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.uri.query().unwrap_or_default().to_owned()))
    }
}

/// A body that is JSON, whatever the client calls it; null if there is none.
pub(super) struct JsonBody(pub(super) Value);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let mut body = request.into_limited_body();
        let mut bytes = Vec::new();
        // Each frame is a slice of hyper's buffer of 8 KiB: kept until the end, bodies that come byte by byte would
        // hold thousands of times their length.
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| unread(&error))?;
            bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        }
        if bytes.is_empty() {
            return Ok(Self(Value::Null));
        }
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| ApiError::bad_request(format!("The body is no JSON: {error}.")))
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

/// What is behind an error, if it is a `T`.
fn cause<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    error.downcast_ref().or_else(|| cause(error.source()?))
}
