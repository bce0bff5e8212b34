//! The results of IPv4 or IPv6 on a link.

use std::net::IpAddr;

use super::links::NetworkLink;

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// The results of one family on one link, without its addresses, which the kernel reports.
#[derive(Debug, Clone)]
pub(super) struct GainedSettings {
    pub(super) link: NetworkLink,
    pub(super) family: Family,
    pub(super) dns: Vec<IpAddr>,
    pub(super) ntp: Vec<IpAddr>,
}
