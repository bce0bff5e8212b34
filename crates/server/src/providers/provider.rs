//! What is common to the DHCP services that can be told what machines are to boot.

use std::fmt;

use anyhow::{Result, ensure};
use futures::future::BoxFuture;
use netboot::providers::announcement::Announcement;
use netboot::providers::picture::Picture;

/// A DHCP service that can be told what machines are to boot.
///
/// Telling it the same again changes nothing, and takes back nothing that others told it.
pub trait Provider: fmt::Debug + Send + Sync {
    /// Lets the service answer the ports of a node as `told` says, before its machine is switched on.
    fn announce<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<But>>;

    /// Lets the service answer as `now` says, where it was told `before` of the same boot: ports have come or
    /// gone, or URLs have changed.
    fn amend<'a>(
        &'a self,
        before: &'a Announcement,
        now: &'a Announcement,
    ) -> BoxFuture<'a, Result<But>>;

    /// Lets the service forget that.
    fn withdraw<'a>(&'a self, told: &'a Announcement) -> BoxFuture<'a, Result<()>>;

    /// Lets the service answer as all of the picture says, and forget what else we ever told it. What cannot
    /// be told keeps back nothing else.
    fn reconcile<'a>(&'a self, picture: &'a Picture) -> BoxFuture<'a, Result<()>>;

    /// Whether the service knows some of `told` no more: it was started anew, or somebody else has
    /// changed it.
    fn has_forgotten<'a>(&'a self, told: &'a [Announcement]) -> BoxFuture<'a, Result<bool>>;
}

/// What did not go well, in words, though a machine can boot nonetheless.
pub type But = Vec<String>;

/// That all went well; else all that did not, in words.
pub(super) fn all_well(done: impl IntoIterator<Item = Result<()>>) -> Result<()> {
    let failed: Vec<_> =
        done.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(failed.is_empty(), failed.join("; "));
    Ok(())
}
