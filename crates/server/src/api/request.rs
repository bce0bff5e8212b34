//! What a handler reads of a request, and what every answer carries.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, RequestExt as _};
use http_body_util::{BodyExt as _, LengthLimitError};
use ironic::field::{self, Field};
use ironic::guards;
use ironic::version::{self, BadVersion, since};
use ironic::{Fields, Version};
use jiff::Timestamp;
use provision::Node;
use serde::de::DeserializeOwned;
use serde_json::Value;
use store::{Clock, NodeKey, SortDirection, StoredNode};
use tracing::field::Empty;
use tracing::{Instrument, debug, info_span};
use url::form_urlencoded;
use uuid::Uuid;

use super::Api;
use super::guard::ApiUser;
use crate::error::ApiError;
use crate::http_server::BodyError;

/// How this request's client sees the service.
pub(super) type View = Extension<ironic::View>;

/// Agrees on a version, and names it, our range and the request in the answer.
pub(super) async fn negotiate(
    State(api): State<Api>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = format!("req-{}", Uuid::new_v4());
    let span = info_span!(
        "request",
        http.id = %id,
        http.method = %request.method(),
        http.path = shortened(request.uri().path()),
        http.user = Empty,
    );
    if let Some(ApiUser(user)) = request.extensions().get() {
        span.record("http.user", user.as_ref());
    }
    let version = version_of(request.headers());
    let mut response = match version {
        Ok(version) => {
            let view = api.view(request.headers(), version);
            request.extensions_mut().insert(view);
            next.run(request).instrument(span.clone()).await
        }
        Err(bad) => ApiError::from(bad).into_response(),
    };
    span.in_scope(|| debug!(http.status = response.status().as_u16(), "answered"));
    let headers = response.headers_mut();
    // Clients that asked for too much read our range here and ask again.
    set(headers, version::MIN_HEADER, &Version::MIN.to_string());
    set(headers, version::MAX_HEADER, &Version::MAX.to_string());
    if let Ok(version) = version {
        set(headers, version::HEADER, &version.to_string());
    }
    set(headers, "openstack-request-id", &id);
    set(headers, "x-openstack-request-id", &id);
    response
}

/// The beginning of a path, for the log: the longest of ours is shorter.
fn shortened(path: &str) -> &str {
    const SHOWN: usize = 200;
    path.char_indices().nth(SHOWN).map_or(path, |(end, _)| &path[..end])
}

fn version_of(headers: &HeaderMap) -> Result<Version, BadVersion> {
    let text = |name: &str| match headers.get(name) {
        Some(value) => value.to_str().map(Some).map_err(|_| BadVersion::Unreadable),
        None => Ok(None),
    };
    Version::negotiate(text(version::HEADER)?, text(version::OPENSTACK_HEADER)?)
}

fn set(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}

/// Takes the slash from the end of the path.
pub(super) async fn without_last_slash(mut request: Request, next: Next) -> Response {
    if let Some(uri) = shorter(request.uri()) {
        *request.uri_mut() = uri;
    }
    next.run(request).await
}

