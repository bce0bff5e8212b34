//! Opening a store: the file and its permissions, the pools, the migrations.

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

use self::reading::ReadableDatabase;
use self::reserve::Reserve;
use crate::clock::Clock;
use crate::connections::{Connections, LIMIT, no_answer};
use crate::error::{Cause, Other, StoreError, StoreFailure};
use crate::health::Health;
use crate::key::DatabaseKey;
use crate::secrets::{expect_known_key, missing_key, read_key, take_key};
use crate::sql::{Statement, time};

const EXPECTED: &str = "sqlite:///path/to/file.db or postgres://user@host/database";

/// The migrations, oldest first.
static MIGRATIONS: Migrator = sqlx::migrate!();

/// Time limit of the migrations: an index of millions of events takes half a minute.
const MIGRATING: Duration = Duration::from_secs(600);

/// The first statements on every SQLite connection.
///
/// Write-ahead logging lets readers continue during a write. `FULL` makes each commit wait for the disk: a worker
/// records that it is about to switch a machine off before it does so, and that record must survive a power loss. A
/// transition of a node costs one such wait; trace rows share one.
const PRAGMAS: &str = "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; \
                       PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;";
/// The first statements on a read-only SQLite connection.
const READING: &str = "PRAGMA busy_timeout = 10000; PRAGMA query_only = ON;";
/// The first statement on a read-only PostgreSQL connection.
const READING_POSTGRES: &str = "SET default_transaction_read_only = on";

/// PostgreSQL's clock in microseconds since 1970; not the start time of the transaction.
const DATABASE_TIME: &str =
    "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT) AS now";

/// The store; clones share its connections.
#[derive(Clone, Debug)]
pub struct Store {
    read: Connections,
    write: Connections,
    begin: &'static str,
    /// The key that encrypts secrets.
    pub(crate) key: DatabaseKey,
    pub(crate) added: Arc<Notify>,
    sequence: Arc<AtomicI64>,
    health: Health,
    /// Whether leases are measured by the database's own clock.
    has_clock: bool,
    /// Disk space for the next start, if that needs space.
    reserve: Option<Reserve>,
    /// The folder of the copy that is read, if it is a copy.
    _copy: Option<Arc<TempDir>>,
}

impl Store {
    /// Opens `sqlite:///path/x.db` (created, readable only by its owner, if it is missing) or `postgres://…`,
    /// migrates the tables, and encrypts secrets that an older version stored in clear.
    ///
    /// For SQLite the key file is created if it is missing and the database has no key yet. For PostgreSQL it must
    /// exist, since all daemons need the same key.
    ///
    /// # Errors
    /// [`StoreError`]: an invalid URL, a file that cannot be created, a database that does not answer, another
    /// database's key.
    pub async fn open(url: &str, key_file: &Path) -> Result<Self, StoreError> {
        Self::open_within(url, key_file, LIMIT).await
    }

    /// [`Store::open`], with a time limit for each operation.
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

