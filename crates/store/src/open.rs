//! Opening a store: the file and its rights, the pools, the tables.

mod reading;
mod reserve;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use sqlx::any::AnyRow;
use sqlx::any::install_default_drivers;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AnyConnection, Connection, Executor};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::warn;

use self::reading::Reading;
use self::reserve::Reserve;
use crate::clock::Clock;
use crate::connections::{Connections, LIMIT, no_answer};
use crate::error::{Cause, Other, StoreError, StoreFailure};
use crate::health::Health;
use crate::key::DatabaseKey;
use crate::secrets::{missing_key, read_key, take_key};
use crate::sql::{Statement, time};

const EXPECTED: &str = "sqlite:///path/to/file.db or postgres://user@host/database";

/// The tables, in the order in which they came to be.
static MIGRATIONS: Migrator = sqlx::migrate!();

/// How long bringing the tables up to date may take: an index of millions of events takes half a minute.
const MIGRATING: Duration = Duration::from_secs(600);

/// What every SQLite connection is told first.
///
/// Write-ahead logging lets readers go on while one writes. `FULL` makes each commit wait for the
/// disk: a worker writes down that it is about to switch a machine off before it does so, and that
/// must survive a loss of power. A transition of a node costs one such wait; trace rows share one.
const PRAGMAS: &str = "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; \
                       PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;";
/// What one is told that only reads.
const READING: &str = "PRAGMA busy_timeout = 10000; PRAGMA query_only = ON;";
/// The same of PostgreSQL.
const READING_POSTGRES: &str = "SET default_transaction_read_only = on";

/// PostgreSQL's clock, in microseconds since 1970; not the time at which the transaction began.
const DATABASE_TIME: &str =
    "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT) AS now";

/// The store; clones share its connections.
#[derive(Clone, Debug)]
pub struct Store {
    read: Connections,
    write: Connections,
    begin: &'static str,
    /// What secrets are encrypted under.
    pub(crate) key: DatabaseKey,
    pub(crate) added: Arc<Notify>,
    sequence: Arc<AtomicI64>,
    health: Health,
    /// Whether leases are judged by the database's own clock.
    has_clock: bool,
    /// What is kept for the next start, where that needs room.
    reserve: Option<Reserve>,
    /// Where the copy lies that is read, if it is one.
    _copy: Option<Arc<TempDir>>,
}

impl Store {
    /// Opens `sqlite:///path/x.db` (made, for its owner's eyes only, if it is missing) or
    /// `postgres://…`, brings the tables up to date, and encrypts secrets that an older version wrote in clear.
    ///
    /// The key file is made for SQLite if it is missing and the database has no key yet. For PostgreSQL it must be there:
    /// all daemons need the same one.
    ///
    /// # Errors
    /// [`StoreError`]: an unusable URL, a file that cannot be made, a database that does not answer, a key that is not the
    /// database's.
    pub async fn open(url: &str, key_file: &Path) -> Result<Self, StoreError> {
        Self::open_within(url, key_file, LIMIT).await
    }

