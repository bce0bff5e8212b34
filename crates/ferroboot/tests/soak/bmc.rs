//! A scripted BMC: the emulator behind HTTP, and a machine that follows it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Json, Response};
use http::{HeaderMap, HeaderValue, StatusCode};
use redfish::emulator::{EmulatorRequest, PowerEffect};
use tokio::net::TcpListener;

use crate::machine::ScriptedMachine;

pub(crate) const USERNAME: &str = "admin";
pub(crate) const PASSWORD: &str = "soak-bmc-password";
pub(crate) const SYSTEM: &str = "1";

/// Serves the BMC of a machine at an address, until the runtime ends.
pub(crate) async fn start(at: SocketAddr, machine: Arc<ScriptedMachine>) {
    let listener = TcpListener::bind(at).await.unwrap();
    let app = Router::new().fallback(answer).with_state(machine);
    tokio::spawn(async move { axum::serve(listener, app).await });
}

/// On a separate task: a BMC finishes a request even if its client is gone.
async fn answer(State(machine): State<Arc<ScriptedMachine>>, request: Request) -> Response {
    tokio::spawn(answer_to_the_end(machine, request)).await.unwrap()
}

async fn answer_to_the_end(machine: Arc<ScriptedMachine>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    // An incomplete request of a killed client changes nothing.
    let Ok(body) = to_bytes(body, 64 * 1024).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let header = |headers: &HeaderMap, name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let authorization = header(&head.headers, "authorization");
    let session_token = header(&head.headers, "x-auth-token");
    let if_match = header(&head.headers, "if-match");
    let request = EmulatorRequest {
        method: &head.method,
        path: head.uri.path(),
        authorization: authorization.as_deref(),
        session_token: session_token.as_deref(),
        if_match: if_match.as_deref(),
        body: &body,
        fresh: "fresh",
        now: Duration::ZERO,
    };
    let mut emulator = machine.emulator();
    let (response, effect) = emulator.answer(&request);
    match effect {
        Some(PowerEffect::Start { system }) => {
            let next = emulator.starts(&system, Duration::ZERO);
            machine.power_on(next);
        }
        Some(PowerEffect::Restart { system }) => {
            emulator.stopped(&system, Duration::ZERO);
            machine.power_off();
            let next = emulator.starts(&system, Duration::ZERO);
            machine.power_on(next);
        }
        Some(PowerEffect::Stop { system } | PowerEffect::ShutDown { system }) => {
            emulator.stopped(&system, Duration::ZERO);
            machine.power_off();
        }
        Some(PowerEffect::Interrupt { .. }) | None => {}
    }
    drop(emulator);
    let mut http = match response.body {
        Some(body) => (response.status, Json(body)).into_response(),
        None => response.status.into_response(),
    };
    for (name, value) in response.headers {
        http.headers_mut().insert(name, HeaderValue::from_str(&value).unwrap());
    }
    http
}
