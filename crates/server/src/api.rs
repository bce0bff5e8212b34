//! Ironic's REST API. [`routes::ROUTES`] is the table of what it has.
//!
//! [`router`] serves the whole table; [`agent_router`] the part that machines need, for an address that
//! they can reach. Handlers read a request, ask [`Nodes`] for a change, and show what came of it.

mod agent_calls;
mod agents;
mod boot_trace;
mod details;
mod discovery;
mod drivers;
pub mod guard;
mod nodes;
mod ports;
mod request;
pub mod routes;
mod states;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::{Router, middleware};
use provision::boot::HttpLoader;
use tower::Layer;

use crate::change::Nodes;
use crate::dhcp::BootingStrangers;
use crate::error::ApiError;
use crate::means::BootMeans;
use crate::trace::Recorder;
use agent_calls::AgentCalls;
use routes::Audience;

/// Bytes of a body to the API. The largest there are hold a node's settings.
pub(crate) const MAX_BODY: usize = 1024 * 1024;

/// Bytes of a body to the port for agents. A heartbeat has some kilobytes, most of them a certificate; nothing larger
/// comes there, since no inspection takes inventories yet.
pub(crate) const MAX_AGENT_BODY: usize = 64 * 1024;

/// What handlers work with; clones share it.
#[derive(Clone, Debug)]
pub struct Api {
    nodes: Nodes,
    recorder: Recorder,
    settings: Arc<Settings>,
    agent_calls: Arc<AgentCalls>,
}

/// What the API is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What this daemon calls itself: `conductor` of its nodes.
    pub host: String,
    /// Where clients reach us, for links; by default where each says that it did.
    pub public_url: Option<String>,
    /// What agents are told: seconds of silence after which they count as lost.
    pub heartbeat_timeout_secs: u32,
    /// Whether an agent's command API must be HTTPS, since its token travels in the URL.
    pub agent_require_tls: bool,
    /// Lookups and heartbeats that one address may send per second; 0 for as many as it likes.
    pub agent_calls_per_sec: u32,
    /// What the `http` boot interface starts first, for diagnoses.
    pub loader: HttpLoader,
    /// What this host boots machines with; without, a boot is not judged before it is begun.
    pub means: Option<BootMeans>,
    /// Who asked for a boot and is nobody's port, for diagnoses.
    pub strangers: BootingStrangers,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: "ferroboot".to_owned(),
            public_url: None,
            heartbeat_timeout_secs: 300,
            agent_require_tls: true,
            means: None,
            strangers: BootingStrangers::default(),
            agent_calls_per_sec: 20,
            loader: HttpLoader::default(),
        }
    }
}

impl Api {
    /// The API to `nodes`.
    #[must_use]
    pub fn new(nodes: Nodes, recorder: Recorder, settings: Settings) -> Self {
        let agent_calls = Arc::new(AgentCalls::new(settings.agent_calls_per_sec));
        Self { nodes, recorder, settings: Arc::new(settings), agent_calls }
    }
}

/// All of the API, for the port of operators.
pub fn router(api: Api) -> Router {
    finish(routes::router_of(|_| true), api, MAX_BODY)
}

/// What machines need, and no more: nothing here tells a node's settings or changes them.
pub fn agent_router(api: Api) -> Router {
    finish(routes::router_of(|route| route.audience == Audience::Everyone), api, MAX_AGENT_BODY)
}

/// Adds what holds for every route.
fn finish(routes: Router<Api>, api: Api, max_body: usize) -> Router {
    let routes = routes
        .fallback(|| async { ApiError::no_route(StatusCode::NOT_FOUND, "") })
        .method_not_allowed_fallback(routes::method_not_allowed)
        .layer(middleware::from_fn_with_state(api.clone(), request::negotiate))
        .layer(DefaultBodyLimit::max(max_body))
        .with_state(api);
    // Upstream takes `/v1/nodes/` for `/v1/nodes`. Routing comes before any layer of the router
    // itself, so the path is mended outside of it.
    Router::new().fallback_service(middleware::from_fn(request::without_last_slash).layer(routes))
}
