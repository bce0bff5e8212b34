//! The BMCs of nodes: each call recorded in the node's trace.

use std::sync::Arc;
use std::time::Duration;

use ::bmcs::{BmcConnections, BmcLink, BmcObserver, BmcSettings, WrongBmcSetting};
use hardware::Mac;
use nodes::Recorder;
use provision::enrolment::Enrolment;
use provision::virtual_media::{BOOT_FALLBACK, VIRTUAL_MEDIA};
use provision::{BootEventKind, BootInterface, Node, Port};
use redfish::channel::{ChannelFailure, RedfishAnswer, RedfishRequest};
use redfish::facts::BmcFacts;
use redfish::failure::BmcFailure;
use redfish::firmware_certificates::FirmwareCertificate;
use redfish::machine::{NotOneSystem, RedfishSystem};
use redfish::messages::words_of_refusal;
use redfish::ways::{BootNeed, BootNotSet, ChosenWay, HttpSupport, MediaUse};
use thiserror::Error;
use tracing::debug;
use url::{Host, Url};

/// The connections to all BMCs.
pub(crate) type DaemonBmcs = BmcConnections<BmcFacts>;

/// Time for all waits of one request of a worker, while the BMC is busy or its machine tests itself.
pub(crate) const WORK_PATIENCE: Duration = Duration::from_secs(300);
/// The same for a request whose client waits.
pub(crate) const API_PATIENCE: Duration = Duration::from_secs(20);

/// The client of one node's BMC.
pub(crate) struct BmcClient<'n> {
    link: BmcLink<'n, BmcFacts>,
    facts: Arc<BmcFacts>,
    system: Option<String>,
    patience: Duration,
}

/// A machine behind a [`BmcClient`].
pub(crate) type BmcMachine<'a, 'n> = RedfishSystem<'a, BmcLink<'n, BmcFacts>>;

/// The reason why a BMC could not be used.
#[derive(Debug, Error)]
pub(crate) enum BmcError {
    /// A setting of the node is missing or invalid.
    #[error(transparent)]
    Setting(#[from] WrongBmcSetting),
    /// The BMC's system could not be determined.
    #[error(transparent)]
    System(#[from] NotOneSystem),
    /// A request failed.
    #[error(transparent)]
    Failure(#[from] BmcFailure),
    /// It has no way to boot the machine, or does not keep it.
    #[error(transparent)]
    NotSet(#[from] BootNotSet),
    /// It answers, but all requests together take too long.
    #[error("the BMC took longer than {} s in all", .0.as_secs())]
    Slow(Duration),
}

impl<'n> BmcClient<'n> {
    /// The BMC of `node`, from its `redfish_*` settings. Nothing is sent yet.
    ///
    /// # Errors
    /// [`BmcError::Setting`]
    pub(crate) async fn of(
        bmcs: &DaemonBmcs,
        node: &'n Node,
        recorder: &'n Recorder,
        patience: Duration,
    ) -> Result<Self, BmcError> {
        let observer = Box::new(
            |request: &RedfishRequest, answer: Result<&RedfishAnswer, &ChannelFailure>| {
                let what = what(request, answer);
                debug!(node.uuid = %node.uuid, %what, "called the BMC");
                // Before the first boot and after the last, there is no trace.
                if node.live_attempt().is_some() {
                    recorder.record(node, what);
                }
            },
        );
        Self::observed_by(bmcs, node, observer, patience).await
    }

    /// The same for requests that are in no trace: only what they show is.
    ///
    /// # Errors
    /// [`BmcError::Setting`]
    pub(crate) async fn unrecorded(
        bmcs: &DaemonBmcs,
        node: &'n Node,
        patience: Duration,
    ) -> Result<Self, BmcError> {
        let observer = Box::new(
            |request: &RedfishRequest, answer: Result<&RedfishAnswer, &ChannelFailure>| {
                debug!(node.uuid = %node.uuid, what = %what(request, answer), "called the BMC");
            },
        );
        Self::observed_by(bmcs, node, observer, patience).await
    }

    async fn observed_by(
        bmcs: &DaemonBmcs,
        node: &'n Node,
        observer: Box<BmcObserver<'n>>,
        patience: Duration,
    ) -> Result<Self, BmcError> {
        let settings = BmcSettings::of(&node.driver_info)?;
        let link = bmcs.link(&settings, observer).await?;
        let facts = link.facts().unwrap_or_else(|| {
            let facts = Arc::<BmcFacts>::default();
            link.note_facts(Arc::clone(&facts));
            facts
        });
        Ok(Self { link, facts, system: settings.system_id, patience })
    }

    /// The same for a single look at the machine.
    #[must_use]
    pub(crate) fn for_one_look(self) -> Self {
        Self { link: self.link.for_one_look(), ..self }
    }

    /// The machine behind it.
    ///
    /// # Errors
    /// [`BmcError::System`] if the node does not set the system, and the BMC has not exactly one.
    pub(crate) async fn machine(&self) -> Result<BmcMachine<'_, 'n>, BmcError> {
        let path = self.system.as_deref();
        Ok(RedfishSystem::find(&self.link, &self.facts, path, self.patience).await?)
    }
}

/// What a boot of `node` by `interface` asks of its BMC.
pub(crate) fn boot_need<'m>(
    node: &Node,
    interface: BootInterface,
    macs: &'m [Mac],
    allows_pxe: bool,
) -> BootNeed<'m> {
    let by_url = interface.bmc_artifact().is_some();
    let has_fallback = node.driver_text(BOOT_FALLBACK) == Some(VIRTUAL_MEDIA);
    let media = match interface {
        BootInterface::RedfishVirtualMedia => MediaUse::Only,
        BootInterface::RedfishHttps if has_fallback => MediaUse::AsFallback,
        BootInterface::RedfishHttps | BootInterface::Http | BootInterface::HttpIpxe => {
            MediaUse::Never
        }
    };
    BootNeed { by_url, macs, allows_pxe, media, advice: None }
}

/// What the firmware needs to boot from URLs that begin like `base`.
pub(crate) fn http_support(base: Option<&Url>) -> HttpSupport {
    let is_ipv6 = base.is_some_and(|base| matches!(base.host(), Some(Host::Ipv6(_))));
    HttpSupport { ipv6: is_ipv6, plain: base.is_none_or(|base| base.scheme() == "http") }
}

/// The addresses of the cards that a node may boot by.
pub(crate) fn boot_macs<'p>(ports: impl IntoIterator<Item = &'p Port>) -> Vec<Mac> {
    ports.into_iter().filter(|port| port.pxe_enabled).map(|port| port.address).collect()
}

/// What an operator is told of a machine beside its way to boot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BootAdvice<'c> {
    /// The support of HTTP boot that the boot URL needs.
    pub(crate) support: HttpSupport,
    /// Whether the firmware must trust a CA.
    pub(crate) needs_ca: bool,
    /// That CA, if it is known.
    pub(crate) authority: Option<&'c FirmwareCertificate>,
    /// The certificate that signs images, if the firmware must trust it.
    pub(crate) signer: Option<&'c FirmwareCertificate>,
}

