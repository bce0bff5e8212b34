//! Opening a store: the file and its rights, the pools, the tables.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use sqlx::any::{AnyPoolOptions, install_default_drivers};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Any, AnyPool, Executor, Transaction};
use tokio::sync::Notify;

use crate::error::StoreError;

const EXPECTED: &str = "sqlite:///path/to/file.db or postgres://user@host/database";

/// What every SQLite connection is told first.
///
/// Write-ahead logging lets readers go on while one writes. `FULL` makes each commit wait for the
/// disk: a worker writes down that it is about to switch a machine off before it does so, and that
/// must survive a loss of power. A transition of a node costs one such wait; trace rows share one.
const PRAGMAS: &str = "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; \
                       PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;";

/// The store; clones share its connections.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) read: AnyPool,
    write: AnyPool,
    begin: &'static str,
    pub(crate) added: Arc<Notify>,
    sequence: Arc<AtomicI64>,
}

impl Store {
    /// Opens `sqlite:///path/x.db` (made, for its owner's eyes only, if it is missing) or
    /// `postgres://…`, and brings the tables up to date.
    ///
    /// # Errors
    /// [`StoreError`]: an unusable URL, a file that cannot be made, a database that does not answer.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        install_default_drivers();
        match url.split_once(':') {
            Some(("sqlite", _)) => Self::sqlite(url).await,
            Some(("postgres" | "postgresql", _)) => Self::postgres(url).await,
            Some(_) | None => Err(wrong_url(url)),
        }
    }

    async fn sqlite(url: &str) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::from_str(url).map_err(|_| wrong_url(url))?;
        let path = options.get_filename();
        // In memory, each connection would have a database of its own.
        if !path.is_absolute() {
            return Err(wrong_url(url));
        }
        create(path)?;
        let told = || {
            AnyPoolOptions::new().after_connect(|connection, _| {
                Box::pin(async move { connection.execute(PRAGMAS).await.map(drop) })
            })
        };
        // SQLite has one writer at a time. Queueing for one connection is fair, where waiting for
        // the file's lock is not.
        let write = told().max_connections(1).connect(url).await?;
        let read = told().max_connections(4).connect(url).await?;
        let store = Self::of(read, write, "BEGIN IMMEDIATE");
        // On SQLite, sqlx does not keep two from migrating at once; a transaction that writes does.
        let mut transaction = store.begin().await?;
        sqlx::migrate!().run(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(store)
    }

    async fn postgres(url: &str) -> Result<Self, StoreError> {
        let pool = AnyPoolOptions::new().max_connections(8).connect(url).await?;
        sqlx::migrate!().run(&pool).await?;
        Ok(Self::of(pool.clone(), pool, "BEGIN"))
    }

    fn of(read: AnyPool, write: AnyPool, begin: &'static str) -> Self {
        // From the time of opening, so that the order of a trace outlives a restart.
        let sequence = Arc::new(AtomicI64::new(Timestamp::now().as_microsecond()));
        Self { read, write, begin, added: Arc::default(), sequence }
    }

    /// Closes all connections, after what is under way.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }

    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.write.begin_with(self.begin).await
    }

    pub(crate) fn next_sequence(&self) -> i64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }
}

fn wrong_url(url: &str) -> StoreError {
    // What follows a scheme may hold a password.
    let scheme = url.split(':').next().unwrap_or_default();
    StoreError::Url { url: format!("{scheme}:…"), expected: EXPECTED }
}

/// Makes the database's file and folder, readable by their owner alone: tokens lie in it.
fn create(path: &Path) -> Result<(), StoreError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Create { path, source }
    };
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
    }
    // SQLite gives its log and index files the rights of this one.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(path)(error)),
    }
}
