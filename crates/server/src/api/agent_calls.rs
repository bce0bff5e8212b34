//! Rate limits of lookups and heartbeats, which anybody can send, and which of them are recorded in the trace.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dhcp::leases::LeaseHolder;
use dhcp::limits::{Millis, Rate, RateClock, RateLimits, Rates};
use provision::trace::{AgentCall, CallRefusal};
use thiserror::Error;
use transport::repeats::{Pauses, Repeats};
use uuid::Uuid;

/// Number of machines with a rate clock at which idle clocks are removed.
const MACHINES: usize = 4_096;
/// Limit of all calls by unknown callers together: each costs a query.
const GUESTS: Rate = Rate { per_sec: 1_000, burst: 2_000 };
/// Extra lookups for one node, beyond the limit of the address: a machine with a still unknown address shares its /64
/// with strangers.
const NAMED: Rate = Rate { per_sec: 1, burst: 5 };
/// Limit of these extra lookups for all nodes together.
const ALL_NAMED: Rate = Rate { per_sec: 200, burst: 400 };
/// Interval between recorded heartbeats of one agent. The diagnosis needs them regularly.
const HEARTBEATS: Pauses =
    Pauses { first: Duration::from_secs(10), longest: Duration::from_secs(10) };

/// The rate limits in use, and the calls that were recorded.
#[derive(Debug)]
pub(super) struct AgentCalls {
    each: Rate,
    of_machines: Mutex<MachineCalls>,
    of_guests: Mutex<RateLimits>,
    of_named: Mutex<RateLimits>,
    taken: Mutex<Repeats<CallKind>>,
    refused: Mutex<Repeats<CallKind>>,
}

/// A rate clock for each known machine. There are at most as many as nodes.
#[derive(Debug, Default)]
struct MachineCalls {
    clocks: HashMap<Uuid, RateClock>,
    /// Number of clocks at which idle ones are removed.
    forget_at: usize,
}

impl MachineCalls {
    fn admits(&mut self, node: Uuid, each: Rate, now: Millis) -> bool {
        if self.clocks.len() >= self.forget_at.max(MACHINES) {
            self.clocks.retain(|_, clock| !clock.is_at_rest(now));
            self.forget_at = 2 * self.clocks.len();
        }
        self.clocks.entry(node).or_default().admits(each, now)
    }
}

/// The owner of a call, as known before the store is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallOwner {
    /// The machine of this node, by its address or its token.
    Machine(Uuid),
    /// An unknown caller with the name of a node that expects an agent.
    Names(Uuid),
    /// An unknown caller.
    Anybody,
}

/// A call that an agent makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum AgentRequest {
    Lookup,
    Heartbeat,
}

impl AgentRequest {
    /// One word, for the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Heartbeat => "heartbeat",
        }
    }
}

impl From<AgentRequest> for AgentCall {
    fn from(request: AgentRequest) -> Self {
        match request {
            AgentRequest::Lookup => Self::Lookup,
            AgentRequest::Heartbeat => Self::Heartbeat,
        }
    }
}

/// Calls of one kind are recorded once, and then at intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct CallKind {
    pub(super) attempt: Uuid,
    pub(super) request: AgentRequest,
    pub(super) source: CallSource,
    pub(super) is_taken: bool,
    pub(super) refused: Option<CallRefusal>,
}

/// The source that a rate limit counts: an IPv4 address, or an IPv6 /64, since one machine can use all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum CallSource {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl From<IpAddr> for CallSource {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// A call that exceeds the rate limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "Too many lookups and heartbeats come from {from}, or from all machines that are not known: {per_sec} a second are \
     answered to each. Ask again in a second."
)]
pub(super) struct TooManyCalls {
    from: IpAddr,
    per_sec: u32,
}

impl AgentCalls {
    /// Unused limits. An address may make `per_sec` calls a second; 0 means no limit.
    pub(super) fn new(per_sec: u32) -> Self {
        let each = Rate { per_sec, burst: per_sec.saturating_mul(5).max(1) };
        let limits = |each, guests| {
            // A random seed, so that a stranger cannot choose an address that shares its limit with another.
            Mutex::new(RateLimits::new(Rates { each, guests, ..Rates::default() }, rand::random()))
        };
        Self {
            each,
            of_machines: Mutex::default(),
            of_guests: limits(each, GUESTS),
            of_named: limits(NAMED, ALL_NAMED),
            taken: Mutex::new(Repeats::new(HEARTBEATS)),
            refused: Mutex::new(Repeats::new(Pauses::GROWING)),
        }
    }

