//! Boot answers of external DHCP servers, equal to those of the embedded server.
//!
//! An [`Announcement`](announcement::Announcement) is one boot with its URLs. [`dnsmasq`], [`kea`] and [`neutron`]
//! compose the configuration of each server from it. The daemon applies that configuration, and retries failures.

pub mod announced_boots;
pub mod announcement;
pub mod dnsmasq;
pub mod kea;
pub mod neutron;
pub mod picture;
#[cfg(any(test, feature = "test-announcements"))]
pub mod test_announcements;
