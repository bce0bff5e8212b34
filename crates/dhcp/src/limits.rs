//! Rate limits: per client, overall, and a separate budget for registered machines.
//!
//! The memory does not grow with the number of clients, since an attacker may invent clients. Unknown clients use up
//! nothing of the budget of registered machines.

use std::collections::HashMap;

use thiserror::Error;

use crate::leases::LeaseHolder;

/// Milliseconds on any clock. If the clock is set back, all limits start afresh.
pub type Millis = u64;

/// Number of rate clocks for guests. Guests whose hashes are equal share a clock.
const GUESTS: usize = 4_096;
/// Number of rate clocks of known machines at which unneeded ones are removed.
const KNOWN: usize = 4_096;
const NANOS: u64 = 1_000_000_000;

/// A rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Times per second; 0 for no limit.
    pub per_sec: u32,
    /// Times at once, at least one.
    pub burst: u32,
}

impl Rate {
    /// No limit.
    pub const ANY: Self = Self { per_sec: 0, burst: 1 };

    /// The time between two packets, in nanoseconds.
    fn cost(self) -> u64 {
        NANOS.checked_div(self.per_sec.into()).unwrap_or_default()
    }
}

/// The limits of packets that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Per machine, known or not. A known machine may use more while the [spare](Self::spare) budget lasts.
    pub each: Rate,
    /// Of all known machines together, for packets within each machine's own rate.
    pub known: Rate,
    /// Of all unknown machines together.
    pub guests: Rate,
}

impl Default for Rates {
    /// Enough for a hall of machines that are switched on at once, and too little for guests to keep a
    /// processor busy.
    fn default() -> Self {
        Self {
            each: Rate { per_sec: 10, burst: 40 },
            known: Rate { per_sec: 100_000, burst: 200_000 },
            guests: Rate { per_sec: 10_000, burst: 20_000 },
        }
    }
}

impl Rates {
    /// The budget of all known machines that exceed their own rate: half of what known machines have together.
    ///
    /// Anyone can send in the name of a known machine and so use up that machine's own rate. The machine itself is
    /// then answered from this budget, which takes nothing from the other machines.
    #[must_use]
    pub fn spare(&self) -> Rate {
        let Rate { per_sec, burst } = self.known;
        // Never 0, which would mean no limit.
        Rate { per_sec: per_sec.div_ceil(2), burst: burst.div_ceil(2) }
    }
}

/// The limit that a packet exceeds, for which it is dropped unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Exceeded {
    /// The client's own.
    #[error("this client sends too many messages")]
    Each,
    /// That of all known machines together.
    #[error("all registered machines together send too many messages")]
    Known,
    /// That of all unknown clients together.
    #[error("unregistered machines send too many messages")]
    Guests,
}

impl Exceeded {
    /// A short name, for counters.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Each => "client_limit",
            Self::Known => "known_limit",
            Self::Guests => "guest_limit",
        }
    }
}

/// The due time of the next packet that is not part of a burst, in nanoseconds (the generic cell rate algorithm,
/// ITU-T I.371). It is the whole state of a token bucket.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateClock(u64);

impl RateClock {
    /// Counts a packet if the rate allows it; returns whether it does.
    pub fn admits(&mut self, rate: Rate, now: Millis) -> bool {
        let now = now.saturating_mul(NANOS / 1_000);
        let ahead = rate.cost() * u64::from(rate.burst.saturating_sub(1));
        let latest = now.saturating_add(ahead);
        // A clock further ahead means that the time was set back: the limit starts afresh.
        if self.0 > latest.saturating_add(rate.cost()) {
            self.0 = now;
        }
        let admits = self.0 <= latest;
        if admits {
            self.0 = self.0.max(now).saturating_add(rate.cost());
        }
        admits
    }

    /// Whether the clock is in the state of a new one.
    #[must_use]
    pub fn is_at_rest(self, now: Millis) -> bool {
        self.0 <= now.saturating_mul(NANOS / 1_000)
    }
}

/// The state of all limits.
#[derive(Clone, Debug)]
pub struct RateLimits {
    rates: Rates,
    seed: u64,
    known: HashMap<u64, RateClock>,
    /// Number of known machines at which idle ones are forgotten.
    forget_at: usize,
    guests: Vec<RateClock>,
    all_known: RateClock,
    spare: RateClock,
    all_guests: RateClock,
}

impl RateLimits {
    /// Unused limits. `seed` is random, so that no client can choose the clients that it shares a limit with.
    #[must_use]
    pub fn new(rates: Rates, seed: u64) -> Self {
        Self {
            rates,
            seed,
            known: HashMap::new(),
            forget_at: KNOWN,
            guests: vec![RateClock::default(); GUESTS],
            all_known: RateClock::default(),
            spare: RateClock::default(),
            all_guests: RateClock::default(),
        }
    }