    /// Counts a call, and refuses it if it exceeds the limits.
    ///
    /// Calls of strangers use up nothing of the limits of known machines.
    pub(super) fn admit(
        &self,
        from: IpAddr,
        caller: CallOwner,
        uptime: Duration,
    ) -> Result<(), TooManyCalls> {
        let now = Millis::try_from(uptime.as_millis()).unwrap_or(Millis::MAX);
        let admitted = match caller {
            CallOwner::Machine(node) => locked(&self.of_machines).admits(node, self.each, now),
            CallOwner::Names(node) => {
                self.admit_guest(from, now)
                    || locked(&self.of_named)
                        .admit(node.as_bytes(), LeaseHolder::Guest, now)
                        .is_ok()
            }
            CallOwner::Anybody => self.admit_guest(from, now),
        };
        if admitted { Ok(()) } else { Err(TooManyCalls { from, per_sec: self.each.per_sec }) }
    }

    fn admit_guest(&self, from: IpAddr, now: Millis) -> bool {
        let mut limits = locked(&self.of_guests);
        match CallSource::from(from) {
            CallSource::V4(source) => limits.admit(&source, LeaseHolder::Guest, now),
            CallSource::V6(source) => limits.admit(&source, LeaseHolder::Guest, now),
        }
        .is_ok()
    }

    /// Whether to record a call; if so, the number of equal calls left out since the last recorded one.
    pub(super) fn to_write_down(&self, kind: CallKind, uptime: Duration) -> Option<u32> {
        let repeats = if kind.is_taken { &self.taken } else { &self.refused };
        locked(repeats).note(kind, uptime)
    }
}

/// A poisoned lock is used as it is: no change under these locks can be left half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Uuid = Uuid::from_u128(7);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn used_up(calls: &AgentCalls, from: &str) {
        while calls.admit(address(from), CallOwner::Anybody, Duration::ZERO).is_ok() {}
    }

    #[test]
    fn an_address_that_calls_too_often_is_told_so_and_takes_nothing_from_others() {
        let calls = AgentCalls::new(20);
        used_up(&calls, "192.0.2.66");

        let refused = calls.admit(address("192.0.2.66"), CallOwner::Anybody, Duration::ZERO);
        assert!(refused.unwrap_err().to_string().contains("from 192.0.2.66"));
        assert_eq!(calls.admit(address("192.0.2.7"), CallOwner::Anybody, Duration::ZERO), Ok(()));
        let later = Duration::from_secs(1);
        assert_eq!(calls.admit(address("192.0.2.66"), CallOwner::Anybody, later), Ok(()));
    }

    #[test]
    fn one_who_has_a_whole_ipv6_network_counts_once() {
        let calls = AgentCalls::new(20);
        let from = |last: u16| address(&format!("2001:db8::{last:x}"));
        let admitted = (0..1_000)
            .filter(|last| calls.admit(from(*last), CallOwner::Anybody, Duration::ZERO).is_ok())
            .count();

        assert_eq!(admitted, 100);
        assert!(
            calls.admit(address("2001:db8:0:1::1"), CallOwner::Anybody, Duration::ZERO).is_ok()
        );
        assert_eq!(CallSource::from(address("::ffff:192.0.2.7")), CallSource::V4([192, 0, 2, 7]));
    }

    #[test]
    fn strangers_beside_a_machine_do_not_silence_it() {
        let calls = AgentCalls::new(20);
        for network in 0..5_000 {
            used_up(&calls, &format!("2001:db8:{network:x}::1"));
        }
        let from = address("2001:db8::7");

        assert!(calls.admit(from, CallOwner::Anybody, Duration::ZERO).is_err());
        assert_eq!(calls.admit(from, CallOwner::Machine(NODE), Duration::ZERO), Ok(()));
        assert_eq!(calls.admit(from, CallOwner::Names(NODE), Duration::ZERO), Ok(()));
    }

    #[test]
    fn a_machine_that_calls_without_end_is_limited_too_and_takes_nothing_from_others() {
        let calls = AgentCalls::new(20);
        let from = address("192.0.2.7");
        let admitted = |node: u128, many: usize| {
            let caller = CallOwner::Machine(Uuid::from_u128(node));
            (0..many).filter(|_| calls.admit(from, caller, Duration::ZERO).is_ok()).count()
        };

        assert_eq!(admitted(1, 10_000), 100);
        assert!((2..20_000).all(|node| admitted(node, 1) == 1));
    }

    #[test]
    fn a_limit_of_none_is_none() {
        let calls = AgentCalls::new(0);
        let from = address("192.0.2.66");
        assert!((0..1_000).all(|_| calls.admit(from, CallOwner::Anybody, Duration::ZERO).is_ok()));
    }

    #[test]
    fn refused_calls_are_written_down_ever_less_and_taken_ones_regularly() {
        let calls = AgentCalls::new(20);
        let written = |is_taken| {
            let kind = CallKind {
                attempt: NODE,
                request: AgentRequest::Heartbeat,
                source: address("192.0.2.7").into(),
                is_taken,
                refused: None,
            };
            let seconds = (0..3_600).map(Duration::from_secs);
            seconds.filter(|now| calls.to_write_down(kind, *now).is_some()).count()
        };

        assert_eq!(written(true), 360);
        assert_eq!(written(false), 9);
    }
}
