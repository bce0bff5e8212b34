//! The time of this process: it goes on evenly, whatever is done to the system's clock.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// A clock that is read and never set: the time at which it began, and what has passed since then by a clock that
/// nobody can set. Clones share it.
///
/// Times that it gives are shown to people too, and so they follow a correction of the system's clock only after a
/// restart. What is measured by it is right before, at and after the correction.
#[derive(Clone)]
pub struct Clock {
    shared: Arc<Shared>,
}

struct Shared {
    began: Timestamp,
    passed: Box<dyn Fn() -> Duration + Send + Sync>,
    /// Microseconds that it is ahead of `began` and what has passed.
    ahead: AtomicI64,
}

/// How far ahead of the system's clock stored times may be to be believed.
const BELIEVED: SignedDuration = SignedDuration::from_hours(24);

impl Clock {
    /// The clock that this process began with.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "read once, when the process begins")]
    pub fn process() -> Self {
        static PROCESS: LazyLock<Clock> = LazyLock::new(|| {
            let since = Instant::now();
            Clock::of(Timestamp::now(), move || since.elapsed())
        });
        PROCESS.clone()
    }

    /// A clock that began at a time, and is told what has `passed` since then.
    #[must_use]
    pub fn of(began: Timestamp, passed: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        let shared = Shared { began, passed: Box::new(passed), ahead: AtomicI64::new(0) };
        Self { shared: Arc::new(shared) }
    }

    /// A clock that stands.
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

    /// Puts the clock forward to a time that was stored before, and gives by how much: the system's clock was set back
    /// since then, and what comes now must not seem to come before what was. A time that is more than a day ahead
    /// was stored by a clock that was wrong, and is not believed.
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

        // The system's clock may be set now by any amount: nothing asks it.
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
