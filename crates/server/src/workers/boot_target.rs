//! What a machine is told to boot: by its BMC, or by whoever answers DHCP.

use std::sync::Arc;

use netboot::urls::Unreachable;
use provision::boot::bootable;
use provision::{Attempt, BootInterface, Boots, Node, Port, ProvisionState};
use redfish::boot::{HttpBootOverride, OverrideEnabled};
use thiserror::Error;

use super::context::WorkerContext;

/// Why nothing can be told.
#[derive(Debug, Error)]
pub(super) enum NoBootTarget {
    #[error("its boot interface is {0}, and it has no port with pxe_enabled")]
    NoPort(BootInterface),
    #[error("{0:#}")]
    Provider(anyhow::Error),
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

/// What the BMC is to be told for a boot, after the DHCP service was told, where one takes part.
pub(super) async fn prepare_override(
    context: &WorkerContext,
    node: &Node,
    ports: &[Arc<Port>],
    attempt: &Attempt,
) -> Result<HttpBootOverride, NoBootTarget> {
    let uri = match attempt.boot_interface.http_boot_uri() {
        Some(artifact) => Some(context.urls.artifact(node, attempt, artifact, None)?),
        None if ports.iter().any(|port| port.pxe_enabled) => None,
        None => return Err(NoBootTarget::NoPort(attempt.boot_interface)),
    };
    context.providers.announce(node, ports).await.map_err(NoBootTarget::Provider)?;
    // An instance is booted from its URL each time that its machine starts, whoever starts it.
    Ok(match attempt.boots() {
        Boots::Instance => HttpBootOverride { uri, enabled: OverrideEnabled::Continuous },
        Boots::Ramdisk | Boots::Nothing => HttpBootOverride::once(uri),
    })
}

/// The attempt of an active node's instance, which its machine boots whenever it is switched on; `None` for any other
/// node.
pub(super) fn instance_attempt(node: &Node) -> Option<&Attempt> {
    bootable(node).filter(|_| node.provision_state == ProvisionState::Active)
}
