//! Readings of the power of machines without work: which machines are read, and how fast.

use std::time::Duration;

use uuid::Uuid;

use crate::node::Node;
use crate::state::ProvisionState;

/// Share of the interval over which the readings are spread.
const SPREAD: f64 = 0.9;
/// The most readings that begin in a second, if there is time for all of them.
const CALM_RATE: f64 = 32.0;
/// The time that a slow BMC takes for a reading, with the login and TLS.
const SLOW_READING: Duration = Duration::from_secs(2);
/// Readings at once: Ironic's `[conductor]sync_power_state_workers`, and what a process has descriptors for.
const FEWEST_AT_ONCE: usize = 8;
const MOST_AT_ONCE: usize = 512;

/// The boot mode and Secure Boot are read with every so many readings of the power.
const MODES_EVERY: u128 = 10;

/// How fast BMCs are read: evenly over the interval, so that other work has its part of the processor, of the database
/// and of the network at any time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReadingPace {
    /// Time between the beginnings of two readings.
    pub gap: Duration,
    /// Number of readings at once.
    pub at_once: usize,
}

impl ReadingPace {
    /// That of so many BMCs, each read once in every such interval.
    #[must_use]
    pub fn of(count: usize, every: Duration) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let gap = every.mul_f64(SPREAD) / count;
        let gap = gap.min(Duration::from_secs_f64(1.0 / CALM_RATE));
        let needed = SLOW_READING.as_secs_f64() / gap.as_secs_f64().max(f64::EPSILON);
        let needed = needed.ceil().min(MOST_AT_ONCE as f64) as usize;
        Self { gap, at_once: needed.max(FEWEST_AT_ONCE) }
    }
}

/// Whether the boot mode and Secure Boot of `node`, which take further requests, are read in this round as well. In other
/// rounds, it is the turn of others.
#[must_use]
pub fn is_turn_of_modes(round: u128, node: Uuid) -> bool {
    round.wrapping_add(node.as_u128()).is_multiple_of(MODES_EVERY)
}

/// Whether the node has no work, and a BMC that has answered before.
#[must_use]
pub fn is_resting(node: &Node) -> bool {
    let state = node.provision_state;
    let managed = state != ProvisionState::Enroll && !state.is_under_way();
    let has_instance = state == ProvisionState::Active;
    let torn_down = has_instance || node.live_attempt().is_none();
    managed && torn_down && node.target_power_state.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_bmcs_are_read_within_a_minute_and_a_few_at_a_calm_rate() {
        let minute = Duration::from_secs(60);
        let pace = |count| ReadingPace::of(count, minute);

        assert!(pace(10_000).gap * 10_000 < minute);
        assert_eq!(pace(10_000), ReadingPace { gap: Duration::from_micros(5_400), at_once: 371 });
        assert_eq!(pace(100), ReadingPace { gap: Duration::from_micros(31_250), at_once: 64 });
        assert_eq!(pace(0), pace(1));
        assert_eq!(pace(1_000_000).at_once, MOST_AT_ONCE);
    }
}
