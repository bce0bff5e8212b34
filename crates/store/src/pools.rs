//! The addresses that each daemon leases by DHCP, and overlaps between two daemons.

use std::fmt;
use std::net::IpAddr;

use hardware::Mac;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// The addresses that a daemon leases by DHCP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DaemonPools {
    /// The name of the daemon's networks. Pools are compared within a site.
    pub site: String,
    /// Lease time in seconds.
    pub lease_secs: u32,
    /// The pools, of either family.
    pub ranges: Vec<PoolRange>,
    /// Reserved addresses.
    pub reservations: Vec<DaemonReservation>,
}

impl DaemonPools {
    /// A range of this daemon and an overlapping one of another daemon, if there are any.
    pub(crate) fn overlap(&self, other: &Self) -> Option<(PoolRange, PoolRange)> {
        let overlaps = |own: &PoolRange| {
            let of_other = other.ranges.iter().find(|range| range.overlaps(own));
            of_other.map(|of_other| (*own, *of_other))
        };
        self.ranges.iter().filter(|_| self.site == other.site).find_map(overlaps)
    }

    /// All addresses that the daemon may lease.
    pub(crate) fn all(&self) -> impl Iterator<Item = PoolRange> {
        let single = |reservation: &DaemonReservation| PoolRange {
            first: reservation.address,
            last: reservation.address,
        };
        self.ranges.iter().copied().chain(self.reservations.iter().map(single))
    }

    /// The reservations of another daemon that reserve an address of this daemon's reservations for another machine.
    pub(crate) fn conflicts<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (DaemonReservation, Mac)> + 'a {
        let conflict = |own: &DaemonReservation| {
            let of_other = other.reservations.iter().find(|other| other.address == own.address);
            of_other.filter(|other| other.mac != own.mac).map(|other| (*own, other.mac))
        };
        self.reservations.iter().filter(|_| self.site == other.site).filter_map(conflict)
    }
}

/// An address that a daemon leases to one machine alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonReservation {
    /// The machine's MAC address.
    pub mac: Mac,
    /// The address, of either family.
    pub address: IpAddr,
}

/// Two living daemons reserve one address for different machines, and each leases it to its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservationConflict {
    /// This daemon's reservation.
    pub own: DaemonReservation,
    /// The machine of the other daemon's reservation.
    pub other_mac: Mac,
    /// The other daemon's name.
    pub other_host: String,
}

impl fmt::Display for ReservationConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { own: DaemonReservation { mac, address }, other_mac, other_host } = self;
        write!(
            f,
            "{address} is reserved for {mac}, and by the daemon {other_host} for {other_mac}, so two machines may get \
             it: reserve it for one of them on all daemons"
        )
    }
}

/// Addresses of one family, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRange {
    /// The first address.
    pub first: IpAddr,
    /// The last address.
    pub last: IpAddr,
}

impl PoolRange {
    fn overlaps(&self, other: &Self) -> bool {
        // All IPv4 addresses are less than all IPv6 addresses.
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for PoolRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Two living daemons would lease the same addresses.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the pool {range} of this daemon ({host}) overlaps the pool {other_range} of the daemon {other_host}, which shares the \
     database: give each daemon a pool of its own; if their networks are not connected, give each another site in [dhcp]"
)]
pub struct PoolOverlap {
    /// This daemon's name.
    pub host: String,
    /// Its pool.
    pub range: PoolRange,
    /// The other daemon's ID: several daemons may have one name.
    pub other_id: Uuid,
    /// The other daemon's name.
    pub other_host: String,
    /// The other daemon's pool.
    pub other_range: PoolRange,
    /// The other daemon's last liveness report, by the database's clock.
    pub other_seen_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(site: &str, ranges: &[(&str, &str)]) -> DaemonPools {
        let range = |(first, last): &(&str, &str)| PoolRange {
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
        };
        let (site, ranges) = (site.to_owned(), ranges.iter().map(range).collect());
        DaemonPools { site, ranges, ..DaemonPools::default() }
    }

    #[test]
    fn pools_overlap_that_have_one_address_in_common_at_one_site() {
        let own = pools("", &[("10.0.0.10", "10.0.0.19"), ("fd00::10", "fd00::1f")]);
        let overlaps = |site: &str, first: &str, last: &str| {
            let other = pools(site, &[(first, last)]);
            assert_eq!(own.overlap(&other).is_some(), other.overlap(&own).is_some());
            own.overlap(&other).map(|(own, _)| own.to_string())
        };

        for (first, last) in
            [("10.0.0.19", "10.0.0.19"), ("10.0.0.1", "10.0.0.10"), ("10.0.0.1", "10.0.0.99")]
        {
            assert_eq!(overlaps("", first, last).as_deref(), Some("10.0.0.10-10.0.0.19"));
            assert_eq!(overlaps("elsewhere", first, last), None);
        }
        assert_eq!(overlaps("", "fd00::1f", "fd00::2f").as_deref(), Some("fd00::10-fd00::1f"));
        for (first, last) in
            [("10.0.0.1", "10.0.0.9"), ("10.0.0.20", "10.0.0.29"), ("fd00::20", "fd00::2f")]
        {
            assert_eq!(overlaps("", first, last), None);
        }
    }
}
