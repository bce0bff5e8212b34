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
        let operators = operators_port(operators, shares, &limits, services, api);
        parts.start_infallible(|end| http_server::serve(operators, end.cancelled_owned()));
        let agents = agents_port(agents, shares, &limits, services, api);
        parts.start_infallible(|end| http_server::serve(agents, end.cancelled_owned()));
        let (artifacts, metrics) = (services.artifacts.clone(), services.metrics.http.clone());
        let limits = limits.of_port(shares.boot);
        parts.start_infallible(|end| {
            artifacts.serve(vec![firmware], limits, metrics, end.cancelled_owned())
        });
    }
}

fn operators_port(
    listener: TcpListener,
    shares: PortShares,
    limits: &LimitConfig,
    services: &Services,
    api: &ApiContext,
) -> ServedPort<RouterService> {
    let shown = services.metrics.clone();
    let routes = Router::new()
        .route("/metrics", get(async move || shown.show()))
        .fallback_service(api::router(api.clone()));
    ServedPort {
        name: "api",
        listeners: vec![listener],
        limits: limits.of_port(shares.api),
        bodies: limits.of_bodies(api::MAX_BODY),
        headers: HeaderNames::LowerCase,
        service: RouterService::new(
            services.guard.guard(routes),
            UsefulAnswers::NoErrors,
            limits.answers(),
            error::too_many_answers,
        ),
        metrics: services.metrics.http.clone(),
    }
}

fn agents_port(
    listener: TcpListener,
    shares: PortShares,
    limits: &LimitConfig,
    services: &Services,
    api: &ApiContext,
) -> ServedPort<RouterService> {
    ServedPort {
        name: "agents",
        listeners: vec![listener],
        limits: limits.of_port(shares.agents),
        bodies: limits.of_bodies(api::MAX_AGENT_BODY),
        headers: HeaderNames::LowerCase,
        service: RouterService::new(
            guard::machines(api::agent_router(api.clone())),
            UsefulAnswers::ServedNodes,
            limits.answers(),
            error::too_many_answers,
        ),
        metrics: services.metrics.http.clone(),
    }
}
