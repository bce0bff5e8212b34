//! Strangers: machines that request a boot but are no port of any node, or of a node that is not to boot. One of them
//! may be the machine that an operator waits for.

use std::collections::HashMap;
use std::sync::Arc;

use hardware::{ClientKind, Mac};
use jiff::{SignedDuration, Timestamp};
use provision::{BootingStranger, Node};
use uuid::Uuid;

/// Number of strangers to remember. A flood of invented MAC addresses can only displace others.
const MANY: usize = 256;
/// A stranger without a request for this long was power-cycled. Firmware that keeps retrying is never silent for so
/// long.
const SILENT: SignedDuration = SignedDuration::from_secs(90);

/// Strangers that requested a boot.
#[derive(Clone, Debug, Default)]
pub struct StrangerTable(HashMap<Mac, BootingStranger>);

impl StrangerTable {
    /// Records a stranger's request. True if the stranger is new.
    pub fn note(&mut self, mac: Mac, client: ClientKind, interface: &str, now: Timestamp) -> bool {
        let all = &mut self.0;
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
    }

    /// All strangers except those of `node` and of nodes that boot, each with its node if it has one by now.
    pub fn all(
        &self,
        node_of: impl Fn(Mac) -> Option<Arc<Node>>,
        node: Uuid,
    ) -> Vec<BootingStranger> {
        let with_node = |stranger: BootingStranger| match node_of(stranger.mac) {
            Some(its) if its.uuid == node || its.live_attempt().is_some() => None,
            Some(its) => {
                let name = its.name.clone().unwrap_or_else(|| its.uuid.to_string());
                Some(BootingStranger { port_of: Some(name), ..stranger })
            }
            None => Some(stranger),
        };
        self.0.values().cloned().filter_map(with_node).collect()
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

    fn asked(strangers: &mut StrangerTable, number: u16, seconds: i64) -> bool {
        strangers.note(mac(number), ClientKind::HttpClient, "br0", at(seconds))
    }

    #[test]
    fn one_that_was_silent_for_long_began_anew() {
        let mut strangers = StrangerTable::default();
        let since = |strangers: &StrangerTable| strangers.all(|_| None, Uuid::nil())[0].since;

        assert!(asked(&mut strangers, 1, 0));
        assert!(!asked(&mut strangers, 1, 60));
        assert_eq!(since(&strangers), at(0));
        asked(&mut strangers, 1, 151);
        assert_eq!(since(&strangers), at(151));
    }

    #[test]
    fn a_flood_takes_no_more_memory_and_who_asked_last_is_remembered() {
        let mut strangers = StrangerTable::default();

        for number in 0..10_000 {
            asked(&mut strangers, number, number.into());
        }

        let all = strangers.all(|_| None, Uuid::nil());
        assert_eq!(all.len(), MANY);
        assert!(all.iter().all(|stranger| stranger.mac >= mac(10_000 - 256)));
    }

    #[test]
    fn who_has_been_registered_is_named_as_that_and_not_to_its_own_node_or_while_it_boots() {
        let mut strangers = StrangerTable::default();
        asked(&mut strangers, 1, 0);
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
