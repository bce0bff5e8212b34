//! The daemon: API, DHCP and workers.

pub mod agents;
pub mod api;
pub mod bmcs;
pub mod check;
pub mod config;
mod daemons;
pub mod dhcp;
pub mod error;
pub mod means;
pub mod metrics;
pub mod providers;
mod signals;
mod state_dir;
pub mod workers;

#[cfg(test)]
#[path = "../../store/tests/small_disk/mod.rs"]
mod small_disk;

use std::net::{IpAddr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use artifacts::{ArtifactSettings, Artifacts, BootSets};
use axum::Router;
use axum::routing::get;
use netboot::boot_answer::TFTP_FILE;
use netboot::urls::Urls;
use nodes::{NodeIndex, Nodes, Recorder};
use store::{DatabaseLock, Store};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use transport::http_server::{
    self, HeaderNames, PortShares, RouterService, ServedPort, UsefulAnswers,
};
use transport::listen::listen;

use crate::api::ApiContext;
use crate::api::guard::{self, OperatorGuard};
use crate::config::Config;
use crate::dhcp::BootingStrangers;
use crate::dhcp::tftp::{self, Tftp};
use crate::means::BootMeans;
use crate::metrics::DaemonMetrics;
use crate::providers::Providers;
use crate::signals::ServiceSignals;
use crate::state_dir::StateDir;
use crate::workers::{WorkerContext, Workers};

/// Serves until `end`, or until a part of the daemon fails.
///
/// All addresses are opened before the first request is answered, so that errors surface at the start.
///
/// # Errors
/// An address is in use, the state directory is in use, the database does not answer, or an interface is missing.
pub async fn serve(config: Config, end: impl Future<Output = ()>) -> Result<()> {
    let signals = ServiceSignals::take()?;
    let shares = PortShares::of_this_process(config.limits.connections);
    let state = StateDir::lock(config.state_dir()?)?;
    let daemon = daemons::identity(&state, config.host())?;
    let database_url = config.database.url_in(state.path());
    let _lock = DatabaseLock::take(&database_url).context("cannot use the database")?;
    let store = Store::open(&database_url, &config.database.key_file_in(state.path())).await;
    let store = store.context("cannot open the database")?;
    let pools = daemons::pools(&config.dhcp);
    let foreign_pools = daemons::register(&store, &daemon, &pools).await?;
    let (tell_foreign_pools, foreign_pools) = watch::channel(foreign_pools);
    let (recorder, backlog) = Recorder::new();
    let nodes = Nodes::new(store.clone(), NodeIndex::default(), config.policy())
        .recorded_by(recorder.clone());
    nodes.load().await.context("cannot read the nodes")?;

    let dhcp = dhcp::DhcpThread::open(&config.dhcp, state.path()).await?;
    let urls = config.urls(dhcp.addresses().first().copied());
    let settings = artifact_settings(&config, state.path(), urls.clone());
    let boot_sets = settings.boot_sets.clone();
    let metrics = DaemonMetrics::new(store.health().clone());
    let strangers = BootingStrangers::default();
    let observers = dhcp::Observers {
        recorder: recorder.clone(),
        metrics: metrics.dhcp.clone(),
        strangers: strangers.clone(),
    };
    let providers = Providers::open(
        &config,
        urls.clone(),
        boot_sets.clone(),
        recorder.clone(),
        metrics.providers.clone(),
    )?;
    let artifacts = Artifacts::open(settings, nodes.index().clone(), recorder.clone())?;
    let means = BootMeans::new(&config, urls.clone(), boot_sets.clone());
    let settings = api::ApiSettings {
        means: Some(means.clone()),
        ..api_settings(&config, &daemon.host, strangers.clone())
    };
    let api = ApiContext::new(nodes.clone(), recorder.clone(), settings);
    let guard = OperatorGuard::open(&config.api)?;
    let for_operators = listen(config.api.listen, "the API")?;
    let for_agents = listen(config.agent.listen, "agents")?;
    let for_firmware = listen(config.boot.listen, "the boot listener")?;

    daemons::release(&store, &daemon).await?;
    let stop = CancellationToken::new();
    let mut parts = JoinSet::new();
    let writer = tokio::spawn(nodes::trace::write(store.clone(), backlog));
    let shown = metrics.clone();
    let operators = Router::new()
        .route("/metrics", get(async move || shown.show()))
        .fallback_service(api::router(api.clone()));
    let limits = &config.limits;
    let api_port = ServedPort {
        name: "api",
        listeners: vec![for_operators],
        limits: limits.of_port(shares.api),
        bodies: limits.of_bodies(api::MAX_BODY),
        headers: HeaderNames::LowerCase,
        service: RouterService::new(
            guard.guard(operators),
            UsefulAnswers::NoErrors,
            limits.answers(),
            error::too_many_answers,
        ),
        metrics: metrics.http.clone(),
    };
    let agent_port = ServedPort {
        name: "agents",
        listeners: vec![for_agents],
        limits: limits.of_port(shares.agents),
        bodies: limits.of_bodies(api::MAX_AGENT_BODY),
        headers: HeaderNames::LowerCase,
        service: RouterService::new(
            guard::machines(api::agent_router(api)),
            UsefulAnswers::ServedNodes,
            limits.answers(),
            error::too_many_answers,
        ),
        metrics: metrics.http.clone(),
    };
    parts.spawn(well(http_server::serve(api_port, stop.clone().cancelled_owned())));
    parts.spawn(well(http_server::serve(agent_port, stop.clone().cancelled_owned())));
    parts.spawn(well(artifacts.clone().serve(
        vec![for_firmware],
        limits.of_port(shares.boot),
        metrics.http.clone(),
        stop.clone().cancelled_owned(),
    )));
    let transfers = tftp::Transfers::new(recorder.addresses().clone());
    for address in dhcp.addresses() {
        if let IpAddr::V4(address) = *address
            && config.dhcp.tftp
        {
            let tftp = Tftp::open(
                SocketAddrV4::new(address, tftp::PORT),
                config.boot.boot_sets_in(state.path()).join(TFTP_FILE),
                transfers.clone(),
            )
            .await?;
            parts.spawn(well(tftp.run(stop.clone())));
        }
    }
    let addresses = recorder.addresses().clone();
    parts.spawn(well(nodes::address_writer::run(addresses, nodes.clone(), stop.clone())));
    parts.spawn(well(nodes::follower::run(nodes.clone(), stop.clone())));
    let index = nodes.index().clone();
    let sources = dhcp::BootSources {
        nodes: dhcp::IndexView(nodes.index().clone()),
        urls: urls.clone(),
        boot_sets,
        tftp: config.dhcp.tftp,
        foreign_pools,
    };
    parts.spawn(dhcp.run(sources, observers, stop.clone()));
    let workers = Workers::new(WorkerContext {
        nodes,
        recorder,
        artifacts,
        urls,
        daemon: daemon.clone(),
        providers,
        policy: config.policy(),
        power_sync: config.power.sync_interval(),
        loader: config.boot.http_loader,
        strangers,
    });
    parts.spawn(well(workers.run(stop.clone())));
    parts.spawn(daemons::stay_known(
        store.clone(),
        daemon,
        pools,
        tell_foreign_pools,
        stop.clone(),
    ));
    parts.spawn(well(signals.attend(guard, index, stop.clone())));
    say_ready(&config, &state, &means);

    let first = tokio::select! {
        () = end => None,
        ended = parts.join_next() => ended,
    };
    info!("ending");
    stop.cancel();
    let patience = Duration::from_secs(config.limits.end_secs.into()) + LAST_PATIENCE;
    let ended = timeout(patience, ended_well(parts, first)).await;
    let result = ended.unwrap_or_else(|_| {
        warn!("not every part of the service ended within {patience:?}; it continues at the next start");
        Ok(())
    });
    // Its queue ends when the last recorder is dropped, with all events until then.
    match timeout(LAST_PATIENCE, writer).await {
        Ok(written) => written.context("the trace could not be written")?,
        Err(_) => warn!("the end of the trace could not be written within {LAST_PATIENCE:?}"),
    }
    if timeout(LAST_PATIENCE, store.close()).await.is_err() {
        warn!("the database did not close within {LAST_PATIENCE:?}");
    }
    result
}

/// Time limit for parts with nothing left to do at the end, in case a call hangs.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// Waits for all parts; `first` has ended already.
async fn ended_well(
    mut parts: JoinSet<Result<()>>,
    first: Option<Result<Result<()>, JoinError>>,
) -> Result<()> {
    let mut result = Ok(());
    let mut ended = if first.is_some() { first } else { parts.join_next().await };
    while let Some(part) = ended {
        let part = part.context("a part of the daemon failed").flatten();
        result = result.and(part);
        ended = parts.join_next().await;
    }
    result
}

fn artifact_settings(config: &Config, state_dir: &Path, urls: Urls) -> ArtifactSettings {
    let boot = &config.boot;
    ArtifactSettings {
        boot_sets: BootSets::look(&boot.boot_sets_in(state_dir)),
        cache: state_dir.join("cache"),
        image_dirs: boot.image_dirs_in(state_dir),
        image_reach: config.image_reach(),
        image_limits: config.images.limits(),
        http_loader: boot.http_loader,
        kernel_append_params: boot.kernel_append_params.clone(),
        urls,
    }
}

fn api_settings(config: &Config, host: &str, strangers: BootingStrangers) -> api::ApiSettings {
    api::ApiSettings {
        host: host.to_owned(),
        public_url: config.api.public_url.as_ref().map(ToString::to_string),
        agent_require_tls: config.agent.require_tls,
        agent_calls_per_sec: config.agent.calls_per_sec,
        loader: config.boot.http_loader,
        strangers,
        ..api::ApiSettings::default()
    }
}

/// For parts that cannot fail.
async fn well(part: impl Future<Output = ()>) -> Result<()> {
    part.await;
    Ok(())
}

fn say_ready(config: &Config, state: &StateDir, means: &BootMeans) {
    info!("state in {}", state.path().display());
    info!("images for machines on http://{}/boot/", config.boot.listen);
    info!("lookup and heartbeats of agents on http://{}", config.agent.listen);
    if config.api.noauth {
        warn!("the API on {} requires no login (noauth in [api])", config.api.listen);
    }
    if config.api.users.is_some() && !config.api.is_local() {
        warn!(
            "passwords reach the API unencrypted: put a proxy with TLS before {}",
            config.api.listen
        );
    }
    match means.summary() {
        Ok(boots) => info!("{boots}"),
        Err(lacks) => warn!("{lacks}"),
    }
    let address = config.api.listen;
    info!("ready: Ironic's API on http://{address}");
    let login = match config.api.users {
        None => "OS_AUTH_TYPE=none",
        Some(_) => "OS_AUTH_TYPE=http_basic OS_USERNAME=… OS_PASSWORD=…",
    };
    info!("next: {login} OS_ENDPOINT=http://{address} baremetal node list");
}
