//! The services of the daemon: nodes, DHCP, providers, images, API.

use std::net::{IpAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;

use ::bmcs::{ServiceCertificates, firmware_certificate};
use agents::AgentMailbox;
use anyhow::{Context as _, Result};
use artifacts::{ArtifactSettings, Artifacts, BootSets};
use certificates::CertificateSource;
use netboot::boot_answer::TFTP_FILE;
use netboot::urls::{UrlScheme, Urls};
use nodes::{Backlog, NodeIndex, Nodes, Recorder};
use providers::Providers;

use super::base::DaemonBase;
use crate::api::guard::OperatorGuard;
use crate::api::{ApiContext, ApiSettings};
use crate::bmcs::DaemonBmcs;
use crate::boot_overview::BootOverview;
use crate::config::Config;
use crate::dhcp::tftp::{self, Tftp};
use crate::dhcp::{self, BootSources, BootingStrangers, IndexView, Observers};
use crate::means::BootMeans;
use crate::metrics::DaemonMetrics;
use crate::workers::WorkerContext;

/// The services, opened and not yet running.
pub(super) struct Services {
    pub(super) nodes: Nodes,
    pub(super) recorder: Recorder,
    pub(super) metrics: DaemonMetrics,
    pub(super) dhcp: dhcp::DhcpThread,
    pub(super) tftp: Vec<Tftp>,
    pub(super) artifacts: Artifacts,
    pub(super) mailbox: AgentMailbox,
    pub(super) means: BootMeans,
    pub(super) guard: OperatorGuard,
    certificates: Arc<ServiceCertificates>,
    urls: Urls,
    boot_sets: BootSets,
    strangers: BootingStrangers,
    providers: Providers,
    pub(super) bmcs: DaemonBmcs,
}

impl Services {
    /// Opens the services. The backlog receives all recorded events. `authority` is the certificate (PEM) of the
    /// listeners' authority, `source` that of their certificates. At most `waiting_agents` requests of agents wait for calls.
    ///
    /// # Errors
    /// One of them cannot be opened.
    pub(super) async fn open(
        config: &Config,
        base: &DaemonBase,
        authority: Option<&str>,
        source: Option<CertificateSource>,
        waiting_agents: usize,
    ) -> Result<(Self, Backlog)> {
        let uki_signer = config.boot.uki_signer()?;
        let state_dir = base.state.path();
        let (recorder, backlog) = Recorder::new();
        let nodes = Nodes::new(base.store.clone(), NodeIndex::default(), config.policy())
            .recorded_by(recorder.clone());
        nodes.load().await.context("cannot read the nodes")?;
        let dhcp = dhcp::DhcpThread::open(&config.dhcp, state_dir).await?;
        let tftp = open_tftp(config, state_dir, dhcp.addresses(), &recorder).await?;
        let urls = config.urls(dhcp.addresses().first().copied());
        let boot_sets = BootSets::look(&config.boot.boot_sets_in(state_dir));
        let overview = BootOverview {
            index: nodes.index().clone(),
            progress: recorder.progress().clone(),
            loader: config.boot.http_loader,
        };
        let metrics = DaemonMetrics::new(base.store.health().clone(), overview, source);
        let providers = Providers::open(
            config.dhcp.boot_answer_service(),
            urls.clone(),
            boot_sets.clone(),
            recorder.clone(),
            metrics.providers.clone(),
        )?;
        let settings = ArtifactSettings {
            uki_signer,
            ..artifact_settings(config, state_dir, urls.clone(), boot_sets.clone(), authority)
        };
        let artifacts = Artifacts::open(settings, nodes.index().clone(), recorder.clone())?;
        let means = BootMeans::new(config, urls.clone(), boot_sets.clone());
        let guard = OperatorGuard::open(&config.api)?;
        let certificates = ServiceCertificates {
            authority: authority.map(firmware_certificate).transpose().context("the CA")?,
            signer: config
                .boot
                .read_sign_certificate()?
                .as_deref()
                .map(firmware_certificate)
                .transpose()?,
        };
        let strangers = BootingStrangers::default();
        let services = Self {
            nodes,
            recorder,
            metrics,
            dhcp,
            tftp,
            artifacts,
            mailbox: AgentMailbox::new(base.store.clone(), waiting_agents),
            means,
            guard,
            certificates: Arc::new(certificates),
            urls,
            boot_sets,
            strangers,
            providers,
            bmcs: DaemonBmcs::new(),
        };
        Ok((services, backlog))
    }

    /// The context of the API.
    pub(super) fn api_context(&self, config: &Config, base: &DaemonBase) -> ApiContext {
        let settings = ApiSettings {
            host: base.daemon.host.clone(),
            public_url: config.api.public_url.as_ref().map(ToString::to_string),
            agent_require_tls: config.agent.require_tls,
            agent_calls_per_sec: config.agent.calls_per_sec,
            loader: config.boot.http_loader,
            means: Some(self.means.clone()),
            strangers: self.strangers.clone(),
            allows_pxe: config.dhcp.tftp,
            certificates: Arc::clone(&self.certificates),
            ..ApiSettings::default()
        };
        ApiContext::new(self.nodes.clone(), self.recorder.clone(), settings)
            .with_bmcs(self.bmcs.clone())
            .with_mailbox(self.mailbox.clone())
    }

    /// The inputs of DHCP answers.
    pub(super) fn boot_sources(&self, config: &Config, base: &DaemonBase) -> BootSources {
        BootSources {
            nodes: IndexView(self.nodes.index().clone()),
            urls: self.urls.clone(),
            boot_sets: self.boot_sets.clone(),
            tftp: config.dhcp.tftp,
            foreign_pools: base.foreign_pools.subscribe(),
        }
    }

    /// The observers of DHCP exchanges.
    pub(super) fn observers(&self) -> Observers {
        Observers {
            recorder: self.recorder.clone(),
            metrics: self.metrics.dhcp.clone(),
            strangers: self.strangers.clone(),
        }
    }

    /// The context of the workers.
    pub(super) fn worker_context(&self, config: &Config, base: &DaemonBase) -> WorkerContext {
        WorkerContext {
            nodes: self.nodes.clone(),
            recorder: self.recorder.clone(),
            artifacts: self.artifacts.clone(),
            urls: self.urls.clone(),
            daemon: base.daemon.clone(),
            bmcs: self.bmcs.clone(),
            certificates: Arc::clone(&self.certificates),
            allows_pxe: config.dhcp.tftp,
            mailbox: self.mailbox.clone(),
            providers: self.providers.clone(),
            policy: config.policy(),
            power_change: config.power.change_timeout(),
            power_sync: config.power.sync_interval(),
            loader: config.boot.http_loader,
            strangers: self.strangers.clone(),
        }
    }
}

/// TFTP on the service's IPv4 addresses on DHCP networks, if it is enabled.
async fn open_tftp(
    config: &Config,
    state_dir: &Path,
    addresses: &[IpAddr],
    recorder: &Recorder,
) -> Result<Vec<Tftp>> {
    let transfers = tftp::Transfers::new(recorder.addresses().clone());
    let file = config.boot.boot_sets_in(state_dir).join(TFTP_FILE);
    let mut open = Vec::new();
    for address in addresses.iter().filter(|_| config.dhcp.tftp) {
        if let IpAddr::V4(address) = *address {
            let at = SocketAddrV4::new(address, tftp::PORT);
            open.push(Tftp::open(at, file.clone(), transfers.clone()).await?);
        }
    }
    Ok(open)
}

fn artifact_settings(
    config: &Config,
    state_dir: &Path,
    urls: Urls,
    boot_sets: BootSets,
    authority: Option<&str>,
) -> ArtifactSettings {
    let has_tls = urls.agent_scheme() == UrlScheme::Https;
    ArtifactSettings {
        boot_sets,
        cache: state_dir.join("cache"),
        image_dirs: config.boot.image_dirs_in(state_dir),
        image_reach: config.image_reach(),
        image_limits: config.images.limits(),
        http_loader: config.boot.http_loader,
        kernel_append_params: config.boot.kernel_append_params.clone(),
        uki_signer: None,
        urls,
        agent_authority: authority.filter(|_| has_tls).map(str::to_owned),
    }
}
