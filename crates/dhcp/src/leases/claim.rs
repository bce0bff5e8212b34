//! What a client is to us, and which addresses it may have for that.

use super::Seconds;

/// How long an address stays set aside for a known node it was offered to. EDK2 takes an offer after
/// four seconds, and asks again for a minute.
const OFFER: Seconds = 60;
/// How long for a guest: whoever makes up clients holds few addresses with it.
const OFFER_TO_GUEST: Seconds = 10;
/// How long an address is left alone at least after a client found somebody else using it.
const QUARANTINE: Seconds = 600;

/// What a client is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseHolder {
    /// A machine that somebody registered.
    Known,
    /// Anybody else.
    Guest,
}

impl LeaseHolder {
    /// Until when an address is left alone that its client declines `now`, and which it may use `until` then.
    ///
    /// Anybody on the link can decline in a known machine's name, so what that machine has is kept for as long as it
    /// may use it.
    pub(super) fn leaves_alone_until(self, until: Seconds, now: Seconds) -> Seconds {
        match self {
            Self::Known => until.max(now + QUARANTINE),
            Self::Guest => now + QUARANTINE,
        }
    }
}

/// What a client may claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseClaim {
    /// Any address that is free.
    Known,
    /// Any address that is free and was not last a known node's, as long as every known node can have
    /// one too.
    Guest {
        /// How many addresses are known nodes': those that they have, and those that are kept for them.
        keep: usize,
    },
}

impl LeaseClaim {
    /// A stranger's, to an address of a pool of that size, where so many machines are registered: one address is kept
    /// for each of them, but a quarter of the pool at least, since more of them may come.
    #[must_use]
    pub fn guest(pool: usize, known: usize) -> Self {
        Self::Guest { keep: known.max(pool / 4).min(pool) }
    }

    /// Whose it is.
    #[must_use]
    pub fn holder(self) -> LeaseHolder {
        match self {
            Self::Known => LeaseHolder::Known,
            Self::Guest { .. } => LeaseHolder::Guest,
        }
    }

    /// How long an offer to it stands.
    pub(super) fn offer_secs(self) -> Seconds {
        match self {
            Self::Known => OFFER,
            Self::Guest { .. } => OFFER_TO_GUEST,
        }
    }
}
