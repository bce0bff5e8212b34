//! `ferroboot serve`: the daemon.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use netboot::network_settings::NetworkSettings;
use server::config::Config;

use crate::service::{log, runtime, told_to_end};

/// Settings of the command line win over those of the file.
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    settings: ServeSettings,
}

/// What can be set without a file.
#[derive(Debug, Args)]
pub struct ServeSettings {
    /// Read settings from this TOML file; the book lists them all.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Keep all state here.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Boot machines with the boot set that `ferroboot image build` made here.
    #[arg(long, value_name = "DIR")]
    ramdisk: Option<PathBuf>,

    /// Answer DHCP on this interface, with addresses from this range; may be given several times.
    /// With IPv6 too: eth1=192.0.2.100-192.0.2.199,2001:db8::100-2001:db8::1ff. Beside another DHCP
    /// server, which gives the addresses: eth1=proxy.
    #[arg(long = "dhcp", value_name = "INTERFACE=FIRST-LAST")]
    networks: Vec<NetworkSettings>,
}

impl Serve {
    /// Serves until it is told to end.
    ///
    /// # Errors
    /// Says what could not be had.
    pub fn run(self) -> Result<()> {
        log();
        let config = self.settings.config()?;
        let runtime = runtime()?;
        let result = runtime.block_on(async {
            let end = told_to_end()?;
            server::serve(config, end).await
        });
        // A file or a name that is waited for on a thread of its own keeps nobody from ending.
        runtime.shutdown_timeout(Duration::from_secs(2));
        result
    }
}

impl ServeSettings {
    /// File and command line as one.
    ///
    /// # Errors
    /// Names the file and what is wrong in it.
    pub fn config(self) -> Result<Config> {
        let mut config = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        config.state_dir = self.state_dir.or(config.state_dir);
        config.boot.ramdisk = self.ramdisk.or(config.boot.ramdisk);
        config.dhcp.networks.extend(self.networks);
        config.check()?;
        Ok(config)
    }
}
