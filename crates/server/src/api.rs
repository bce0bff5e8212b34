//! Ironic's REST API. [`routes::ROUTES`] is the table of its routes.
//!
//! [`router`] serves the whole table; [`agent_router`] serves the part for machines, on an address that they can
//! reach. Handlers parse a request, apply a change through [`Nodes`](::nodes::Nodes), and return the result.

mod agent_calls;
mod agent_channel;
mod agents;
mod boot_trace;
mod boots;
mod context;
mod discovery;
mod drivers;
mod extract;
pub mod guard;
mod management;
mod negotiation;
mod nodes;
mod ports;
mod query;
pub mod routes;
mod states;
mod traits;
mod unbuilt;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::{Extension, Router, middleware};
use tower::Layer;

pub use self::context::{ApiContext, ApiSettings};
use self::discovery::ResourceLinks;
use self::routes::Audience;
use crate::error::ApiError;

/// Longest body on the API's port, in bytes. The largest bodies are a node's settings.
pub(crate) const MAX_BODY: usize = 1024 * 1024;

/// Longest body on the agents' port, in bytes, but for answers to calls. The largest is a heartbeat: some kilobytes,
/// most of them a certificate.
const MAX_AGENT_BODY: usize = 64 * 1024;

/// Longest body of an agent's answer to a call, in bytes.
pub(crate) const MAX_AGENT_ANSWER: usize = ironic::agent_channel::LONGEST_ANSWER;

/// All of the API, for the port of operators.
pub fn router(api: ApiContext) -> Router {
    finish(routes::router_of(|_| true), api, MAX_BODY)
}

/// The public routes, for the agents' port: none of them shows or changes a node's settings.
pub fn agent_router(api: ApiContext) -> Router {
    finish(routes::router_of(|route| route.audience == Audience::Everyone), api, MAX_AGENT_BODY)
}

/// Adds the layers of all routes.
fn finish(routes: Router<ApiContext>, api: ApiContext, max_body: usize) -> Router {
    let routes = routes
        .fallback(|| async { ApiError::no_route(StatusCode::NOT_FOUND, "") })
        .method_not_allowed_fallback(routes::method_not_allowed)
        .layer(Extension(ResourceLinks::new(routes::resources())))
        .layer(middleware::from_fn_with_state(api.clone(), negotiation::negotiate))
        .layer(DefaultBodyLimit::max(max_body))
        .with_state(api);
    // Ironic treats `/v1/nodes/` like `/v1/nodes`. A router selects the route before its own layers run, so the slash
    // is removed in a layer around the router.
    Router::new()
        .fallback_service(middleware::from_fn(negotiation::without_last_slash).layer(routes))
}
