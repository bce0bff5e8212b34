//! The routes of Ironic's API: method, path, microversion, audience, and handler.
//!
//! This table is the source of the routers of both ports, the version check, the links of `GET /v1`, the public
//! paths, the text of a 405, and the tests of every route. A new endpoint is a row and a handler.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::IntoResponse as _;
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Extension, Router};
use ironic::ClientView;
use ironic::agent_channel::LONGEST_ANSWER;
use ironic::version::since;

use super::context::ApiContext;
use super::{
    agent_channel, agents, boot_trace, boots, discovery, drivers, management, nodes, ports, states,
    traits, unbuilt,
};
use crate::error::ApiError;

/// One method of one path.
#[derive(Clone, Debug)]
pub struct ApiRoute {
    /// The method. A GET route serves HEAD, too.
    pub method: Method,
    /// The path, with the variable segments in braces.
    pub path: &'static str,
    /// The microversion that introduced it is 1.`since`; requests for an older version get 404.
    pub since: u16,
    /// The permitted callers, and the ports.
    pub audience: Audience,
    handler: MethodRouter<ApiContext>,
}

/// The permitted callers of a route, and the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Operators: on the API's port, with a login if there are users.
    Operators,
    /// Everyone, including agents: on the API's port and the agents' port, without a login. Ironic's list of these
    /// routes is `acl_public_routes`.
    Everyone,
}