    /// Counts a packet of a client, if the limits allow an answer. `client` is its MAC address, or
    /// another identifier.
    ///
    /// # Errors
    /// The exceeded limit. A client that exceeds its own limit uses up nothing of the shared ones.
    pub fn admit(
        &mut self,
        client: &[u8],
        holder: LeaseHolder,
        now: Millis,
    ) -> Result<(), Exceeded> {
        match holder {
            LeaseHolder::Known => self.admit_known(client, now),
            LeaseHolder::Guest => self.admit_guest(client, now),
        }
    }

    fn admit_known(&mut self, client: &[u8], now: Millis) -> Result<(), Exceeded> {
        self.forget_the_idle(now);
        let key = self.key(client);
        if self.known.entry(key).or_default().admits(self.rates.each, now) {
            let admits = self.all_known.admits(self.rates.known, now);
            return if admits { Ok(()) } else { Err(Exceeded::Known) };
        }
        let admits = self.spare.admits(self.rates.spare(), now);
        if admits { Ok(()) } else { Err(Exceeded::Each) }
    }

    fn admit_guest(&mut self, client: &[u8], now: Millis) -> Result<(), Exceeded> {
        let at = usize::try_from(self.key(client) % GUESTS as u64).expect("it is below GUESTS");
        if !self.guests[at].admits(self.rates.each, now) {
            return Err(Exceeded::Each);
        }
        let admits = self.all_guests.admits(self.rates.guests, now);
        if admits { Ok(()) } else { Err(Exceeded::Guests) }
    }

    /// FNV-1a, then the last steps of SplitMix64.
    fn key(&self, client: &[u8]) -> u64 {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        let hash = client.iter().fold(0xcbf2_9ce4_8422_2325 ^ self.seed, step);
        let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ (hash >> 31)
    }

