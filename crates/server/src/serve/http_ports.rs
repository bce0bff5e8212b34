//! The three ports for HTTP: for operators, for agents, and for firmware.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Result;
use artifacts::MachinePeers;
use axum::Router;
use axum::routing::get;
use netboot::listen_addresses::ListenAddresses;
use netboot::urls::{ListenAddress, UrlScheme};
use provision::trace::HandshakePort;
use tracing::info;
use transport::http_server::{
    self, HandshakeFailure, HeaderNames, ListenerTls, PortListener, PortPeers, PortShares,
    RouterService, ServedPort, UsefulAnswers,
};
use transport::listen::listen;
use transport::repeats::line;

use super::listener_tls::DaemonTls;
use super::parts::DaemonParts;
use super::services::Services;
use crate::api::{self, ApiContext, guard};
use crate::config::{Config, LimitConfig};
use crate::error;

/// The ports, listening and not yet served.
pub(super) struct HttpPorts {
    operators: Vec<PortListener>,
    agents: Vec<PortListener>,
    firmware: Vec<PortListener>,
    shares: PortShares,
    limits: LimitConfig,
}

impl HttpPorts {
    /// Opens the ports.
    ///
    /// # Errors
    /// An address is in use.
    pub(super) fn listen(
        config: &Config,
        shares: PortShares,
        tls: Option<&DaemonTls>,
    ) -> Result<Self> {
        let (firmware, others) = (tls.map(|tls| &tls.firmware), tls.map(|tls| &tls.others));
        let open = |addresses: &ListenAddresses, what, tls| {
            addresses
                .all(config.tls.only)
                .map(move |address| listener(address, what, tls))
                .collect::<Result<Vec<_>>>()
        };
        Ok(Self {
            operators: open(&config.api.listen, "the API", others)?,
            agents: open(&config.agent.listen, "agents", others)?,
            firmware: open(&config.boot.listen, "the boot listener", firmware)?,
            shares,
            limits: config.limits.clone(),
        })
    }

    /// Starts a part for each port.
    pub(super) fn serve(self, services: &Services, api: &ApiContext, parts: &mut DaemonParts) {
        let Self { operators, agents, firmware, shares, limits } = self;
        let http_metrics = &services.metrics.http;
        let port = |name, listeners, share, max_body, service| ServedPort {
            name,
            listeners,
            limits: limits.of_port(share),
            bodies: limits.of_bodies(max_body),
            headers: HeaderNames::LowerCase,
            service,
            metrics: http_metrics.clone(),
        };
        let service = |routes, useful, peers| {
            RouterService::new(routes, useful, limits.answers(), error::too_many_answers, peers)
        };
        let routes = services.guard.guard(operators_routes(services, api));
        let routes = service(routes, UsefulAnswers::NoErrors, Arc::new(OperatorPeers));
        let operators = port("api", operators, shares.api, api::MAX_BODY, routes);
        parts.start_infallible(|end| http_server::serve(operators, end.cancelled_owned()));
        let routes = guard::machines(api::agent_router(api.clone()));
        let routes = service(routes, UsefulAnswers::ServedNodes, agent_peers(services));
        let agents = port("agents", agents, shares.agents, api::MAX_AGENT_ANSWER, routes);
        parts.start_infallible(|end| http_server::serve(agents, end.cancelled_owned()));
        let (artifacts, metrics) = (services.artifacts.clone(), http_metrics.clone());
        let limits = limits.of_port(shares.boot);
        parts.start_infallible(|end| {
            artifacts.serve(firmware, limits, metrics, end.cancelled_owned())
        });
    }
}

fn listener(
    listen_at: ListenAddress,
    what: &str,
    tls: Option<&Arc<dyn ListenerTls>>,
) -> Result<PortListener> {
    let tls = tls.filter(|_| listen_at.scheme == UrlScheme::Https).cloned();
    Ok(PortListener { socket: listen(listen_at.address, what)?, tls })
}

fn agent_peers(services: &Services) -> Arc<dyn PortPeers> {
    let (index, recorder) = (services.nodes.index().clone(), services.recorder.clone());
    Arc::new(MachinePeers::new(index, recorder, HandshakePort::Agents))
}

/// The peers of the API.
#[derive(Debug)]
struct OperatorPeers;

impl PortPeers for OperatorPeers {
    fn expects(&self, _remote: IpAddr) -> bool {
        false
    }

    fn handshake_failed(&self, remote: IpAddr, failure: &HandshakeFailure) {
        // Where there is no certificate, the listener says so itself.
        let is_said = matches!(failure, HandshakeFailure::NoCertificate(_));
        let words = failure.to_string();
        if !is_said && let Some(more) = line("failed handshake with the API", (remote, &words)) {
            info!("a TLS handshake of {remote} with the API failed: {words}{more}");
        }
    }
}

fn operators_routes(services: &Services, api: &ApiContext) -> Router {
    let shown = services.metrics.clone();
    Router::new()
        .route("/metrics", get(async move || shown.show()))
        .fallback_service(api::router(api.clone()))
}
