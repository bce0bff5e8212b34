//! Files that a boot set is made from.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// The contents of a file.
///
/// # Errors
///
/// Names the file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
