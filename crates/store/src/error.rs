//! Errors of the store, one enum for each kind of operation.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use tracing::{debug, error};
use uuid::Uuid;

use crate::key::{DecryptError, KeyError};
use crate::pools::PoolOverlap;

/// The database failed, or holds an unreadable value.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The URL is not one of a supported database.
    #[error("{url:?} is not the URL of a store ({expected})")]
    Url {
        /// The given URL.
        url: String,
        /// The expected form.
        expected: &'static str,
    },
    /// The file of an SQLite store, or its folder, could not be made.
    #[error("could not create {path}")]
    Create {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The database file does not exist.
    #[error("there is no database {path}")]
    Missing {
        /// Its expected path.
        path: PathBuf,
    },
    /// The file of an SQLite store could not be opened.
    #[error("could not open {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// SQLite could not write the database file, or a file beside it.
    #[error("could not write the database {path}, or its folder, in which SQLite keeps a log")]
    Rights {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// The file is not a readable database.
    #[error("could not open the database {database}")]
    Open {
        /// Its path.
        database: String,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// A database of another program, or one that has lost its log.
    #[error(
        "the database {database} has no tables of this service: if it is a copy, was the file \
         whose name ends in -wal copied with it?"
    )]
    NoTables {
        /// Its path.
        database: String,
    },
    /// Its tables differ from this version's.
    #[error("the database {database} is {other}")]
    Version {
        /// Its path.
        database: String,
        /// The version that it belongs to.
        other: Other,
    },
    /// The migration failed.
    #[error("could not bring the tables of the database {database} up to date")]
    Migrate {
        /// Its path.
        database: String,
        /// The cause.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    /// The disk is full.
    #[error("the disk of the database is full: free space on it")]
    DiskFull(#[source] Arc<sqlx::Error>),
    /// The connection was lost, the server does not answer, or the disk fails.
    #[error("the database does not answer")]
    Unavailable(#[source] Arc<sqlx::Error>),
    /// A statement failed.
    #[error("the database failed")]
    Database(#[source] sqlx::Error),
    /// A document in the database is malformed.
    #[error("the database holds a {what} that cannot be read")]
    Unreadable {
        /// The kind of document.
        what: &'static str,
        /// The position of the error.
        #[source]
        source: serde_json::Error,
    },
    /// The key file cannot be used, or is not the database's.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A secret in the database cannot be decrypted.
    #[error("{place} of the node {node} in the database cannot be decrypted")]
    Secret {
        /// The node of the secret.
        node: Uuid,
        /// The place of the secret in the node.
        place: String,
        /// The cause.
        #[source]
        source: DecryptError,
    },
    /// The key of the authority in the database cannot be decrypted.
    #[error("the key of the authority in the database cannot be decrypted")]
    AuthorityKey {
        /// The cause.
        #[source]
        source: DecryptError,
    },
    /// A value in the database is invalid.
    #[error("the database holds {value:?} where a {what} should be")]
    OutOfRange {
        /// The kind of value.
        what: &'static str,
        /// The invalid value.
        value: String,
    },
}

impl StoreError {
    /// Whether the cause is external and may pass: the same operation may succeed later.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.outage().is_some()
    }

    /// The same error if it is an outage, for operations that depend on the failed one.
    #[must_use]
    pub fn outage(&self) -> Option<Self> {
        match self {
            Self::DiskFull(cause) => Some(Self::DiskFull(cause.clone())),
            Self::Unavailable(cause) => Some(Self::Unavailable(cause.clone())),
            Self::Url { .. }
            | Self::Create { .. }
            | Self::Missing { .. }
            | Self::File { .. }
            | Self::Rights { .. }
            | Self::Open { .. }
            | Self::NoTables { .. }
            | Self::Version { .. }
            | Self::Migrate { .. }
            | Self::Database(_)
            | Self::Unreadable { .. }
            | Self::Key(_)
            | Self::Secret { .. }
            | Self::AuthorityKey { .. }
            | Self::OutOfRange { .. } => None,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "sqlx has many errors, and may get more")]
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(cause) if cause.kind() == std::io::ErrorKind::StorageFull => {
                Self::DiskFull(error.into())
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => Self::Unavailable(error.into()),
            sqlx::Error::Database(cause) => {
                match cause.code().as_deref().map_or(Cause::Other, Cause::of_code) {
                    Cause::DiskFull => Self::DiskFull(error.into()),
                    Cause::Unavailable => Self::Unavailable(error.into()),
                    Cause::Other => Self::Database(error),
                }
            }
            _ => Self::Database(error),
        }
    }
}

/// The meaning of a database error code for later operations.
pub(crate) enum Cause {
    DiskFull,
    Unavailable,
    Other,
}

impl Cause {
    /// PostgreSQL's codes have five characters (its documentation, appendix A). SQLite's are numbers of up to four
    /// digits (`sqlite3.h`); extended codes add a multiple of 256.
    pub(crate) fn of_code(code: &str) -> Self {
        if let [a, b, _, _, _] = code.as_bytes() {
            return match (&[*a, *b], code) {
                (_, "53100") => Self::DiskFull,
                // Connection lost, insufficient resources, operator intervention, system error. Deadlock and
                // serialization failure, which a retry may resolve. Idle-in-transaction timeout.
                (b"08" | b"53" | b"57" | b"58", _) | (_, "40001" | "40P01" | "25P03") => {
                    Self::Unavailable
                }
                _ => Self::Other,
            };
        }
        match code.parse::<u32>() {
            // SQLITE_FULL, and SQLITE_IOERR_SHMSIZE: the log's index could not grow.
            Ok(13 | 4874) => Self::DiskFull,
            // SQLITE_BUSY, SQLITE_LOCKED, SQLITE_NOMEM, SQLITE_IOERR, SQLITE_CANTOPEN (for example without a free
            // descriptor).
            Ok(code) if matches!(code % 256, 5 | 6 | 7 | 10 | 14) => Self::Unavailable,
            Ok(_) | Err(_) => Self::Other,
        }
    }
}

/// The version of a database that is not this version's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Other {
    /// It has tables that are unknown to this version.
    #[error("a newer version's: use the `ferroboot` that it was last served by")]
    Newer,
    /// Tables are missing.
    #[error(
        "an older version's: use the `ferroboot` that it was last served by, or let `ferroboot serve` \
         of this version bring it up to date"
    )]
    Older,
}

