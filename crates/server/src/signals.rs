//! Signals that would otherwise end the service silently, and their actions.

use std::time::Instant;

use anyhow::{Context as _, Result};
use nodes::NodeIndex;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::api::guard::OperatorGuard;

/// SIGHUP, SIGUSR1 and SIGUSR2, handled from the creation of this value.
#[derive(Debug)]
pub(crate) struct ServiceSignals {
    hangup: Signal,
    state: [Signal; 2],
    since: Instant,
}

impl ServiceSignals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// They cannot be installed.
    pub(crate) fn take() -> Result<Self> {
        let take = |kind| signal(kind).context("cannot take signals");
        let state = [take(SignalKind::user_defined1())?, take(SignalKind::user_defined2())?];
        Ok(Self { hangup: take(SignalKind::hangup())?, state, since: Instant::now() })
    }

    /// Handles the signals until `end`.
    pub(crate) async fn attend(
        mut self,
        guard: OperatorGuard,
        index: NodeIndex,
        end: CancellationToken,
    ) {
        let [state1, state2] = &mut self.state;
        loop {
            tokio::select! {
                Some(()) = self.hangup.recv() => reload(guard.clone()).await,
                Some(()) = state1.recv() => say_state("SIGUSR1", &index, self.since),
                Some(()) = state2.recv() => say_state("SIGUSR2", &index, self.since),
                () = end.cancelled() => return,
            }
        }
    }
}

async fn reload(guard: OperatorGuard) {
    let has_users = spawn_blocking(move || guard.reload()).await.unwrap_or(false);
    let users = if has_users { "the file of users is read again; " } else { "" };
    info!(
        "SIGHUP: {users}boot sets, images and CA files are read whenever they are used; other settings, and RUST_LOG, \
         are read at a restart alone, which loses no boot"
    );
}

fn say_state(signal: &str, index: &NodeIndex, since: Instant) {
    info!(
        "{signal}: serving for {} s; nodes: {}, of which boot: {}; more is at /metrics",
        since.elapsed().as_secs(),
        index.all().len(),
        index.booting().len()
    );
}