/// All routes.
pub static ROUTES: LazyLock<Vec<ApiRoute>> = LazyLock::new(|| {
    vec![
        get("/", 1, discovery::root).for_everyone(),
        get("/v1", 1, discovery::v1).for_everyone(),
        // Not below /v1: clients of Ironic's API list its resources.
        get("/boots", 1, boots::list),
        get("/v1/lookup", since::RAMDISK, agents::lookup).for_everyone(),
        post("/v1/heartbeat/{node}", since::RAMDISK, agents::heartbeat).for_everyone(),
        post("/v1/heartbeat/{node}/calls", since::RAMDISK, agent_channel::next_call)
            .for_everyone()
            .with_bodies_of(LONGEST_ANSWER),
        // Nodes.
        get("/v1/nodes", 1, nodes::list),
        post("/v1/nodes", 1, nodes::create),
        get("/v1/nodes/detail", 1, nodes::list_detail),
        get("/v1/nodes/{node}", 1, nodes::show),
        patch("/v1/nodes/{node}", 1, nodes::patch),
        delete("/v1/nodes/{node}", 1, nodes::delete),
        get("/v1/nodes/{node}/validate", 1, states::validate),
        put("/v1/nodes/{node}/maintenance", 1, states::set_maintenance),
        delete("/v1/nodes/{node}/maintenance", 1, states::unset_maintenance),
        get("/v1/nodes/{node}/boot-trace", 1, boot_trace::show),
        get("/v1/nodes/{node}/history", since::HISTORY, boot_trace::history),
        get("/v1/nodes/{node}/history/{event}", since::HISTORY, boot_trace::history_entry),
        get("/v1/nodes/{node}/traits", since::TRAITS, traits::traits),
        put("/v1/nodes/{node}/traits", since::TRAITS, traits::set_traits),
        delete("/v1/nodes/{node}/traits", since::TRAITS, traits::unset_traits),
        put("/v1/nodes/{node}/traits/{trait}", since::TRAITS, traits::add_trait),
        delete("/v1/nodes/{node}/traits/{trait}", since::TRAITS, traits::remove_trait),
        get("/v1/nodes/{node}/children", since::CHILDREN, nodes::children),
        get("/v1/nodes/{node}/inventory", since::INVENTORY, unbuilt::inventory),
        get("/v1/nodes/{node}/allocation", since::ALLOCATIONS, unbuilt::allocation),
        // The states of a node.
        get("/v1/nodes/{node}/states", 1, states::show),
        put("/v1/nodes/{node}/states/provision", 1, states::provision),
        put("/v1/nodes/{node}/states/power", 1, states::power),
        get("/v1/nodes/{node}/states/console", 1, unbuilt::console),
        put("/v1/nodes/{node}/states/boot_mode", since::SET_BOOT_MODE, management::set_boot_mode),
        put(
            "/v1/nodes/{node}/states/secure_boot",
            since::SET_BOOT_MODE,
            management::set_secure_boot,
        ),
        put("/v1/nodes/{node}/states/raid", since::RAID, unbuilt::not_ours),
        // The hardware of a node.
        get("/v1/nodes/{node}/management/boot_device", 1, management::boot_device),
        put("/v1/nodes/{node}/management/boot_device", 1, management::set_boot_device),
        get(
            "/v1/nodes/{node}/management/boot_device/supported",
            1,
            management::supported_boot_devices,
        ),
        put("/v1/nodes/{node}/management/inject_nmi", since::INJECT_NMI, management::inject_nmi),
        get("/v1/nodes/{node}/management/indicators", since::INDICATORS, unbuilt::none_of_node),
        get("/v1/nodes/{node}/bios", since::BIOS, unbuilt::none_of_node),
        get("/v1/nodes/{node}/firmware", since::FIRMWARE, unbuilt::none_of_node),
        get("/v1/nodes/{node}/vmedia", since::VMEDIA, unbuilt::no_virtual_media),
        post("/v1/nodes/{node}/vmedia", since::VMEDIA, unbuilt::no_virtual_media),
        delete("/v1/nodes/{node}/vmedia", since::VMEDIA, unbuilt::no_virtual_media),
        get("/v1/nodes/{node}/vendor_passthru", 1, unbuilt::no_vendor_method),
        post("/v1/nodes/{node}/vendor_passthru", 1, unbuilt::no_vendor_method),
        put("/v1/nodes/{node}/vendor_passthru", 1, unbuilt::no_vendor_method),
        patch("/v1/nodes/{node}/vendor_passthru", 1, unbuilt::no_vendor_method),
        delete("/v1/nodes/{node}/vendor_passthru", 1, unbuilt::no_vendor_method),
        get("/v1/nodes/{node}/vendor_passthru/methods", 1, unbuilt::vendor_methods),
        // The network and the volumes of a node.
        get("/v1/nodes/{node}/ports", 1, ports::list_of_node),
        get("/v1/nodes/{node}/ports/detail", 1, ports::list_detail_of_node),
        get("/v1/nodes/{node}/portgroups", since::PORTGROUPS_LINK, unbuilt::none_of_node),
        get("/v1/nodes/{node}/vifs", since::VIFS, unbuilt::none_of_node),
        get("/v1/nodes/{node}/volume", since::VOLUME, unbuilt::volume_of_node),
        get("/v1/nodes/{node}/volume/connectors", since::VOLUME, unbuilt::none_of_node),
        get("/v1/nodes/{node}/volume/targets", since::VOLUME, unbuilt::none_of_node),
        // Ports.
        get("/v1/ports", 1, ports::list),
        post("/v1/ports", 1, ports::create),
        get("/v1/ports/detail", 1, ports::list_detail),
        get("/v1/ports/{port}", 1, ports::show),
        patch("/v1/ports/{port}", 1, ports::patch),
        delete("/v1/ports/{port}", 1, ports::delete),
        // The service.
        get("/v1/drivers", 1, drivers::list),
        get("/v1/drivers/{driver}", 1, drivers::show),
        get("/v1/drivers/{driver}/properties", 1, drivers::properties),
        get("/v1/conductors", since::CONDUCTORS, drivers::conductors),
        get("/v1/conductors/{host}", since::CONDUCTORS, drivers::conductor),
        // Resources of Ironic that this service does not have.
        get("/v1/chassis", 1, unbuilt::none),
        get("/v1/portgroups", since::PORTGROUPS, unbuilt::none),
        get("/v1/volume", since::VOLUME, unbuilt::volume),
        get("/v1/volume/connectors", since::VOLUME, unbuilt::none),
        get("/v1/volume/targets", since::VOLUME, unbuilt::none),
        get("/v1/allocations", since::ALLOCATIONS, unbuilt::none),
        get("/v1/deploy_templates", since::DEPLOY_TEMPLATES, unbuilt::none),
        get("/v1/shards", since::SHARDS, unbuilt::none),
        get("/v1/runbooks", since::RUNBOOKS, unbuilt::none),
        get("/v1/inspection_rules", since::INSPECTION_RULES, unbuilt::none),
    ]
});

fn get<T: 'static>(
    path: &'static str,
    since: u16,
    handler: impl Handler<T, ApiContext>,
) -> ApiRoute {
    ApiRoute::new(Method::GET, path, since, on(MethodFilter::GET, handler))
}

fn post<T: 'static>(
    path: &'static str,
    since: u16,
    handler: impl Handler<T, ApiContext>,
) -> ApiRoute {
    ApiRoute::new(Method::POST, path, since, on(MethodFilter::POST, handler))
}

fn put<T: 'static>(
    path: &'static str,
    since: u16,
    handler: impl Handler<T, ApiContext>,
) -> ApiRoute {
    ApiRoute::new(Method::PUT, path, since, on(MethodFilter::PUT, handler))
}

