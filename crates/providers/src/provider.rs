//! The interface of the external DHCP services.

use std::fmt;

use anyhow::{Result, ensure};
use futures::future::BoxFuture;
use netboot::providers::announcement::Announcement;
use netboot::providers::picture::Picture;

/// A DHCP service that can be configured for each boot.
///
/// Repeating an announcement changes nothing, and never removes other parties' settings.
pub trait Provider: fmt::Debug + Send + Sync {
    /// Configures the answers for a node's ports from `told`, before its machine is switched on.
    fn announce<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<But>>;

    /// Changes the answers from `before` to `now` for the same boot: ports or URLs have changed.
    fn amend<'a>(
        &'a self,
        before: &'a Announcement,
        now: &'a Announcement,
    ) -> BoxFuture<'a, Result<But>>;

    /// Removes the answers.
    fn withdraw<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<()>>;

    /// Configures all answers of the picture, and removes all others that this service ever configured. One failure
    /// does not prevent the rest.
    fn reconcile<'a>(&'a self, picture: &'a Picture) -> BoxFuture<'a, Result<()>>;

    /// Whether the service has lost some of `told`: it was restarted, or another party has changed it.
    fn has_forgotten<'a>(&'a self, told: &'a [Announcement]) -> BoxFuture<'a, Result<bool>>;
}

/// Warnings, in words; a machine can boot nonetheless.
pub type But = Vec<String>;

/// Success if all succeeded; otherwise all failures, in words.
pub(super) fn all_well(done: impl IntoIterator<Item = Result<()>>) -> Result<()> {
    let failed: Vec<_> =
        done.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(failed.is_empty(), failed.join("; "));
    Ok(())
}
