//! The address writer: it saves the addresses of machines with their nodes, if a token depends on them.

use std::collections::HashSet;
use std::time::Duration;

use provision::Event;
use store::{ChangeError, StoreFailure as _, log_store_failure};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::address_book::{AddressBook, UnsavedAddresses};
use crate::boot_progress::BootProgressTable;
use crate::nodes::Nodes;

/// Interval of forgetting ended attempts.
const TIDY_EVERY: Duration = Duration::from_secs(2);
/// Retry interval: a worker holds a node for as long as it talks to the BMC.
const SAVE_AGAIN: Duration = Duration::from_millis(250);

/// Saves new addresses, and forgets those and the progress of ended attempts, until `end`.
pub async fn run(
    addresses: AddressBook,
    progress: BootProgressTable,
    nodes: Nodes,
    end: CancellationToken,
) {
    // Attempts with a logged failure: saving is retried four times a second.
    let mut logged = HashSet::new();
    while !end.is_cancelled() {
        save(&addresses, &nodes, &mut logged).await;
        let booting = nodes.index().booting();
        let live = booting.iter().filter_map(|node| Some(node.live_attempt()?.id)).collect();
        addresses.keep(&live);
        progress.keep(&live);
        logged.retain(|attempt| live.contains(attempt));
        let rest = if addresses.to_save().is_empty() { TIDY_EVERY } else { SAVE_AGAIN };
        tokio::select! {
            _ = timeout(rest, addresses.more_to_save()) => {}
            () = end.cancelled() => {}
        }
    }
    save(&addresses, &nodes, &mut logged).await;
}

async fn save(addresses: &AddressBook, nodes: &Nodes, logged: &mut HashSet<Uuid>) {
    for unsaved in addresses.to_save() {
        let UnsavedAddresses { node, attempt, addresses: seen } = unsaved.clone();
        let event = Event::AddressesSeen { attempt, fetched: seen.fetched, leased: seen.leased };
        match nodes.happen(node, None, &event).await {
            // The attempt has ended.
            Ok(_) | Err(ChangeError::Refused(_) | ChangeError::NoSuchNode(_)) => {
                addresses.note_saved(&unsaved);
            }
            // A worker holds the node, but not for long.
            Err(ChangeError::Locked { .. }) => {}
            Err(failed) => {
                if failed.is_outage() || logged.insert(attempt) {
                    let what = format!("where the machine of node {node} is was not saved");
                    log_store_failure(&failed, &what);
                }
            }
        }
    }
}
