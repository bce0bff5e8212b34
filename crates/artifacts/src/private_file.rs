//! Files that only their owner may read: keys, and the PINs of tokens.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// Opens a file that other users may not read.
///
/// # Errors
/// It cannot be opened, or others may read it.
pub(crate) fn open_private(path: &Path) -> Result<File> {
    let file = File::open(path).context("cannot be opened")?;
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    ensure!(
        mode & 0o077 == 0,
        "is open to other users (mode {mode:04o}): chmod 600 {}",
        path.display()
    );
    Ok(file)
}