fn shorter(uri: &Uri) -> Option<Uri> {
    let path = uri.path().strip_suffix('/').filter(|path| !path.is_empty())?;
    let path = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

impl Api {
    fn view(&self, headers: &HeaderMap, version: Version) -> ironic::View {
        let base_url = self.settings.public_url.clone().unwrap_or_else(|| {
            let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
            format!("http://{}", host.unwrap_or("localhost"))
        });
        let base_url = base_url.trim_end_matches('/').to_owned();
        ironic::View { version, base_url, host: self.settings.host.clone() }
    }

    /// The node that a URL names, by UUID or, from 1.5 on, by name.
    pub(super) async fn find(&self, ident: &str, version: Version) -> Result<StoredNode, ApiError> {
        let key = NodeKey::from(ident);
        if matches!(key, NodeKey::Name(_)) {
            if !guards::is_name(ident, true) {
                let text = format!("Expected UUID or name for node_ident: {ident}");
                return Err(ApiError::bad_request(text));
            }
            if !version.has(since::NAMES) {
                return Err(ApiError::no_such_node(ident));
            }
        }
        self.nodes.store().node(&key).await?.ok_or_else(|| ApiError::no_such_node(ident))
    }

    /// Whether the node that was found under `ident` has not been given another name since: what a
    /// request does is done to the node that has the name then, or to none.
    pub(super) fn still_called(node: &Node, ident: &str) -> Result<(), ApiError> {
        match NodeKey::from(ident) {
            NodeKey::Name(name) if node.name.as_ref() != Some(&name) => {
                Err(ApiError::no_such_node(ident))
            }
            NodeKey::Name(_) | NodeKey::Uuid(_) => Ok(()),
        }
    }
}

/// What stands in the variable parts of the path; nothing has a NUL in its name.
pub(super) struct At<T>(pub(super) T);

impl<S, T> FromRequestParts<S> for At<T>
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
pub(super) struct Peer(pub(super) IpAddr);

impl<S: Send + Sync> FromRequestParts<S> for Peer {
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
pub(super) struct Received(pub(super) Timestamp);

impl<S: Send + Sync> FromRequestParts<S> for Received {
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
pub(super) struct Body(pub(super) Value);

impl<S: Send + Sync> FromRequest<S> for Body {
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

/// What stands behind the question mark; of a name that comes twice, the last counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(BTreeMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        if query.contains("%00") {
            return Err(ApiError::bad_request("A NUL is part of no value."));
        }
        Ok(Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

impl Query {
    /// Takes a value out.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// Takes a value out that came with 1.`since`.
    pub(super) fn take_since(
        &mut self,
        name: &str,
        version: Version,
        since: u16,
    ) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            Some(_) if !version.has(since) => Err(ApiError::not_acceptable()),
            value => Ok(value),
        }
    }

    /// Takes a yes or no out.
    pub(super) fn take_boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        let Some(text) = self.take(name) else { return Ok(None) };
        field::boolean(&text).map(Some).ok_or_else(|| {
            ApiError::bad_request(format!(
                "Invalid {name}: Unrecognized value '{text}', acceptable values are: \
                 '0', '1', 'f', 'false', 'n', 'no', 'off', 'on', 't', 'true', 'y', 'yes'"
            ))
        })
    }

    /// Takes a UUID out.
    pub(super) fn take_uuid(&mut self, name: &str) -> Result<Option<Uuid>, ApiError> {
        let Some(text) = self.take(name) else { return Ok(None) };
        Uuid::try_parse(&text)
            .map(Some)
            .map_err(|_| ApiError::bad_request(format!("Expected UUID for {name}: {text}")))
    }

    /// Takes out which end of a list comes first.
    pub(super) fn take_direction(&mut self) -> Result<SortDirection, ApiError> {
        match self.take("sort_dir").as_deref() {
            None | Some("asc") => Ok(SortDirection::Ascending),
            Some("desc") => Ok(SortDirection::Descending),
            Some(other) => Err(ApiError::bad_request(format!(
                "Invalid sort direction: {other}. Acceptable values are 'asc' or 'desc'"
            ))),
        }
    }

    /// Takes out which fields of a single resource are asked for.
    pub(super) fn take_fields(
        &mut self,
        table: &[Field],
        version: Version,
    ) -> Result<Fields, ApiError> {
        match self.take_since("fields", version, since::FIELDS)? {
            Some(list) => Ok(Fields::parse(&list, table, version)?),
            None => Ok(Fields::All),
        }
    }

    /// Takes out which fields of a list's entries are asked for; `listed` if nothing is said.
    pub(super) fn take_listed_fields(
        &mut self,
        table: &[Field],
        listed: &[&'static str],
        version: Version,
    ) -> Result<Fields, ApiError> {
        let detail = self.take_boolean("detail")?;
        if detail.is_some() && !version.has(since::DETAIL) {
            return Err(ApiError::not_acceptable());
        }
        let list = self.take_since("fields", version, since::FIELDS)?;
        match (list, detail) {
            (Some(_), Some(true)) => {
                Err(ApiError::bad_request("Can't fetch a subset of fields with 'detail' set"))
            }
            (Some(list), Some(false) | None) => Ok(Fields::parse(&list, table, version)?),
            (None, Some(true)) => Ok(Fields::All),
            (None, Some(false) | None) => Ok(Fields::Only(listed.to_vec())),
        }
    }

    /// Refuses what nobody took: a filter that is not understood must not list everything.
    pub(super) fn end(self) -> Result<(), ApiError> {
        match self.0.into_keys().next() {
            Some(name) => Err(ApiError::bad_request(format!("Unexpected arguments: {name}"))),
            None => Ok(()),
        }
    }
}

/// Which page of a list is asked for.
#[derive(Clone, Debug)]
pub(super) struct Page {
    /// How many at most.
    pub(super) limit: u32,
    /// The last one of the page before.
    pub(super) marker: Option<Uuid>,
    /// The whole query, which the next page's has again.
    asked: Query,
}

impl Page {
    /// Ironic's `[api]max_limit`.
    const MAX: u32 = 1_000;

    /// Takes the page out of a query; to be called first.
    pub(super) fn take(query: &mut Query) -> Result<Self, ApiError> {
        let asked = query.clone();
        let limit = match query.take("limit") {
            None => Self::MAX,
            Some(text) => match text.trim().parse::<i64>() {
                Ok(limit) if limit > 0 => u32::try_from(limit).unwrap_or(Self::MAX).min(Self::MAX),
                Ok(_) => return Err(ApiError::bad_request("Limit must be positive")),
                Err(_) => {
                    let text = format!("Expected an integer for limit: {text}");
                    return Err(ApiError::bad_request(text));
                }
            },
        };
        Ok(Self { limit, marker: query.take_uuid("marker")?, asked })
    }

    /// The answer: a list of `name`, and where the next page is, if this one is full.
    pub(super) fn show(
        &self,
        view: &ironic::View,
        path: &str,
        name: &str,
        shown: Vec<Value>,
        last: Option<Uuid>,
    ) -> Value {
        let next = last.filter(|_| shown.len() == self.limit as usize);
        let mut out = field::Object::new();
        out.insert(name.to_owned(), Value::Array(shown));
        if let Some(last) = next {
            out.insert("next".to_owned(), self.after(view, path, last).into());
        }
        Value::Object(out)
    }

    fn after(&self, view: &ironic::View, path: &str, last: Uuid) -> String {
        let mut next = form_urlencoded::Serializer::new(String::new());
        for (name, value) in self.asked.0.iter().filter(|(name, _)| *name != "marker") {
            next.append_pair(name, value);
        }
        next.append_pair("marker", &last.to_string());
        format!("{}?{}", view.url(path), next.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_was_renamed_since_it_was_found_is_not_what_the_request_names() {
        let mut node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
        node.name = Some("n1".to_owned());
        assert!(Api::still_called(&node, "n1").is_ok());

        node.name = Some("n2".to_owned());
        let gone = Api::still_called(&node, "n1").unwrap_err();
        assert_eq!(gone.text(), "Node n1 could not be found.");
        assert!(Api::still_called(&node, &Uuid::nil().to_string()).is_ok());
    }
}