/// The way in which the BMC of `node` boots the machine by the node's boot interface.
///
/// # Errors
/// The missing feature, or the reason why the BMC did not answer.
pub(crate) async fn validate(
    bmcs: &DaemonBmcs,
    node: &Node,
    ports: &[Port],
    recorder: &Recorder,
    allows_pxe: bool,
    advice: BootAdvice<'_>,
) -> Result<ChosenWay, BmcError> {
    let bmc = BmcClient::of(bmcs, node, recorder, API_PATIENCE).await?;
    let machine = bmc.machine().await?;
    let view = machine.look().await?;
    let macs = boot_macs(ports);
    let need = boot_need(node, node.boot_interface, &macs, allows_pxe);
    let need = BootNeed { advice: Some(advice.support), ..need };
    let mut way = machine.choose_way(&view, &need).await?;
    if advice.needs_ca {
        let warning = machine.ca_warning(&view, &way, advice.authority).await;
        way.warnings.extend(warning);
    }
    if let Some(signer) = advice.signer {
        let is_enrolled = Enrolment::of_sign_certificate(node) != Enrolment::Leave;
        way.warnings.extend(machine.secure_boot_warning(&view, signer, is_enrolled).await);
    }
    Ok(way)
}

fn what(
    request: &RedfishRequest,
    answer: Result<&RedfishAnswer, &ChannelFailure>,
) -> BootEventKind {
    let error = match answer {
        Ok(answer) if answer.status.is_client_error() || answer.status.is_server_error() => {
            Some(words_of_refusal(request, &answer.body))
        }
        Ok(_) => None,
        Err(failure) => Some(failure.to_string()),
    };
    BootEventKind::Redfish {
        purpose: request.purpose,
        method: request.method.clone(),
        path: request.path.clone(),
        status: answer.ok().map(|answer| answer.status.as_u16()),
        error,
    }
}
