//! `[clean]` and `[deploy]`: the procedures of nodes, and their time limits.

use anyhow::{Result, ensure};
use jiff::SignedDuration;
use serde::Deserialize;

/// `[clean]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CleanConfig {
    /// Whether `provide` cleans first; a node's own `automated_clean` takes precedence.
    pub automated: bool,
    /// The priority of `bios.enable_http_boot` in automated cleans; 0 leaves it out.
    pub enable_http_boot_priority: u32,
    /// Seconds of silence after which a clean fails.
    pub callback_timeout_secs: u32,
}

impl Default for CleanConfig {
    fn default() -> Self {
        Self { automated: true, enable_http_boot_priority: 0, callback_timeout_secs: 1_800 }
    }
}

impl CleanConfig {
    /// Silence after which a clean fails.
    pub(super) fn callback_timeout(&self) -> SignedDuration {
        SignedDuration::from_secs(self.callback_timeout_secs.into())
    }

    pub(super) fn check(&self) -> Result<()> {
        expect_patience("clean", self.callback_timeout_secs)
    }
}

/// `[deploy]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeployConfig {
    /// Seconds from power-on until the whole image of an instance must have been fetched.
    pub callback_timeout_secs: u32,
}

impl Default for DeployConfig {
    fn default() -> Self {
        Self { callback_timeout_secs: 1_800 }
    }
}

impl DeployConfig {
    /// Time from power-on until the whole image of an instance must have been fetched.
    pub(super) fn callback_timeout(&self) -> SignedDuration {
        SignedDuration::from_secs(self.callback_timeout_secs.into())
    }

    pub(super) fn check(&self) -> Result<()> {
        expect_patience("deploy", self.callback_timeout_secs)
    }
}

fn expect_patience(section: &str, callback_timeout_secs: u32) -> Result<()> {
    ensure!(
        callback_timeout_secs >= 60,
        "{section}.callback_timeout_secs must be at least 60: machines need that long to start"
    );
    Ok(())
}
