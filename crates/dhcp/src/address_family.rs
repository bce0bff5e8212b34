//! What differs between the leases of IPv4 and of IPv6. The trait is the address type's own: `LeaseTable<Ipv4Addr>`.

use std::fmt::{Debug, Display};
use std::hash::Hash;

use crate::journal::LeaseRecord;
use crate::leases::{LeasePlace, Seconds};

/// A family of addresses that are leased.
pub trait AddressFamily: Copy + Debug + Display + Eq + Hash + Ord {
    /// Who has a lease.
    type Client: Copy + Debug + Default + Eq + Hash;
    /// What tells one use of an address from another one by the same client.
    type Binding: Copy + Debug + Eq;
    /// All uses of one address.
    type Bindings: LeaseBindings<Self::Binding>;

    /// The address that no machine has.
    const UNSPECIFIED: Self;
    /// The binding of an address that is kept for its client, which does not use it.
    const KEPT: Self::Binding;
    /// Whose addresses a known machine gets, in this order, where none is free.
    const TAKEN_FOR_KNOWN: &'static [LeasePlace];
    /// The size of a record in a journal, in bytes, with its checksum.
    const RECORD_LEN: usize;

    /// The address as a number.
    fn number(self) -> u128;

    /// The address after this one.
    fn next(self) -> Option<Self>;

    /// Appends a record's bytes, but for the checksum.
    fn encode(record: &LeaseRecord<Self>, into: &mut Vec<u8>);

    /// The record in these bytes, which are without the checksum.
    fn decode(bytes: &[u8]) -> Option<LeaseRecord<Self>>;
}

/// The uses of one address, each with its end.
pub trait LeaseBindings<B: Copy + Eq>: Clone + Debug + Default + Eq {
    /// Adds a use, or moves its end.
    fn bind(&mut self, binding: B, until: Seconds);

    /// Each use and its end.
    fn each(&self) -> impl Iterator<Item = (B, Seconds)>;

    /// The end of the last use; `None` if there never was one.
    fn until(&self) -> Option<Seconds> {
        self.each().map(|(_, until)| until).max()
    }

    /// Whether a use has not ended.
    fn is_bound(&self, binding: B, now: Seconds) -> bool {
        self.each().any(|(other, until)| other == binding && until > now)
    }
}
