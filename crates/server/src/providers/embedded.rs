//! Services that need not be told: our own server, which looks the node up at each packet, and those
//! that somebody else looks after.

use anyhow::{Result, ensure};
use futures::future::{BoxFuture, FutureExt as _, ready};

use super::Provider;
use super::announcement::Announcement;

/// `embedded`
#[derive(Debug)]
pub(super) struct Embedded {
    /// Whether it answers anywhere.
    pub(super) answers: bool,
}

impl Provider for Embedded {
    fn announce<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<()>> {
        ready(self.can_answer(told)).boxed()
    }

    fn withdraw<'a>(&'a self, _: &'a Announcement) -> BoxFuture<'a, Result<()>> {
        ready(Ok(())).boxed()
    }

    fn reconcile<'a>(&'a self, _: &'a [Announcement]) -> BoxFuture<'a, Result<()>> {
        ready(Ok(())).boxed()
    }
}

impl Embedded {
    fn can_answer(&self, told: &Announcement) -> Result<()> {
        ensure!(
            self.answers,
            "its boot interface is {}, but no DHCP network is configured: add [[dhcp.network]] to the \
             configuration, name another DHCP service with provider in [dhcp], or use redfish-https",
            told.boot_interface
        );
        Ok(())
    }
}

/// `none`
#[derive(Debug)]
pub(super) struct SomebodyElse;

impl Provider for SomebodyElse {
    fn announce<'a>(&'a self, _: &'a Announcement) -> BoxFuture<'a, Result<()>> {
        ready(Ok(())).boxed()
    }

    fn withdraw<'a>(&'a self, _: &'a Announcement) -> BoxFuture<'a, Result<()>> {
        ready(Ok(())).boxed()
    }

    fn reconcile<'a>(&'a self, _: &'a [Announcement]) -> BoxFuture<'a, Result<()>> {
        ready(Ok(())).boxed()
    }
}
