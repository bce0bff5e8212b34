//! Selects the repeated events to report: the first one, then a count at growing intervals.
//!
//! For log lines and trace rows that strangers can cause, so that a flood of requests is not a flood of lines.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Number of distinct kinds. Further ones share one entry, so that nobody can fill the memory with kinds.
const MOST_KINDS: usize = 1_024;

/// Interval of removing old kinds, since that visits all kinds.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// The pauses between reports of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pauses {
    /// The pause after the first report.
    pub first: Duration,
    /// The longest pause; each pause is twice as long as the one before. After a silence of this length, counting
    /// starts afresh.
    pub longest: Duration,
}

impl Pauses {
    /// For events that need few reports.
    pub const GROWING: Self =
        Self { first: Duration::from_secs(10), longest: Duration::from_secs(3_600) };
}

/// The recently reported kinds. It reads no clock: times are relative to any fixed moment.
#[derive(Debug)]
pub struct Repeats<K> {
    pauses: Pauses,
    kinds: HashMap<K, Repeat>,
    /// The shared entry of further kinds.
    others: Repeat,
    /// The time of the last removal.
    tidied: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Repeat {
    /// The time of the next report.
    due: Duration,
    /// The time of the latest event.
    latest: Duration,
    /// `None` before the first time.
    pause: Option<Duration>,
    unlisted: u32,
}

impl<K: Eq + Hash> Repeats<K> {
    /// No reports yet.
    #[must_use]
    pub fn new(pauses: Pauses) -> Self {
        Self { pauses, kinds: HashMap::new(), others: Repeat::default(), tidied: Duration::ZERO }
    }

    /// Whether to report this event; if so, the number of unreported events of its kind since the last report.
    pub fn note(&mut self, kind: K, now: Duration) -> Option<u32> {
        let is_known = self.kinds.contains_key(&kind);
        if !is_known && self.kinds.len() >= MOST_KINDS && now >= self.tidied + TIDY_EVERY {
            self.tidied = now;
            let longest = self.pauses.longest;
            self.kinds.retain(|_, repeat| now < repeat.due.max(repeat.latest + longest / 60));
        }
        let has_room = is_known || self.kinds.len() < MOST_KINDS;
        let repeat = match has_room {
            true => self.kinds.entry(kind).or_default(),
            false => &mut self.others,
        };
        repeat.note(self.pauses, now)
    }
}

impl Repeat {
    fn note(&mut self, pauses: Pauses, now: Duration) -> Option<u32> {
        let is_anew = now.saturating_sub(self.latest) >= pauses.longest;
        self.latest = now;
        let pause = match self.pause {
            None => pauses.first,
            Some(_) if is_anew => pauses.first,
            Some(_) if now < self.due => {
                self.unlisted = self.unlisted.saturating_add(1);
                return None;
            }
            Some(pause) => (2 * pause).min(pauses.longest),
        };
        (self.pause, self.due) = (Some(pause), now + pause);
        Some(std::mem::take(&mut self.unlisted))
    }
}

/// The number of left-out lines before this one; displayed as a suffix of the line, empty for 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut(u32);

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            more => write!(f, " (after {more} more like it)"),
        }
    }
}

/// Whether to write a log line that others can cause at any rate. `what` identifies the line, `about` its subject,
/// such as a node or an address, if subjects are counted separately.
///
/// One table serves the whole process, as there is one log.
pub fn line(what: &'static str, about: impl Hash) -> Option<LeftOut> {
    // Each line has its own table, so that a full table does not affect other lines.
    type Lines = (RandomState, Mutex<HashMap<&'static str, Repeats<u64>>>);
    static LINES: LazyLock<Lines> = LazyLock::new(Default::default);
    let (hasher, lines) = &*LINES;
    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    let like_it = lines.entry(what).or_insert_with(|| Repeats::new(Pauses::GROWING));
    like_it.note(hasher.hash_one(about), uptime()).map(LeftOut)
}

/// Time since the first call: monotonic, and unrelated to the time of day.
pub fn uptime() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_is_spoken_of_and_then_ever_fewer_with_their_number() {
        let mut repeats = Repeats::new(Pauses::GROWING);
        let spoken: Vec<_> =
            (0..200).filter_map(|now| Some((now, repeats.note("a", at(now))?))).collect();

        assert_eq!(spoken, [(0, 0), (10, 9), (30, 19), (70, 39), (150, 79)]);
    }

    #[test]
    fn kinds_are_told_apart() {
        let mut repeats = Repeats::new(Pauses::GROWING);

        assert_eq!(repeats.note("a", at(0)), Some(0));
        assert_eq!(repeats.note("b", at(0)), Some(0));
        assert_eq!(repeats.note("a", at(1)), None);
    }

    #[test]
    fn after_a_long_silence_all_begins_anew() {
        let mut repeats = Repeats::new(Pauses::GROWING);
        for now in 0..1_000 {
            repeats.note("a", at(now));
        }

        let spoken: Vec<_> =
            (0..20).filter(|now| repeats.note("a", at(10_000 + now)).is_some()).collect();
        assert_eq!(spoken, [0, 10]);
    }

    #[test]
    fn a_million_kinds_take_no_memory_and_no_lines_without_end() {
        let mut repeats = Repeats::new(Pauses::GROWING);
        let spoken = (0..1_000_000_u64)
            .filter(|kind| repeats.note(*kind, at(kind / 100_000)).is_some())
            .count();

        assert!(repeats.kinds.len() <= MOST_KINDS);
        assert!(spoken <= MOST_KINDS + 2, "{spoken}");
    }

    #[test]
    fn a_line_is_written_once_and_shows_what_was_left_out() {
        assert_eq!(line("a test", 1), Some(LeftOut(0)));
        assert_eq!(line("a test", 1), None);
        assert_eq!(line("a test", 2), Some(LeftOut(0)));
        assert_eq!(LeftOut(0).to_string(), "");
        assert_eq!(LeftOut(7).to_string(), " (after 7 more like it)");
    }

    proptest! {
        #[test]
        fn none_is_lost_or_counted_twice(waits in prop::collection::vec((0..40_u64, 0..3_u8), 1..200)) {
            let mut repeats = Repeats::new(Pauses::GROWING);
            let (mut now, mut happened, mut counted) = (0, [0_u32; 3], [0_u32; 3]);
            for (wait, kind) in waits {
                now += wait;
                let of = usize::from(kind);
                happened[of] += 1;
                if let Some(unlisted) = repeats.note(kind, at(now)) {
                    counted[of] += 1 + unlisted;
                    prop_assert_eq!(counted[of], happened[of]);
                }
            }
        }
    }
}
