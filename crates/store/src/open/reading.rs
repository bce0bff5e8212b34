//! Opening an SQLite file without writing to it or beside it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::StoreError;

/// A database to read.
pub(super) struct ReadableDatabase {
    pub(super) url: String,
    /// The folder of the copy that is read, if it is a copy.
    pub(super) copy: Option<TempDir>,
}

impl ReadableDatabase {
    /// The database of a file; `url` names the same file.
    pub(super) fn of(path: &Path, url: &str) -> Result<Self, StoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| match source.kind() == io::ErrorKind::NotFound {
                true => StoreError::Missing { path },
                false => StoreError::File { path, source },
            }
        };
        File::open(path).map_err(failed(path))?;
        let (log, index) = (beside(path, "-wal"), beside(path, "-shm"));
        let is_logged = fs::metadata(&log).is_ok_and(|log| log.len() > 0);
        if !is_logged {
            // SQLite would create both files only to find them empty.
            return Ok(Self { url: with(url, "immutable=1"), copy: None });
        }
        if index.exists() {
            // A daemon is using it.
            return Ok(Self { url: with(url, "mode=ro"), copy: None });
        }
        // A log without an index is not a daemon's; SQLite would have to create the index.
        let copied = || -> io::Result<TempDir> {
            let folder = tempfile::tempdir()?;
            let copy = folder.path().join(COPY);
            fs::copy(path, &copy)?;
            fs::copy(&log, beside(&copy, "-wal"))?;
            Ok(folder)
        };
        let folder = copied().map_err(failed(path))?;
        let url = format!("sqlite://{}", folder.path().join(COPY).display());
        Ok(Self { url, copy: Some(folder) })
    }
}

/// The file name of a copy.
const COPY: &str = "copy.db";

/// The path of one of SQLite's files beside the database.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn with(url: &str, parameter: &str) -> String {
    let more = if url.contains('?') { '&' } else { '?' };
    format!("{url}{more}{parameter}")
}
