//! Writes the files of a boot set, and its manifest last.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use netboot::boot_set::{BootSetManifest, ManifestFile};
use sha2::{Digest, Sha256};

use super::files::read;

/// A boot set under construction.
#[derive(Debug)]
pub(super) struct BootSetWriter<'a> {
    manifest: BootSetManifest,
    folder: &'a Path,
}

impl<'a> BootSetWriter<'a> {
    pub(super) fn new(folder: &'a Path, kernel_version: &str) -> Self {
        Self { manifest: BootSetManifest::new(kernel_version), folder }
    }

    /// Continues the boot set in a folder.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(super) fn open(folder: &'a Path) -> Result<Self> {
        let path = folder.join("manifest.json");
        let manifest = BootSetManifest::parse(&read(&path)?);
        let manifest = manifest
            .with_context(|| format!("{} is not the manifest of a boot set", path.display()))?;
        Ok(Self { manifest, folder })
    }

    /// Adds a file to the boot set.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.replace(name, content)?;
        let sha256 = Sha256::digest(content).into();
        self.manifest.insert(name, ManifestFile { len: content.len() as u64, sha256 });
        Ok(())
    }

    /// Writes the manifest, which makes the boot set valid.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub(super) fn write(&self) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(&self.manifest).context("cannot write JSON")?;
        json.push(b'\n');
        self.replace("manifest.json", &json)?;
        eprintln!(
            "{} is complete, kernel {}",
            self.folder.display(),
            self.manifest.kernel_version()
        );
        Ok(())
    }

    /// Replaces a file. A daemon that serves the old file keeps it open.
    fn replace(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        let new = self.folder.join(format!(".{name}.new"));
        fs::write(&new, content).with_context(|| format!("cannot write {}", new.display()))?;
        fs::rename(&new, &path).with_context(|| format!("cannot replace {}", path.display()))
    }
}
