//! A PostgreSQL that stops answering, for example behind a network that drops all packets.
//!
//! Needs `FERROBOOT_TEST_POSTGRES` (`scripts/with-postgres`), with a folder for its socket.
#![expect(clippy::unwrap_used, reason = "in a test, what cannot be unwrapped has failed")]

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use provision::Node;
use sqlx::{AnyPool, AssertSqlSafe};
use store::{Change, ChangeError, Clock, NodeFilter, Store, StoreFailure as _};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

/// Time limit of an operation in these tests.
const LIMIT: Duration = Duration::from_secs(1);
/// The wait for a connection, plus the operation.
const AT_MOST: Duration = Duration::from_secs(3);

/// The name of PostgreSQL's socket in its folder.
const SOCKET: &str = ".s.PGSQL.5432";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_does_not_answer_is_an_outage_and_is_used_again_when_it_does() {
    let Some((relay, url)) = relay().await else { return };
    let (store, node) = store(&relay, &url).await;

    // Stalls within a transaction, which holds the node's row then.
    let silenced = timeout(AT_MOST, change(&store, node, || relay.stall())).await.unwrap();
    let read = timeout(AT_MOST, store.nodes(&NodeFilter::default())).await.unwrap();
    let opened =
        timeout(AT_MOST, Store::open_within(&url, &relay.key_file(), LIMIT)).await.unwrap();

    let failed = silenced.unwrap_err();
    assert!(failed.is_outage(), "{failed:?}");
    assert!(read.unwrap_err().is_outage());
    assert!(opened.unwrap_err().is_outage());
    assert!(store.health().is_out());
    relay.go_on();
    timeout(AT_MOST, change(&store, node, || ())).await.unwrap().unwrap();
    assert!(!store.health().is_out());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_that_nobody_answers_on_any_more_are_replaced() {
    let Some((relay, url)) = relay().await else { return };
    let (store, node) = store(&relay, &url).await;
    let all = NodeFilter::default();
    let reads = (store.nodes(&all), store.nodes(&all), store.nodes(&all), store.nodes(&all));
    tokio::try_join!(reads.0, reads.1, reads.2, reads.3).unwrap();

    relay.forget();

    for _ in 0..10 {
        timeout(AT_MOST, change(&store, node, || ())).await.unwrap().unwrap();
    }
}

/// A store behind the relay, with a node.
async fn store(relay: &Relay, url: &str) -> (Store, Uuid) {
    let store = Store::open_within(url, &relay.key_file(), LIMIT).await.unwrap();
    let node = Node::enrolled(Uuid::new_v4(), "redfish", Clock::process().now());
    store.create_node(&node).await.unwrap();
    (store, node.uuid)
}

/// A change of a node with an action inside its transaction.
async fn change(
    store: &Store,
    node: Uuid,
    done: impl Fn(),
) -> Result<Node, ChangeError<Infallible>> {
    let decide = |node: &Node| {
        done();
        Ok(Change::from(node.clone()))
    };
    store.change(node, None, Clock::process().now(), decide).await.map(|saved| saved.node)
}

/// A relay to PostgreSQL, and the URL of a schema behind it.
async fn relay() -> Option<(Relay, String)> {
    let url = std::env::var("FERROBOOT_TEST_POSTGRES").ok()?;
    sqlx::any::install_default_drivers();
    let pool = AnyPool::connect(&url).await.unwrap();
    let schema = format!("test_{}", Uuid::new_v4().simple());
    sqlx::query(AssertSqlSafe(format!("CREATE SCHEMA {schema}"))).execute(&pool).await.unwrap();
    pool.close().await;
    let (server, folder) = url.split_once("?host=").expect("a folder with a socket");
    let relay = Relay::start(Path::new(folder).join(SOCKET));
    fs::write(relay.key_file(), "0".repeat(64)).unwrap();
    fs::set_permissions(relay.key_file(), Permissions::from_mode(0o600)).unwrap();
    let folder = relay.folder.path().display().to_string();
    Some((relay, format!("{server}?host={folder}&options=-csearch_path%3D{schema}")))
}

/// Forwards connections to a socket.
struct Relay {
    folder: TempDir,
    /// Whether new connections are stalled.
    is_stalled: Arc<Mutex<watch::Sender<bool>>>,
}

impl Relay {
    /// The database's key file, beside the socket.
    fn key_file(&self) -> PathBuf {
        self.folder.path().join("ferroboot.key")
    }

    fn start(to: PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let is_stalled = Arc::new(Mutex::new(watch::Sender::new(false)));
        let of_new = is_stalled.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let stalled = of_new.lock().unwrap().subscribe();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = UnixStream::connect(&to).await.unwrap().into_split();
                tokio::spawn(pass(from_client, to_server, stalled.clone()));
                tokio::spawn(pass(from_server, to_client, stalled));
            }
        });
        Self { folder, is_stalled }
    }

    /// Stops forwarding, and keeps the data.
    fn stall(&self) {
        self.is_stalled.lock().unwrap().send_replace(true);
    }

    fn go_on(&self) {
        self.is_stalled.lock().unwrap().send_replace(false);
    }

    /// Stops forwarding on existing connections, like a restarted firewall.
    fn forget(&self) {
        self.stall();
        *self.is_stalled.lock().unwrap() = watch::Sender::new(false);
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut is_stalled: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if is_stalled.wait_for(|is_stalled| !is_stalled).await.is_err() {
            std::future::pending::<()>().await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