    /// [`Store::open`], with the time that each operation may take.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn open_within(
        url: &str,
        key_file: &Path,
        limit: Duration,
    ) -> Result<Self, StoreError> {
        install_default_drivers();
        match url.split_once(':') {
            Some(("sqlite", _)) => Self::sqlite(url, key_file, limit).await,
            Some(("postgres" | "postgresql", _)) => Self::postgres(url, key_file, limit).await,
            Some(_) | None => Err(wrong_url(url)),
        }
    }

    /// Opens one that is there, to read it: nothing is written, neither to it nor beside it, and its
    /// tables must be those of this version.
    ///
    /// A daemon may be at work on it (then SQLite notes its readers in the index of its log). It may as well
    /// be a copy, with or without the log beside it.
    ///
    /// # Errors
    /// [`StoreError`]: an unusable URL, no database there or none that can be read, another version's, a key that is not
    /// the database's.
    pub async fn open_to_read(url: &str, key_file: &Path) -> Result<Self, StoreError> {
        install_default_drivers();
        let (read, copy, database) = match url.split_once(':') {
            Some(("sqlite", _)) => {
                let path = sqlite_path(url)?;
                let Reading { url, copy } = Reading::of(&path, url)?;
                let read = connect(&url, 4, READING, LIMIT).await.map_err(not_opened(&path))?;
                (read, copy, path.display().to_string())
            }
            Some(("postgres" | "postgresql", _)) => {
                let read = connect(url, 4, READING_POSTGRES, LIMIT).await?;
                (read, None, "PostgreSQL".to_owned())
            }
            Some(_) | None => return Err(wrong_url(url)),
        };
        expect_tables(&read, &database).await?;
        let key = read.run(async |connection| read_key(connection, key_file).await).await?;
        let store = Self::of(read.clone(), read, "BEGIN", key);
        Ok(Self { _copy: copy.map(Arc::new), ..store })
    }

    async fn sqlite(url: &str, key_file: &Path, limit: Duration) -> Result<Self, StoreError> {
        let path = sqlite_path(url)?;
        create(&path)?;
        let reserve = Reserve::of(&path);
        let opened = Self::sqlite_file(url, &path, key_file, limit).await;
        let store = match opened {
            Err(StoreError::DiskFull(_)) if reserve.free() => {
                Self::sqlite_file(url, &path, key_file, limit).await?
            }
            Ok(_) | Err(_) => opened?,
        };
        reserve.allocate();
        Ok(Self { reserve: Some(reserve), ..store })
    }

    async fn sqlite_file(
        url: &str,
        path: &Path,
        key_file: &Path,
        limit: Duration,
    ) -> Result<Self, StoreError> {
        // SQLite has one writer at a time. Queueing for one connection is fair, where waiting for
        // the file's lock is not.
        let write = connect(url, 1, PRAGMAS, limit).await.map_err(not_opened(path))?;
        let read = connect(url, 4, PRAGMAS, limit).await.map_err(not_opened(path))?;
        let (begin, key) = ("BEGIN IMMEDIATE", DatabaseKey::read(key_file)?);
        // On SQLite, sqlx does not keep two from migrating at once; a transaction that writes does.
        let migrated = async {
            let mut connection = first_connection(url, PRAGMAS).await.map_err(not_opened(path))?;
            let transaction = connection.begin_with(begin).await;
            let mut transaction = transaction.map_err(not_opened(path))?;
            let migrated = MIGRATIONS.run(&mut *transaction).await;
            migrated.map_err(not_migrated(path.display().to_string()))?;
            let key = take_key(&mut transaction, key_file, key).await?;
            transaction.commit().await?;
            Ok::<_, StoreError>(key)
        };
        let key = within(MIGRATING, migrated).await?;
        let store = Self::of(read, write, begin, key);
        if within(MIGRATING, store.encrypt_what_is_in_clear()).await? > 0
            && let Err(error) = within(MIGRATING, write_anew(url)).await
        {
            warn!(%error, "the database's file may still hold what was in clear: run VACUUM on it");
        }
        Ok(store)
    }

    async fn postgres(url: &str, key_file: &Path, limit: Duration) -> Result<Self, StoreError> {
        let told = format!(
            "SET statement_timeout = {}; SET idle_in_transaction_session_timeout = {}",
            (limit * 2 / 3).as_millis(),
            limit.as_millis()
        );
        let options = Connections::options(8, told, limit).acquire_timeout(limit);
        let pool = match options.connect(url).await {
            Ok(pool) => pool,
            // It was given time to start, and the pool does not say what kept it from answering.
            Err(sqlx::Error::PoolTimedOut) => {
                let failed = within(limit, AnyConnection::connect(url)).await.err();
                return Err(failed.unwrap_or(sqlx::Error::PoolTimedOut).into());
            }
            Err(error) => return Err(error.into()),
        };
        // Its statements may take longer than others.
        let migrated = async {
            let mut connection = AnyConnection::connect(url).await?;
            // Before the tables are brought up to date: the version before may have to go on.
            let Some(key) = DatabaseKey::read(key_file)? else {
                return Err(missing_key(&mut connection, key_file).await);
            };
            let migrated = MIGRATIONS.run(&mut connection).await;
            migrated.map_err(not_migrated("PostgreSQL".to_owned()))?;
            let key = take_key(&mut connection, key_file, Some(key)).await?;
            connection.close().await?;
            Ok::<_, StoreError>(key)
        };
        let key = within(MIGRATING, migrated).await?;
        let both = Connections::new(pool, limit);
        let store = Self { has_clock: true, ..Self::of(both.clone(), both, "BEGIN", key) };
        within(MIGRATING, store.encrypt_what_is_in_clear()).await?;
        Ok(store)
    }

    fn of(read: Connections, write: Connections, begin: &'static str, key: DatabaseKey) -> Self {
        // From the time of opening, so that the order of a trace outlives a restart.
        let sequence = Arc::new(AtomicI64::new(Clock::process().now().as_microsecond()));
        let (added, health) = (Arc::default(), Health::default());
        let (has_clock, reserve, _copy) = (false, None, None);
        Self { read, write, begin, key, added, sequence, health, has_clock, reserve, _copy }
    }

    /// Expects that the database still has the tables of this version: another daemon may have upgraded it, or an operator
    /// restored it.
    ///
    /// # Errors
    /// [`StoreError::Version`] if it has others, any other if that could not be seen.
    pub async fn expect_version(&self) -> Result<(), StoreError> {
        expect_tables(&self.read, if self.has_clock { "PostgreSQL" } else { "SQLite" }).await
    }

    /// Closes all connections, after what is under way.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
        if let Some(reserve) = &self.reserve {
            reserve.allocate();
        }
    }

    /// The store with leases judged by the time that each operation is given, on PostgreSQL too: for tests, in which time
    /// passes as they say.
    #[must_use]
    pub fn by_given_time(self) -> Self {
        Self { has_clock: false, ..self }
    }

    /// The time by which leases are judged: several daemons share PostgreSQL, and so its clock; whoever has SQLite to
    /// itself has its own time.
    pub(crate) async fn lease_time(
        &self,
        connection: &mut AnyConnection,
        now: Timestamp,
    ) -> Result<Timestamp, StoreError> {
        if !self.has_clock {
            return Ok(now);
        }
        time(&sqlx::query(DATABASE_TIME).fetch_one(connection).await?, "now")
    }

    /// The same, outside of any transaction.
    pub(crate) async fn lease_time_read(&self, now: Timestamp) -> Result<Timestamp, StoreError> {
        if !self.has_clock {
            return Ok(now);
        }
        self.row(sqlx::query(DATABASE_TIME)).await?.map_or(Ok(now), |row| time(&row, "now"))
    }

    /// Whether several daemons may share the database. One in a file is its daemon's alone.
    #[must_use]
    pub fn may_be_shared(&self) -> bool {
        self.has_clock
    }

    /// Whether the database can be used.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Runs `statements` in a transaction that writes.
    pub(crate) async fn transact<T, E: StoreFailure>(
        &self,
        statements: impl AsyncFnOnce(&mut AnyConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        let done = self.write.transaction(self.begin, statements).await;
        self.health.note_write(&done);
        done
    }

    /// What a statement finds that only reads.
    pub(crate) async fn rows(&self, statement: Statement<'_>) -> Result<Vec<AnyRow>, StoreError> {
        let rows = self.read.run(async |connection| Ok(statement.fetch_all(connection).await?));
        rows.await.inspect_err(|failed| self.health.note_failure(failed))
    }

    /// The row that a statement finds that only reads, if there is one.
    pub(crate) async fn row(&self, statement: Statement<'_>) -> Result<Option<AnyRow>, StoreError> {
        let row =
            self.read.run(async |connection| Ok(statement.fetch_optional(connection).await?));
        row.await.inspect_err(|failed| self.health.note_failure(failed))
    }

    pub(crate) fn next_sequence(&self) -> i64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }
}

