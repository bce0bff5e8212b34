//! What the workers use of the daemon.

use std::time::Duration;

use netboot::urls::Urls;
use nodes::{Nodes, Recorder};
use provision::boot::HttpLoader;
use provision::{Attempt, Node, Policy};
use store::DaemonIdentity;
use uuid::Uuid;

use crate::artifacts::Artifacts;
use crate::dhcp::BootingStrangers;
use crate::providers::Providers;

/// What all workers use; clones share it.
#[derive(Clone, Debug)]
pub struct WorkerContext {
    /// The nodes and their work.
    pub nodes: Nodes,
    /// Records every exchange.
    pub recorder: Recorder,
    /// What machines are booted with.
    pub artifacts: Artifacts,
    /// Where they fetch it.
    pub urls: Urls,
    /// This daemon, as it claims work.
    pub daemon: DaemonIdentity,
    /// The DHCP service that machines are booted by.
    pub providers: Providers,
    /// How long silence may last.
    pub policy: Policy,
    /// How often the power of resting machines is looked at; never, if `None`.
    pub power_sync: Option<Duration>,
    /// Who asked for a boot and is nobody's port, for diagnoses.
    pub strangers: BootingStrangers,
    /// What `http` starts first, for diagnoses.
    pub loader: HttpLoader,
}

/// The node's attempt, if it is the one that the work is for.
pub(super) fn attempt_of(node: &Node, attempt: Uuid) -> Option<&Attempt> {
    node.live_attempt().filter(|live| live.id == attempt)
}
