//! IPv6 on one link: the kernel makes addresses of what routers advertise (RFC 4862).

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context, Result};
use tokio::sync::{mpsc, watch};
use tracing::info;

use super::kernel::{Present, set_ipv6};
use super::links::Link;
use super::{Family, Gained};

/// Takes part in IPv6 for as long as it is let. Whenever there are other addresses than before, that is told.
///
/// # Errors
///
/// When the link cannot be used.
pub(super) async fn run(
    link: Link,
    mut present: watch::Receiver<Present>,
    tell: mpsc::Sender<Gained>,
) -> Result<Infallible> {
    // An agent before this one may have left the link.
    for (setting, value) in [("disable_ipv6", "0"), ("accept_ra", "1"), ("autoconf", "1")] {
        set_ipv6(&link.name, setting, value);
    }
    let mut last = BTreeSet::new();
    loop {
        let now: BTreeSet<_> = addresses(&present.borrow_and_update(), link.index).collect();
        if now != last {
            for address in now.difference(&last) {
                info!("{} has address {address}", link.name);
            }
            let (dns, ntp) = (Vec::new(), Vec::new());
            let gained = Gained { link: link.clone(), family: Family::V6, dns, ntp };
            // Nobody listens any more only when the agent ends.
            let _ = tell.send(gained).await;
            last = now;
        }
        present.changed().await.context("the kernel tells no more")?;
    }
}

/// Those that others can reach.
fn addresses(present: &Present, index: u32) -> impl Iterator<Item = Ipv6Addr> {
    let v6 = |address| if let IpAddr::V6(address) = address { Some(address) } else { None };
    present.reachable(index).filter_map(v6)
}
