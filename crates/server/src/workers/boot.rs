//! Power off, override, read back, power on; written down before each call that changes something.

use std::time::Duration;

use provision::event::BootPhase;
use provision::{BootInterface, Event, Node, Port};
use redfish::boot::{NotKept, Power};
use store::{Claimed, WorkError};
use thiserror::Error;
use tokio::time::sleep;
use tracing::info;
use uuid::Uuid;

use super::{WorkPlace, Workers, attempt_of};
use crate::bmcs::{Bmc, BmcError, BmcMachine, await_power, look};
use crate::urls::Unreachable;

/// Looks, a second apart, in which a reset shows that was sent before a crash. They are counted in the store: a daemon
/// that is restarted every few seconds gets past them too.
const RESET_SHOWS: u8 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// For all that the BMC does for a boot: one that answers each question at the last moment holds the node no
/// longer.
const BMC_PATIENCE: Duration = Duration::from_secs(900);

/// Why a machine was not booted.
#[derive(Debug, Error)]
enum NotBooted {
    #[error("its attempt is over")]
    Over,
    #[error("its boot interface is {0}, and it has no port with pxe_enabled")]
    NoPort(BootInterface),
    #[error("{0:#}")]
    Images(anyhow::Error),
    #[error("{0:#}")]
    Provider(anyhow::Error),
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    #[error(transparent)]
    Bmc(#[from] BmcError),
    #[error(transparent)]
    NotKept(#[from] NotKept),
    #[error(transparent)]
    Work(#[from] WorkError),
}

pub(super) async fn run(
    workers: &Workers,
    claimed: &Claimed,
    attempt: Uuid,
    place: &WorkPlace,
) -> Result<Event, WorkError> {
    match boot(workers, claimed, attempt, place).await {
        Ok(()) => Ok(Event::Booting { attempt }),
        Err(NotBooted::Work(failed)) => Err(failed),
        Err(reason) => Ok(Event::BootFailed { attempt, reason: reason.to_string() }),
    }
}

async fn boot(
    workers: &Workers,
    claimed: &Claimed,
    attempt: Uuid,
    place: &WorkPlace,
) -> Result<(), NotBooted> {
    let node = &claimed.node;
    // All that can fail without the machine fails before it is touched.
    let uri = uri(workers, node, attempt)?;
    // A service that cannot answer is cheaper to find out than images are to make; where these fail, it
    // is made to forget.
    tell_provider(workers, node).await?;
    place.lend(workers.artifacts.prepare(node)).await.map_err(NotBooted::Images)?;
    let switched_on = switch_on(workers, claimed, uri.as_deref());
    let switched_on = tokio::time::timeout(BMC_PATIENCE, switched_on).await;
    switched_on.map_err(|_| BmcError::Slow(BMC_PATIENCE))?
}

/// Told what to boot, and seen on.
async fn switch_on(
    workers: &Workers,
    claimed: &Claimed,
    uri: Option<&str>,
) -> Result<(), NotBooted> {
    let node = &claimed.node;
    let bmc = Bmc::of(node, &workers.recorder).await?;
    let machine = bmc.machine().await?;

    if comes_on(workers, claimed, &machine).await? {
        info!("the machine is on: it was switched on before the restart");
        return Ok(());
    }
    let mut sight = look(&machine).await?;
    sight.validate(uri.is_some()).map_err(BmcError::from)?;
    let note = |phase| workers.nodes.store().note_progress(&claimed.claim, phase);
    if sight.power() != Power::Off {
        note(BootPhase::PoweringOff).await?;
        machine.power_off(&sight).await.map_err(BmcError::from)?;
        sight = await_power(&machine, Power::Off).await?;
    }
    note(BootPhase::Overriding).await?;
    machine.override_boot(&sight, uri).await.map_err(BmcError::from)?;
    let sight = look(&machine).await?;
    sight.has_override(uri)?;
    note(BootPhase::PoweringOn).await?;
    info!("switching the machine on, to boot by {}", node.boot_interface);
    machine.power_on(&sight).await.map_err(BmcError::from)?;
    await_power(&machine, Power::On).await?;
    Ok(())
}

/// What the BMC is to be told, where it is told a URL. Refuses what can be seen to fail.
fn uri(workers: &Workers, node: &Node, attempt: Uuid) -> Result<Option<String>, NotBooted> {
    let attempt = attempt_of(node, attempt).ok_or(NotBooted::Over)?;
    if let Some(artifact) = attempt.boot_interface.http_boot_uri() {
        return Ok(Some(workers.urls.artifact(node, attempt, artifact, None)?));
    }
    let ports = workers.nodes.index().by_uuid(node.uuid).map(|(_, ports)| ports);
    let bootable = |port: &std::sync::Arc<Port>| port.pxe_enabled;
    if !ports.unwrap_or_default().iter().any(bootable) {
        return Err(NotBooted::NoPort(attempt.boot_interface));
    }
    Ok(None)
}

/// Lets the DHCP service answer the machine, where it takes part.
async fn tell_provider(workers: &Workers, node: &Node) -> Result<(), NotBooted> {
    let found = workers.nodes.index().by_uuid(node.uuid);
    let ports = found.map(|(_, ports)| ports).unwrap_or_default();
    workers.providers.announce(node, &ports).await.map_err(NotBooted::Provider)
}

/// Whether a reset that was, or was about to be, sent before a restart takes effect.
async fn comes_on(
    workers: &Workers,
    claimed: &Claimed,
    machine: &BmcMachine<'_>,
) -> Result<bool, NotBooted> {
    let mut seen_off = match claimed.progress {
        BootPhase::Untouched | BootPhase::PoweringOff | BootPhase::Overriding => return Ok(false),
        BootPhase::PoweringOn => 0,
        BootPhase::SeenOff(looks) => looks,
    };
    loop {
        if look(machine).await?.power() == Power::On {
            return Ok(true);
        }
        if seen_off >= RESET_SHOWS {
            return Ok(false);
        }
        seen_off += 1;
        let phase = BootPhase::SeenOff(seen_off);
        workers.nodes.store().note_progress(&claimed.claim, phase).await?;
        sleep(BETWEEN_LOOKS).await;
    }
}
