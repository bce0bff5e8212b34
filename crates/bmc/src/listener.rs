//! From HTTP to the emulator and back: the connections of one BMC.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::Arc;

use anyhow::Result;
use axum::body::{Body, to_bytes};
use axum::response::{Html, IntoResponse as _, Json, Response};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use redfish::emulator::{EmulatorRequest, EmulatorResponse};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::{Duration, sleep};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error, warn};
use uuid::Uuid;

use crate::bmc_service::BmcService;

/// More than any request to this BMC needs.
const LARGEST_BODY: usize = 64 * 1024;

/// The pause after a failed accept, which mostly means too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The end of a connection that a fault closes.
#[derive(Debug)]
struct CutConnection;

impl fmt::Display for CutConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a fault closes the connection")
    }
}

impl std::error::Error for CutConnection {}

/// Serves one BMC until its task is cancelled.
pub(crate) async fn serve(
    socket: TcpListener,
    bmc: Arc<BmcService>,
    tls: Option<TlsAcceptor>,
) -> Infallible {
    loop {
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(failed) => {
                warn!("a connection cannot be accepted: {failed}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (bmc, tls) = (Arc::clone(&bmc), tls.clone());
        tokio::spawn(async move {
            let ended = match tls {
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => serve_connection(stream, bmc).await,
                    Err(failed) => return debug!("TLS fails: {failed}"),
                },
                None => serve_connection(stream, bmc).await,
            };
            if let Err(failed) = ended {
                debug!("a connection ended: {failed}");
            }
        });
    }
}

async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    bmc: Arc<BmcService>,
) -> hyper::Result<()> {
    let service = service_fn(move |request| answer(Arc::clone(&bmc), request));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(
    bmc: Arc<BmcService>,
    request: Request<Incoming>,
) -> Result<Response, CutConnection> {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(Body::new(body), LARGEST_BODY).await else {
        return Ok((StatusCode::PAYLOAD_TOO_LARGE, "the body is too large\n").into_response());
    };
    // DSP0266 ("Request headers"): another version is refused.
    if text(&head.headers, "odata-version").is_some_and(|version| version.trim() != "4.0") {
        return Ok((StatusCode::PRECONDITION_FAILED, "OData-Version must be 4.0\n").into_response());
    }
    let fresh = Uuid::new_v4().simple().to_string();
    let request = EmulatorRequest {
        method: &head.method,
        path: head.uri.path(),
        authorization: text(&head.headers, "authorization"),
        session_token: text(&head.headers, "x-auth-token"),
        if_match: text(&head.headers, "if-match"),
        body: &body,
        fresh: &fresh,
        now: bmc.clock.now(),
    };
    let (response, effect) = bmc.emulator().answer(&request);
    debug!("{} {} {}", head.method, head.uri.path(), response.status);
    // A power action completes before its answer, so that the client may rely on it.
    if let Some(effect) = effect
        && let Err(failed) = bmc.perform(effect).await
    {
        error!("{failed:#}");
        let words = format!("the machine could not be switched: {failed:#}\n");
        return Ok((StatusCode::INTERNAL_SERVER_ERROR, words).into_response());
    }
    sleep(response.delay).await;
    if response.cut { Err(CutConnection) } else { Ok(into_http(response)) }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn into_http(response: EmulatorResponse) -> Response {
    let mut http = match response.body {
        Some(Value::String(page)) => (response.status, Html(page)).into_response(),
        Some(body) => (response.status, Json(body)).into_response(),
        None => response.status.into_response(),
    };
    http.headers_mut().insert("OData-Version", HeaderValue::from_static("4.0"));
    http.headers_mut().insert("Cache-Control", HeaderValue::from_static("no-store"));
    for (name, value) in response.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            http.headers_mut().insert(name, value);
        }
    }
    http
}

/// Lets the process open as many files as it may: each BMC listens at its own address.
pub(crate) fn raise_open_files() -> io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}
