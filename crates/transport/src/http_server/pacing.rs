//! Pacing: the more answers are under way, the less of each may be on its way to its peer.
//!
//! In a boot storm, a thousand machines would otherwise have a thousand receive windows of data in the network. Each
//! new answer waits behind them, switches drop what exceeds their buffers, and the kernel runs out of memory for
//! sockets. A link stays full if about [`QUEUE`] of its rate is on its way.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The part of a second for which data may be on its way: longer than round trips within a site, shorter than what the
/// buffers of a switch hold.
const QUEUE: Duration = Duration::from_millis(40);
/// The bytes that all answers may have on their way in any case.
const LEAST_BUDGET: u64 = 4 << 20;
/// The rate is measured over this time.
const MEASURED_FOR: Duration = Duration::from_millis(100);
/// The least share of an answer: with less than six segments of Ethernet, a peer's delayed acknowledgement
/// (RFC 9293 §3.8.6.3) would stop the answer.
const LEAST_SHARE: u64 = 8 << 10;
/// An answer with a greater share is not limited. The kernel then chooses the size of the buffer.
const MOST_SHARE: u64 = 256 << 10;

/// The bytes that all answers of a port may have on their way, from the rate of the last moments.
#[derive(Debug)]
struct SendBudget {
    bytes: u64,
    since: Instant,
    /// The bytes that were sent before.
    sent_before: u64,
}

impl SendBudget {
    fn new(now: Instant) -> Self {
        Self { bytes: LEAST_BUDGET, since: now, sent_before: 0 }
    }

    /// Measures the rate, if it is time. `sent` is the number of bytes since the start.
    fn measure(&mut self, sent: u64, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        if passed < MEASURED_FOR {
            return;
        }
        let rate = sent.saturating_sub(self.sent_before) as f64 / passed.as_secs_f64();
        self.bytes = LEAST_BUDGET.max((rate * QUEUE.as_secs_f64()) as u64);
        (self.since, self.sent_before) = (now, sent);
    }
}

/// The bytes that each of `answers` may have on its way, a power of two, so that it seldom changes; `None` if it need not
/// be limited.
fn share(budget: u64, answers: usize) -> Option<usize> {
    let share = (budget / answers.max(1) as u64).max(LEAST_SHARE);
    (share < MOST_SHARE).then(|| 1_usize << share.ilog2())
}

/// The pacing of a port's answers.
#[derive(Debug)]
pub(super) struct Pacing {
    answers: AtomicUsize,
    sent: AtomicU64,
    budget: Mutex<SendBudget>,
    /// The budget's bytes.
    bytes: AtomicU64,
}

impl Pacing {
    pub(super) fn new() -> Self {
        let budget = SendBudget::new(Instant::now());
        let bytes = AtomicU64::new(budget.bytes);
        let (answers, sent) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self { answers, sent, budget: Mutex::new(budget), bytes }
    }

    /// An answer begins.
    pub(super) fn begin(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// An answer ends.
    pub(super) fn end(&self) {
        self.answers.fetch_sub(1, Ordering::Relaxed);
    }

    /// A socket took so many bytes.
    pub(super) fn sent(&self, bytes: usize) {
        let sent = self.sent.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        // Another thread measures it, or has just done so.
        let Ok(mut budget) = self.budget.try_lock() else { return };
        budget.measure(sent, Instant::now());
        self.bytes.store(budget.bytes, Ordering::Relaxed);
    }

    /// The bytes that an answer may have on its way now; `None` if it need not be limited.
    pub(super) fn share(&self) -> Option<usize> {
        share(self.bytes.load(Ordering::Relaxed), self.answers.load(Ordering::Relaxed))
    }

    /// The size of the socket's buffer for an answer that need not be limited any more.
    pub(super) fn most_share() -> usize {
        MOST_SHARE as usize
    }
}
