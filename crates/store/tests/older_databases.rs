//! Databases that earlier versions made are read by this one.
#![expect(clippy::unwrap_used, reason = "in a test, what cannot be unwrapped has failed")]

use provision::{BootEvent, Boots, Procedure, ProvisionState as State, Stage, What};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use store::{NodeFilter, PortFilter, Store};

/// What version 0.1 left: a node in each state that it knew, in the middle of whatever it did.
const VERSION_0_1: &str = include_str!("databases/0.1.sql");

async fn opened() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut old = options.connect().await.unwrap();
    old.execute(AssertSqlSafe(VERSION_0_1)).await.unwrap();
    old.close().await.unwrap();
    (folder, Store::open(&format!("sqlite://{}", path.display())).await.unwrap())
}

#[tokio::test]
async fn nodes_ports_and_traces_of_version_0_1_are_read() {
    let (_folder, store) = opened().await;

    let nodes = store.nodes(&NodeFilter::default()).await.unwrap();
    assert_eq!(nodes.len(), 13);
    assert_eq!(store.ports(&PortFilter::default()).await.unwrap().len(), 13);
    let mut states = Vec::new();
    for found in nodes {
        let node = found.node;
        states.push(node.provision_state);
        assert_eq!(node.driver_text("redfish_password"), Some("secret"));
        let Some(attempt) = &node.attempt else { continue };
        assert_eq!((attempt.procedure, attempt.boots()), (Procedure::Clean, Boots::Ramdisk));
        let events = store.events(node.uuid, Some(attempt.id)).await.unwrap();
        let begins =
            |event: &&BootEvent| matches!(event.what, What::State { from: State::Manageable, .. });
        assert_eq!(events.iter().filter(begins).count(), 1, "{:?}", node.name);
    }
    for state in [State::Enroll, State::Verifying, State::Available, State::CleanFailed] {
        assert!(states.contains(&state), "{state}");
    }
}

#[tokio::test]
async fn a_step_that_ran_when_version_0_1_ended_goes_on() {
    let (_folder, store) = opened().await;

    let nodes = store.nodes(&NodeFilter::default()).await.unwrap();
    let running = nodes.into_iter().find(|found| found.node.name.as_deref() == Some("running"));
    let node = running.unwrap().node;

    assert_eq!(node.provision_state.stage(), Some(Stage::Waiting));
    let attempt = node.attempt.as_ref().unwrap();
    assert_eq!(attempt.run.command_id.as_deref(), Some("command-0"));
    let step = node.current_step.as_ref().unwrap();
    assert_eq!(attempt.run.current().map(|step| step.name()), Some(step.name()));
}
