//! Strangers that requested a boot, shared by the DHCP listeners and the diagnoses.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hardware::{ClientKind, Mac};
use jiff::Timestamp;
use netboot::strangers::StrangerTable;
use nodes::NodeIndex;
use provision::boot::BootMethod;
use provision::diagnosis::Diagnosis;
use provision::{BootEvent, Vicinity, diagnose};
use uuid::Uuid;

/// Strangers that requested a boot; clones share them.
#[derive(Clone, Debug, Default)]
pub struct BootingStrangers(Arc<Mutex<StrangerTable>>);

impl BootingStrangers {
    /// Records a stranger's request. True if the stranger is new.
    pub(super) fn note(
        &self,
        mac: Mac,
        client: ClientKind,
        interface: &str,
        now: Timestamp,
    ) -> bool {
        self.table().note(mac, client, interface, now)
    }

    /// The diagnosis of `node`'s boot from its trace; a stranger may be its machine.
    #[must_use]
    pub fn diagnose(
        &self,
        index: &NodeIndex,
        node: Uuid,
        method: BootMethod,
        events: &[BootEvent],
        now: Timestamp,
    ) -> Option<Diagnosis> {
        // The index is not read under the lock, which DHCP takes for each packet of a stranger.
        let table = self.table().clone();
        let strangers = table.all(|mac| index.by_mac(mac).map(|found| found.node), node);
        let known = index.by_uuid(node);
        let secure_boot = known.as_ref().and_then(|(node, _)| node.secure_boot);
        let ports = known.map(|(_, ports)| ports).unwrap_or_default();
        let ports: Vec<_> = ports.iter().map(|port| port.address).collect();
        let vicinity = Vicinity { ports: &ports, strangers: &strangers, secure_boot };
        diagnose(method, events, vicinity, now)
    }

    /// A panic elsewhere cannot leave the table half-changed.
    pub(super) fn table(&self) -> MutexGuard<'_, StrangerTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
