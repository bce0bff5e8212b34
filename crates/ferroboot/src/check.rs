//! `ferroboot check`: problems that would affect the service or a machine's boot.

use std::io::{Write as _, stdout};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use hardware::Mac;
use providers::settings::DhcpProvider;
use provision::text::printable;
use server::check::{self, CheckWarning, Found};
use server::config::Config;

use crate::serve::ServeSettings;
use crate::service::runtime;

/// Checks the requirements of `ferroboot serve` with the same arguments.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Check {
    #[command(flatten)]
    settings: ServeSettings,

    #[command(subcommand)]
    what: Option<CheckCommand>,
}

/// Further checks.
#[derive(Debug, Subcommand)]
enum CheckCommand {
    /// Probe each DHCP network like a machine, and report what would prevent a boot there.
    ///
    /// The service may be running. The probe takes some seconds, and needs root, or CAP_NET_RAW and
    /// CAP_NET_BIND_SERVICE.
    Network {
        /// Also send requests with this MAC address, since other servers may answer only known machines; may be
        /// repeated. If the machine is being booted, the requests appear in its trace.
        #[arg(long = "mac", value_name = "MAC")]
        machines: Vec<Mac>,

        #[command(flatten)]
        settings: ServeSettings,
    },
}

impl Check {
    /// Prints one line per check.
    ///
    /// # Errors
    /// A check failed.
    pub fn run(self) -> Result<()> {
        let found = match self.what {
            None => {
                let config = self.settings.config()?;
                runtime()?.block_on(check::all(&config))
            }
            Some(CheckCommand::Network { machines, settings }) => {
                let config = settings.config()?;
                expect_networks(&config)?;
                eprintln!("sending a machine's requests on each network, for some seconds …");
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
        DhcpProvider::Embedded => {
            bail!("these settings have no DHCP network: add the --config FILE or --dhcp of `serve`")
        }
        DhcpProvider::Dnsmasq | DhcpProvider::Kea | DhcpProvider::Neutron | DhcpProvider::None => {
            bail!(
                "another service answers DHCP with these settings (provider in [dhcp]), so there is no network of \
             this service to test: `ferroboot check` tests whether that service accepts boot settings"
            )
        }
    }
}

fn print(found: &[Found]) -> Result<()> {
    let mut out = stdout();
    for (what, result) in found {
        match result {
            Ok(good) => writeln!(out, "ok    {what}: {}", printable(good)),
            Err(warning) if warning.is::<CheckWarning>() => {
                writeln!(out, "warn  {what}: {}", printable(&warning.to_string()))
            }
            Err(problem) => writeln!(out, "WRONG {what}: {}", printable(&format!("{problem:#}"))),
        }
        .context("cannot print")?;
    }
    let is_wrong = |error: &anyhow::Error| !error.is::<CheckWarning>();
    let wrong = found.iter().filter(|(_, result)| result.as_ref().is_err_and(is_wrong)).count();
    if wrong > 0 {
        bail!("{wrong} of {} checks failed", found.len());
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
