//! The memory of logins: recent successes, and failures by source.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

/// Time during which a successful login is not checked again.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Number of successful logins, and of sources, kept in memory.
const MOST: usize = 4_096;
/// Failed logins of one source: a burst, then one per interval.
const FAILURES: u32 = 10;
const FAILURE_EVERY: Duration = Duration::from_secs(2);

/// A keyed digest of a user, a password and the hash that was checked.
pub(super) type LoginDigest = [u8; 32];

/// The source of a login: an IPv4 address, or an IPv6 /64, since one host can use all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LoginSource(IpAddr);

impl From<IpAddr> for LoginSource {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                Self(Ipv6Addr::from(network).into())
            }
            four @ IpAddr::V4(_) => Self(four),
        }
    }
}

impl fmt::Display for LoginSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}

/// The memory of all logins.
#[derive(Debug, Default)]
pub(super) struct Logins {
    verified: HashMap<LoginDigest, (Arc<str>, Instant)>,
    sources: HashMap<LoginSource, Failures>,
}

#[derive(Debug)]
struct Failures {
    /// The time at which no failure is left: each failure adds [`FAILURE_EVERY`].
    forgotten: Instant,
    /// Whether the excess was logged.
    is_told: bool,
    /// Held during the check of a login: one at a time per source.
    turn: Arc<AsyncMutex<()>>,
}

/// Too many logins of one source have failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyFailures {
    /// Time until the next login is checked.
    pub(super) retry_after: Duration,
    /// Whether this is the first refused login.
    pub(super) is_first: bool,
}

impl Logins {
    /// The user of a recent successful login.
    pub(super) fn remembered(&self, digest: &LoginDigest, now: Instant) -> Option<Arc<str>> {
        let (user, until) = self.verified.get(digest)?;
        (now < *until).then(|| Arc::clone(user))
    }

    /// The lock of a source, which serializes its logins.
    pub(super) fn turn(&mut self, source: LoginSource, now: Instant) -> Arc<AsyncMutex<()>> {
        Arc::clone(&self.source(source, now).turn)
    }

    /// Counts a login as failed, until [`Logins::went_well`].
    ///
    /// # Errors
    /// [`TooManyFailures`]
    pub(super) fn begin(
        &mut self,
        source: LoginSource,
        now: Instant,
    ) -> Result<(), TooManyFailures> {
        let failures = self.source(source, now);
        let forgotten = failures.forgotten.max(now) + FAILURE_EVERY;
        let allowed = now + FAILURE_EVERY * FAILURES;
        if forgotten > allowed {
            let is_first = !std::mem::replace(&mut failures.is_told, true);
            return Err(TooManyFailures { retry_after: forgotten - allowed, is_first });
        }
        failures.forgotten = forgotten;
        failures.is_told = false;
        Ok(())
    }

    /// Removes the failure that [`Logins::begin`] counted, and remembers the success.
    pub(super) fn went_well(
        &mut self,
        source: LoginSource,
        digest: LoginDigest,
        user: &Arc<str>,
        now: Instant,
    ) {
        self.not_checked(source, now);
        if self.verified.len() >= MOST {
            self.verified.retain(|_, (_, until)| now < *until);
        }
        if self.verified.len() < MOST {
            self.verified.insert(digest, (Arc::clone(user), now + REMEMBERED));
        }
    }

    /// Removes the failure that [`Logins::begin`] counted.
    pub(super) fn not_checked(&mut self, source: LoginSource, now: Instant) {
        let failures = self.source(source, now);
        failures.forgotten = failures.forgotten.checked_sub(FAILURE_EVERY).unwrap_or(now);
    }

    fn source(&mut self, source: LoginSource, now: Instant) -> &mut Failures {
        if self.sources.len() >= MOST && !self.sources.contains_key(&source) {
            self.make_room(now);
        }
        self.sources.entry(source).or_insert_with(|| Failures {
            forgotten: now,
            is_told: false,
            turn: Arc::default(),
        })
    }

    /// Removes the sources without failures; if there are none, the source whose failures expire first.
    fn make_room(&mut self, now: Instant) {
        let is_used = |failures: &Failures| Arc::strong_count(&failures.turn) > 1;
        self.sources.retain(|_, failures| now < failures.forgotten || is_used(failures));
        if self.sources.len() >= MOST {
            let idle = self.sources.iter().filter(|(_, failures)| !is_used(failures));
            let first = idle.min_by_key(|(_, failures)| failures.forgotten);
            if let Some(first) = first.map(|(source, _)| *source) {
                self.sources.remove(&first);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> LoginSource {
        LoginSource::from(text.parse::<IpAddr>().unwrap())
    }

    #[tokio::test]
    async fn a_place_may_be_wrong_a_few_times_at_once_and_then_now_and_again() {
        let (mut logins, now) = (Logins::default(), Instant::now());
        let (here, there) = (source("192.0.2.1"), source("192.0.2.2"));
        for _ in 0..FAILURES {
            logins.begin(here, now).unwrap();
        }

        let first = TooManyFailures { retry_after: FAILURE_EVERY, is_first: true };
        assert_eq!(logins.begin(here, now), Err(first));
        assert_eq!(logins.begin(here, now), Err(TooManyFailures { is_first: false, ..first }));
        assert_eq!(logins.begin(there, now), Ok(()));
        let later = now + FAILURE_EVERY;
        assert_eq!(logins.begin(here, later), Ok(()));
        assert!(logins.begin(here, later).is_err());
        assert_eq!(logins.begin(here, now + FAILURE_EVERY * 100), Ok(()));
    }

    #[tokio::test]
    async fn a_login_that_goes_well_costs_nothing_and_is_remembered_for_a_while() {
        let (mut logins, now) = (Logins::default(), Instant::now());
        let (here, user) = (source("192.0.2.1"), Arc::from("ann"));
        for n in 0..200_u8 {
            logins.begin(here, now).unwrap();
            logins.went_well(here, [n; 32], &user, now);
        }

        assert_eq!(logins.remembered(&[7; 32], now), Some(user.clone()));
        assert_eq!(logins.remembered(&[7; 32], now + REMEMBERED), None);
        assert_eq!(logins.remembered(&[201; 32], now), None);
    }

    #[tokio::test]
    async fn hosts_with_many_addresses_are_one_place_and_memory_has_an_end() {
        let (mut logins, now) = (Logins::default(), Instant::now());

        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        for n in 0..20_000_u32 {
            let _ = logins.begin(LoginSource::from(IpAddr::from(n.to_be_bytes())), now);
        }
        assert!(logins.sources.len() <= MOST);
        for n in 0..10_000_u32 {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&n.to_be_bytes());
            logins.went_well(source("192.0.2.1"), digest, &Arc::from("ann"), now);
        }
        assert!(logins.verified.len() <= MOST);
    }
}
