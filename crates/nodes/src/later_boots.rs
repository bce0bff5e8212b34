//! Boots of instances that their machines begin by themselves: each has an attempt, and so a trace, of its own.
//!
//! Nothing on the way of a DHCP answer waits for the database. So the identity of such a boot is made here, at its first
//! exchange; a worker saves it with the node a moment later.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use provision::instance_boot::begins_another_boot;
use provision::{Attempt, Node, What};
use tokio::sync::Notify;
use uuid::Uuid;

/// The boots that are not saved yet; clones share them.
#[derive(Clone, Debug, Default)]
pub struct LaterBoots(Arc<UnsavedBoots>);

#[derive(Debug, Default)]
struct UnsavedBoots {
    by_node: Mutex<HashMap<Uuid, LaterBoot>>,
    added: Notify,
}

/// A boot that a machine has begun by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaterBoot {
    /// The attempt before it.
    pub before: Uuid,
    /// Its own.
    pub id: Uuid,
}

impl LaterBoots {
    /// The attempt that an exchange of a node belongs to: that of the node, or a later one that begins with it or has
    /// begun.
    pub(crate) fn attempt_of(&self, node: &Node, attempt: &Attempt, what: &What) -> Uuid {
        let mut unsaved = self.locked();
        if let Some(later) = unsaved.get(&node.uuid).filter(|later| later.before == attempt.id) {
            return later.id;
        }
        if !begins_another_boot(node, attempt, what) {
            return attempt.id;
        }
        let later = LaterBoot { before: attempt.id, id: Uuid::new_v4() };
        unsaved.insert(node.uuid, later);
        self.0.added.notify_one();
        later.id
    }

    /// Waits until there are any, and gives them with their nodes.
    pub async fn unsaved(&self) -> Vec<(Uuid, LaterBoot)> {
        loop {
            let added = self.0.added.notified();
            let unsaved: Vec<_> = self.locked().iter().map(|(node, it)| (*node, *it)).collect();
            if !unsaved.is_empty() {
                return unsaved;
            }
            added.await;
        }
    }

    /// Forgets a boot that was saved, or need not be.
    pub fn forget(&self, node: Uuid, later: LaterBoot) {
        let mut unsaved = self.locked();
        if unsaved.get(&node) == Some(&later) {
            unsaved.remove(&node);
        }
    }

    // A panic elsewhere cannot leave the map half-changed.
    fn locked(&self) -> MutexGuard<'_, HashMap<Uuid, LaterBoot>> {
        self.0.by_node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
