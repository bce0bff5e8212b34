//! Who asks for a boot and is no port of any node: remembered for whoever waits for a machine of which nothing is heard.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use provision::boot::HttpLoader;
use provision::diagnosis::Diagnosis;
use provision::trace::DhcpClient;
use provision::{BootEvent, BootInterface, BootingStranger, Mac, Vicinity, diagnose};
use uuid::Uuid;

use crate::nodes::Index;

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
        client: DhcpClient,
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
            let interface = interface.to_owned();
            all.insert(mac, BootingStranger { mac, client, interface, since: now, last: now });
            true
        })
    }

    /// What `node`'s boot went wrong by, read off its trace, if anything; a stranger may be its machine.
    #[must_use]
    pub fn diagnose(
        &self,
        index: &Index,
        node: Uuid,
        boot: (BootInterface, HttpLoader),
        events: &[BootEvent],
        now: Timestamp,
    ) -> Option<Diagnosis> {
        let strangers = self.all(|mac| index.by_mac(mac).is_some());
        let ports = index.by_uuid(node).map(|(_, ports)| ports).unwrap_or_default();
        let ports: Vec<_> = ports.iter().map(|port| port.address).collect();
        let vicinity = Vicinity { ports: &ports, strangers: &strangers };
        diagnose(boot.0, boot.1, events, vicinity, now)
    }

    /// All that are remembered and, by `is_known`, still nobody's port.
    pub(super) fn all(&self, is_known: impl Fn(Mac) -> bool) -> Vec<BootingStranger> {
        self.with(|all| {
            all.retain(|mac, _| !is_known(*mac));
            all.values().cloned().collect()
        })
    }

    fn with<T>(&self, look: impl FnOnce(&mut HashMap<Mac, BootingStranger>) -> T) -> T {
        // A panic elsewhere cannot leave it half-changed.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn mac(number: u16) -> Mac {
        let [high, low] = number.to_be_bytes();
        Mac([2, 0, 0, 0, high, low])
    }

    fn heard(strangers: &BootingStrangers, number: u16, seconds: i64) -> bool {
        strangers.note(mac(number), DhcpClient::HttpClient, "br0", at(seconds))
    }

    #[test]
    fn one_that_was_silent_for_long_began_anew() {
        let strangers = BootingStrangers::default();
        let since = || strangers.all(|_| false)[0].since;

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

        let all = strangers.all(|_| false);
        assert_eq!(all.len(), MANY);
        assert!(all.iter().all(|stranger| stranger.mac >= mac(10_000 - 256)));
    }

    #[test]
    fn who_has_been_registered_is_no_stranger_any_more() {
        let strangers = BootingStrangers::default();
        heard(&strangers, 1, 0);
        heard(&strangers, 2, 0);

        let all = strangers.all(|known| known == mac(1));

        assert_eq!(all.iter().map(|stranger| stranger.mac).collect::<Vec<_>>(), [mac(2)]);
    }
}
