//! The follower: it brings the index up to date with what other daemons change.

use std::time::Duration;

use store::log_store_failure;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::nodes::Nodes;

/// How often the database is asked for changes. A ticket that another daemon ended is good here for no longer.
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
