//! Databases of earlier versions can be read.
#![expect(clippy::unwrap_used, reason = "in a test, what cannot be unwrapped has failed")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use jiff::SignedDuration;
use provision::artifact::HttpLoader;
use provision::boot::BootMethod;
use provision::{
    BootEvent, BootEventKind, BootInterface, Boots, Procedure, ProvisionState as State, Stage,
    Vicinity, diagnose,
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use store::{NodeFilter, PortFilter, Store};
use uuid::Uuid;

/// A database of version 0.1: a node in each of its states, with unfinished work.
const VERSION_0_1: &str = include_str!("databases/0.1.sql");
/// Traces with each kind of event of version 0.1: texts where later versions have types.
const TRACES_OF_VERSION_0_1: &str = include_str!("databases/0.1-traces.sql");
/// The output of version 0.1 for these traces.
const SHOWN_BY_VERSION_0_1: &str = include_str!("databases/0.1-traces.txt");
/// The node of these traces.
const TRACED: Uuid = Uuid::from_u128(0xf1);

async fn opened() -> (tempfile::TempDir, Store) {
    let folder = old().await;
    let store = reopened(folder.path()).await;
    (folder, store)
}

async fn reopened(folder: &Path) -> Store {
    let url = format!("sqlite://{}", folder.join("old.db").display());
    Store::open(&url, &folder.join("ferroboot.key")).await.unwrap()
}

/// A database of version 0.1 that no later version has opened.
async fn old() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut old = options.connect().await.unwrap();
    old.execute(AssertSqlSafe(VERSION_0_1)).await.unwrap();
    old.execute(AssertSqlSafe(TRACES_OF_VERSION_0_1)).await.unwrap();
    old.close().await.unwrap();
    folder
}

/// The contents of a database's files, with its log.
fn bytes_of(folder: &Path) -> String {
    let files = folder.read_dir().unwrap().map(|file| file.unwrap().path());
    let databases = files.filter(|file| file.to_string_lossy().contains("old.db"));
    databases.map(|file| String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned()).collect()
}

#[tokio::test]
async fn secrets_that_version_0_1_wrote_in_clear_are_encrypted_and_nothing_of_them_is_left() {
    let folder = old().await;
    let clear = ["\"secret\"", "ticket-0000", "token-0000"];
    let before = bytes_of(folder.path());
    assert!(clear.iter().all(|secret| before.contains(secret)));

    let store = reopened(folder.path()).await;

    let after = bytes_of(folder.path());
    for secret in clear {
        let at = after.find(secret).map(|at| after.get(at.saturating_sub(600)..at + 100));
        assert_eq!(at, None, "{secret} is in the database or its log");
    }
    assert!(after.contains("encrypted:1:"), "and the encrypted ones are");
    store.close().await;
    let again = reopened(folder.path()).await;
    let nodes = again.nodes(&NodeFilter::default()).await.unwrap();
    assert!(nodes.iter().all(|it| it.node.driver_text("redfish_password") == Some("secret")));
    let tickets = nodes.iter().filter_map(|found| found.node.attempt.as_ref());
    assert!(tickets.clone().count() > 5);
    assert!(tickets.clone().all(|attempt| attempt.ticket.0.starts_with("ticket-0000")));
    assert!(tickets.clone().all(|attempt| attempt.agent_token.0.starts_with("token-0000")));
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
        let begins = |event: &&BootEvent| {
            matches!(event.what, BootEventKind::State { from: State::Manageable, .. })
        };
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

#[tokio::test]
async fn traces_of_version_0_1_are_shown_and_judged_as_by_version_0_1() {
    let (_folder, store) = opened().await;
    let mut shown = String::new();

    let mut attempts = store.attempts(TRACED).await.unwrap();
    attempts.reverse();
    for summary in attempts {
        let old = store.events(TRACED, Some(summary.attempt)).await.unwrap();
        // In this version's form.
        let events: Vec<BootEvent> =
            serde_json::from_str(&serde_json::to_string(&old).unwrap()).unwrap();
        assert_eq!(events, old);
        writeln!(shown, "{}", summary.attempt).unwrap();
        for event in &events {
            writeln!(shown, "  {:<8} {}", event.what.kind(), event.what).unwrap();
        }
        for minutes in [0, 1, 5, 20] {
            writeln!(shown, "  after {minutes} min: {}", judged(&events, minutes)).unwrap();
        }
    }

    assert_eq!(shown, SHOWN_BY_VERSION_0_1, "{shown}");
}

/// The diagnosis this long after the last event.
fn judged(events: &[BootEvent], minutes: i64) -> String {
    let (first, last) = (events.first().unwrap(), events.last().unwrap());
    let BootEventKind::State { to, .. } = &first.what else { panic!("{first:?}") };
    let procedure = to.procedure().unwrap();
    let method = BootMethod { procedure, interface: BootInterface::Http, loader: HttpLoader::Uki };
    let now = last.at + SignedDuration::from_mins(minutes);
    match diagnose(method, events, Vicinity::default(), now) {
        None => "nothing".to_owned(),
        Some(found) => {
            let hint = found.hint.as_deref().unwrap_or("no hint");
            format!("{:?}, {}; {hint}", found.verdict, found.text)
        }
    }
}
