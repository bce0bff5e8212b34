//! The lease of an address.

use super::claim::LeaseHolder;
use super::place::LeasePlace;
use super::time::Seconds;
use crate::address_family::{AddressFamily, LeaseBindings as _};

/// An address and its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressLease<A: AddressFamily> {
    /// The client.
    pub client: A::Client,
    /// The address.
    pub address: A,
    /// The client's bindings; empty if the address was only offered.
    pub bindings: A::Bindings,
    /// The end of an offer, or of the quarantine after a decline.
    pub aside_until: Seconds,
    /// The class of the client at its last request.
    pub holder: LeaseHolder,
    /// Whether the client declined the address.
    pub is_declined: bool,
}

impl<A: AddressFamily> AddressLease<A> {
    /// The time from which the address may be given to another client.
    #[must_use]
    pub fn until(&self) -> Seconds {
        self.bindings.until().unwrap_or_default().max(self.aside_until)
    }
}

#[derive(Clone, Debug)]
pub(super) struct LeaseEntry<A: AddressFamily> {
    pub(super) lease: AddressLease<A>,
    pub(super) place: LeasePlace,
    /// Position in the order of reassignment since start; 0 if not reassigned.
    pub(super) order: u64,
    /// The time of the last offer or ACK of this address to its client; 0 before this run.
    pub(super) told: Seconds,
}
