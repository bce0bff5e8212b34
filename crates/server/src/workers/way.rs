//! The way in which a BMC boots the machine: chosen, recorded before it changes anything.

use hardware::Mac;
use provision::{Attempt, BootEvent, BootEventKind, Node, Port};
use redfish::system::SystemView;
use redfish::ways::ChosenWay;
use store::{Clock, WorkError};

use super::context::WorkerContext;
use super::not_carried_out::NotCarriedOut;
use crate::bmcs::{BmcError, BmcMachine, boot_macs, boot_need};

/// The boot of a node in this work.
pub(super) struct WayOfBoot<'n> {
    node: &'n Node,
    attempt: &'n Attempt,
    macs: Vec<Mac>,
    chosen: Option<ChosenWay>,
}

impl<'n> WayOfBoot<'n> {
    pub(super) fn new<'p>(
        node: &'n Node,
        attempt: &'n Attempt,
        ports: impl IntoIterator<Item = &'p Port>,
    ) -> Self {
        Self { node, attempt, macs: boot_macs(ports), chosen: None }
    }

    /// The chosen way.
    pub(super) fn chosen(&self) -> Option<&ChosenWay> {
        self.chosen.as_ref()
    }

    /// Chooses the way, and records it. What it changes is in the store before the BMC is changed.
    pub(super) async fn choose(
        &mut self,
        context: &WorkerContext,
        machine: &BmcMachine<'_, '_>,
        shown: &SystemView,
    ) -> Result<(), NotCarriedOut> {
        let interface = self.attempt.boot_interface;
        let need = boot_need(self.node, interface, &self.macs, context.allows_pxe);
        let chosen = machine.choose_way(shown, &need).await.map_err(BmcError::from)?;
        let what = BootEventKind::BootWay {
            way: chosen.kind(),
            platform: chosen.platform.to_string(),
            resource: chosen.resource().to_owned(),
            warnings: chosen.warnings.clone(),
            changes: chosen.changes().to_vec(),
        };
        if chosen.changes().is_empty() {
            context.recorder.record(self.node, what);
        } else {
            let event = BootEvent { at: Clock::process().now(), attempt: self.attempt.id, what };
            let noted = context.nodes.store().note_boot_way(self.node.uuid, event).await;
            noted.map_err(WorkError::from)?;
        }
        self.chosen = Some(chosen);
        Ok(())
    }
}
