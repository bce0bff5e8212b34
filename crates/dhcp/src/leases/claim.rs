//! Classes of clients, and the addresses that each class may have.

use super::time::Seconds;

/// Duration of an offer to a known node, in seconds. EDK2 takes an offer after four seconds, and retries for a
/// minute.
const OFFER: Seconds = 60;
/// Duration of an offer to a guest, in seconds: an attacker with invented clients holds few addresses.
const OFFER_TO_GUEST: Seconds = 10;
/// Least quarantine of a declined address, in seconds.
const QUARANTINE: Seconds = 600;

/// The class of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseHolder {
    /// A registered machine.
    Known,
    /// Any other client.
    Guest,
}

impl LeaseHolder {
    /// The end of the quarantine of an address that its client declines `now` and that was leased `until` then.
    ///
    /// Any host on the link can send a DECLINE in a known machine's name, so a machine's address stays its own for
    /// the rest of the lease.
    pub(super) fn leaves_alone_until(self, until: Seconds, now: Seconds) -> Seconds {
        match self {
            Self::Known => until.max(now + QUARANTINE),
            Self::Guest => now + QUARANTINE,
        }
    }
}

/// The addresses that a client may claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseClaim {
    /// Any free address.
    Known,
    /// Any free address whose last client was not a known node, as long as enough addresses remain for all known
    /// nodes.
    Guest {
        /// Number of addresses for known nodes: those that they have, and those kept for them.
        keep: usize,
    },
}

impl LeaseClaim {
    /// The claim of a guest in a pool of `pool` addresses with `known` registered machines. One address is kept for
    /// each machine, and at least a quarter of the pool, since more machines may be registered.
    #[must_use]
    pub fn guest(pool: usize, known: usize) -> Self {
        Self::Guest { keep: known.max(pool / 4).min(pool) }
    }

    /// The class of the claim.
    #[must_use]
    pub fn holder(self) -> LeaseHolder {
        match self {
            Self::Known => LeaseHolder::Known,
            Self::Guest { .. } => LeaseHolder::Guest,
        }
    }

    /// Duration of an offer, in seconds.
    pub(super) fn offer_secs(self) -> Seconds {
        match self {
            Self::Known => OFFER,
            Self::Guest { .. } => OFFER_TO_GUEST,
        }
    }
}
