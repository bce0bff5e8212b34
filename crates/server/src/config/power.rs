//! `[power]`: the power of machines.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Deserialize;

/// `[power]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PowerConfig {
    /// Seconds between two power readings of machines without work; 0 for none.
    pub sync_secs: u32,
    /// Seconds within which a machine's power must follow a reset, 10 to 600, unless its node has another time.
    pub change_timeout_secs: u32,
}

impl Default for PowerConfig {
    fn default() -> Self {
        Self { sync_secs: 60, change_timeout_secs: 90 }
    }
}

impl PowerConfig {
    pub(super) fn check(&self) -> Result<()> {
        ensure!(
            (10..=600).contains(&self.change_timeout_secs),
            "power.change_timeout_secs must be from 10 to 600"
        );
        Ok(())
    }

    /// Time within which a machine's power must follow a reset.
    #[must_use]
    pub fn change_timeout(&self) -> Duration {
        Duration::from_secs(self.change_timeout_secs.into())
    }

    /// Interval of power readings of resting machines.
    #[must_use]
    pub fn sync_interval(&self) -> Option<Duration> {
        (self.sync_secs > 0).then(|| Duration::from_secs(self.sync_secs.into()))
    }
}
