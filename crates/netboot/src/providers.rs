//! What another DHCP server is told, so that it answers machines as ours would.
//!
//! An [`Announcement`](announcement::Announcement) is one boot with its URLs; [`dnsmasq`], [`kea`] and [`neutron`] say it in the words
//! of each server. The daemon carries that to the server, and tries again what fails.

pub mod announcement;
pub mod dnsmasq;
pub mod kea;
pub mod neutron;
pub mod picture;
#[cfg(any(test, feature = "test-announcements"))]
pub mod test_announcements;
pub mod told_boots;
