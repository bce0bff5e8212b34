//! The parts of the daemon that workers use.

use std::sync::Arc;
use std::time::Duration;

use ::bmcs::ServiceCertificates;
use agents::AgentMailbox;
use artifacts::Artifacts;
use netboot::urls::Urls;
use nodes::{Nodes, Recorder};
use providers::Providers;
use provision::artifact::HttpLoader;
use provision::enrolment::Enrolment;
use provision::{Attempt, Node, Policy};
use redfish::firmware_care::{FirmwareCare, RemovedCertificates};
use redfish::secure_boot_databases::SecureBootCare;
use store::DaemonIdentity;
use uuid::Uuid;

use crate::bmcs::DaemonBmcs;
use crate::dhcp::BootingStrangers;

/// The context of all workers; clones share it.
#[derive(Clone, Debug)]
pub struct WorkerContext {
    /// The nodes and their work.
    pub nodes: Nodes,
    /// Records every exchange.
    pub recorder: Recorder,
    /// The images.
    pub artifacts: Artifacts,
    /// The boot and agent URLs.
    pub urls: Urls,
    /// The daemon's identity for claims.
    pub daemon: DaemonIdentity,
    /// The connections to BMCs.
    pub(crate) bmcs: DaemonBmcs,
    /// The service's certificates.
    pub certificates: Arc<ServiceCertificates>,
    /// Whether requests by PXE are answered.
    pub allows_pxe: bool,
    /// The calls to agents that fetch them.
    pub mailbox: AgentMailbox,
    /// The DHCP service.
    pub providers: Providers,
    /// The timeouts.
    pub policy: Policy,
    /// Time within which a machine's power must follow a reset, unless its node has another one.
    pub power_change: Duration,
    /// Interval of power readings of resting machines; never if `None`.
    pub power_sync: Option<Duration>,
    /// Strangers that requested a boot, for diagnoses.
    pub strangers: BootingStrangers,
    /// The first loader of `http`, for diagnoses.
    pub loader: HttpLoader,
}

impl WorkerContext {
    /// What a boot of `node` does about the certificates in the firmware.
    pub(super) fn firmware_care(&self, node: &Node) -> FirmwareCare<'_> {
        let signer = self.certificates.signer.as_ref();
        FirmwareCare {
            enrols_ca: self.urls.enrols_ca(node),
            authority: self.certificates.authority.as_ref(),
            secure_boot: match (Enrolment::of_sign_certificate(node), signer) {
                (Enrolment::Enrol | Enrolment::Remove, Some(signer)) => {
                    Some(SecureBootCare::Enrol(signer))
                }
                (_, signer) if node.secure_boot == Some(true) => Some(SecureBootCare::Read(signer)),
                _ => None,
            },
        }
    }

    /// The certificates that are removed from the firmware of the machine of `node` after a boot.
    pub(super) fn removed_certificates(&self, node: &Node) -> RemovedCertificates<'_> {
        let ServiceCertificates { authority, signer } = &*self.certificates;
        let is_removed = |enrolment: Enrolment| enrolment == Enrolment::Remove;
        RemovedCertificates {
            authority: authority.as_ref().filter(|_| is_removed(Enrolment::of_boot_ca(node))),
            signer: signer.as_ref().filter(|_| is_removed(Enrolment::of_sign_certificate(node))),
        }
    }
}

/// The node's attempt, if the work belongs to it.
pub(super) fn attempt_of(node: &Node, attempt: Uuid) -> Option<&Attempt> {
    node.live_attempt().filter(|live| live.id == attempt)
}
