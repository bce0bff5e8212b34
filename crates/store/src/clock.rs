//! The clock of this process: it is monotonic, whatever happens to the system clock.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// A clock that cannot be set: its start time plus the time measured by a monotonic clock since then. Clones share
/// it.
///
/// People see its times, too; they follow a correction of the system clock only after a restart. Durations are right
/// before, at and after the correction.
#[derive(Clone)]
pub struct Clock {
    shared: Arc<ClockState>,
}

struct ClockState {
    began: Timestamp,
    passed: Box<dyn Fn() -> Duration + Send + Sync>,
    /// Microseconds added to `began` and the passed time.
    ahead: AtomicI64,
}

/// Stored times further than this ahead of the system clock are not believed.
const BELIEVED: SignedDuration = SignedDuration::from_hours(24);

impl Clock {
    /// The clock of this process.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "read once, when the process begins")]
    pub fn process() -> Self {
        static PROCESS: LazyLock<Clock> = LazyLock::new(|| {
            let since = Instant::now();
            Clock::of(Timestamp::now(), move || since.elapsed())
        });
        PROCESS.clone()
    }

    /// A clock that began at a time; `passed` returns the time since then.
    #[must_use]
    pub fn of(began: Timestamp, passed: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        let shared = ClockState { began, passed: Box::new(passed), ahead: AtomicI64::new(0) };
        Self { shared: Arc::new(shared) }
    }

    /// A clock that does not advance.
    #[must_use]
    pub fn standing_at(time: Timestamp) -> Self {
        Self::of(time, || Duration::ZERO)
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let ahead = SignedDuration::from_micros(self.shared.ahead.load(Ordering::Relaxed));
        let passed = SignedDuration::try_from((self.shared.passed)()).unwrap_or_default();
        let now = self.shared.began.checked_add(passed).and_then(|now| now.checked_add(ahead));
        now.unwrap_or(Timestamp::MAX)
    }

    /// Sets the clock forward to a stored time, and returns the difference: the system clock was set back since then,
    /// and new times must not precede stored ones. A time more than a day ahead was stored by a wrong clock, and is
    /// ignored.
    pub fn catch_up(&self, stored: Timestamp) -> Option<SignedDuration> {
        let behind = stored.duration_since(self.now());
        if behind <= SignedDuration::ZERO || behind > BELIEVED {
            return None;
        }
        let micros = i64::try_from(behind.as_micros()).unwrap_or_default();
        self.shared.ahead.fetch_add(micros, Ordering::Relaxed);
        Some(behind)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn time_that_passes_is_all_that_moves_a_clock() {
        let passed = Arc::new(AtomicI64::new(0));
        let clock = Clock::of(at("2026-01-01T00:00:00Z"), {
            let passed = passed.clone();
            move || Duration::from_secs(passed.load(Ordering::Relaxed).unsigned_abs())
        });

        // The system clock may be set to any time now: it is not read.
        passed.store(90, Ordering::Relaxed);

        assert_eq!(clock.now(), at("2026-01-01T00:01:30Z"));
    }

    #[test]
    fn a_clock_is_not_behind_what_was_stored_before_a_restart() {
        let clock = Clock::standing_at(at("2026-01-01T10:00:00Z"));

        let behind = clock.catch_up(at("2026-01-01T12:00:00Z"));

        assert_eq!(behind, Some(SignedDuration::from_hours(2)));
        assert_eq!(clock.now(), at("2026-01-01T12:00:00Z"));
        assert_eq!(clock.catch_up(at("2026-01-01T11:00:00Z")), None);
    }

    #[test]
    fn a_time_far_in_the_future_is_not_believed() {
        let clock = Clock::standing_at(at("2026-01-01T10:00:00Z"));

        assert_eq!(clock.catch_up(at("2099-01-01T10:00:00Z")), None);
        assert_eq!(clock.now(), at("2026-01-01T10:00:00Z"));
    }
}
