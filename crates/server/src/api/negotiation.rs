//! Layers around every route: the microversion, the request's ID, and the trailing slash of a path.

use axum::extract::{Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ironic::ClientView;
use ironic::Version;
use ironic::version::{self, BadVersion};
use tracing::field::Empty;
use tracing::{Instrument, debug, info_span};
use uuid::Uuid;

use super::context::ApiContext;
use super::guard::scheme_of;
use super::guard::users::ApiUser;
use crate::error::ApiError;

/// Negotiates the version of a request. Every answer contains the version, the range of versions and the request's
/// ID.
pub(super) async fn negotiate(
    State(api): State<ApiContext>,
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
            let view = view(&api, &request, version);
            request.extensions_mut().insert(view);
            next.run(request).instrument(span.clone()).await
        }
        Err(bad) => ApiError::from(bad).into_response(),
    };
    span.in_scope(|| debug!(http.status = response.status().as_u16(), "answered"));
    let headers = response.headers_mut();
    // Clients with an unsupported version read the range here and retry.
    set(headers, version::MIN_HEADER, &Version::MIN.to_string());
    set(headers, version::MAX_HEADER, &Version::MAX.to_string());
    if let Ok(version) = version {
        set(headers, version::HEADER, &version.to_string());
    }
    set(headers, "openstack-request-id", &id);
    set(headers, "x-openstack-request-id", &id);
    response
}

/// The beginning of a path, for the log. Every path in the table is shorter.
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

/// Removes a trailing slash from the path.
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

fn view(api: &ApiContext, request: &Request, version: Version) -> ClientView {
    let base_url = api.settings.public_url.clone().unwrap_or_else(|| {
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        format!("{}://{}", scheme_of(request), host.unwrap_or("localhost"))
    });
    let base_url = base_url.trim_end_matches('/').to_owned();
    ClientView { version, base_url, host: api.settings.host.clone() }
}
