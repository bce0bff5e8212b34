//! From HTTP to the brain and back.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request as HttpRequest, State};
use axum::response::{IntoResponse as _, Json, Response as HttpResponse};
use http::{HeaderMap, HeaderValue, StatusCode};
use redfish::brain::{Brain, Effect, Request, Response};
use tracing::{debug, error};
use uuid::Uuid;

use crate::machine::{Machines, Order};

/// More than any request of a Redfish client for what we have.
const LARGEST_BODY: usize = 64 * 1024;

#[derive(Clone)]
struct Bmc {
    brain: Arc<Mutex<Brain>>,
    machines: Machines,
}

/// Every path is the brain's to answer.
pub(crate) fn router(brain: Arc<Mutex<Brain>>, machines: Machines) -> Router {
    Router::new().fallback(answer).with_state(Bmc { brain, machines })
}

async fn answer(State(bmc): State<Bmc>, request: HttpRequest<Body>) -> HttpResponse {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LARGEST_BODY).await else {
        return (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large\n").into_response();
    };
    let fresh = Uuid::new_v4().simple().to_string();
    let request = Request {
        method: &head.method,
        path: head.uri.path(),
        authorization: text(&head.headers, "authorization"),
        session_token: text(&head.headers, "x-auth-token"),
        if_match: text(&head.headers, "if-match"),
        body: &body,
        fresh: &fresh,
    };
    let (response, effect) =
        bmc.brain.lock().unwrap_or_else(PoisonError::into_inner).answer(&request);
    debug!("{} {} {}", head.method, head.uri.path(), response.status);
    if let Some(effect) = effect
        && let Err(failed) = act(&bmc.machines, effect).await
    {
        error!("{failed:#}");
        let words = format!("the machine could not be switched: {failed:#}\n");
        return (StatusCode::INTERNAL_SERVER_ERROR, words).into_response();
    }
    into_http(response)
}

/// A power action is over before it is answered, so that whoever asked may rely on it.
async fn act(machines: &Machines, effect: Effect) -> anyhow::Result<()> {
    match effect {
        Effect::Start { system } => machines.order(&system, Order::Start).await,
        Effect::Stop { system } => machines.order(&system, Order::Stop).await,
        Effect::ShutDown { system } => machines.order(&system, Order::ShutDown).await,
        Effect::Restart { system } => machines.order(&system, Order::Restart).await,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn into_http(response: Response) -> HttpResponse {
    let mut http = match response.body {
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
