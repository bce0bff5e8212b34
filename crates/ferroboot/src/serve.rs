//! `ferroboot serve`: the daemon.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use netboot::network_settings::NetworkSettings;
use server::config::Config;

use crate::service::{end_signal, log, runtime};

/// Settings on the command line override those in the file.
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    settings: ServeSettings,
}

/// Settings on the command line.
#[derive(Debug, Args)]
pub struct ServeSettings {
    /// TOML file with settings; the book lists them all.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Folder for all state.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Folder of the boot set that `ferroboot image build` made.
    #[arg(long, value_name = "DIR")]
    ramdisk: Option<PathBuf>,

    /// Answer DHCP on this interface, with addresses from this range; may be repeated. With IPv6:
    /// eth1=192.0.2.100-192.0.2.199,2001:db8::100-2001:db8::1ff. Beside another DHCP server, which leases the
    /// addresses: eth1=proxy.
    #[arg(long = "dhcp", value_name = "INTERFACE=FIRST-LAST")]
    networks: Vec<NetworkSettings>,
}

impl Serve {
    /// Serves until a signal.
    ///
    /// # Errors
    /// The configuration is wrong, or a resource is unavailable.
    pub fn run(self) -> Result<()> {
        log();
        let config = self.settings.config()?;
        let runtime = runtime()?;
        let result = runtime.block_on(async {
            let end = end_signal()?;
            server::serve(config, end).await
        });
        // A thread that waits for a file or a name must not delay the end.
        runtime.shutdown_timeout(Duration::from_secs(2));
        result
    }
}

impl ServeSettings {
    /// The combined settings of file and command line.
    ///
    /// # Errors
    /// The file, and the error in it.
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
