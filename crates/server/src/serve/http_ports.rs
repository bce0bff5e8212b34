//! The three ports for HTTP: for operators, for agents, and for firmware.

use anyhow::Result;
use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use transport::http_server::{
    self, HeaderNames, PortShares, RouterService, ServedPort, UsefulAnswers,
};
use transport::listen::listen;

use super::parts::DaemonParts;
use super::services::Services;
use crate::api::{self, ApiContext, guard};
use crate::config::{Config, LimitConfig};
use crate::error;

/// The ports, listening and not yet served.
pub(super) struct HttpPorts {
    operators: TcpListener,
    agents: TcpListener,
    firmware: TcpListener,
    shares: PortShares,
    limits: LimitConfig,
}

impl HttpPorts {
    /// Opens the ports.
    ///
    /// # Errors
    /// An address is in use.
    pub(super) fn listen(config: &Config, shares: PortShares) -> Result<Self> {
        Ok(Self {
            operators: listen(config.api.listen, "the API")?,
            agents: listen(config.agent.listen, "agents")?,
            firmware: listen(config.boot.listen, "the boot listener")?,
            shares,
            limits: config.limits.clone(),
        })
    }

    /// Starts a part for each port.
    pub(super) fn serve(self, services: &Services, api: &ApiContext, parts: &mut DaemonParts) {
        let Self { operators, agents, firmware, shares, limits } = self;
        let http_metrics = &services.metrics.http;
        let port = |name, listener, share, max_body, routes, useful| ServedPort {
            name,
            listeners: vec![listener],
            limits: limits.of_port(share),
            bodies: limits.of_bodies(max_body),
            headers: HeaderNames::LowerCase,
            service: RouterService::new(routes, useful, limits.answers(), error::too_many_answers),
            metrics: http_metrics.clone(),
        };
        let routes = services.guard.guard(operators_routes(services, api));
        let useful = UsefulAnswers::NoErrors;
        let operators = port("api", operators, shares.api, api::MAX_BODY, routes, useful);
        parts.start_infallible(|end| http_server::serve(operators, end.cancelled_owned()));
        let routes = guard::machines(api::agent_router(api.clone()));
        let useful = UsefulAnswers::ServedNodes;
        let agents = port("agents", agents, shares.agents, api::MAX_AGENT_BODY, routes, useful);
        parts.start_infallible(|end| http_server::serve(agents, end.cancelled_owned()));
        let (artifacts, metrics) = (services.artifacts.clone(), http_metrics.clone());
        let limits = limits.of_port(shares.boot);
        parts.start_infallible(|end| {
            artifacts.serve(vec![firmware], limits, metrics, end.cancelled_owned())
        });
    }
}

fn operators_routes(services: &Services, api: &ApiContext) -> Router {
    let shown = services.metrics.clone();
    Router::new()
        .route("/metrics", get(async move || shown.show()))
        .fallback_service(api::router(api.clone()))
}
