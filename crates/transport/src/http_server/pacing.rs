//! Pacing: the more answers are under way, the less of each may be on its way to its peer.
//!
//! In a boot storm, a thousand machines would otherwise have a thousand receive windows of data in the network. Each
//! new answer waits behind them, switches drop what exceeds their buffers, and the kernel runs out of memory for
//! sockets. A link stays full if about [`QUEUE`] of its rate is on its way.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The time in which the link sends what may be on its way: longer than round trips within a site, so that the link
/// stays full, and about what the buffers of a switch hold.
const QUEUE: Duration = Duration::from_millis(40);
/// The bytes that all answers may have on their way in any case: as many as the least shares of a thousand machines. A port knows no
/// rate when it begins, and a send buffer that was limited once is never again as large as the kernel would make it.
const LEAST_BUDGET: u64 = 4 << 20;
/// The budget is doubled while round trips are shorter than this: the link then holds less than half of [`QUEUE`]. The
/// processors or the peers are the limit, and short pieces would cost more of the processors: less would be sent, and the
/// pieces would be shorter still.
const SHORT_ROUND_TRIP: Duration = Duration::from_millis(20);
/// The budget is doubled from this rate on, in bytes/s. A slower link, of 1 Gbit/s, may be the limit at any moment.
const DOUBLED_FROM: f64 = 200e6;
/// The most that doubling leads to: longer pieces of a thousand answers save no more time.
const MOST_DOUBLED: u64 = 128 << 20;
/// The rate is measured over this time.
const MEASURED_FOR: Duration = Duration::from_millis(100);
/// The least share of an answer. A peer acknowledges every second segment of Ethernet (RFC 9293 §3.8.6.3); with fewer
/// on their way, its delayed acknowledgements would stop the answer.
const LEAST_SHARE: u64 = 4 << 10;
/// The step of greater shares, smaller than the growth from one measurement to the next.
const STEP: u64 = 1 << 10;
/// An answer with a greater share is not limited. The kernel then chooses the size of the buffer.
pub(super) const MOST_SHARE: usize = 256 << 10;

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

    /// Measures the rate, if it is time. `sent` is the number of bytes since the start, `round_trip` of one of the
    /// connections, if it is known.
    fn measure(&mut self, sent: u64, round_trip: impl FnOnce() -> Option<Duration>, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        if passed < MEASURED_FOR {
            return;
        }
        let rate = sent.saturating_sub(self.sent_before) as f64 / passed.as_secs_f64();
        let grown = match round_trip() {
            _ if rate < DOUBLED_FROM => 0,
            Some(round_trip) if round_trip < SHORT_ROUND_TRIP => 2 * self.bytes,
            Some(_) => 0,
            None => self.bytes,
        };
        self.bytes =
            LEAST_BUDGET.max((rate * QUEUE.as_secs_f64()) as u64).max(grown.min(MOST_DOUBLED));
        (self.since, self.sent_before) = (now, sent);
    }
}

