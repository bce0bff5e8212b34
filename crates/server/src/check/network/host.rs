//! The properties of this host's interfaces, for the checks of a network's settings. Nothing is sent.

use std::time::Duration;

use anyhow::Result;
use netboot::network_check::own_interface::OwnInterface;
use tokio::time::{Instant, sleep};

use crate::dhcp::{interface, unusable};

/// Time limit and interval of waiting for duplicate address detection (RFC 4862 §5.4).
const SETTLING: Duration = Duration::from_millis(2_500);
const GLANCE: Duration = Duration::from_millis(250);

/// The current properties of an interface.
///
/// # Errors
/// The interface does not exist.
pub(in crate::check) fn look(name: &str) -> Result<OwnInterface> {
    Ok(OwnInterface {
        name: name.to_owned(),
        addresses: interface::addresses(name)?,
        unusable: unusable(name),
        mtu: interface::mtu(name),
        part_of: interface::part_of(name),
    })
}

/// The properties once its IPv6 addresses are usable, or known to be unusable.
///
/// # Errors
/// The interface does not exist.
pub(super) async fn settled(name: &str) -> Result<OwnInterface> {
    let begun = Instant::now();
    loop {
        let own = look(name)?;
        if !own.has_tentative() || begun.elapsed() > SETTLING {
            return Ok(own);
        }
        sleep(GLANCE).await;
    }
}
