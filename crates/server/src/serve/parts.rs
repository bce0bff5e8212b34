//! The concurrent parts of the daemon, and their end.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Time limit for parts with nothing left to do at the end, in case a call hangs.
pub(super) const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// The running parts, and the token that ends them.
#[derive(Debug, Default)]
pub(super) struct DaemonParts {
    running: JoinSet<Result<()>>,
    end: CancellationToken,
}

impl DaemonParts {
    /// Starts a part, which ends when its token is cancelled.
    pub(super) fn start<F>(&mut self, part: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.running.spawn(part(self.end.clone()));
    }

    /// Starts a part that cannot fail.
    pub(super) fn start_infallible<F>(&mut self, part: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let part = part(self.end.clone());
        self.running.spawn(async move {
            part.await;
            Ok(())
        });
    }

    /// Runs all parts until `end`, or until one of them ends. The others then have `patience` to end.
    ///
    /// # Errors
    /// The error of the first part that failed.
    pub(super) async fn run_until(
        mut self,
        end: impl Future<Output = ()>,
        patience: Duration,
    ) -> Result<()> {
        let first = tokio::select! {
            () = end => None,
            ended = self.running.join_next() => ended,
        };
        info!("ending");
        self.end.cancel();
        let all = async {
            let mut result = Ok(());
            let mut ended = if first.is_some() { first } else { self.running.join_next().await };
            while let Some(part) = ended {
                let part = part.context("a part of the daemon failed").flatten();
                result = result.and(part);
                ended = self.running.join_next().await;
            }
            result
        };
        let ended = timeout(patience, all).await;
        ended.unwrap_or_else(|_| {
            warn!("not every part of the service ended within {patience:?}; it continues at the next start");
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use anyhow::bail;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_part_that_fails_ends_the_others_and_says_why() {
        let mut parts = DaemonParts::default();
        parts.start_infallible(|end| async move { end.cancelled().await });
        parts.start(|_| async { bail!("the socket is gone") });

        let failed = parts.run_until(pending(), LAST_PATIENCE).await.unwrap_err();

        assert_eq!(failed.to_string(), "the socket is gone");
    }

    #[tokio::test]
    async fn parts_end_when_they_are_told_to_and_one_that_hangs_is_left() {
        let mut parts = DaemonParts::default();
        parts.start_infallible(|end| async move { end.cancelled().await });
        parts.run_until(async {}, LAST_PATIENCE).await.unwrap();

        let mut parts = DaemonParts::default();
        parts.start_infallible(|_| pending());
        parts.run_until(async {}, SHORT).await.unwrap();
    }
}
