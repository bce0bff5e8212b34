//! Suppresses trace events of exchanges that repeat a moment ago's.
//!
//! Firmware retries after four seconds at the earliest, so its boots are traced in full. Faster repetitions are a
//! loop or a flood, and must not fill the database.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use dhcp::leases::Seconds;
use hardware::Mac;
use provision::trace::DhcpAnswer;
use uuid::Uuid;

/// Within this many seconds, equal exchanges are recorded once.
const WINDOW: Seconds = 3;
/// Number of exchanges to remember before old ones are forgotten.
const MANY: usize = 65_536;

/// The recently recorded exchanges.
#[derive(Debug, Default)]
pub struct RepeatedExchanges {
    latest: HashMap<ExchangeKind, Latest>,
    /// Number of exchanges that triggers the next removal of old ones.
    full: usize,
}

/// A kind of message from one port, in one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExchangeKind {
    /// The attempt.
    pub attempt: Uuid,
    /// The port.
    pub mac: Mac,
    /// The type of the message.
    pub message: &'static str,
}

#[derive(Debug)]
struct Latest {
    answer: DhcpAnswer,
    written: Seconds,
    since: u32,
}

impl RepeatedExchanges {
    /// The number of suppressed repetitions since the last record, if this exchange is to be recorded.
    pub fn note(
        &mut self,
        exchange: ExchangeKind,
        answer: &DhcpAnswer,
        now: Seconds,
    ) -> Option<u32> {
        if self.latest.len() >= self.full.max(MANY) {
            self.latest.retain(|_, latest| now.saturating_sub(latest.written) < WINDOW);
            // All of them may be recent: then the next removal waits for twice as many.
            self.full = 2 * self.latest.len();
        }
        match self.latest.entry(exchange) {
            Entry::Vacant(vacant) => {
                vacant.insert(Latest { answer: answer.clone(), written: now, since: 0 });
                Some(0)
            }
            Entry::Occupied(mut occupied) => {
                let latest = occupied.get_mut();
                let same = latest.answer == *answer;
                if same && now.saturating_sub(latest.written) < WINDOW {
                    latest.since = latest.since.saturating_add(1);
                    return None;
                }
                let since = std::mem::replace(
                    latest,
                    Latest { answer: answer.clone(), written: now, since: 0 },
                )
                .since;
                Some(since)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXCHANGE: ExchangeKind =
        ExchangeKind { attempt: Uuid::nil(), mac: Mac([2, 0, 0, 0, 0, 1]), message: "DISCOVER" };

    fn offer(last: u8) -> DhcpAnswer {
        DhcpAnswer::Offer { address: [192, 0, 2, last].into(), artifact: None }
    }

    #[test]
    fn what_firmware_says_again_is_written_down_and_a_flood_is_counted() {
        let mut repeats = RepeatedExchanges::default();

        assert_eq!(repeats.note(EXCHANGE, &offer(1), 100), Some(0));
        assert_eq!(repeats.note(EXCHANGE, &offer(1), 104), Some(0));
        assert_eq!(repeats.note(EXCHANGE, &offer(1), 105), None);
        assert_eq!(repeats.note(EXCHANGE, &offer(1), 106), None);
        assert_eq!(repeats.note(EXCHANGE, &offer(1), 108), Some(2));
    }

    #[test]
    fn another_answer_is_always_written_down() {
        let mut repeats = RepeatedExchanges::default();
        repeats.note(EXCHANGE, &offer(1), 100);

        assert_eq!(repeats.note(EXCHANGE, &offer(2), 100), Some(0));
    }

    #[test]
    fn machines_without_end_do_not_fill_the_memory() {
        let mut repeats = RepeatedExchanges::default();

        for second in 0..10_u64 {
            for machine in 0..20_000_u64 {
                let attempt = Uuid::from_u64_pair(second, machine);
                repeats.note(ExchangeKind { attempt, ..EXCHANGE }, &offer(1), second);
            }
        }

        assert!(repeats.latest.len() < 2 * MANY, "{}", repeats.latest.len());
    }
}
