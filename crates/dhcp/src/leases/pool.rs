//! Address ranges to lease from.

use crate::address_family::AddressFamily;

/// An address range to lease from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeasePool<A> {
    /// The first address.
    pub first: A,
    /// The last address, included.
    pub last: A,
}

impl<A: AddressFamily> LeasePool<A> {
    /// Whether the pool contains an address.
    #[must_use]
    pub fn contains(&self, address: A) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// Number of addresses, saturated at `usize::MAX`.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.last.number().checked_sub(self.first.number()) {
            Some(more) => usize::try_from(more).unwrap_or(usize::MAX).saturating_add(1),
            None => 0,
        }
    }

    /// Whether the pool has no address.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first > self.last
    }
}
