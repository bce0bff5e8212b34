//! Ranges of addresses to give out.

use crate::address_family::AddressFamily;

/// A range of addresses to give out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeasePool<A> {
    /// The first.
    pub first: A,
    /// The last, included.
    pub last: A,
}

impl<A: AddressFamily> LeasePool<A> {
    /// Whether an address is one of them.
    #[must_use]
    pub fn contains(&self, address: A) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// How many there are, or as many as can be counted.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.last.number().checked_sub(self.first.number()) {
            Some(more) => usize::try_from(more).unwrap_or(usize::MAX).saturating_add(1),
            None => 0,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first > self.last
    }
}
