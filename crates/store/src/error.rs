//! What can go wrong, one enum for each sort of operation.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use tracing::{debug, error};
use uuid::Uuid;

use crate::key::{DecryptError, KeyError};
use crate::pools::PoolOverlap;

/// The database failed, or holds what we cannot read.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The URL names no database that can serve as a store.
    #[error("{url:?} is no URL of a store ({expected})")]
    Url {
        /// What was given.
        url: String,
        /// What would do.
        expected: &'static str,
    },
    /// The file of an SQLite store, or its folder, could not be made.
    #[error("could not create {path}")]
    Create {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is none to read.
    #[error("there is no database {path}")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The file of an SQLite store could not be opened.
    #[error("could not open {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// SQLite could not write the file of a store, or beside it.
    #[error("could not write the database {path}, or its folder, in which SQLite keeps a log")]
    Rights {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// It is no database that can be read.
    #[error("could not open the database {database}")]
    Open {
        /// Its path.
        database: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// A database of somebody else's, or what is left of one without its log.
    #[error(
        "the database {database} has no tables of this service: if it is a copy, was the file \
         whose name ends in -wal copied with it?"
    )]
    NoTables {
        /// Its path.
        database: String,
    },
    /// It has other tables than this version knows.
    #[error("the database {database} is {other}")]
    Version {
        /// Its path.
        database: String,
        /// Which it is.
        other: Other,
    },
    /// The tables could not be brought up to date.
    #[error("could not bring the tables of the database {database} up to date")]
    Migrate {
        /// Its path.
        database: String,
        /// Why.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    /// There is no room to save anything.
    #[error("the disk of the database is full: free space on it")]
    DiskFull(#[source] Arc<sqlx::Error>),
    /// The connection was lost, the server does not answer, or the disk fails.
    #[error("the database does not answer")]
    Unavailable(#[source] Arc<sqlx::Error>),
    /// A statement failed.
    #[error("the database failed")]
    Database(#[source] sqlx::Error),
    /// A document in the database is none of ours.
    #[error("the database holds a {what} that cannot be read")]
    Unreadable {
        /// Of what sort.
        what: &'static str,
        /// Where it stops making sense.
        #[source]
        source: serde_json::Error,
    },
    /// The key file cannot be used, or is not the database's.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A secret in the database cannot be decrypted.
    #[error("{place} of the node {node} in the database cannot be decrypted")]
    Secret {
        /// Whose secret it is.
        node: Uuid,
        /// Where it lies in the node.
        place: String,
        /// Why.
        #[source]
        source: DecryptError,
    },
    /// A value in the database is none of ours.
    #[error("the database holds {value:?} where a {what} should be")]
    OutOfRange {
        /// Of what sort.
        what: &'static str,
        /// What there is instead.
        value: String,
    },
}

impl StoreError {
    /// Whether the cause lies outside of what was asked for and may pass: the same operation may succeed later.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.outage().is_some()
    }

    /// The same error, if it is an outage: for whatever has to wait for the operation that failed.
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

/// What an error code of a database means for later operations.
pub(crate) enum Cause {
    DiskFull,
    Unavailable,
    Other,
}

impl Cause {
    /// PostgreSQL's codes have five characters (its documentation, appendix A), SQLite's are numbers of up to four digits
    /// (`sqlite3.h`), of which the extended ones are 256 apart.
    pub(crate) fn of_code(code: &str) -> Self {
        if let [a, b, _, _, _] = code.as_bytes() {
            return match (&[*a, *b], code) {
                (_, "53100") => Self::DiskFull,
                // Connections lost, resources short, an operator's shutdown or restart, input and output of the system.
                // Rows that two transactions want in different order, one of which may go on later. A transaction that was idle
                // for too long.
                (b"08" | b"53" | b"57" | b"58", _) | (_, "40001" | "40P01" | "25P03") => {
                    Self::Unavailable
                }
                _ => Self::Other,
            };
        }
        match code.parse::<u32>() {
            // SQLITE_FULL, SQLITE_IOERR_SHMSIZE: its index could not be made larger.
            Ok(13 | 4874) => Self::DiskFull,
            // SQLITE_BUSY, SQLITE_LOCKED, SQLITE_NOMEM, SQLITE_IOERR, SQLITE_CANTOPEN (as of no descriptor being left).
            Ok(code) if matches!(code % 256, 5 | 6 | 7 | 10 | 14) => Self::Unavailable,
            Ok(_) | Err(_) => Self::Other,
        }
    }
}

/// Which version's a database is, where it is not this one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Other {
    /// It has tables that this version does not know.
    #[error("a newer version's: use the `ferroboot` that it was last served by")]
    Newer,
    /// Tables are missing.
    #[error(
        "an older version's: use the `ferroboot` that it was last served by, or let `ferroboot serve` \
         of this version bring it up to date"
    )]
    Older,
}

/// A node was not created.
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

/// A list cannot be given.
#[derive(Debug, Error)]
pub enum ListError {
    /// The page should begin after something that is not there.
    #[error("marker {0} could not be found")]
    NoSuchMarker(Uuid),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A node was not changed.
#[derive(Debug, Error)]
pub enum ChangeError<E> {
    /// There is none.
    #[error("node {0} could not be found")]
    NoSuchNode(Uuid),
    /// A daemon works on it; to be tried again soon.
    #[error(
        "node {node} is locked by host {by}, please retry after the current operation is completed"
    )]
    Locked {
        /// Which node.
        node: Uuid,
        /// Which daemon.
        by: String,
    },
    /// The claim in whose name it should be changed was lost to another daemon.
    #[error("the work on node {0} is no longer ours")]
    ClaimLost(Uuid),
    /// Another node has the new name.
    #[error("a node with name {0} already exists")]
    DuplicateName(String),
    /// Another node has the new instance.
    #[error("instance {0} is already associated with another node")]
    DuplicateInstance(String),
    /// The decision was no.
    #[error("{0}")]
    Refused(E),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A port was not created, changed or deleted.
#[derive(Debug, Error)]
pub enum PortError {
    /// There is none.
    #[error("port {0} could not be found")]
    NoSuchPort(Uuid),
    /// Its node is not there.
    #[error("node {0} could not be found")]
    NoSuchNode(Uuid),
    /// Its node is being worked on.
    #[error(
        "node {node} is locked by host {by}, please retry after the current operation is completed"
    )]
    Locked {
        /// Which node.
        node: Uuid,
        /// Which daemon.
        by: String,
    },
    /// It went from node to node while it should be changed; to be tried again.
    #[error("port {0} is being moved between nodes by others, please retry")]
    Moving(Uuid),
    /// Its node has as many as a node may have.
    #[error("node {node} has {most} ports, which is as many as a node may have")]
    TooMany {
        /// Which node.
        node: Uuid,
        /// How many it may have.
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

/// A port was not changed or deleted as its decision said.
#[derive(Debug, Error)]
pub enum PortChangeError<E> {
    /// The decision was no.
    #[error("{0}")]
    Refused(E),
    /// It could not be.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// Something was not done in the name of a claim.
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

/// An operation's failure, which may be the store's.
pub trait StoreFailure: From<sqlx::Error> {
    /// The store's failure, if it was that.
    fn of_store(&self) -> Option<&StoreError>;

    /// Whether the database could not be used, and the same operation may succeed later.
    fn is_outage(&self) -> bool {
        self.of_store().is_some_and(StoreError::is_outage)
    }
}

impl StoreFailure for StoreError {
    fn of_store(&self) -> Option<&StoreError> {
        Some(self)
    }
}

// A failed statement inside any of these operations is the store's failure.
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

/// Logs what failed in the store, with all causes. An outage of the database was logged when it began.
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
