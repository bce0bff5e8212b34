//! The lock of a database file: only one daemon may use the file at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::error::StoreError;
use crate::open::{create, sqlite_path};

/// A lock that keeps other daemons from using the database, until dropped.
#[derive(Debug)]
pub struct DatabaseLock(#[expect(dead_code, reason = "closing it ends the lock")] Option<File>);

/// The reason why a database was not locked.
#[derive(Debug, Error)]
pub enum DatabaseLockError {
    /// Another daemon has the lock.
    #[error(
        "another ferroboot serves from the database {0}: give each daemon a database of its own, or let them share one \
         on PostgreSQL"
    )]
    InUse(PathBuf),
    /// The lock file could not be created or locked.
    #[error("could not lock {path}")]
    File {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The URL is invalid, or the database file could not be created.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DatabaseLock {
    /// Locks the database of a URL, and creates it if it is missing. PostgreSQL is shared by several daemons, and not
    /// locked.
    ///
    /// Daemons lock the database before they open it: a starting daemon must not migrate the tables of another one's
    /// database.
    ///
    /// # Errors
    /// [`DatabaseLockError`]
    pub fn take(url: &str) -> Result<Self, DatabaseLockError> {
        if !url.starts_with("sqlite:") {
            return Ok(Self(None));
        }
        let path = sqlite_path(url)?;
        create(&path)?;
        let file = lock_file(&path).map_err(cannot_lock(&path))?;
        let mut opened = OpenOptions::new();
        opened.write(true).create(true).truncate(false).mode(0o600);
        let lock = opened.open(&file).map_err(cannot_lock(&file))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self(Some(lock))),
            Err(TryLockError::WouldBlock) => Err(DatabaseLockError::InUse(path)),
            Err(TryLockError::Error(source)) => Err(cannot_lock(&file)(source)),
        }
    }
}

/// The lock file of a database. It is not the database file itself, since SQLite loses its own locks when any handle
/// of that file is closed (<https://www.sqlite.org/howtocorrupt.html> §2.2). All paths to the database lead to the
/// same lock file.
fn lock_file(database: &Path) -> io::Result<PathBuf> {
    let mut file = database.canonicalize()?.into_os_string();
    file.push("-lock");
    Ok(file.into())
}

fn cannot_lock(path: &Path) -> impl Fn(io::Error) -> DatabaseLockError {
    |source| DatabaseLockError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn url(path: &Path) -> String {
        format!("sqlite://{}", path.display())
    }

    #[test]
    fn a_database_is_one_daemons_whichever_path_leads_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let (database, link) = (dir.path().join("a.db"), dir.path().join("link"));
        symlink(dir.path(), &link).unwrap();

        let first = DatabaseLock::take(&url(&database)).unwrap();
        for path in [&database, &link.join("a.db")] {
            let refused = DatabaseLock::take(&url(path)).unwrap_err();
            assert!(matches!(refused, DatabaseLockError::InUse(_)), "{refused}");
        }
        DatabaseLock::take(&url(&dir.path().join("b.db"))).unwrap();
        drop(first);

        DatabaseLock::take(&url(&database)).unwrap();
    }

    #[test]
    fn postgresql_is_shared() {
        let locks = [(); 2].map(|()| DatabaseLock::take("postgres://db.example/ferroboot"));

        assert!(locks.iter().all(Result::is_ok));
    }
}
