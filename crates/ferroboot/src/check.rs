//! `ferroboot check`: what would go wrong if the service were started now, or a machine booted.

use std::io::{Write as _, stdout};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use hardware::Mac;
use provision::text::printable;
use server::check::{self, Found};
use server::config::{Config, Provider};

use crate::serve::ServeSettings;
use crate::service::runtime;

/// Checks what `ferroboot serve` with the same arguments would need.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Check {
    #[command(flatten)]
    settings: ServeSettings,

    #[command(subcommand)]
    what: Option<CheckCommand>,
}

/// What else can be checked.
#[derive(Debug, Subcommand)]
enum CheckCommand {
    /// Ask on each DHCP network as a machine would, and say what keeps machines from booting there.
    ///
    /// It may be done while the service runs. It takes some seconds, and needs root, or CAP_NET_RAW and
    /// CAP_NET_BIND_SERVICE.
    Network {
        /// Ask in this machine's name too, since another server may answer machines only that it knows; may be given
        /// several times. Where the machine is being booted, its trace has what was asked.
        #[arg(long = "mac", value_name = "MAC")]
        machines: Vec<Mac>,

        #[command(flatten)]
        settings: ServeSettings,
    },
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
            Some(CheckCommand::Network { machines, settings }) => {
                let config = settings.config()?;
                expect_networks(&config)?;
                eprintln!("asking on each network as a machine would, for some seconds …");
                runtime()?.block_on(check::network::networks(&config, &machines))
            }
        };
        print(&found)
    }
}

fn expect_networks(config: &Config) -> Result<()> {
    if !config.dhcp.networks.is_empty() {
        return Ok(());
    }
    match config.dhcp.provider {
        Provider::Embedded => bail!(
            "these settings have no DHCP network: add --config FILE or --dhcp as `serve` has them"
        ),
        Provider::Dnsmasq | Provider::Kea | Provider::Neutron | Provider::None => bail!(
            "another service answers DHCP with these settings (provider in [dhcp]), so there is no network of \
             ours to ask on: `ferroboot check` says whether that service can be told what to boot"
        ),
    }
}

fn print(found: &[Found]) -> Result<()> {
    let mut out = stdout();
    for (what, result) in found {
        match result {
            Ok(good) => writeln!(out, "ok    {what}: {}", printable(good)),
            Err(problem) => writeln!(out, "WRONG {what}: {}", printable(&format!("{problem:#}"))),
        }
        .context("cannot print")?;
    }
    let wrong = found.iter().filter(|(_, result)| result.is_err()).count();
    if wrong > 0 {
        bail!("{wrong} of {} checks found something wrong", found.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_to_add_a_network_that_another_service_answers_on() {
        let said = |text: &str| expect_networks(&text.parse().unwrap()).unwrap_err().to_string();

        assert!(said("").contains("--dhcp"));
        let beside = said("[dhcp]\nprovider = \"none\"");
        assert!(beside.contains("`ferroboot check`") && !beside.contains("--dhcp"), "{beside}");
    }
}
