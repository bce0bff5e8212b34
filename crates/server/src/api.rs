//! Ironic's REST API: every route is here, on one screen.
//!
//! [`router`] is the whole of it; [`agent_router`] the part that machines need, for an address that
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
mod states;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{any, get, post, put};
use axum::{Router, middleware};
use ironic::version::since;
use provision::boot::HttpLoader;
use tower::Layer;

use crate::change::Nodes;
use crate::dhcp::BootingStrangers;
use crate::error::ApiError;
use crate::means::BootMeans;
use crate::trace::Recorder;
use agent_calls::AgentCalls;
use details::{none, none_of_node, not_ours};

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

/// All of the API.
pub fn router(api: Api) -> Router {
    let routes = Router::new()
        .merge(for_agents())
        .route("/v1/nodes", get(nodes::list).post(nodes::create))
        .route("/v1/nodes/detail", get(nodes::list_detail))
        .route("/v1/nodes/{node}", get(nodes::show).patch(nodes::patch).delete(nodes::delete))
        .route("/v1/nodes/{node}/states", get(states::show))
        .route("/v1/nodes/{node}/states/provision", put(states::provision))
        .route("/v1/nodes/{node}/states/power", put(states::power))
        .route("/v1/nodes/{node}/states/console", get(details::console))
        .route("/v1/nodes/{node}/states/boot_mode", not_ours(76))
        .route("/v1/nodes/{node}/states/secure_boot", not_ours(76))
        .route("/v1/nodes/{node}/states/raid", not_ours(12))
        .route("/v1/nodes/{node}/validate", get(states::validate))
        .route(
            "/v1/nodes/{node}/maintenance",
            put(states::set_maintenance).delete(states::unset_maintenance),
        )
        .route("/v1/nodes/{node}/management/boot_device", not_ours(1).get(details::boot_device))
        .route(
            "/v1/nodes/{node}/management/boot_device/supported",
            get(details::supported_boot_devices),
        )
        .route("/v1/nodes/{node}/management/indicators", none_of_node("indicators", 63))
        .route("/v1/nodes/{node}/boot-trace", get(boot_trace::show))
        .route("/v1/nodes/{node}/history", get(boot_trace::history))
        .route("/v1/nodes/{node}/history/{event}", get(boot_trace::history_entry))
        .route(
            "/v1/nodes/{node}/traits",
            get(details::traits).put(details::set_traits).delete(details::unset_traits),
        )
        .route(
            "/v1/nodes/{node}/traits/{trait}",
            put(details::add_trait).delete(details::remove_trait),
        )
        .route("/v1/nodes/{node}/ports", get(ports::list_of_node))
        .route("/v1/nodes/{node}/ports/detail", get(ports::list_detail_of_node))
        .route("/v1/nodes/{node}/portgroups", none_of_node("portgroups", since::PORTGROUPS_LINK))
        .route("/v1/nodes/{node}/vifs", none_of_node("vifs", since::VIFS))
        .route("/v1/nodes/{node}/bios", none_of_node("bios", since::BIOS))
        .route("/v1/nodes/{node}/firmware", none_of_node("firmware", since::FIRMWARE))
        .route("/v1/nodes/{node}/volume", get(details::volume_of_node))
        .route("/v1/nodes/{node}/volume/connectors", none_of_node("connectors", since::VOLUME))
        .route("/v1/nodes/{node}/volume/targets", none_of_node("targets", since::VOLUME))
        .route("/v1/nodes/{node}/children", get(details::children))
        .route("/v1/nodes/{node}/inventory", get(details::inventory))
        .route("/v1/nodes/{node}/allocation", get(details::allocation))
        .route("/v1/nodes/{node}/vmedia", any(details::no_virtual_media))
        .route("/v1/nodes/{node}/vendor_passthru", any(details::no_vendor_method))
        .route("/v1/nodes/{node}/vendor_passthru/methods", get(details::vendor_methods))
        .route("/v1/ports", get(ports::list).post(ports::create))
        .route("/v1/ports/detail", get(ports::list_detail))
        .route("/v1/ports/{port}", get(ports::show).patch(ports::patch).delete(ports::delete))
        .route("/v1/drivers", get(drivers::list))
        .route("/v1/drivers/{driver}", get(drivers::show))
        .route("/v1/drivers/{driver}/properties", get(drivers::properties))
        .route("/v1/conductors", get(drivers::conductors))
        .route("/v1/conductors/{host}", get(drivers::conductor))
        .route("/v1/chassis", none("chassis", 1))
        .route("/v1/portgroups", none("portgroups", since::PORTGROUPS))
        .route("/v1/volume", get(details::volume))
        .route("/v1/volume/connectors", none("connectors", since::VOLUME))
        .route("/v1/volume/targets", none("targets", since::VOLUME))
        .route("/v1/allocations", none("allocations", since::ALLOCATIONS))
        .route("/v1/deploy_templates", none("deploy_templates", since::DEPLOY_TEMPLATES))
        .route("/v1/shards", none("shards", since::SHARDS))
        .route("/v1/runbooks", none("runbooks", since::RUNBOOKS))
        .route("/v1/inspection_rules", none("inspection_rules", since::INSPECTION_RULES));
    finish(routes, api, MAX_BODY)
}

/// What machines need, and no more: nothing here tells a node's settings or changes them.
pub fn agent_router(api: Api) -> Router {
    finish(for_agents(), api, MAX_AGENT_BODY)
}

fn for_agents() -> Router<Api> {
    Router::new()
        .route("/", get(discovery::root))
        .route("/v1", get(discovery::v1))
        .route("/v1/lookup", get(agents::lookup))
        .route("/v1/heartbeat/{node}", post(agents::heartbeat))
}

/// Adds what holds for every route.
fn finish(routes: Router<Api>, api: Api, max_body: usize) -> Router {
    let routes = routes
        .fallback(|| async { ApiError::no_route(StatusCode::NOT_FOUND) })
        .method_not_allowed_fallback(|| async {
            ApiError::no_route(StatusCode::METHOD_NOT_ALLOWED)
        })
        .layer(middleware::from_fn_with_state(api.clone(), request::negotiate))
        .layer(DefaultBodyLimit::max(max_body))
        .with_state(api);
    // Upstream takes `/v1/nodes/` for `/v1/nodes`. Routing comes before any layer of the router
    // itself, so the path is mended outside of it.
    Router::new().fallback_service(middleware::from_fn(request::without_last_slash).layer(routes))
}
