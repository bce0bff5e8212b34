//! `manifest.json`: which files a boot set has, with their lengths and digests.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// A boot set being written.
#[derive(Debug, Serialize)]
pub(super) struct Manifest<'a> {
    version: u32,
    files: BTreeMap<String, File>,
    kernel_version: &'a str,
    #[serde(skip)]
    folder: &'a Path,
}

#[derive(Debug, Serialize)]
struct File {
    len: u64,
    sha256: String,
}

impl<'a> Manifest<'a> {
    pub(super) fn new(folder: &'a Path, kernel_version: &'a str) -> Self {
        Self { version: 1, files: BTreeMap::new(), kernel_version, folder }
    }

    /// Puts a file into the boot set.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.replace(name, content)?;
        let digest = Sha256::digest(content);
        let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.files.insert(name.to_owned(), File { len: content.len() as u64, sha256 });
        Ok(())
    }

    /// Writes the manifest: from now on the boot set counts.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(super) fn write(&self) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(self).context("cannot write JSON")?;
        json.push(b'\n');
        self.replace("manifest.json", &json)?;
        eprintln!("{} is complete, kernel {}", self.folder.display(), self.kernel_version);
        Ok(())
    }

    /// A daemon may be serving the old file: it keeps what it has open.
    fn replace(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        let new = self.folder.join(format!(".{name}.new"));
        fs::write(&new, content).with_context(|| format!("cannot write {}", new.display()))?;
        fs::rename(&new, &path).with_context(|| format!("cannot replace {}", path.display()))
    }
}
