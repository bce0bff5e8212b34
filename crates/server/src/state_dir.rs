//! The state directory: ours alone, and of one daemon at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::{AccessFlags, access};

const LOCK_TRIES: u32 = 5;
const BETWEEN_LOCK_TRIES: Duration = Duration::from_millis(50);

/// What is at the place of a state directory, which is left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StateSeen {
    /// Nothing: the service will make it.
    Missing,
    /// One that nobody serves from.
    Free,
    /// One that a service runs from.
    InUse,
}

impl StateSeen {
    /// Looks at `path`, and changes nothing.
    ///
    /// # Errors
    /// In words: it is no directory, or could not be made or written by whoever asks.
    pub(crate) fn look(path: &Path) -> Result<Self> {
        let place = || format!("cannot keep state in {}: set state_dir", path.display());
        let Some(there) = path.ancestors().find(|path| path.exists()) else {
            return Ok(Self::Missing);
        };
        // A path may be relative.
        ensure!(there.is_dir(), "{}: {} is no directory", place(), there.display());
        let may_write = access(there, AccessFlags::W_OK | AccessFlags::X_OK);
        may_write.with_context(|| format!("{}: {} cannot be written", place(), there.display()))?;
        if there != path {
            return Ok(Self::Missing);
        }
        let file = path.join("lock");
        let lock = match File::open(&file) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Free),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.display()));
            }
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(Self::Free),
            Err(TryLockError::WouldBlock) => Ok(Self::InUse),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", file.display()))
            }
        }
    }
}

/// A state directory that is locked for as long as this lives.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes it if it is missing, for its owner's eyes only, and locks it.
    pub(crate) fn lock(path: PathBuf) -> Result<Self> {
        let place = || format!("cannot keep state in {}: set state_dir", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&path).with_context(place)?;
        let path = path.canonicalize().with_context(place)?;
        let file = path.join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&file)
            .with_context(|| format!("cannot write {}", file.display()))?;
        // `ferroboot check` tries the lock for a moment.
        let mut tried = lock.try_lock();
        for _ in 0..LOCK_TRIES {
            if !matches!(tried, Err(TryLockError::WouldBlock)) {
                break;
            }
            sleep(BETWEEN_LOCK_TRIES);
            tried = lock.try_lock();
        }
        match tried {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                bail!("another ferroboot serves from {}", path.display())
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", file.display()))
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_changes_nothing_and_sees_who_serves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/state");

        assert_eq!(StateSeen::look(&path).unwrap(), StateSeen::Missing);
        assert!(!path.exists() && !dir.path().join("a").exists());
        let serving = StateDir::lock(path.clone()).unwrap();
        assert_eq!(StateSeen::look(&path).unwrap(), StateSeen::InUse);
        drop(serving);
        assert_eq!(StateSeen::look(&path).unwrap(), StateSeen::Free);
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1, "but for the lock of before");
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let said = StateSeen::look(&file.join("state")).unwrap_err().to_string();
        assert!(said.contains("is no directory"), "{said}");
    }

    #[test]
    fn two_daemons_do_not_share_a_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::lock(dir.path().join("state")).unwrap();

        let second = StateDir::lock(first.path().to_owned()).unwrap_err().to_string();

        assert!(second.contains("another ferroboot"), "{second}");
        drop(first);
        StateDir::lock(dir.path().join("state")).unwrap();
    }
}
