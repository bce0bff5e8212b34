//! The exclusive resources of a daemon: its state directory, its database, its registration there.

use anyhow::{Context as _, Result};
use netboot::foreign_pools::ForeignPools;
use store::{DaemonIdentity, DaemonPools, DatabaseLock, Store};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::warn;

use super::parts::LAST_PATIENCE;
use crate::config::Config;
use crate::daemons;
use crate::state_dir::StateDir;

/// The exclusive resources of a daemon, until they are dropped.
pub(super) struct DaemonBase {
    pub(super) state: StateDir,
    pub(super) daemon: DaemonIdentity,
    pub(super) store: Store,
    pub(super) pools: DaemonPools,
    /// The pools of other daemons, for DHCP.
    pub(super) foreign_pools: watch::Sender<ForeignPools>,
    _lock: DatabaseLock,
}

impl DaemonBase {
    /// Locks the state directory and the database, and registers the daemon.
    ///
    /// # Errors
    /// One of them is in use, or unusable.
    pub(super) async fn take(config: &Config) -> Result<Self> {
        let state = StateDir::lock(config.state_dir()?)?;
        let daemon = daemons::identity(&state, config.host())?;
        let database_url = config.database.url_in(state.path());
        let lock = DatabaseLock::take(&database_url).context("cannot use the database")?;
        let store = Store::open(&database_url, &config.database.key_file_in(state.path())).await;
        let store = store.context("cannot open the database")?;
        let pools = daemons::pools(&config.dhcp);
        let foreign_pools = daemons::register(&store, &daemon, &pools).await?;
        let foreign_pools = watch::Sender::new(foreign_pools);
        Ok(Self { state, daemon, store, pools, foreign_pools, _lock: lock })
    }

    /// Releases the claims of this daemon from before a crash.
    ///
    /// # Errors
    /// The database does not answer.
    pub(super) async fn release_claims(&self) -> Result<()> {
        daemons::release(&self.store, &self.daemon).await
    }

    /// Closes the database.
    pub(super) async fn close(self) {
        if timeout(LAST_PATIENCE, self.store.close()).await.is_err() {
            warn!("the database did not close within {LAST_PATIENCE:?}");
        }
    }
}
