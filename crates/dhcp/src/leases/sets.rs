//! Addresses by their state and by when it ends or ended, so that nothing is looked for among all leases.

use std::collections::{BTreeSet, HashMap};

use super::{LeaseEntry, LeaseHolder, Seconds};
use crate::address_family::AddressFamily;

/// The state of an address that has or had a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeasePlace {
    /// Its client has it: bound, or offered to a known machine.
    Running,
    /// Its client has another address now. The client may stay with this one, and whoever asks in its name must not
    /// make it anybody's: so it ends only at its end.
    Replaced,
    /// Offered to a guest that has not taken it.
    OfferedToGuest,
    /// Its client found somebody else using it.
    Declined,
    /// Its lease has ended, and a guest had it.
    EndedOfGuest,
    /// Its lease has ended, and a known machine had it.
    EndedOfKnown,
    /// It is reserved, which keeps it for its client whether there is a lease or not.
    Reserved,
}

impl LeasePlace {
    /// Whether an address of the pool that is there is one less for others.
    pub(super) fn is_taken(self) -> bool {
        match self {
            Self::Running | Self::Replaced | Self::OfferedToGuest | Self::Declined => true,
            Self::EndedOfGuest | Self::EndedOfKnown | Self::Reserved => false,
        }
    }

    /// Whether its client has or needs another address.
    fn is_given_up(self) -> bool {
        match self {
            Self::Replaced | Self::Declined => true,
            Self::Running
            | Self::OfferedToGuest
            | Self::EndedOfGuest
            | Self::EndedOfKnown
            | Self::Reserved => false,
        }
    }
}

/// Addresses by when they end or ended.
type Ends<A> = BTreeSet<(Seconds, A)>;

/// All addresses that have or had a client, but for reserved ones.
#[derive(Clone, Debug)]
pub(super) struct LeaseSets<A: AddressFamily> {
    running: Ends<A>,
    offered_to_guests: Ends<A>,
    declined: Ends<A>,
    ended_of_guests: Ends<A>,
    ended_of_known: Ends<A>,
    /// By whom.
    given_up: HashMap<A::Client, Vec<A>>,
    /// How many are taken, and how many of those are what known machines use.
    pub(super) taken: usize,
    pub(super) taken_by_known: usize,
}

impl<A: AddressFamily> LeaseSets<A> {
    pub(super) fn new() -> Self {
        Self {
            running: Ends::new(),
            offered_to_guests: Ends::new(),
            declined: Ends::new(),
            ended_of_guests: Ends::new(),
            ended_of_known: Ends::new(),
            given_up: HashMap::new(),
            taken: 0,
            taken_by_known: 0,
        }
    }

    /// An address that is taken and whose time is over.
    pub(super) fn over(&self, now: Seconds) -> Option<A> {
        let taken = [&self.running, &self.offered_to_guests, &self.declined];
        let first = taken.into_iter().filter_map(|ends| ends.first());
        first.filter(|(until, _)| *until <= now).map(|(_, address)| *address).next()
    }

    /// The address at a place that ends or ended first.
    pub(super) fn first(&self, place: LeasePlace) -> Option<A> {
        let ends = match place {
            LeasePlace::Running | LeasePlace::Replaced => &self.running,
            LeasePlace::OfferedToGuest => &self.offered_to_guests,
            LeasePlace::Declined => &self.declined,
            LeasePlace::EndedOfGuest => &self.ended_of_guests,
            LeasePlace::EndedOfKnown => &self.ended_of_known,
            LeasePlace::Reserved => return None,
        };
        ends.first().map(|(_, address)| *address)
    }

    /// Those that a client gave up, until they end.
    pub(super) fn given_up(&self, client: &A::Client) -> &[A] {
        self.given_up.get(client).map_or(&[], Vec::as_slice)
    }

    pub(super) fn insert(&mut self, entry: &LeaseEntry<A>) {
        let address = entry.lease.address;
        self.taken += usize::from(entry.place.is_taken());
        self.taken_by_known += usize::from(is_used_by_known(entry));
        if let Some(ends) = self.ends(entry.place) {
            ends.insert((entry.lease.until(), address));
        }
        if entry.place.is_given_up() {
            self.given_up.entry(entry.lease.client).or_default().push(address);
        }
    }

    pub(super) fn remove(&mut self, entry: &LeaseEntry<A>) {
        let (address, client) = (entry.lease.address, &entry.lease.client);
        self.taken -= usize::from(entry.place.is_taken());
        self.taken_by_known -= usize::from(is_used_by_known(entry));
        if let Some(ends) = self.ends(entry.place) {
            ends.remove(&(entry.lease.until(), address));
        }
        if entry.place.is_given_up()
            && let Some(given_up) = self.given_up.get_mut(client)
        {
            given_up.retain(|other| *other != address);
            if given_up.is_empty() {
                self.given_up.remove(client);
            }
        }
    }

    fn ends(&mut self, place: LeasePlace) -> Option<&mut Ends<A>> {
        match place {
            LeasePlace::Running | LeasePlace::Replaced => Some(&mut self.running),
            LeasePlace::OfferedToGuest => Some(&mut self.offered_to_guests),
            LeasePlace::Declined => Some(&mut self.declined),
            LeasePlace::EndedOfGuest => Some(&mut self.ended_of_guests),
            LeasePlace::EndedOfKnown => Some(&mut self.ended_of_known),
            LeasePlace::Reserved => None,
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self, place: LeasePlace) -> usize {
        self.clone().ends(place).map_or(0, |ends| ends.len())
    }

    #[cfg(test)]
    pub(super) fn all_given_up(&self) -> usize {
        self.given_up.values().map(Vec::len).sum()
    }
}

/// Whether a known machine has the address and needs no other.
fn is_used_by_known<A: AddressFamily>(entry: &LeaseEntry<A>) -> bool {
    entry.place == LeasePlace::Running && entry.lease.holder == LeaseHolder::Known
}
