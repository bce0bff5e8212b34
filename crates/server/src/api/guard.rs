//! Checks before any route: host name, web page, login and content type.
//!
//! [`OperatorGuard`] guards the API's port. [`machines`] guards the agents' port, which machines may reach by any
//! name and without a login.

mod hosts;
mod logins;
pub(super) mod users;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::uri::Scheme;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use tower::Layer as _;
use transport::htpasswd::Htpasswd;
use transport::http_server::ConnectionScheme;

use self::hosts::{ApiNames, Authority, ForeignPage, WrongHost, is_json};
use self::users::{ApiUser, NotLoggedIn, Users};
use super::routes;
use crate::config;
use crate::error::ApiError;

/// Ironic's challenge.
const CHALLENGE: &str = "Basic realm=\"Baremetal API\", charset=\"UTF-8\"";

/// Guards the port of operators; clones share the users.
#[derive(Clone, Debug)]
pub struct OperatorGuard {
    names: Arc<ApiNames>,
    users: Option<Users>,
}

impl OperatorGuard {
    /// The guard for the settings in `[api]`. Reads the users file, if one is set.
    ///
    /// # Errors
    /// The file cannot be used, or a host name is invalid.
    pub fn open(settings: &config::ApiConfig) -> Result<Self> {
        let names = ApiNames::new(&settings.host_names()?, settings.public_url.as_ref());
        let users = settings.users.as_deref().map(Users::open).transpose()?;
        Ok(Self { names: Arc::new(names), users })
    }

    /// Checks the users file and counts its users; `None` if no file is set.
    ///
    /// # Errors
    /// The file cannot be used.
    pub(crate) fn check_users(settings: &config::ApiConfig) -> Option<Result<String>> {
        let path = settings.users.as_ref()?;
        let said = |(users, _): (Htpasswd, _)| format!("{} of {}", users.count(), path.display());
        Some(Htpasswd::read(path).map(said).context("users in [api]"))
    }

    /// Guards all of `routes`.
    pub fn guard(&self, routes: Router) -> Router {
        let guarded = middleware::from_fn_with_state(self.clone(), guard_operators).layer(routes);
        Router::new().fallback_service(guarded)
    }

    /// Reads the users file again, as also happens after a change of the file. It may block for a moment.
    ///
    /// Returns whether a file is set.
    pub fn reload(&self) -> bool {
        self.users.iter().for_each(Users::reload);
        self.users.is_some()
    }

    async fn let_in(&self, request: &mut Request) -> Result<(), NotLetIn> {
        let own = self.names.check(request.version(), request.uri(), request.headers())?;
        self.names.check_page(own.as_ref(), scheme_of(request), request.headers())?;
        if let Some(users) =
            self.users.as_ref().filter(|_| !routes::is_public(request.uri().path()))
        {
            let user = users.user_of(request.headers(), peer_of(request)).await?;
            request.extensions_mut().insert(ApiUser(user));
        }
        check_body(request.headers())
    }
}