    /// Removes the clocks of idle machines. The cost is amortized over the packets since the last removal.
    fn forget_the_idle(&mut self, now: Millis) {
        if self.known.len() >= self.forget_at {
            self.known.retain(|_, clock| !clock.is_at_rest(now));
            self.forget_at = KNOWN.max(2 * self.known.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATES: Rates = Rates {
        each: Rate { per_sec: 1, burst: 4 },
        known: Rate { per_sec: 1_000, burst: 10_000 },
        guests: Rate { per_sec: 10, burst: 20 },
    };

    fn limits() -> RateLimits {
        RateLimits::new(RATES, 7)
    }

    fn mac(number: u64) -> [u8; 6] {
        let bytes = number.to_be_bytes();
        std::array::from_fn(|at| bytes[at + 2])
    }

    #[test]
    fn a_stranger_may_ask_in_a_burst_and_then_at_its_rate() {
        let mut limits = limits();
        let mut asks = |now| limits.admit(&mac(1), LeaseHolder::Guest, now);

        assert!((0..4).all(|_| asks(0).is_ok()));
        assert_eq!(asks(0), Err(Exceeded::Each));
        assert_eq!(asks(999), Err(Exceeded::Each));
        assert_eq!(asks(1_000), Ok(()));
        assert_eq!(asks(1_000), Err(Exceeded::Each));
    }

    #[test]
    fn a_client_that_asks_too_often_takes_nothing_from_others() {
        let mut limits = limits();
        for _ in 0..1_000 {
            let _ = limits.admit(&mac(1), LeaseHolder::Guest, 0);
        }

        assert_eq!(limits.admit(&mac(2), LeaseHolder::Guest, 0), Ok(()));
    }

    #[test]
    fn a_million_made_up_clients_take_no_memory_and_no_answer_from_a_known_machine() {
        let mut limits = limits();
        for number in 0..1_000_000 {
            let _ = limits.admit(&mac(1_000_000 + number), LeaseHolder::Guest, number / 1_000);
        }

        assert_eq!(limits.guests.len(), GUESTS);
        assert!(limits.known.is_empty());
        assert!(limits.admit(&mac(2_000_000), LeaseHolder::Guest, 999).is_err());
        assert!((0..5_000).all(|known| limits.admit(&mac(known), LeaseHolder::Known, 999).is_ok()));
    }

    #[test]
    fn a_known_machine_in_whose_name_somebody_else_sends_is_answered_all_the_same() {
        let mut limits = RateLimits::new(Rates::default(), 7);
        let mut answered = 0;
        for now in 0..60_000 {
            // Each second: a thousand forged packets, and one of the machine itself.
            let _ = limits.admit(&mac(1), LeaseHolder::Known, now);
            if now % 1_000 == 999 {
                answered += u32::from(limits.admit(&mac(1), LeaseHolder::Known, now).is_ok());
            }
        }

        assert_eq!(answered, 60);
    }

    #[test]
    fn what_is_to_spare_ends_and_the_machine_that_used_it_up_is_named_as_the_cause() {
        let mut limits = RateLimits::new(Rates::default(), 7);
        let of_one = Rates::default();
        let most = of_one.each.burst + of_one.spare().burst;

        assert!((0..most).all(|_| limits.admit(&mac(1), LeaseHolder::Known, 0).is_ok()));
        assert_eq!(limits.admit(&mac(1), LeaseHolder::Known, 0), Err(Exceeded::Each));
    }

    #[test]
    fn where_known_machines_have_little_there_is_little_to_spare_and_not_all_there_is() {
        let rates = |per_sec| Rates { known: Rate { per_sec, burst: 1 }, ..RATES };

        assert_eq!(rates(1).spare(), Rate { per_sec: 1, burst: 1 });
        assert_eq!(rates(7).spare(), Rate { per_sec: 4, burst: 1 });
        assert_eq!(rates(0).spare(), Rate::ANY);
    }

    #[test]
    fn a_hall_that_is_switched_on_at_once_is_within_the_limits() {
        let mut limits = RateLimits::new(Rates::default(), 7);

        for round in 0..4 {
            for machine in 0..10_000 {
                let asks = limits.admit(&mac(machine), LeaseHolder::Known, round * 1_000);
                assert_eq!(asks, Ok(()), "machine {machine}, message {round}");
            }
        }
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let mut limits = limits();
        for _ in 0..10 {
            let _ = limits.admit(&mac(1), LeaseHolder::Known, 1_000_000);
        }

        assert_eq!(limits.admit(&mac(1), LeaseHolder::Known, 0), Ok(()));
    }

    #[test]
    fn machines_that_are_gone_are_forgotten() {
        let mut limits = limits();
        for machine in 0..100_000 {
            limits.admit(&mac(machine), LeaseHolder::Known, machine * 10).unwrap();
        }

        assert!(limits.known.len() <= KNOWN, "{}", limits.known.len());
    }

    #[test]
    fn where_there_is_no_limit_everything_is_admitted() {
        let rates = Rates { each: Rate::ANY, known: Rate::ANY, guests: Rate::ANY };
        let mut limits = RateLimits::new(rates, 7);

        assert!((0..10_000).all(|_| limits.admit(&mac(1), LeaseHolder::Guest, 5).is_ok()));
    }

    proptest! {
        #[test]
        fn no_client_is_ever_admitted_more_often_than_its_rate_and_one_burst_allow(
            waits in prop::collection::vec(0..2_000_u64, 1..300),
            per_sec in 1..50_u32, burst in 1..20_u32,
        ) {
            let each = Rate { per_sec, burst };
            let rates = Rates { each, known: Rate::ANY, guests: Rate::ANY };
            let mut limits = RateLimits::new(rates, 7);
            let (mut now, mut admitted) = (0, 0);
            for wait in waits {
                now += wait;
                admitted += u64::from(limits.admit(&mac(1), LeaseHolder::Guest, now).is_ok());
                prop_assert!(admitted * 1_000 <= now * u64::from(per_sec) + u64::from(burst) * 1_000);
            }
        }

        #[test]
        fn a_flood_in_the_name_of_one_known_machine_takes_nothing_that_others_are_guaranteed(
            floods in prop::collection::vec((0..40_u64, 0..400_u32, 1..8_u8), 1..100),
        ) {
            // Enough for eight machines, the flooded one among them.
            let each = Rate { per_sec: 50, burst: 5 };
            let rates = Rates { each, known: Rate { per_sec: 400, burst: 40 }, ..RATES };
            let mut limits = RateLimits::new(rates, 7);
            let (mut own, mut now) = ([RateClock::default(); 8], 0);
            for (wait, flood, machine) in floods {
                now += wait;
                for _ in 0..flood {
                    let _ = limits.admit(&mac(0), LeaseHolder::Known, now);
                }
                let is_answered = limits.admit(&mac(machine.into()), LeaseHolder::Known, now).is_ok();
                let is_within_its_own = own[usize::from(machine)].admits(each, now);
                prop_assert!(is_answered || !is_within_its_own);
            }
        }

        #[test]
        fn all_known_machines_together_never_get_more_than_they_have_and_what_is_to_spare(
            waits in prop::collection::vec((0..20_u64, 0..3_u64), 1..400),
            per_sec in 1..100_u32, burst in 1..20_u32,
        ) {
            let known = Rate { per_sec, burst };
            let rates = Rates { known, ..RATES };
            let mut limits = RateLimits::new(rates, 7);
            let (mut now, mut admitted) = (0, 0);
            let all = [known, rates.spare()];
            let (per_sec, burst): (u32, u32) =
                (all.iter().map(|rate| rate.per_sec).sum(), all.iter().map(|rate| rate.burst).sum());
            for (wait, machine) in waits {
                now += wait;
                admitted += u64::from(limits.admit(&mac(machine), LeaseHolder::Known, now).is_ok());
                prop_assert!(admitted * 1_000 <= now * u64::from(per_sec) + u64::from(burst) * 1_000);
            }
        }
    }
}
