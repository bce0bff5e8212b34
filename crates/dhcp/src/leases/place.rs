//! The states of an address.

/// The state of an address with a current or former client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeasePlace {
    /// In use by its client: bound, or offered to a known machine.
    Running,
    /// Given up: its client has another address now. The client may still use this one, and a forged request in its
    /// name must not free it, so the lease runs to its end.
    Replaced,
    /// Offered to a guest that has not taken it.
    OfferedToGuest,
    /// Declined by its client.
    Declined,
    /// Its lease has ended, and a guest had it.
    EndedOfGuest,
    /// Its lease has ended, and a known machine had it.
    EndedOfKnown,
    /// Reserved for its client, with or without a lease.
    Reserved,
}

impl LeasePlace {
    /// Whether an address of the pool in this state is unavailable to other clients.
    pub(super) fn is_taken(self) -> bool {
        match self {
            Self::Running | Self::Replaced | Self::OfferedToGuest | Self::Declined => true,
            Self::EndedOfGuest | Self::EndedOfKnown | Self::Reserved => false,
        }
    }

    /// Whether the client of an address in this state has or needs another address.
    pub(super) fn is_given_up(self) -> bool {
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