async fn guard_operators(
    State(guard): State<OperatorGuard>,
    mut request: Request,
    next: Next,
) -> Response {
    let mut response = match guard.let_in(&mut request).await {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    };
    // A browser must not interpret an answer as a web page.
    let (name, value) = (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.headers_mut().insert(name, value);
    response
}

/// Guards the agents' port: any host name, but no web page and no body of another type.
pub fn machines(routes: Router) -> Router {
    let guarded = middleware::from_fn(guard_machines).layer(routes);
    Router::new().fallback_service(guarded)
}

async fn guard_machines(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let own = headers.get(header::HOST).and_then(|host| Authority::parse(host.to_str().ok()?));
    let no_page = ApiNames::default().check_page(own.as_ref(), scheme_of(&request), headers);
    let no_page = no_page.map_err(NotLetIn::from);
    match no_page.and_then(|()| check_body(headers)) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

/// The scheme of the request's connection, not of a proxy before it.
pub(super) fn scheme_of(request: &Request) -> &str {
    let scheme = request.extensions().get::<ConnectionScheme>();
    scheme.map_or(Scheme::HTTP.as_str(), |ConnectionScheme(scheme)| scheme.as_str())
}

/// The peer's address. Proxy headers with the client's address are ignored.
fn peer_of(request: &Request) -> IpAddr {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip().to_canonical())
}

/// Refuses a body that is not declared as JSON: a web page may send some other types without a preflight (Fetch
/// Standard §4.8).
fn check_body(headers: &HeaderMap) -> Result<(), NotLetIn> {
    let length = headers.get(header::CONTENT_LENGTH);
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || length.is_some_and(|length| length.as_bytes() != b"0");
    if !has_body || is_json(headers) { Ok(()) } else { Err(NotLetIn::OtherBody) }
}

/// The check that a request failed.
#[derive(Debug)]
enum NotLetIn {
    Host(WrongHost),
    PageRequest(ForeignPage),
    Login(NotLoggedIn),
    OtherBody,
}

impl From<WrongHost> for NotLetIn {
    fn from(wrong: WrongHost) -> Self {
        Self::Host(wrong)
    }
}

impl From<ForeignPage> for NotLetIn {
    fn from(foreign: ForeignPage) -> Self {
        Self::PageRequest(foreign)
    }
}

impl From<NotLoggedIn> for NotLetIn {
    fn from(refused: NotLoggedIn) -> Self {
        Self::Login(refused)
    }
}

impl NotLetIn {
    fn into_response(self) -> Response {
        match self {
            Self::Host(wrong @ WrongHost::NotOurs(_)) => {
                ApiError::application(StatusCode::MISDIRECTED_REQUEST, wrong.to_string())
            }
            Self::Host(wrong) => ApiError::bad_request(wrong.to_string()),
            Self::PageRequest(foreign) => ApiError::forbidden(foreign.to_string()),
            Self::OtherBody => ApiError::application(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The body must be JSON, and be called so: Content-Type: application/json.",
            ),
            Self::Login(refused) => return not_logged_in(refused),
        }
        .into_response()
    }
}

fn not_logged_in(refused: NotLoggedIn) -> Response {
    let (status, text) = match refused {
        NotLoggedIn::NoCredentials => (StatusCode::UNAUTHORIZED, "Authorization required"),
        NotLoggedIn::Wrong => (StatusCode::UNAUTHORIZED, "Incorrect username or password"),
        NotLoggedIn::Unfit => (
            StatusCode::UNAUTHORIZED,
            "A password has 1 to 72 bytes, none of them NUL: bcrypt sees no more of it",
        ),
        NotLoggedIn::Malformed => {
            (StatusCode::BAD_REQUEST, "Could not parse Authorization header: it is not HTTP Basic")
        }
        NotLoggedIn::TooMany { .. } => (
            StatusCode::TOO_MANY_REQUESTS,
            "Too many logins from this address went wrong, please retry later",
        ),
        NotLoggedIn::Busy => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many logins are being checked, please retry later",
        ),
    };
    let mut response = (status, Json(ironic::error::login(status.as_u16(), text))).into_response();
    let retry_secs = match refused {
        NotLoggedIn::TooMany { retry_after } => Some(retry_after.as_secs().saturating_add(1)),
        NotLoggedIn::Busy => Some(1),
        NotLoggedIn::NoCredentials
        | NotLoggedIn::Wrong
        | NotLoggedIn::Unfit
        | NotLoggedIn::Malformed => None,
    };
    let headers = response.headers_mut();
    if let Some(secs) = retry_secs {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
    }
    response
}

/// Counts the users in the text of a users file, for the fuzz target.
///
/// # Errors
/// A line is invalid.
#[doc(hidden)]
pub fn users_in(text: &str) -> Result<usize> {
    let users = Htpasswd::parse(text)?;
    let _ = users.hash_of("nobody", text.len());
    Ok(users.count())
}
