//! The daemon from its start to its end.

mod base;
mod first_commands;
mod http_ports;
mod listener_tls;
mod parts;
mod services;

use std::time::Duration;

use anyhow::{Context as _, Result};
use netboot::listen_addresses::ListenAddresses;
use netboot::urls::UrlScheme;
use nodes::Backlog;
use store::Store;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};
use transport::http_server::PortShares;

use self::base::DaemonBase;
use self::first_commands::first_commands;
use self::http_ports::HttpPorts;
use self::listener_tls::DaemonTls;
use self::parts::{DaemonParts, LAST_PATIENCE};
use self::services::Services;
use crate::config::Config;
use crate::daemons;
use crate::means::BootMeans;
use crate::signals::ServiceSignals;
use crate::state_dir::StateDir;
use crate::workers::Workers;

/// Serves until `end`, or until a part of the daemon fails.
///
/// All addresses are opened before the first request is answered, so that errors surface at the start.
///
/// # Errors
/// An address is in use, the state directory is in use, the database does not answer, or an interface is missing.
pub async fn serve(config: Config, end: impl Future<Output = ()>) -> Result<()> {
    let signals = ServiceSignals::take()?;
    let shares = PortShares::of_this_process(config.limits.connections);
    let base = DaemonBase::take(&config).await?;
    let tls = DaemonTls::open(&config, &base.store).await?;
    let authority = match &tls {
        Some(tls) => tls.authority.clone(),
        None => config.tls.read_authority()?.map(|authority| authority.all_pem()).transpose()?,
    };
    let source = tls.as_ref().map(|tls| tls.source.clone());
    // The other connections are for lookups, heartbeats, and answers.
    let waiting_agents = shares.agents / 2;
    let (services, backlog) =
        Services::open(&config, &base, authority.as_deref(), source, waiting_agents).await?;
    let ports = HttpPorts::listen(&config, shares, tls.as_ref())?;
    base.release_claims().await?;

    let (means, bmcs) = (services.means.clone(), services.bmcs.clone());
    let trace = TraceWriter::start(base.store.clone(), backlog);
    let mut parts = start(&config, &base, services, ports, signals);
    if let Some(tls) = tls {
        parts.start_infallible(|end| tls.watch(end));
    }
    say_ready(&config, &base.state, &means);

    let patience = Duration::from_secs(config.limits.end_secs.into()) + LAST_PATIENCE;
    let result = parts.run_until(end, patience).await;
    bmcs.close().await;
    trace.end().await?;
    base.close().await;
    result
}

/// Starts all parts of the daemon, which take the services over.
fn start(
    config: &Config,
    base: &DaemonBase,
    services: Services,
    ports: HttpPorts,
    signals: ServiceSignals,
) -> DaemonParts {
    let mut parts = DaemonParts::default();
    ports.serve(&services, &services.api_context(config, base), &mut parts);
    let (sources, observers) = (services.boot_sources(config, base), services.observers());
    let workers = Workers::new(services.worker_context(config, base));
    let Services { nodes, recorder, dhcp, tftp, guard, mailbox, .. } = services;
    parts.start(|end| dhcp.run(sources, observers, end));
    for tftp in tftp {
        parts.start_infallible(|end| tftp.run(end));
    }
    let (addresses, index) = (recorder.addresses().clone(), nodes.index().clone());
    let (progress, changed) = (recorder.progress().clone(), nodes.clone());
    parts.start_infallible(|end| nodes::address_writer::run(addresses, progress, changed, end));
    parts.start_infallible(|end| nodes::follower::run(nodes, end));
    parts.start_infallible(|end| mailbox.follow(end));
    parts.start_infallible(|end| workers.run(end));
    let (store, daemon, pools) = (base.store.clone(), base.daemon.clone(), base.pools.clone());
    let foreign_pools = base.foreign_pools.clone();
    parts.start(|end| daemons::stay_known(store, daemon, pools, foreign_pools, end));
    parts.start_infallible(|end| signals.attend(guard, index, end));
    parts
}

/// The task that writes recorded events into the database.
struct TraceWriter(JoinHandle<()>);

impl TraceWriter {
    fn start(store: Store, backlog: Backlog) -> Self {
        Self(tokio::spawn(nodes::trace::write(store, backlog)))
    }

    /// Waits for the end of the queue, which comes when the last recorder is dropped.
    async fn end(self) -> Result<()> {
        match timeout(LAST_PATIENCE, self.0).await {
            Ok(written) => written.context("the trace could not be written")?,
            Err(_) => warn!("the end of the trace could not be written within {LAST_PATIENCE:?}"),
        }
        Ok(())
    }
}

fn say_ready(config: &Config, state: &StateDir, means: &BootMeans) {
    info!("state in {}", state.path().display());
    let all = |listen: &ListenAddresses| listen.all(config.tls.only).collect::<Vec<_>>();
    for listen in all(&config.boot.listen) {
        info!("images for machines on {listen}/boot/");
    }
    for listen in all(&config.agent.listen) {
        info!("lookup and heartbeats of agents on {listen}");
    }
    for listen in all(&config.api.listen) {
        if config.api.noauth {
            warn!("the API on {listen} requires no login (noauth in [api])");
        }
        let is_local = listen.address.ip().to_canonical().is_loopback();
        if config.api.users.is_some() && !is_local && listen.scheme == UrlScheme::Http {
            warn!(
                "passwords reach the API unencrypted: give {listen} TLS by https:// in listen of [api], or put a proxy \
                 with TLS before it"
            );
        }
    }
    match means.summary() {
        Ok(boots) => info!("{boots}"),
        Err(lacks) => warn!("{lacks}"),
    }
    if let Err(unfit) = means.expect_http_loader() {
        warn!("{unfit:#}");
    }
    let address = config.api.listen.of_urls(config.tls.only);
    info!("ready: Ironic's API on {address}");
    for line in first_commands(config) {
        info!("next: {line}");
    }
}
