//! The address writer: it saves the addresses of machines with their nodes, if a token depends on them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::future::join_all;
use provision::machine_addresses::MachineAddresses;
use provision::{Event, Node, Refused};
use store::{ChangeError, StoreFailure as _, log_store_failure};
use tokio::time::{Instant, timeout};
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
    let mut next_tidying = Instant::now();
    while !end.is_cancelled() {
        save(&addresses, &nodes, &mut logged).await;
        // Looks at every node: in a boot storm, each fetch would wait for it.
        if next_tidying <= Instant::now() {
            let booting = nodes.index().booting();
            let live = booting.iter().filter_map(|node| Some(node.live_attempt()?.id)).collect();
            addresses.keep(&live);
            progress.keep(&live);
            logged.retain(|attempt| live.contains(attempt));
            next_tidying = Instant::now() + TIDY_EVERY;
        }
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
                let one =
                    async |(node, event): &(Uuid, Event)| nodes.happen(*node, None, event).await;
                join_all(events.iter().map(one)).await
            }
            Err(failed) => {
                return log_store_failure(&failed, "addresses of machines were not saved");
            }
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

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use provision::test_nodes::booting_node;
    use provision::{BootInterface, Policy};
    use serde_json::json;
    use sqlx::{Connection as _, SqliteConnection};
    use store::Store;

    use super::*;
    use crate::index::NodeIndex;

    const MACHINES: u8 = 150;

    #[tokio::test]
    async fn the_addresses_of_a_storm_are_saved_although_one_node_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/test.db", folder.path().display());
        let store = Store::open(&url, &folder.path().join("ferroboot.key")).await.unwrap();
        let (nodes, addresses) = (
            Nodes::new(store.clone(), NodeIndex::default(), Policy::default()),
            AddressBook::default(),
        );
        let machines: Vec<_> = (0..MACHINES).map(with_an_own_iso).collect();
        for node in &machines {
            store.create_node(node).await.unwrap();
        }
        nodes.load().await.unwrap();
        let mut broken = SqliteConnection::connect(&url).await.unwrap();
        sqlx::query("UPDATE nodes SET document = 'not a node' WHERE uuid = $1")
            .bind(machines[0].uuid.to_string())
            .execute(&mut broken)
            .await
            .unwrap();

        let (end, progress) = (CancellationToken::new(), BootProgressTable::default());
        let writer = tokio::spawn(run(addresses.clone(), progress, nodes.clone(), end.clone()));
        let fetches = machines[1..]
            .iter()
            .enumerate()
            .map(|(number, node)| addresses.fetches(node, address(number as u8)));
        join_all(fetches).await;
        addresses.fetches(&machines[0], Ipv4Addr::LOCALHOST.into()).await;
        end.cancel();
        writer.await.unwrap();

        for (number, node) in machines[1..].iter().enumerate() {
            let saved = store.node(&node.uuid.into()).await.unwrap().unwrap().node;
            let fetched = &saved.live_attempt().unwrap().addresses.fetched;
            assert_eq!(fetched[..], [address(number as u8)]);
        }
        let unsaved: Vec<_> = addresses.to_save().iter().map(|unsaved| unsaved.node).collect();
        assert_eq!(unsaved, [machines[0].uuid]);
    }

    fn address(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    fn with_an_own_iso(number: u8) -> Node {
        let mut node = booting_node();
        node.uuid = Uuid::from_u128(u128::from(number) + 1);
        node.driver_info.insert("deploy_iso".to_owned(), json!("https://images/own.iso"));
        let attempt = node.attempt.as_mut().unwrap();
        attempt.id = node.uuid;
        attempt.ticket = provision::node::Secret(format!("ticket-{number}"));
        attempt.boot_interface = BootInterface::RedfishHttps;
        node
    }
}
