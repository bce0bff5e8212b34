//! The pools of other daemons on the same database: each daemon answers for the addresses of its own pools.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use dhcp::leases::LeasePool;

/// The pools of the other daemons, of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignPools {
    /// The IPv4 pools.
    pub v4: Arc<[LeasePool<Ipv4Addr>]>,
    /// The IPv6 pools.
    pub v6: Arc<[LeasePool<Ipv6Addr>]>,
}

impl FromIterator<[IpAddr; 2]> for ForeignPools {
    /// The first and the last address of each pool.
    fn from_iter<T: IntoIterator<Item = [IpAddr; 2]>>(ranges: T) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for range in ranges {
            match range {
                [IpAddr::V4(first), IpAddr::V4(last)] => v4.push(LeasePool { first, last }),
                [IpAddr::V6(first), IpAddr::V6(last)] => v6.push(LeasePool { first, last }),
                // Both ends of a range are of the same family.
                [IpAddr::V4(_), IpAddr::V6(_)] | [IpAddr::V6(_), IpAddr::V4(_)] => {}
            }
        }
        Self { v4: v4.into(), v6: v6.into() }
    }
}
