//! `ferroboot bmc`: a Redfish BMC in front of virtual machines.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::service::{end_signal, hear_other_signals, log, runtime};

/// Serves Redfish for the machines of one file.
#[derive(Debug, Args)]
pub struct BmcCommand {
    /// Read the machines from this TOML file; the book shows one.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl BmcCommand {
    /// Serves until a signal; its machines end with it.
    ///
    /// # Errors
    /// The configuration is wrong, or a resource is unavailable.
    pub fn run(self) -> Result<()> {
        log();
        let config = bmc::BmcConfig::read(&self.config)?;
        runtime()?.block_on(async {
            let end = end_signal()?;
            hear_other_signals()?;
            bmc::serve(config, end).await
        })
    }
}