/// The reason why a node was not created.
#[derive(Debug, Error)]
pub enum CreateNodeError {
    /// Another node has its name.
    #[error("a node with name {0} already exists")]
    DuplicateName(String),
    /// Another node has its UUID.
    #[error("a node with UUID {0} already exists")]
    DuplicateUuid(Uuid),
    /// Another node has its instance.
    #[error("instance {0} is already associated with another node")]
    DuplicateInstance(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The reason why a list is not available.
#[derive(Debug, Error)]
pub enum ListError {
    /// The marker of the page does not exist.
    #[error("marker {0} could not be found")]
    NoSuchMarker(Uuid),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The reason why a node was not changed.
#[derive(Debug, Error)]
pub enum ChangeError<E> {
    /// The node does not exist.
    #[error("node {0} could not be found")]
    NoSuchNode(Uuid),
    /// A daemon works on the node; retry soon.
    #[error(
        "node {node} is locked by host {by}, please retry after the current operation is completed"
    )]
    Locked {
        /// The node.
        node: Uuid,
        /// The daemon.
        by: String,
    },
    /// Another daemon took the claim over.
    #[error("the work on node {0} is no longer ours")]
    ClaimLost(Uuid),
    /// Another node has the new name.
    #[error("a node with name {0} already exists")]
    DuplicateName(String),
    /// Another node has the new instance.
    #[error("instance {0} is already associated with another node")]
    DuplicateInstance(String),
    /// The decision refused the change.
    #[error("{0}")]
    Refused(E),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The reason why a port was not created, changed or deleted.
#[derive(Debug, Error)]
pub enum PortError {
    /// The port does not exist.
    #[error("port {0} could not be found")]
    NoSuchPort(Uuid),
    /// Its node does not exist.
    #[error("node {0} could not be found")]
    NoSuchNode(Uuid),
    /// A daemon works on its node.
    #[error(
        "node {node} is locked by host {by}, please retry after the current operation is completed"
    )]
    Locked {
        /// The node.
        node: Uuid,
        /// The daemon.
        by: String,
    },
    /// The port was moved between nodes meanwhile; retry.
    #[error("port {0} is being moved between nodes by others, please retry")]
    Moving(Uuid),
    /// Its node has the maximum number of ports.
    #[error("node {node} has {most} ports, which is as many as a node may have")]
    TooMany {
        /// The node.
        node: Uuid,
        /// The maximum.
        most: usize,
    },
    /// Another port has its address.
    #[error("a port with MAC address {0} already exists")]
    DuplicateAddress(hardware::Mac),
    /// Another port has its UUID.
    #[error("a port with UUID {0} already exists")]
    DuplicateUuid(Uuid),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The reason why a port was not changed or deleted.
#[derive(Debug, Error)]
pub enum PortChangeError<E> {
    /// The decision refused the change.
    #[error("{0}")]
    Refused(E),
    /// The store or the port's state prevented the change.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// The reason why an operation of a claim failed.
#[derive(Debug, Error)]
pub enum WorkError {
    /// The lease ran out and another daemon took over, or the work was replaced.
    #[error("the work on node {0} is no longer ours")]
    ClaimLost(Uuid),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A daemon cannot serve from the database.
#[derive(Debug, Error)]
pub enum RegistrationError {
    /// Another process has registered as the same daemon.
    #[error("another process runs as this daemon")]
    Replaced,
    /// A living daemon leases the same addresses.
    #[error(transparent)]
    Overlap(Box<PoolOverlap>),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An operation's error, which may be the store's.
pub trait StoreFailure: From<sqlx::Error> {
    /// The store's error, if it is one.
    fn of_store(&self) -> Option<&StoreError>;

