//! Room on the disk that is kept for the next start.
//!
//! SQLite makes its log and the log's index anew at each start, for which a full disk has no room.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// An index has 32 KiB, the rest is for the first changes.
const SIZE: usize = 256 * 1024;

/// A file that holds nothing but its place.
#[derive(Clone, Debug)]
pub(super) struct Reserve(PathBuf);

impl Reserve {
    /// That of an SQLite database.
    pub(super) fn of(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-reserve");
        Self(path.into())
    }

    /// Gives its room back to the disk; whether there was some.
    pub(super) fn free(&self) -> bool {
        fs::remove_file(&self.0).is_ok()
    }

    /// Takes the room, unless it has it or there is none.
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