/// Has SQLite write all of its file anew, and empty its log: pages hold rests of what was overwritten.
async fn write_anew(url: &str) -> Result<(), sqlx::Error> {
    let mut connection = first_connection(url, PRAGMAS).await?;
    connection.execute("VACUUM").await?;
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await?;
    connection.close().await
}

/// Expects the tables that this version makes.
async fn expect_tables(read: &Connections, database: &str) -> Result<(), StoreError> {
    let database = || database.to_owned();
    let applied = sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success");
    let applied = read.run(async |connection| applied.fetch_all(connection).await);
    let applied: BTreeSet<i64> = match applied.await {
        Ok(applied) => applied.into_iter().collect(),
        // SQLite's and PostgreSQL's words for a table that is not there.
        Err(sqlx::Error::Database(error))
            if error.message().contains("no such table")
                || error.message().contains("does not exist") =>
        {
            return Err(StoreError::NoTables { database: database() });
        }
        Err(source) => return Err(StoreError::Open { database: database(), source }),
    };
    let known: BTreeSet<i64> = MIGRATIONS.iter().map(|migration| migration.version).collect();
    if !applied.is_subset(&known) {
        return Err(StoreError::Version { database: database(), other: Other::Newer });
    }
    if !known.is_subset(&applied) {
        return Err(StoreError::Version { database: database(), other: Other::Older });
    }
    Ok(())
}

