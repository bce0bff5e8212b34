//! Services without announcements: the embedded server, which looks the node up for each packet, and servers
//! configured by others.

use anyhow::{Result, ensure};
use futures::future::{BoxFuture, FutureExt as _, ready};
use netboot::providers::announcement::Announcement;
use netboot::providers::picture::Picture;

use super::provider::{But, Provider};

/// `embedded` and `none`.
#[derive(Debug)]
pub(super) struct NoAnnouncements {
    /// Whether machines get an answer from it, as far as known.
    pub(super) answers: bool,
}

impl Provider for NoAnnouncements {
    fn announce<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<But>> {
        ready(self.can_answer(told).map(|()| But::new())).boxed()
    }

    fn amend<'a>(&'a self, _: &'a Announcement, _: &'a Announcement) -> BoxFuture<'a, Result<But>> {
        ready(Ok(But::new())).boxed()
    }

    fn withdraw<'a>(&'a self, _: &'a Announcement) -> BoxFuture<'a, Result<()>> {
        ready(Ok(())).boxed()
    }

    fn reconcile<'a>(&'a self, _: &'a Picture) -> BoxFuture<'a, Result<()>> {
        ready(Ok(())).boxed()
    }

    fn has_forgotten<'a>(&'a self, _: &'a [Announcement]) -> BoxFuture<'a, Result<bool>> {
        ready(Ok(false)).boxed()
    }
}

impl NoAnnouncements {
    fn can_answer(&self, told: &Announcement) -> Result<()> {
        ensure!(
            self.answers,
            "its boot interface is {}, but no DHCP network is configured: add [[dhcp.network]] to the \
             configuration, name another DHCP service with provider in [dhcp], or use redfish-https or redfish-virtual-media",
            told.boot_interface
        );
        Ok(())
    }
}
