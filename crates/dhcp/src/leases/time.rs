//! The time of leases.

/// Seconds since the Unix epoch.
pub type Seconds = u64;
