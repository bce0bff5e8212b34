//! The boot target of a machine, through its BMC or through DHCP.

use std::sync::Arc;

use netboot::urls::Unreachable;
use provision::{Attempt, BootInterface, Boots, Node, Port};
use redfish::ways::{HttpBootOverride, OverrideEnabled};
use thiserror::Error;

use super::context::WorkerContext;

/// The reason for having no boot target.
#[derive(Debug, Error)]
pub(super) enum NoBootTarget {
    #[error("its boot interface is {0}, and it has no port with pxe_enabled")]
    NoPort(BootInterface),
    #[error("{0:#}")]
    Provider(anyhow::Error),
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

/// The BMC's override for a boot, after the announcement to the DHCP service if DHCP takes part.
pub(super) async fn prepare_override(
    context: &WorkerContext,
    node: &Node,
    ports: &[Arc<Port>],
    attempt: &Attempt,
) -> Result<HttpBootOverride, NoBootTarget> {
    let uri = match attempt.boot_interface.bmc_artifact() {
        Some(artifact) => Some(context.urls.artifact(node, attempt, artifact, None)?),
        None if ports.iter().any(|port| port.pxe_enabled) => None,
        None => return Err(NoBootTarget::NoPort(attempt.boot_interface)),
    };
    context.providers.announce(node, ports).await.map_err(NoBootTarget::Provider)?;
    // The machine of an instance boots from its URL at every start, whatever causes the start.
    Ok(match attempt.boots() {
        Boots::Instance => HttpBootOverride { uri, enabled: OverrideEnabled::Continuous },
        Boots::Ramdisk | Boots::Nothing => HttpBootOverride::once(uri),
    })
}