/// Up to `most` connections that are told this first.
async fn connect(
    url: &str,
    most: u32,
    told: &'static str,
    limit: Duration,
) -> Result<Connections, sqlx::Error> {
    // The pool tries for half a minute, and then does not say what was wrong.
    within(limit, first_connection(url, told)).await?.close().await?;
    let pool = Connections::options(most, told.to_owned(), limit).connect(url).await?;
    Ok(Connections::new(pool, limit))
}

async fn first_connection(url: &str, told: &'static str) -> Result<AnyConnection, sqlx::Error> {
    let mut connection = AnyConnection::connect(url).await?;
    connection.execute(told).await?;
    Ok(connection)
}

async fn within<T, E: From<sqlx::Error>>(
    limit: Duration,
    done: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout(limit, done).await.unwrap_or_else(|_| Err(no_answer(limit).into()))
}

/// The file of an SQLite store.
pub(crate) fn sqlite_path(url: &str) -> Result<PathBuf, StoreError> {
    let options = SqliteConnectOptions::from_str(url).map_err(|_| wrong_url(url))?;
    let path = options.get_filename();
    // In memory, each connection would have a database of its own.
    if !path.is_absolute() {
        return Err(wrong_url(url));
    }
    Ok(path.to_owned())
}

fn not_opened(path: &Path) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| {
        let (database, path) = (path.display().to_string(), path.to_owned());
        let code = source.as_database_error().and_then(|error| error.code());
        match code.as_deref() {
            // SQLITE_READONLY and SQLITE_CANTOPEN, of which the extended ones are 256 apart.
            Some(code) if code.parse().is_ok_and(|code: u32| matches!(code % 256, 8 | 14)) => {
                StoreError::Rights { path, source }
            }
            Some(_) | None if is_of_a_full_disk(&source) => source.into(),
            Some(_) | None => StoreError::Open { database, source },
        }
    }
}

fn not_migrated(database: String) -> impl FnOnce(MigrateError) -> StoreError {
    |source| {
        if let MigrateError::VersionMissing(_) = source {
            return StoreError::Version { database, other: Other::Newer };
        }
        if let MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) = &source
            && is_of_a_full_disk(cause)
        {
            return StoreError::DiskFull(Arc::new(source.into()));
        }
        StoreError::Migrate { database, source }
    }
}

fn is_of_a_full_disk(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref().map(Cause::of_code), Some(Cause::DiskFull))
}

fn wrong_url(url: &str) -> StoreError {
    // What follows a scheme may hold a password.
    let scheme = url.split(':').next().unwrap_or_default();
    StoreError::Url { url: format!("{scheme}:…"), expected: EXPECTED }
}

/// A file of another owner cannot be changed, and says so when it is written.
fn take_from_others(path: &Path) {
    let Ok(about) = path.metadata() else { return };
    let mode = about.permissions().mode() & 0o7777;
    if about.is_file() && mode & 0o077 != 0 {
        let _ = fs::set_permissions(path, Permissions::from_mode(mode & 0o700));
    }
}

/// Makes the database's file and folder, readable by their owner alone: tokens lie in it.
pub(crate) fn create(path: &Path) -> Result<(), StoreError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Create { path, source }
    };
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
    }
    // SQLite gives its log and index files the rights of this one when it makes them.
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        take_from_others(Path::new(&name));
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let opened = OpenOptions::new().read(true).write(true).open(path);
            opened.map(drop).map_err(|source| StoreError::File { path: path.to_owned(), source })
        }
        Err(error) => Err(failed(path)(error)),
    }
}
