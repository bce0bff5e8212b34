//! The announced boots of a DHCP service: the latest of each node.

use std::collections::HashMap;

use uuid::Uuid;

use super::announcement::Announcement;

/// The announced boots: the latest of each node.
#[derive(Clone, Debug, Default)]
pub struct AnnouncedBoots(HashMap<Uuid, Announcement>);

impl AnnouncedBoots {
    /// Records an announcement. It replaces that of an earlier boot of its node.
    pub fn insert(&mut self, told: Announcement) {
        self.0.insert(told.node, told);
    }

    /// Updates the announcement of a boot, unless the boot has ended.
    pub fn amend(&mut self, now: &Announcement) {
        if self.has(now) {
            self.0.insert(now.node, now.clone());
        }
    }

    /// Removes the announcement of a boot. That of a newer boot of the node stays.
    pub fn remove(&mut self, told: &Announcement) {
        if self.has(told) {
            self.0.remove(&told.node);
        }
    }

    /// The announcement of a node's boot.
    #[must_use]
    pub fn of_node(&self, node: Uuid) -> Option<Announcement> {
        self.0.get(&node).cloned()
    }

    /// All announcements.
    #[must_use]
    pub fn all(&self) -> Vec<Announcement> {
        self.0.values().cloned().collect()
    }

    /// The announcements of `told` that are still valid: not withdrawn, and not replaced by a newer boot's.
    #[must_use]
    pub fn still(&self, told: &[Announcement]) -> Vec<Announcement> {
        told.iter().filter(|told| self.has(told)).cloned().collect()
    }

    fn has(&self, told: &Announcement) -> bool {
        self.0.get(&told.node).is_some_and(|known| known.attempt == told.attempt)
    }
}

impl Extend<Announcement> for AnnouncedBoots {
    fn extend<T: IntoIterator<Item = Announcement>>(&mut self, told: T) {
        self.0.extend(told.into_iter().map(|told| (told.node, told)));
    }
}

#[cfg(test)]
mod tests {
    use provision::BootInterface::Http;

    use super::*;
    use crate::providers::test_announcements::{announcement, next_boot, plain_port};

    #[test]
    fn what_becomes_known_late_of_a_boot_changes_nothing_of_the_next_one() {
        let first = announcement(Http, "10.0.0.1");
        let next = next_boot(&first);
        let mut told = AnnouncedBoots::default();
        told.insert(first.clone());
        told.insert(next.clone());

        told.amend(&first);
        told.remove(&first);

        let attempts = |told: Vec<Announcement>| -> Vec<_> {
            told.into_iter().map(|told| told.attempt).collect()
        };
        assert_eq!(attempts(told.all()), [next.attempt]);
        assert_eq!(attempts(told.still(&[first, next.clone()])), [next.attempt]);
        told.remove(&next);
        assert_eq!(told.of_node(next.node), None);
    }

    #[test]
    fn a_boot_is_told_again_if_its_ports_have_changed_and_not_if_another_has_begun() {
        let before = announcement(Http, "10.0.0.1");
        let mut now = before.clone();
        now.ports.push(plain_port(2));

        assert!(before.is_changed(&now));
        assert!(!before.is_changed(&before));
        assert!(!before.is_changed(&next_boot(&now)));
        assert_eq!(now.gone_ports(&before), [plain_port(2)]);
        assert_eq!(before.gone_ports(&now), []);
    }
}
