//! The parts of the daemon that workers use.

use std::sync::Arc;
use std::time::Duration;

use artifacts::Artifacts;
use netboot::urls::Urls;
use nodes::{Nodes, Recorder};
use providers::Providers;
use provision::artifact::HttpLoader;
use provision::boot_ca::BootCa;
use provision::{Attempt, Node, Policy};
use redfish::boot_certificates::AuthorityCertificate;
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
    /// The service's CA, if it is known.
    pub authority: Option<Arc<AuthorityCertificate>>,
    /// Whether requests by PXE are answered.
    pub allows_pxe: bool,
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
    /// The CA that is removed from the firmware of the machine of `node` after a boot.
    pub(super) fn ca_to_remove(&self, node: &Node) -> Option<&AuthorityCertificate> {
        self.authority.as_deref().filter(|_| BootCa::of(node) == BootCa::Remove)
    }
}

/// The node's attempt, if the work belongs to it.
pub(super) fn attempt_of(node: &Node, attempt: Uuid) -> Option<&Attempt> {
    node.live_attempt().filter(|live| live.id == attempt)
}
