//! Addresses ordered by state and end, so that no operation searches all leases.

use std::collections::{BTreeSet, HashMap};

use super::claim::LeaseHolder;
use super::lease::LeaseEntry;
use super::place::LeasePlace;
use super::time::Seconds;
use crate::address_family::AddressFamily;

/// Addresses by the end of their state.
type Ends<A> = BTreeSet<(Seconds, A)>;

/// All unreserved addresses with a current or former client.
#[derive(Clone, Debug)]
pub(super) struct LeaseSets<A: AddressFamily> {
    running: Ends<A>,
    offered_to_guests: Ends<A>,
    declined: Ends<A>,
    ended_of_guests: Ends<A>,
    ended_of_known: Ends<A>,
    /// Given-up addresses by client.
    given_up: HashMap<A::Client, Vec<A>>,
    /// Numbers of taken addresses, and of those that known machines use.
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

    /// A taken address whose time has ended.
    pub(super) fn over(&self, now: Seconds) -> Option<A> {
        let taken = [&self.running, &self.offered_to_guests, &self.declined];
        let first = taken.into_iter().filter_map(|ends| ends.first());
        first.filter(|(until, _)| *until <= now).map(|(_, address)| *address).next()
    }

    /// The address in this state with the earliest end.
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

    /// The addresses that a client gave up and whose leases have not ended.
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

/// Whether a known machine uses the address and has not given it up.
fn is_used_by_known<A: AddressFamily>(entry: &LeaseEntry<A>) -> bool {
    entry.place == LeasePlace::Running && entry.lease.holder == LeaseHolder::Known
}