    /// Whether the database was unavailable, so that a retry may succeed.
    fn is_outage(&self) -> bool {
        self.of_store().is_some_and(StoreError::is_outage)
    }
}

impl StoreFailure for StoreError {
    fn of_store(&self) -> Option<&StoreError> {
        Some(self)
    }
}

// A failed statement within these operations is the store's error.
macro_rules! from_sqlx {
    ($($error:ident $(<$of:ident>)?),*) => {$(
        impl $(<$of>)? From<sqlx::Error> for $error $(<$of>)? {
            fn from(error: sqlx::Error) -> Self {
                Self::Store(error.into())
            }
        }

        impl $(<$of>)? StoreFailure for $error $(<$of>)? {
            fn of_store(&self) -> Option<&StoreError> {
                if let Self::Store(failed) = self { Some(failed) } else { None }
            }
        }
    )*};
}

from_sqlx!(CreateNodeError, ListError, PortError, WorkError, RegistrationError, ChangeError<E>);

impl<E> From<sqlx::Error> for PortChangeError<E> {
    fn from(error: sqlx::Error) -> Self {
        Self::Port(error.into())
    }
}

impl<E> StoreFailure for PortChangeError<E> {
    fn of_store(&self) -> Option<&StoreError> {
        if let Self::Port(failed) = self { failed.of_store() } else { None }
    }
}

/// Logs an error of the store with all causes. An outage of the database is logged only when it begins.
pub fn log_store_failure<E>(failed: &E, what: &str)
where
    E: StoreFailure + std::error::Error,
{
    let first: &dyn std::error::Error = failed;
    let causes = std::iter::successors(Some(first), |cause| cause.source());
    let causes = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    if failed.is_outage() {
        debug!(error = causes, "{what}");
    } else {
        error!(error = causes, "{what}");
    }
}
