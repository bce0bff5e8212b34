//! `[database]`: the database of nodes, and the key of its secrets.

use std::path::{self, Path, PathBuf};

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
        let own = || {
            let file = state_dir.join("ferroboot.db");
            // After `sqlite://` a relative path would be a host.
            format!("sqlite://{}", path::absolute(&file).unwrap_or(file).display())
        };
        self.url.clone().unwrap_or_else(own)
    }

    /// The key file, which encrypts secrets in the database.
    #[must_use]
    pub fn key_file_in(&self, state_dir: &Path) -> PathBuf {
        self.key_file.clone().unwrap_or_else(|| state_dir.join("ferroboot.key"))
    }
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    #[test]
    fn a_relative_state_directory_has_a_database_too() {
        let url = |state_dir: &str| DatabaseConfig::default().url_in(Path::new(state_dir));
        let here = env::current_dir().unwrap();

        assert_eq!(url("state"), format!("sqlite://{}/state/ferroboot.db", here.display()));
        assert_eq!(url("/state"), "sqlite:///state/ferroboot.db");
    }
}
