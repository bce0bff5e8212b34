//! Small workspaces for tests.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

/// A workspace with its crates in `crates/`, in a temporary folder.
pub(crate) struct Fixture(TempDir);

impl Fixture {
    pub(crate) fn new() -> Self {
        let fixture = Self(TempDir::new().unwrap());
        fixture.with("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\"]\n")
    }

    /// Adds a crate with a library, and these lines in its manifest.
    pub(crate) fn with_crate(self, name: &str, manifest: &str, library: &str) -> Self {
        let package = format!("[package]\nname = {name:?}\nedition = \"2024\"\n{manifest}\n");
        self.with(&format!("crates/{name}/Cargo.toml"), &package)
            .with(&format!("crates/{name}/src/lib.rs"), library)
    }

    /// Writes a file.
    pub(crate) fn with(self, path: &str, text: &str) -> Self {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }
}
