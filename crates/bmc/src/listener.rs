//! From HTTP to the emulator and back.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{Html, IntoResponse as _, Json, Response};
use http::{HeaderMap, HeaderValue, StatusCode};
use redfish::emulator::{Emulator, EmulatorRequest, EmulatorResponse, PowerEffect};
use serde_json::Value;
use tokio::time::sleep;
use tracing::{debug, error};
use uuid::Uuid;

use crate::machine::{PowerOrder, QemuMachines};
use crate::setup::BmcClock;

/// More than any request to this BMC needs.
const LARGEST_BODY: usize = 64 * 1024;

#[derive(Clone)]
struct BmcListener {
    emulator: Arc<Mutex<Emulator>>,
    machines: QemuMachines,
    clock: BmcClock,
}

/// The emulator answers every path.
pub(crate) fn router(
    emulator: Arc<Mutex<Emulator>>,
    machines: QemuMachines,
    clock: BmcClock,
) -> Router {
    Router::new().fallback(answer).with_state(BmcListener { emulator, machines, clock })
}

async fn answer(State(bmc): State<BmcListener>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LARGEST_BODY).await else {
        return (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large\n").into_response();
    };
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
    let (response, effect) =
        bmc.emulator.lock().unwrap_or_else(PoisonError::into_inner).answer(&request);
    debug!("{} {} {}", head.method, head.uri.path(), response.status);
    if let Some(effect) = effect
        && let Err(failed) = act(&bmc.machines, effect).await
    {
        error!("{failed:#}");
        let words = format!("the machine could not be switched: {failed:#}\n");
        return (StatusCode::INTERNAL_SERVER_ERROR, words).into_response();
    }
    sleep(response.delay).await;
    into_http(response)
}

/// A power action completes before its answer, so that the client may rely on it.
async fn act(machines: &QemuMachines, effect: PowerEffect) -> anyhow::Result<()> {
    match effect {
        PowerEffect::Start { system } => machines.order(&system, PowerOrder::Start).await,
        PowerEffect::Stop { system } => machines.order(&system, PowerOrder::Stop).await,
        PowerEffect::ShutDown { system } => machines.order(&system, PowerOrder::ShutDown).await,
        PowerEffect::Restart { system } => machines.order(&system, PowerOrder::Restart).await,
        PowerEffect::Interrupt { system } => machines.order(&system, PowerOrder::Interrupt).await,
    }
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
    for (name, value) in response.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            http.headers_mut().insert(name, value);
        }
    }
    http
}
