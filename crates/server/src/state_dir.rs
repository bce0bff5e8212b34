//! The state directory: ours alone, and of one daemon at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

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
        match lock.try_lock() {
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
    fn two_daemons_do_not_share_a_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::lock(dir.path().join("state")).unwrap();

        let second = StateDir::lock(first.path().to_owned()).unwrap_err().to_string();

        assert!(second.contains("another ferroboot"), "{second}");
        drop(first);
        StateDir::lock(dir.path().join("state")).unwrap();
    }
}
