//! Disk space that is reserved for the next start.
//!
//! SQLite creates its log and the log's index at each start, which fails on a full disk.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The index takes 32 KiB, the rest is for the first changes.
const SIZE: usize = 256 * 1024;

/// A file that only occupies space.
#[derive(Clone, Debug)]
pub(super) struct Reserve(PathBuf);

impl Reserve {
    /// The reserve of an SQLite database.
    pub(super) fn of(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-reserve");
        Self(path.into())
    }

    /// Frees the space; returns whether there was any.
    pub(super) fn free(&self) -> bool {
        fs::remove_file(&self.0).is_ok()
    }

    /// Allocates the space, unless it is allocated already or the disk is full.
    pub(super) fn allocate(&self) {
        let taken = || -> io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.0)?;
            file.write_all(&[0; SIZE])
        };
        if taken().is_err_and(|error| error.kind() == io::ErrorKind::StorageFull) {
            self.free();
        }
    }
}
