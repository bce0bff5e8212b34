//! Differences between IPv4 and IPv6 leases. The address type implements the trait: `LeaseTable<Ipv4Addr>`.

use std::fmt::{Debug, Display};
use std::hash::Hash;

use crate::leases::{LeaseHolder, LeasePlace, Seconds};

/// An address family of leases.
pub trait AddressFamily: Copy + Debug + Display + Eq + Hash + Ord {
    /// Identifies the holder of a lease.
    type Client: Copy + Debug + Default + Eq + Hash;
    /// Distinguishes several uses of one address by the same client.
    type Binding: Copy + Debug + Eq;
    /// All uses of one address.
    type Bindings: LeaseBindings<Self::Binding>;

    /// The unspecified address, which no machine has.
    const UNSPECIFIED: Self;
    /// The binding of an address that is kept for its client but not in use.
    const KEPT: Self::Binding;
    /// The order in which addresses of other clients are reassigned to a known machine when no address is free.
    const TAKEN_FOR_KNOWN: &'static [LeasePlace];
    /// The size of a record in a journal, in bytes, with its checksum.
    const RECORD_LEN: usize;

    /// The address as a number.
    fn number(self) -> u128;

    /// The address after this one.
    fn next(self) -> Option<Self>;

    /// Appends a record's bytes, but for the checksum.
    fn encode(record: &LeaseRecord<Self>, into: &mut Vec<u8>);

    /// Decodes a record from its bytes without the checksum.
    fn decode(bytes: &[u8]) -> Option<LeaseRecord<Self>>;
}

/// A change of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRecord<A: AddressFamily> {
    /// The client.
    pub client: A::Client,
    /// The address.
    pub address: A,
    /// The binding that begins, continues or ends; `None` if the client declined the address.
    pub binding: Option<A::Binding>,
    /// The end of the binding, in seconds; the current time if the client released it.
    pub until: Seconds,
    /// The class of the client.
    pub holder: LeaseHolder,
}

/// The uses of one address, each with its end.
pub trait LeaseBindings<B: Copy + Eq>: Clone + Debug + Default + Eq {
    /// Adds a binding, or changes its end.
    fn bind(&mut self, binding: B, until: Seconds);

    /// Each binding and its end.
    fn each(&self) -> impl Iterator<Item = (B, Seconds)>;

    /// The end of the last binding; `None` if there never was one.
    fn until(&self) -> Option<Seconds> {
        self.each().map(|(_, until)| until).max()
    }

    /// Whether the binding has not ended yet.
    fn is_bound(&self, binding: B, now: Seconds) -> bool {
        self.each().any(|(other, until)| other == binding && until > now)
    }
}
