//! SQLite on a disk that fills up and is freed again.
#![expect(clippy::unwrap_used, reason = "in a test, what cannot be unwrapped has failed")]

mod small_disk;

use std::convert::Infallible;
use std::fs;
use std::path::Path;

use jiff::SignedDuration;
use provision::event::BootPhase;
use provision::trace::{AgentCall, AgentOutcome};
use provision::{AgentExtension, BootEvent, BootEventKind, Node, Work};
use serde_json::json;
use small_disk::on_a_small_disk;
use store::{Change, ChangeError, Clock, DaemonIdentity, NodeKey, Store, StoreError, WorkError};
use uuid::Uuid;

const LEASE: SignedDuration = SignedDuration::from_secs(60);

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test);
}

/// A change that needs disk space.
async fn grow(store: &Store, node: Uuid, to: &str) -> Result<Node, ChangeError<Infallible>> {
    let grown = |node: &Node| {
        let mut node = node.clone();
        node.extra.insert("padding".into(), json!("x".repeat(100_000)));
        node.extra.insert("is".into(), json!(to));
        Ok(Change { work: Some(Work::Verify), ..Change::from(node) })
    };
    store.change(node, None, Clock::process().now(), grown).await.map(|saved| saved.node)
}

async fn read(store: &Store, node: Uuid) -> Node {
    store.node(&NodeKey::Uuid(node)).await.unwrap().unwrap().node
}

#[test]
fn a_database_on_a_disk_that_was_full_is_written_again_as_soon_as_there_is_room() {
    let name = "a_database_on_a_disk_that_was_full_is_written_again_as_soon_as_there_is_room";
    on_a_small_disk(name, "12m", |disk| {
        run(async {
            let url = format!("sqlite://{}/store.db", disk.path().display());
            let store = Store::open(&url, &disk.path().join("ferroboot.key")).await.unwrap();
            let node = Node::enrolled(Uuid::new_v4(), "redfish", Clock::process().now());
            store.create_node(&node).await.unwrap();
            // The free space decides which statement fails, or whether COMMIT does.
            let mut full = 0;
            for round in 0..40 {
                disk.fill_but(round * 4_096);
                let mut last = read(&store, node.uuid).await;
                let mut failures = 0;
                for change in 0..12 {
                    match grow(&store, node.uuid, &format!("{round}/{change}")).await {
                        Ok(node) => last = node,
                        Err(ChangeError::Store(StoreError::DiskFull(_))) => failures += 1,
                        Err(other) => panic!("round {round}: {other:?}"),
                    }
                    assert_eq!(read(&store, node.uuid).await, last, "round {round}");
                }
                full += usize::from(failures > 0);
                disk.free();
                grow(&store, node.uuid, "freed").await.unwrap();
                assert!(!store.health().is_out(), "round {round}");
            }
            assert!(full > 20, "the disk was full in {full} rounds of 40");
            assert!(store.health().failures().disk_full >= full as u64);
            assert!(store.health().usable_for().is_some());
        });
    });
}

#[test]
fn work_and_traces_are_kept_where_a_disk_runs_full_between_a_claim_and_its_end() {
    let name = "work_and_traces_are_kept_where_a_disk_runs_full_between_a_claim_and_its_end";
    on_a_small_disk(name, "12m", |disk| {
        run(async {
            let url = format!("sqlite://{}/store.db", disk.path().display());
            let store = Store::open(&url, &disk.path().join("ferroboot.key")).await.unwrap();
            let node = Node::enrolled(Uuid::new_v4(), "redfish", Clock::process().now());
            store.create_node(&node).await.unwrap();
            grow(&store, node.uuid, "planned").await.unwrap();
            let daemon = DaemonIdentity::new(Uuid::new_v4(), "a".to_owned());
            let claimed =
                store.claim_work(&daemon, Clock::process().now(), LEASE).await.unwrap().unwrap();
            let what = BootEventKind::Agent {
                call: AgentCall::ExecuteStep {
                    extension: AgentExtension::Clean,
                    step: "x".repeat(900),
                },
                outcome: AgentOutcome::Failed { error: "y".repeat(900) },
                caller: None,
            };
            let event = BootEvent { at: Clock::process().now(), attempt: Uuid::new_v4(), what };
            let events: Vec<_> = (0..256).map(|_| (node.uuid, event.clone())).collect();

            disk.fill_but(0);
            let failed = loop {
                // The rest of the log's last page absorbs a few changes.
                if let Err(failed) =
                    store.note_progress(&claimed.claim, BootPhase::PoweringOn).await
                {
                    break failed;
                }
            };
            assert!(matches!(failed, WorkError::Store(StoreError::DiskFull(_))), "{failed:?}");
            let failed = store.append_events(&events).await.unwrap_err();
            assert!(matches!(failed, StoreError::DiskFull(_)), "{failed:?}");
            let said = failed.to_string();
            assert!(said.contains("the disk of the database is full"), "{said}");
            disk.free();

            store.append_events(&events).await.unwrap();
            store.note_progress(&claimed.claim, BootPhase::PoweringOn).await.unwrap();
            store.drop_work(&claimed.claim).await.unwrap();
            assert_eq!(store.events(node.uuid, None).await.unwrap().len(), events.len());
        });
    });
}

#[test]
fn a_database_is_opened_and_read_on_a_full_disk() {
    let name = "a_database_is_opened_and_read_on_a_full_disk";
    on_a_small_disk(name, "12m", |disk| {
        run(async {
            let node = Node::enrolled(Uuid::new_v4(), "redfish", Clock::process().now());
            // Once as after a SIGKILL, with the log beside it, and once as after an orderly end.
            let (killed, ended) = (disk.path().join("killed"), disk.path().join("ended"));
            let url = |folder: &Path| format!("sqlite://{}/store.db", folder.display());
            let store = Store::open(&url(&ended), &ended.join("ferroboot.key")).await.unwrap();
            store.create_node(&node).await.unwrap();
            fs::create_dir(&killed).unwrap();
            for name in ["store.db", "store.db-wal", "store.db-shm", "ferroboot.key"] {
                fs::copy(ended.join(name), killed.join(name)).unwrap();
            }
            store.close().await;
            disk.fill_but(0);

            for folder in [&killed, &ended, &ended] {
                let store = Store::open(&url(folder), &folder.join("ferroboot.key")).await.unwrap();

                assert_eq!(read(&store, node.uuid).await.uuid, node.uuid);
                store.close().await;
                disk.fill_but(0);
            }
            let new = disk.path().join("new");
            // A new database has no reserve yet.
            let refused = Store::open(&url(&new), &new.join("ferroboot.key")).await.unwrap_err();
            assert!(matches!(refused, StoreError::DiskFull(_)), "{refused:?}");
        });
    });
}
