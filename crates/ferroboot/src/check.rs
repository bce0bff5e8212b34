//! `ferroboot check`: what would go wrong if the service were started now, or a machine booted.

use std::io::{Write as _, stdout};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};
use server::check::{self, Found};

use crate::serve::Settings;
use crate::service::runtime;

/// Checks what `ferroboot serve` with the same arguments would need.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Check {
    #[command(flatten)]
    settings: Settings,

    #[command(subcommand)]
    what: Option<What>,
}

/// What else can be checked.
#[derive(Debug, Subcommand)]
enum What {
    /// Ask on each DHCP network as a machine would, and say what keeps machines from booting there.
    ///
    /// It may be done while the service runs. It takes some seconds, and needs root, or CAP_NET_RAW and
    /// CAP_NET_BIND_SERVICE.
    Network(Settings),
}

impl Check {
    /// Prints one line per thing that was looked at.
    ///
    /// # Errors
    /// If any of them is not as it should be.
    pub fn run(self) -> Result<()> {
        let found = match self.what {
            None => {
                let config = self.settings.config()?;
                runtime()?.block_on(check::all(&config))
            }
            Some(What::Network(settings)) => {
                let config = settings.config()?;
                ensure!(
                    !config.dhcp.networks.is_empty(),
                    "these settings have no DHCP network: add --config FILE or --dhcp as `serve` has them"
                );
                eprintln!("asking on each network as a machine would, for some seconds …");
                runtime()?.block_on(check::network::networks(&config))
            }
        };
        print(&found)
    }
}

fn print(found: &[Found]) -> Result<()> {
    let mut out = stdout();
    for (what, result) in found {
        match result {
            Ok(good) => writeln!(out, "ok    {what}: {good}"),
            Err(problem) => writeln!(out, "WRONG {what}: {problem:#}"),
        }
        .context("cannot print")?;
    }
    let wrong = found.iter().filter(|(_, result)| result.is_err()).count();
    if wrong > 0 {
        bail!("{wrong} of {} checks found something wrong", found.len());
    }
    Ok(())
}
