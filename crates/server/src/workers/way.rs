//! The way in which a BMC boots the machine: chosen, recorded before it changes anything, and its changes found again.

use std::collections::HashSet;

use hardware::{BootChange, Mac};
use provision::{Attempt, BootEvent, BootEventKind, Node, Port};
use redfish::system::SystemView;
use redfish::ways::ChosenWay;
use store::{Clock, Store, StoreError, WorkError};
use uuid::Uuid;

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
            let store = context.nodes.store();
            let saved = store.append_events(&[(self.node.uuid, event)]).await;
            saved.map_err(WorkError::from)?;
        }
        self.chosen = Some(chosen);
        Ok(())
    }
}

/// What the boots of an attempt changed at the BMC. Of several changes of one order, the first knows the order from
/// before the attempt.
pub(super) async fn changes_of(
    store: &Store,
    node: &Node,
    attempt: Uuid,
) -> Result<Vec<BootChange>, StoreError> {
    let events = store.events(node.uuid, Some(attempt)).await?;
    let changes = events.into_iter().filter_map(|event| {
        let BootEventKind::BootWay { changes, .. } = event.what else { return None };
        Some(changes)
    });
    let mut seen = HashSet::new();
    Ok(changes.flatten().filter(|change| seen.insert(place_of(change).to_owned())).collect())
}

fn place_of(change: &BootChange) -> &str {
    match change {
        BootChange::BiosUrl { settings, .. } => settings,
        BootChange::Order { resource, .. } => resource,
        BootChange::Media { drive } => drive,
    }
}
