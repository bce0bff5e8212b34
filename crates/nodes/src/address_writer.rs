//! The address writer: it saves the addresses of machines with their nodes, if a token depends on them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::future::join_all;
use provision::machine_addresses::MachineAddresses;
use provision::{Event, Node, Refused};
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
/// Nodes that are saved in one transaction: each waits for the disk, and the machines of a boot storm for all of them.
const TOGETHER: usize = 64;

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
    // An attempt that has ended may still be there, beside the next one of its node.
    let by_node: HashMap<_, _> =
        addresses.to_save().into_iter().map(|unsaved| (unsaved.node, unsaved)).collect();
    let all: Vec<_> = by_node.into_values().collect();
    for unsaved in all.chunks(TOGETHER) {
        let events: Vec<_> = unsaved.iter().map(event).collect();
        let saved = match nodes.happen_to_all(&events).await {
            Ok(saved) => saved,
            // What is wrong with one node must not keep the others from being saved.
            Err(failed) if !failed.is_outage() => {
                let one = async |(node, event): &(Uuid, Event)| {
                    nodes.happen(*node, None, event).await
                };
                join_all(events.iter().map(one)).await
            }
            Err(failed) => return log_store_failure(&failed, "addresses of machines were not saved"),
        };
        note_saved(unsaved, saved, addresses, logged);
    }
}

fn event(UnsavedAddresses { node, attempt, addresses }: &UnsavedAddresses) -> (Uuid, Event) {
    let MachineAddresses { fetched, leased, .. } = addresses.clone();
    (*node, Event::AddressesSeen { attempt: *attempt, fetched, leased })
}

fn note_saved(
    unsaved: &[UnsavedAddresses],
    saved: Vec<Result<Node, ChangeError<Refused>>>,
    addresses: &AddressBook,
    logged: &mut HashSet<Uuid>,
) {
    for (unsaved, saved) in unsaved.iter().zip(saved) {
        match saved {
            // The attempt has ended.
            Ok(_) | Err(ChangeError::Refused(_) | ChangeError::NoSuchNode(_)) => {
                addresses.note_saved(unsaved);
            }
            // A worker holds the node, but not for long.
            Err(ChangeError::Locked { .. }) => {}
            Err(failed) => {
                let UnsavedAddresses { node, attempt, .. } = unsaved;
                if failed.is_outage() || logged.insert(*attempt) {
                    let what = format!("where the machine of node {node} is was not saved");
                    log_store_failure(&failed, &what);
                }
            }
        }
    }
}
