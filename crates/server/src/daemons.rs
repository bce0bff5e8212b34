//! This daemon among those that share its database: what it is known by, that it is alive, and what it held when it died.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use store::{Clock, DaemonIdentity, Store, StoreError, log_store_failure};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::state_dir::StateDir;
use crate::workers;

/// How often this daemon says that it is alive.
const EVERY: Duration = Duration::from_secs(5);

pub(crate) fn identity(state: &StateDir, host: String) -> Result<DaemonIdentity> {
    Ok(DaemonIdentity::new(state.identity()?, host))
}

/// Registers this daemon, where others may share its database.
pub(crate) async fn register(store: &Store, daemon: &DaemonIdentity) -> Result<()> {
    if !store.may_be_shared() {
        return Ok(());
    }
    let now = Clock::process().now();
    let known = store.daemons(now).await.context("cannot read who shares the database")?;
    if known.iter().any(|known| known.host == daemon.host && known.is_alive) {
        warn!(
            "a daemon named {} was alive a moment ago: if that is another one, give each a name of its own (`host`)",
            daemon.host
        );
    }
    store.register_daemon(daemon, now).await.context("cannot register with the database")
}

/// Frees what this daemon held when it died. Where the database is its alone, what any held.
pub(crate) async fn release(store: &Store, daemon: &DaemonIdentity) -> Result<()> {
    let of = store.may_be_shared().then_some(daemon);
    let released = store.release_all(of, Clock::process().now(), workers::LEASE).await;
    released.context("cannot take over what was under way")?;
    Ok(())
}

/// Says that this daemon is alive, until `end`.
///
/// # Errors
/// In words, where it must not go on: another process has its identity, or a newer version has the database.
pub(crate) async fn stay_known(
    store: Store,
    daemon: DaemonIdentity,
    end: CancellationToken,
) -> Result<()> {
    if !store.may_be_shared() {
        end.cancelled().await;
        return Ok(());
    }
    let mut often = interval(EVERY);
    often.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = often.tick() => {}
            () = end.cancelled() => break,
        }
        if let Err(other @ StoreError::Version { .. }) = store.expect_version().await {
            return Err(other)
                .context("this daemon ends, as its database has become another version's");
        }
        match store.note_alive(&daemon, Clock::process().now()).await {
            Ok(true) => {}
            Ok(false) => bail!(
                "another process runs as this daemon, and this one ends: was the machine copied while it ran?"
            ),
            Err(failed) => log_store_failure(&failed, "this daemon could not say that it is alive"),
        }
    }
    if let Err(failed) = store.note_end(&daemon).await {
        log_store_failure(&failed, "this daemon could not say that it ends");
    }
    Ok(())
}
