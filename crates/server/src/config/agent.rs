//! `[agent]`: the agents' part of the API.

use anyhow::Result;
use netboot::listen_addresses::ListenAddresses;
use serde::Deserialize;
use url::Url;

use super::addresses::{everywhere, expect_public};

/// `[agent]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// The listening addresses of lookups and heartbeats.
    pub listen: ListenAddresses,
    /// The URL for machines; by default the address that they fetch their images from.
    pub url: Option<Url>,
    /// Whether an agent's command API must use TLS.
    pub require_tls: bool,
    /// Lookups and heartbeats per second for each address or IPv6 /64; 0 for no limit. Machines of current boots are
    /// counted separately.
    pub calls_per_sec: u32,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self { listen: everywhere(6386).into(), url: None, require_tls: true, calls_per_sec: 20 }
    }
}

impl AgentConfig {
    pub(super) fn check(&self) -> Result<()> {
        expect_public("agent.url", self.url.as_ref())
    }
}
