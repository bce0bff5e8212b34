//! Who asks for a boot and is no port of any node, or of one that is not to boot: remembered for whoever waits for a machine
//! of which nothing is heard.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hardware::{ClientKind, Mac};
use jiff::{SignedDuration, Timestamp};
use nodes::NodeIndex;
use provision::boot::BootMethod;
use provision::diagnosis::Diagnosis;
use provision::{BootEvent, BootingStranger, Node, Vicinity, diagnose};
use uuid::Uuid;

/// Strangers to remember. Who floods the network with made-up addresses can make us forget others, and no more.
const MANY: usize = 256;
/// One that was not heard for so long began anew: it was switched off and on. Firmware that tries again and again is never
/// silent for so long.
const SILENT: SignedDuration = SignedDuration::from_secs(90);

/// Strangers that asked for a boot; clones share them.
#[derive(Clone, Debug, Default)]
pub struct BootingStrangers(Arc<Mutex<HashMap<Mac, BootingStranger>>>);

impl BootingStrangers {
    /// Remembers that one was heard. True if it was not known.
    pub(super) fn note(
        &self,
        mac: Mac,
        client: ClientKind,
        interface: &str,
        now: Timestamp,
    ) -> bool {
        self.with(|all| {
            if let Some(known) = all.get_mut(&mac) {
                if now.duration_since(known.last) > SILENT {
                    known.since = now;
                }
                (known.client, known.last) = (client, now);
                if known.interface != interface {
                    interface.clone_into(&mut known.interface);
                }
                return false;
            }
            if all.len() >= MANY {
                let longest = all.values().min_by_key(|known| known.last).map(|known| known.mac);
                longest.and_then(|mac| all.remove(&mac));
            }
            let (port_of, interface) = (None, interface.to_owned());
            let (since, last) = (now, now);
            all.insert(mac, BootingStranger { mac, port_of, client, interface, since, last });
            true
        })
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
        let strangers = self.all(|mac| index.by_mac(mac).map(|found| found.node), node);
        let ports = index.by_uuid(node).map(|(_, ports)| ports).unwrap_or_default();
        let ports: Vec<_> = ports.iter().map(|port| port.address).collect();
        let vicinity = Vicinity { ports: &ports, strangers: &strangers };
        diagnose(method, events, vicinity, now)
    }

    /// All that are remembered but those of `node`, each with the node that it is of by now.
    pub(super) fn all(
        &self,
        node_of: impl Fn(Mac) -> Option<Arc<Node>>,
        node: Uuid,
    ) -> Vec<BootingStranger> {
        let all: Vec<_> = self.with(|all| all.values().cloned().collect());
        let with_node = |stranger: BootingStranger| match node_of(stranger.mac) {
            Some(its) if its.uuid == node || its.live_attempt().is_some() => None,
            Some(its) => {
                let name = its.name.clone().unwrap_or_else(|| its.uuid.to_string());
                Some(BootingStranger { port_of: Some(name), ..stranger })
            }
            None => Some(stranger),
        };
        all.into_iter().filter_map(with_node).collect()
    }

    fn with<T>(&self, look: impl FnOnce(&mut HashMap<Mac, BootingStranger>) -> T) -> T {
        // A panic elsewhere cannot leave it half-changed.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use provision::test_nodes::booting_node;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn mac(number: u16) -> Mac {
        let [high, low] = number.to_be_bytes();
        Mac([2, 0, 0, 0, high, low])
    }

    fn heard(strangers: &BootingStrangers, number: u16, seconds: i64) -> bool {
        strangers.note(mac(number), ClientKind::HttpClient, "br0", at(seconds))
    }

    #[test]
    fn one_that_was_silent_for_long_began_anew() {
        let strangers = BootingStrangers::default();
        let since = || strangers.all(|_| None, Uuid::nil())[0].since;

        assert!(heard(&strangers, 1, 0));
        assert!(!heard(&strangers, 1, 60));
        assert_eq!(since(), at(0));
        heard(&strangers, 1, 151);
        assert_eq!(since(), at(151));
    }

    #[test]
    fn a_flood_takes_no_more_memory_and_who_is_heard_last_is_remembered() {
        let strangers = BootingStrangers::default();

        for number in 0..10_000 {
            heard(&strangers, number, number.into());
        }

        let all = strangers.all(|_| None, Uuid::nil());
        assert_eq!(all.len(), MANY);
        assert!(all.iter().all(|stranger| stranger.mac >= mac(10_000 - 256)));
    }

    #[test]
    fn who_has_been_registered_is_named_as_that_and_not_to_its_own_node_or_while_it_boots() {
        let strangers = BootingStrangers::default();
        heard(&strangers, 1, 0);
        let seen_by = |of: &Node, node| {
            let node_of = |_| Some(Arc::new(of.clone()));
            strangers.all(node_of, node).first().map(|stranger| stranger.port_of.clone())
        };
        let boots = booting_node();
        let rests = Node { attempt: None, name: Some("rack-08".to_owned()), ..boots.clone() };
        let other = Uuid::from_u128(77);

        assert_eq!(seen_by(&rests, other), Some(Some("rack-08".to_owned())));
        assert_eq!(seen_by(&rests, rests.uuid), None);
        assert_eq!(seen_by(&boots, other), None);
    }
}