    /// Opens an existing database for reading. Nothing is written, neither to the database nor beside it, and its
    /// tables must be this version's.
    ///
    /// A daemon may be using the database (then SQLite notes its readers in the index of its log). The file may also
    /// be a copy, with or without its log.
    ///
    /// # Errors
    /// [`StoreError`]: an invalid URL, a missing or unreadable database, another version's tables, another database's
    /// key.
    pub async fn open_to_read(url: &str, key_file: &Path) -> Result<Self, StoreError> {
        install_default_drivers();
        let (read, copy, database) = match url.split_once(':') {
            Some(("sqlite", _)) => {
                let path = sqlite_path(url)?;
                let ReadableDatabase { url, copy } = ReadableDatabase::of(&path, url)?;
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
        // SQLite has one writer at a time. Waiting for a single connection is fair, waiting for the file's lock is
        // not.
        let write = connect(url, 1, PRAGMAS, limit).await.map_err(not_opened(path))?;
        let read = connect(url, 4, PRAGMAS, limit).await.map_err(not_opened(path))?;
        let (begin, key) = ("BEGIN IMMEDIATE", DatabaseKey::read(key_file)?);
        // On SQLite, sqlx does not prevent concurrent migrations; a write transaction does.
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
            // The server had time to start, and the pool does not report why it did not answer.
            Err(sqlx::Error::PoolTimedOut) => {
                let failed = within(limit, AnyConnection::connect(url)).await.err();
                return Err(failed.unwrap_or(sqlx::Error::PoolTimedOut).into());
            }
            Err(error) => return Err(error.into()),
        };
        // Statements of migrations may take longer than others.
        let migrated = async {
            let mut connection = AnyConnection::connect(url).await?;
            // Checked before the migrations: if the key is missing, the previous version may have to go on.
            let Some(key) = DatabaseKey::read(key_file)? else {
                return Err(missing_key(&mut connection, key_file).await);
            };
            expect_known_key(&mut connection, &key, key_file).await?;
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
        // The sequence starts at the time of opening, so that the order of a trace survives a restart.
        let sequence = Arc::new(AtomicI64::new(Clock::process().now().as_microsecond()));
        let (added, health) = (Arc::default(), Health::default());
        let (has_clock, reserve, _copy) = (false, None, None);
        Self { read, write, begin, key, added, sequence, health, has_clock, reserve, _copy }
    }

    /// Checks that the database still has this version's tables: another daemon may have upgraded it, or an operator
    /// restored it.
    ///
    /// # Errors
    /// [`StoreError::Version`] if the tables differ; another error if the check failed.
    pub async fn expect_version(&self) -> Result<(), StoreError> {
        expect_tables(&self.read, if self.has_clock { "PostgreSQL" } else { "SQLite" }).await
    }

    /// Closes all connections after their current operations.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
        if let Some(reserve) = &self.reserve {
            reserve.allocate();
        }
    }

    /// The store with leases measured by the time argument of each operation, on PostgreSQL too: for tests with a
    /// simulated clock.
    #[must_use]
    pub fn by_given_time(self) -> Self {
        Self { has_clock: false, ..self }
    }

    /// The time for leases: PostgreSQL's clock, since several daemons share it; the daemon's own clock with SQLite.
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

    /// The same, outside of a transaction.
    pub(crate) async fn lease_time_read(&self, now: Timestamp) -> Result<Timestamp, StoreError> {
        if !self.has_clock {
            return Ok(now);
        }
        self.row(sqlx::query(DATABASE_TIME)).await?.map_or(Ok(now), |row| time(&row, "now"))
    }

    /// Whether several daemons may share the database. A database file belongs to one daemon.
    #[must_use]
    pub fn may_be_shared(&self) -> bool {
        self.has_clock
    }

    /// Whether the database can be used.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Runs `statements` in a write transaction.
    pub(crate) async fn transact<T, E: StoreFailure>(
        &self,
        statements: impl AsyncFnOnce(&mut AnyConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        let done = self.write.transaction(self.begin, statements).await;
        self.health.note_write(&done);
        done
    }

    /// The rows of a read-only statement.
    pub(crate) async fn rows(&self, statement: Statement<'_>) -> Result<Vec<AnyRow>, StoreError> {
        let rows = self.read.run(async |connection| Ok(statement.fetch_all(connection).await?));
        rows.await.inspect_err(|failed| self.health.note_failure(failed))
    }

    /// The row of a read-only statement, if there is one.
    pub(crate) async fn row(&self, statement: Statement<'_>) -> Result<Option<AnyRow>, StoreError> {
        let row =
            self.read.run(async |connection| Ok(statement.fetch_optional(connection).await?));
        row.await.inspect_err(|failed| self.health.note_failure(failed))
    }

    pub(crate) fn next_sequence(&self) -> i64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }
}

/// Rewrites SQLite's whole file, and empties its log: free pages hold remains of overwritten data.
async fn write_anew(url: &str) -> Result<(), sqlx::Error> {
    let mut connection = first_connection(url, PRAGMAS).await?;
    connection.execute("VACUUM").await?;
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await?;
    connection.close().await
}

/// Checks for the tables of this version.
async fn expect_tables(read: &Connections, database: &str) -> Result<(), StoreError> {
    let database = || database.to_owned();
    let applied = sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success");
    let applied = read.run(async |connection| applied.fetch_all(connection).await);
    let applied: BTreeSet<i64> = match applied.await {
        Ok(applied) => applied.into_iter().collect(),
        // The errors of SQLite and PostgreSQL for a missing table.
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

/// Up to `most` connections with these first statements.
async fn connect(
    url: &str,
    most: u32,
    told: &'static str,
    limit: Duration,
) -> Result<Connections, sqlx::Error> {
    // The pool would retry for half a minute and then not report the cause.
    within(limit, first_connection(url, told)).await?.close().await?;
    let pool = Connections::options(most, told.to_owned(), limit).connect(url).await?;
    Ok(Connections::new(pool, limit))
}

async fn first_connection(url: &str, told: &'static str) -> Result<AnyConnection, sqlx::Error> {
    let mut connection = AnyConnection::connect(url).await?;
    while let Err(error) = connection.execute(told).await {
        if !is_of_another_writer(&error) {
            return Err(error);
        }
        // Of two connections that switch a new file to write-ahead logging, SQLite refuses the second at once, despite
        // its `busy_timeout`. `BEGIN IMMEDIATE` does wait for the first.
        connection.execute("BEGIN IMMEDIATE; ROLLBACK").await?;
    }
    Ok(connection)
}

async fn within<T, E: From<sqlx::Error>>(
    limit: Duration,
    done: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout(limit, done).await.unwrap_or_else(|_| Err(no_answer(limit).into()))
}

/// The path of an SQLite database.
pub(crate) fn sqlite_path(url: &str) -> Result<PathBuf, StoreError> {
    let options = SqliteConnectOptions::from_str(url).map_err(|_| wrong_url(url))?;
    let path = options.get_filename();
    // Each connection to an in-memory database would open a separate database.
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
            // SQLITE_READONLY and SQLITE_CANTOPEN; extended codes add a multiple of 256.
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

/// Whether SQLite refused a statement because of another connection's lock: `SQLITE_BUSY` or one of its extended codes.
fn is_of_another_writer(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("5" | "261" | "517" | "773"))
}

fn is_of_a_full_disk(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref().map(Cause::of_code), Some(Cause::DiskFull))
}

fn wrong_url(url: &str) -> StoreError {
    // The rest of the URL may contain a password.
    let scheme = url.split(':').next().unwrap_or_default();
    StoreError::Url { url: format!("{scheme}:…"), expected: EXPECTED }
}

/// Removes other users' permissions. This fails for another owner's file, which then fails when it is written.
fn take_from_others(path: &Path) {
    let Ok(about) = path.metadata() else { return };
    let mode = about.permissions().mode() & 0o7777;
    if about.is_file() && mode & 0o077 != 0 {
        let _ = fs::set_permissions(path, Permissions::from_mode(mode & 0o700));
    }
}

/// Creates the database's file and folder, readable only by their owner: they hold tokens.
pub(crate) fn create(path: &Path) -> Result<(), StoreError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Create { path, source }
    };
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
    }
    // SQLite gives its log and index files the permissions of this file.
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