/// The bytes that each of `answers` may have on its way, in steps, so that it seldom changes; `None` if it need not be
/// limited.
fn share(budget: u64, answers: usize) -> Option<usize> {
    let share = (budget / answers.max(1) as u64).max(LEAST_SHARE);
    (share < MOST_SHARE as u64).then(|| (share - share % STEP) as usize)
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

    /// The number of current answers.
    pub(super) fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    /// A socket with this round trip, if it is known, took so many bytes.
    pub(super) fn sent(&self, bytes: usize, round_trip: impl FnOnce() -> Option<Duration>) {
        let sent = self.sent.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        // Another thread measures it, or has just done so.
        let Ok(mut budget) = self.budget.try_lock() else { return };
        budget.measure(sent, round_trip, Instant::now());
        self.bytes.store(budget.bytes, Ordering::Relaxed);
    }

    /// The bytes that an answer may have on its way now; `None` if it need not be limited.
    pub(super) fn share(&self) -> Option<usize> {
        share(self.bytes.load(Ordering::Relaxed), self.answers())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A machine's receive window: EDK2 before 2023-09.
    const WINDOW: usize = 64 << 10;
    const MACHINES: usize = 1_000;
    /// Firmware gives up after 5 s.
    const PATIENCE: Duration = Duration::from_secs(4);

    /// What the machines of a storm waited for.
    #[derive(Debug, Default)]
    struct Waits {
        first_byte: Duration,
        between_reads: Duration,
        /// The part of the link's rate that was used.
        use_of_link: f64,
    }

    /// A storm in virtual time. All machines begin at once: `flights` exchanges that precede the image (handshakes and
    /// heads), then `length` bytes. The link sends `rate` bytes/s in the order in which it gets them. What a machine has
    /// taken is acknowledged after `round_trip`.
    fn storm(
        rate: f64,
        round_trip: Duration,
        flights: usize,
        length: usize,
        is_paced: bool,
    ) -> Waits {
        let (start, pacing) = (Instant::now(), Pacing::new());
        let mut budget = SendBudget::new(start);
        let (mut now, mut sent) = (Duration::ZERO, 0);
        // Each part on its way, with the machine and the time at which the server gave it to the link.
        let mut link: VecDeque<(usize, usize, Duration)> = VecDeque::new();
        let mut machines = vec![Machine { flights, left: length, ..Machine::default() }; MACHINES];
        for number in 0..MACHINES {
            link.push_back((number, FLIGHT, round_trip));
            pacing.begin();
        }
        let mut waits = Waits::default();
        while let Some((number, bytes, given)) = link.pop_front() {
            now = now.max(given) + Duration::from_secs_f64(bytes as f64 / rate);
            sent += bytes as u64;
            let measured = now - given + round_trip;
            budget.measure(sent, || Some(measured), start + now);
            let answers = pacing.answers();
            let paced = share(budget.bytes, answers).filter(|_| is_paced);
            let window = paced.map_or(WINDOW, |share| share.min(WINDOW));
            let machine = &mut machines[number];
            machine.under_way -= bytes.min(machine.under_way);
            if machine.flights > 0 {
                machine.flights -= 1;
                if machine.flights > 0 {
                    link.push_back((number, FLIGHT, now + round_trip));
                    continue;
                }
            } else if let Some(last) = machine.last_read.replace(now) {
                waits.between_reads = waits.between_reads.max(now - last);
            } else {
                waits.first_byte = waits.first_byte.max(now);
            }
            while machine.left > 0 && machine.under_way < window {
                let part = PART.min(machine.left);
                link.push_back((number, part, now + round_trip));
                machine.left -= part;
                machine.under_way += part;
            }
            if machine.left == 0 && machine.under_way == 0 {
                pacing.end();
            }
        }
        waits.use_of_link = sent as f64 / rate / now.as_secs_f64();
        waits
    }

    /// A flight of a handshake, or a head.
    const FLIGHT: usize = 2_000;
    /// What is sent at once.
    const PART: usize = 2_048;

    #[derive(Clone, Debug, Default)]
    struct Machine {
        flights: usize,
        left: usize,
        under_way: usize,
        last_read: Option<Duration>,
    }

    #[test]
    fn each_machine_of_a_storm_has_its_first_byte_within_4_s_and_then_waits_for_no_read_so_long() {
        for (megabits, length) in [(100, 500_000), (1_000, 4_000_000), (10_000, 8_000_000)] {
            for round_trip in [Duration::from_micros(200), Duration::from_millis(20)] {
                // TCP's and TLS 1.2's handshakes, the answer to HEAD, and the head of the image.
                let waits = storm(f64::from(megabits) * 1e6 / 8.0, round_trip, 5, length, true);

                let case = format!("{megabits} Mbit/s, {round_trip:?}: {waits:?}");
                assert!(waits.first_byte < PATIENCE, "{case}");
                assert!(waits.between_reads < PATIENCE, "{case}");
                assert!(waits.use_of_link > 0.95, "{case}");
            }
        }
    }

    #[test]
    fn without_pacing_the_machines_of_a_slow_link_would_wait_longer_than_firmware_does() {
        let waits = storm(100e6 / 8.0, Duration::from_micros(200), 5, 500_000, false);

        assert!(waits.between_reads > PATIENCE, "{waits:?}");
    }

    #[test]
    fn few_answers_are_not_limited_and_all_have_a_share_of_some_segments() {
        assert_eq!(share(LEAST_BUDGET, 0), None);
        assert_eq!(share(LEAST_BUDGET, 16), None);
        assert_eq!(share(LEAST_BUDGET, 64), Some(64 << 10));
        assert_eq!(share(LEAST_BUDGET, 100_000), Some(LEAST_SHARE as usize));
    }

    #[test]
    fn the_budget_follows_the_rate_and_is_never_below_its_least() {
        let start = Instant::now();
        let mut budget = SendBudget::new(start);
        let unknown = || None;

        budget.measure(1_000_000_000, unknown, start + MEASURED_FOR / 2);
        assert_eq!(budget.bytes, LEAST_BUDGET, "it is too early");
        budget.measure(1_000_000_000, unknown, start + Duration::from_secs(1));
        assert_eq!(budget.bytes, 40_000_000);
        budget.measure(1_000_000_001, unknown, start + Duration::from_secs(2));
        assert_eq!(budget.bytes, LEAST_BUDGET);
    }

    #[test]
    fn the_budget_is_doubled_while_round_trips_are_short_and_the_link_is_fast() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let (short, long) = (Some(SHORT_ROUND_TRIP / 2), Some(SHORT_ROUND_TRIP));
        let (mut budget, mut sent) = (SendBudget::new(start), 0);
        let steps = [
            (DOUBLED_FROM, short, 2 * LEAST_BUDGET),
            (DOUBLED_FROM, short, 4 * LEAST_BUDGET),
            (DOUBLED_FROM, short, 8 * LEAST_BUDGET),
            (DOUBLED_FROM, short, 16 * LEAST_BUDGET),
            (DOUBLED_FROM, short, MOST_DOUBLED),
            (DOUBLED_FROM, short, MOST_DOUBLED),
            (DOUBLED_FROM, None, MOST_DOUBLED),
            (DOUBLED_FROM, long, 8_000_000),
            (DOUBLED_FROM, short, 16_000_000),
            (DOUBLED_FROM / 2.0, short, LEAST_BUDGET),
            (3e9, short, 120_000_000),
        ];
        for (number, (rate, round_trip, expected)) in (1..).zip(steps) {
            sent += rate as u64;
            budget.measure(sent, || round_trip, start + number * second);
            assert_eq!(budget.bytes, expected, "after {number} s");
        }
    }
}