fn patch<T: 'static>(
    path: &'static str,
    since: u16,
    handler: impl Handler<T, ApiContext>,
) -> ApiRoute {
    ApiRoute::new(Method::PATCH, path, since, on(MethodFilter::PATCH, handler))
}

fn delete<T: 'static>(
    path: &'static str,
    since: u16,
    handler: impl Handler<T, ApiContext>,
) -> ApiRoute {
    ApiRoute::new(Method::DELETE, path, since, on(MethodFilter::DELETE, handler))
}

impl ApiRoute {
    fn new(
        method: Method,
        path: &'static str,
        since: u16,
        handler: MethodRouter<ApiContext>,
    ) -> Self {
        Self { method, path, since, audience: Audience::Operators, handler }
    }

    fn for_everyone(self) -> Self {
        Self { audience: Audience::Everyone, ..self }
    }

    /// The same route with a limit of its own for bodies, in bytes.
    fn with_bodies_of(self, longest: usize) -> Self {
        let handler = self.handler.layer(DefaultBodyLimit::max(longest));
        Self { handler, ..self }
    }

    /// The handler behind the version check.
    fn checked_handler(&self) -> MethodRouter<ApiContext> {
        let since = self.since;
        let check = move |Extension(view): Extension<ClientView>, request: Request, next: Next| async move {
            if view.version.has(since) {
                next.run(request).await
            } else {
                ApiError::too_old(since).into_response()
            }
        };
        self.handler.clone().route_layer(middleware::from_fn(check))
    }

    /// The resource below `/v1/` that the route belongs to.
    fn resource(&self) -> Option<&'static str> {
        self.path.strip_prefix("/v1/")?.split('/').next()
    }

    /// Whether a request's path matches the route, with or without a trailing slash.
    fn has_path(&self, path: &str) -> bool {
        let without_last_slash = |path| str::strip_suffix(path, '/').unwrap_or(path);
        let mut segments = without_last_slash(path).split('/');
        let fits = |pattern: &str| match segments.next() {
            Some(segment) if pattern.starts_with('{') => !segment.is_empty(),
            segment => segment == Some(pattern),
        };
        without_last_slash(self.path).split('/').all(fits) && segments.next().is_none()
    }
}

impl fmt::Display for ApiRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// A router of the routes selected by `is_served`, each behind the version check.
pub(super) fn router_of(is_served: impl Fn(&ApiRoute) -> bool) -> Router<ApiContext> {
    let served = ROUTES.iter().filter(|route| is_served(route));
    served.fold(Router::new(), |router, route| router.route(route.path, route.checked_handler()))
}

/// The resources below `/v1/`, each with the microversion of its first route.
pub(super) fn resources() -> BTreeMap<&'static str, u16> {
    let mut resources = BTreeMap::new();
    for (name, since) in ROUTES.iter().filter_map(|route| Some((route.resource()?, route.since))) {
        let first = resources.entry(name).or_insert(since);
        *first = since.min(*first);
    }
    resources
}

/// Whether a path needs no login.
pub(super) fn is_public(path: &str) -> bool {
    ROUTES.iter().any(|route| route.audience == Audience::Everyone && route.has_path(path))
}

/// 405, with the supported methods of the path.
pub(super) async fn method_not_allowed(method: Method, path: MatchedPath) -> ApiError {
    let routes = ROUTES.iter().filter(|route| route.path == path.as_str());
    let methods = routes.map(|route| route.method.as_str()).collect::<Vec<_>>().join(", ");
    let text = format!("{method} is not supported here. Supported: {methods}.");
    ApiError::no_route(StatusCode::METHOD_NOT_ALLOWED, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_upstream_answers_everybody_is_public() {
        for path in ["/", "/v1", "/v1/", "/v1/lookup", "/v1/lookup/", "/v1/heartbeat/n1"] {
            assert!(is_public(path), "{path}");
        }
        for path in [
            "/v1/nodes",
            "/metrics",
            "//",
            "/v1//",
            "/V1",
            "/v1/heartbeat/",
            "/v1/heartbeat//",
            "/v1/heartbeat",
            "/v1/heartbeat/n1/x",
            "/v1/heartbeat/../nodes",
            "/v1/lookup/x",
            "/v1/nodes/lookup",
            "/v1/drivers",
            "*",
        ] {
            assert!(!is_public(path), "{path}");
        }
    }

    #[test]
    fn a_resource_is_there_since_its_first_route() {
        let resources = resources();
        assert_eq!(resources["nodes"], 1);
        assert_eq!(resources["lookup"], since::RAMDISK);
        assert_eq!(resources["inspection_rules"], since::INSPECTION_RULES);
        assert_eq!(resources.len(), 14);
    }
}
