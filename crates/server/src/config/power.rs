//! `[power]`: the power of machines.

use std::time::Duration;

use serde::Deserialize;

/// `[power]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PowerConfig {
    /// Seconds between two power readings of machines without work; 0 for none.
    pub sync_secs: u32,
}

impl Default for PowerConfig {
    fn default() -> Self {
        Self { sync_secs: 60 }
    }
}

impl PowerConfig {
    /// Interval of power readings of resting machines.
    #[must_use]
    pub fn sync_interval(&self) -> Option<Duration> {
        (self.sync_secs > 0).then(|| Duration::from_secs(self.sync_secs.into()))
    }
}
