//! Later boots: boots of an instance that its machine begins by itself. Each has its own attempt and trace.
//!
//! No DHCP answer waits for the database. So the attempt's ID is derived here, at the first exchange; a worker saves
//! it with the node a moment later.
//!
//! The ID is derived from the attempt before. So an exchange that begins before the save and ends after it belongs to
//! the same boot, and so does an exchange at another daemon.
//!
//! A boot whose instance is removed before the boot is saved has no attempt. Its events go to the attempt before it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use provision::instance_boot::begins_another_boot;
use provision::{Attempt, BootEventKind, Node};
use tokio::sync::Notify;
use uuid::Uuid;

/// The boots that are not saved yet, or never will be; clones share them.
#[derive(Clone, Debug, Default)]
pub struct LaterBoots(Arc<UnsavedBoots>);

#[derive(Debug, Default)]
struct UnsavedBoots {
    by_node: Mutex<HashMap<Uuid, (LaterBoot, UnsavedStage)>>,
    added: Notify,
}

/// The stage of an unsaved boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UnsavedStage {
    /// Waits to be saved.
    ToSave,
    /// Its events are to be moved.
    Overtaken,
    /// Its events were moved. It is kept for exchanges with an outdated node.
    Moved,
}

/// A boot that the machine began by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaterBoot {
    /// The attempt before it.
    pub before: Uuid,
    /// Its own attempt.
    pub id: Uuid,
}

impl LaterBoot {
    fn after(before: Uuid) -> Self {
        Self { before, id: Uuid::new_v5(&before, b"the next boot of the instance") }
    }
}

impl LaterBoots {
    /// The attempt of an exchange: the node's attempt, or a later boot that begins with this exchange or has already
    /// begun.
    pub(crate) fn attempt_of(&self, node: &Node, attempt: &Attempt, what: &BootEventKind) -> Uuid {
        let mut unsaved = self.locked();
        match unsaved.get(&node.uuid).filter(|(later, _)| later.before == attempt.id) {
            Some((later, UnsavedStage::ToSave)) => return later.id,
            Some((_, UnsavedStage::Overtaken | UnsavedStage::Moved)) => return attempt.id,
            None => {}
        }
        if !begins_another_boot(node, attempt, what) {
            return attempt.id;
        }
        let later = LaterBoot::after(attempt.id);
        unsaved.insert(node.uuid, (later, UnsavedStage::ToSave));
        self.0.added.notify_one();
        later.id
    }

    /// Waits for later boots, and returns them with their nodes.
    pub async fn unsaved(&self) -> Vec<(Uuid, LaterBoot)> {
        loop {
            let added = self.0.added.notified();
            let is_open = |stage| stage != UnsavedStage::Moved;
            let unsaved: Vec<_> = (self.locked().iter())
                .filter(|(_, (_, stage))| is_open(*stage))
                .map(|(node, (later, _))| (*node, *later))
                .collect();
            if !unsaved.is_empty() {
                return unsaved;
            }
            added.await;
        }
    }

    /// Removes a boot that is saved, or need not be.
    pub fn forget(&self, node: Uuid, later: LaterBoot) {
        let mut unsaved = self.locked();
        if unsaved.get(&node).is_some_and(|(unsaved, _)| *unsaved == later) {
            unsaved.remove(&node);
        }
    }

    /// Ends a boot: further exchanges belong to the attempt before it.
    pub(crate) fn overtake(&self, node: Uuid, later: LaterBoot) {
        self.set_stage(node, later, UnsavedStage::Overtaken);
    }

    /// Records that a boot's events were moved.
    pub(crate) fn note_moved(&self, node: Uuid, later: LaterBoot) {
        self.set_stage(node, later, UnsavedStage::Moved);
    }

    fn set_stage(&self, node: Uuid, later: LaterBoot, stage: UnsavedStage) {
        if let Some((unsaved, now)) = self.locked().get_mut(&node)
            && *unsaved == later
        {
            *now = stage;
        }
    }

    // A panic elsewhere cannot leave the map half-changed.
    fn locked(&self) -> MutexGuard<'_, HashMap<Uuid, (LaterBoot, UnsavedStage)>> {
        self.0.by_node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hardware::{ClientKind, Mac};
    use jiff::Timestamp;
    use provision::node::{FreshAttempt, Secret};
    use provision::test_nodes::{ATTEMPT, booting_node};
    use provision::trace::DhcpAnswer;
    use provision::{BootInterface, Procedure, ProvisionState};
    use tokio::time::timeout;

    use super::*;

    /// An active node whose machine has fetched its whole instance image.
    fn node_with_an_instance() -> Node {
        let mut attempt = Attempt::begun(
            FreshAttempt {
                attempt: ATTEMPT,
                ticket: Secret("TICKET".to_owned()),
                agent_token: Secret("TOKEN".to_owned()),
            },
            Procedure::Deploy,
            BootInterface::Http,
            Timestamp::UNIX_EPOCH,
        );
        attempt.image_fetched_at = Some(Timestamp::UNIX_EPOCH);
        let provision_state = ProvisionState::Active;
        Node { provision_state, attempt: Some(attempt), ..booting_node() }
    }

    /// The firmware requests its boot.
    fn firmware_asks() -> BootEventKind {
        BootEventKind::Dhcp {
            message: "DISCOVER".to_owned(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            client: ClientKind::HttpClient,
            architecture: None,
            answer: DhcpAnswer::Offer { address: [192, 0, 2, 8].into(), artifact: None },
            unlisted: 0,
        }
    }

    fn attempt_of(later_boots: &LaterBoots, node: &Node) -> Uuid {
        later_boots.attempt_of(node, node.attempt.as_ref().unwrap(), &firmware_asks())
    }

    #[tokio::test]
    async fn an_exchange_that_ends_after_its_boot_was_saved_belongs_to_it() {
        let (later_boots, node) = (LaterBoots::default(), node_with_an_instance());
        let begun = attempt_of(&later_boots, &node);
        let [(_, saved)] = later_boots.unsaved().await[..] else { panic!("one is to be saved") };
        later_boots.forget(node.uuid, saved);

        assert_eq!(attempt_of(&later_boots, &node), begun, "the exchange has the node as it was");
        assert_ne!(begun, ATTEMPT);
    }

    #[tokio::test]
    async fn nothing_more_belongs_to_a_boot_that_was_overtaken() {
        let (later_boots, node) = (LaterBoots::default(), node_with_an_instance());
        attempt_of(&later_boots, &node);
        let [(_, later)] = later_boots.unsaved().await[..] else { panic!("one is to be saved") };

        later_boots.overtake(node.uuid, later);
        assert_eq!(attempt_of(&later_boots, &node), ATTEMPT);
        assert_eq!(later_boots.unsaved().await, [(node.uuid, later)], "its events are not moved");
        later_boots.note_moved(node.uuid, later);

        assert_eq!(attempt_of(&later_boots, &node), ATTEMPT, "the exchange has the node as it was");
        assert!(timeout(Duration::ZERO, later_boots.unsaved()).await.is_err());
    }

    #[test]
    fn two_daemons_that_see_a_boot_record_it_as_the_same_attempt() {
        let node = node_with_an_instance();

        let seen = [(); 2].map(|()| attempt_of(&LaterBoots::default(), &node));

        assert_eq!(seen[0], seen[1]);
    }
}
