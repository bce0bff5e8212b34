//! The strangers that asked for a boot, shared between the DHCP listeners and whoever waits for a machine.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hardware::{ClientKind, Mac};
use jiff::Timestamp;
use netboot::strangers::StrangerTable;
use nodes::NodeIndex;
use provision::boot::BootMethod;
use provision::diagnosis::Diagnosis;
use provision::{BootEvent, Vicinity, diagnose};
use uuid::Uuid;

/// Strangers that asked for a boot; clones share them.
#[derive(Clone, Debug, Default)]
pub struct BootingStrangers(Arc<Mutex<StrangerTable>>);

impl BootingStrangers {
    /// Remembers that a stranger asked. True if it was not known.
    pub(super) fn note(
        &self,
        mac: Mac,
        client: ClientKind,
        interface: &str,
        now: Timestamp,
    ) -> bool {
        self.table().note(mac, client, interface, now)
    }

    /// What `node`'s boot went wrong by, read off its trace, if anything; a stranger may be its machine.
    #[must_use]
    pub fn diagnose(
        &self,
        index: &NodeIndex,
        node: Uuid,
        method: BootMethod,
        events: &[BootEvent],
        now: Timestamp,
    ) -> Option<Diagnosis> {
        // The index is not asked under the lock, which DHCP takes for each packet of a stranger.
        let table = self.table().clone();
        let strangers = table.all(|mac| index.by_mac(mac).map(|found| found.node), node);
        let ports = index.by_uuid(node).map(|(_, ports)| ports).unwrap_or_default();
        let ports: Vec<_> = ports.iter().map(|port| port.address).collect();
        let vicinity = Vicinity { ports: &ports, strangers: &strangers };
        diagnose(method, events, vicinity, now)
    }

    /// A panic elsewhere cannot leave the table half-changed.
    pub(super) fn table(&self) -> MutexGuard<'_, StrangerTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
