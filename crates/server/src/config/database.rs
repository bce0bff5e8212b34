//! `[database]`: the database of nodes, and the key of its secrets.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// `[database]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `sqlite:///path` or `postgres://…`; by default `ferroboot.db` in the state directory.
    pub url: Option<String>,
    /// The key file, which encrypts passwords and tokens in the database; by default `ferroboot.key` in the state
    /// directory.
    pub key_file: Option<PathBuf>,
}

impl DatabaseConfig {
    /// The database's URL.
    #[must_use]
    pub fn url_in(&self, state_dir: &Path) -> String {
        let own = || format!("sqlite://{}", state_dir.join("ferroboot.db").display());
        self.url.clone().unwrap_or_else(own)
    }

    /// The key file, which encrypts secrets in the database.
    #[must_use]
    pub fn key_file_in(&self, state_dir: &Path) -> PathBuf {
        self.key_file.clone().unwrap_or_else(|| state_dir.join("ferroboot.key"))
    }
}
