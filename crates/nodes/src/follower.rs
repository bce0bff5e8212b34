//! The follower: it brings the index up to date with the changes of other daemons.

use std::time::Duration;

use store::log_store_failure;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::nodes::Nodes;

/// Polling interval for changes. A ticket that another daemon ended stays valid here for no longer.
const EVERY: Duration = Duration::from_millis(500);

/// Follows the store until `end`.
pub async fn run(nodes: Nodes, end: CancellationToken) {
    let mut often = interval(EVERY);
    often.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = often.tick() => {}
            () = end.cancelled() => return,
        }
        if let Err(failed) = nodes.follow().await {
            log_store_failure(&failed, "changes of other daemons could not be read");
        }
    }
}
