//! `ferroboot explain MAC`: the current DHCP answers to each kind of client on this machine, with reasons.

use std::fmt::Write as _;
use std::io::{Write as _, stdout};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use hardware::{ClientArchitecture, Mac};
use netboot::dry_run::Explained;
use netboot::dry_run::vantage::InterfaceAddress;
use provision::text::{printable, printable_lines};
use server::dhcp::DryRun;

use crate::serve::ServeSettings;
use crate::service::runtime;

/// Shows the current DHCP answers to a machine, with reasons. Nothing is sent or changed.
#[derive(Debug, Args)]
pub struct Explain {
    /// The machine's MAC address.
    mac: Mac,

    /// IANA's code of its firmware's architecture: 0x10 is x64 over HTTP, 0x13 arm64, 0x1c riscv64. The default is
    /// the cpu_arch in the properties of its node.
    #[arg(long, value_name = "CODE", value_parser = architecture)]
    architecture: Option<ClientArchitecture>,

    /// The service's address on an interface that this host lacks, such as eth1=192.0.2.1/24; may be repeated.
    #[arg(long = "address", value_name = "INTERFACE=ADDRESS/LENGTH")]
    addresses: Vec<InterfaceAddress>,

    #[command(flatten)]
    settings: ServeSettings,
}

impl Explain {
    /// Prints the answers.
    ///
    /// # Errors
    /// The settings are wrong, the database cannot be read, or the service's address is unknown.
    pub fn run(self) -> Result<()> {
        let config = self.settings.config()?;
        let runtime = runtime()?;
        let dry_run = runtime.block_on(DryRun::open(&config, &self.addresses))?;
        let mut text = format!("{} {}\n", self.mac, dry_run.known(self.mac));
        if let Some(other) = dry_run.other_server() {
            let told = runtime
                .block_on(dry_run.last_announcement(self.mac))
                .context("cannot read its trace")?;
            let _ = writeln!(text, "\nDHCP is answered by {other}, which {told}");
        } else if dry_run.interfaces().next().is_none() {
            bail!(
                "these settings have no DHCP network: add the --config FILE or --dhcp of `serve`"
            );
        }
        for note in dry_run.notes() {
            let _ = writeln!(text, "\nnote: {note}");
        }
        let architecture = self.architecture.unwrap_or_else(|| dry_run.architecture(self.mac));
        text.push_str(&table(&dry_run.explain(self.mac, architecture)));
        stdout().write_all(printable_lines(&text).as_bytes()).context("cannot print")
    }
}

fn architecture(text: &str) -> Result<ClientArchitecture, String> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.map(ClientArchitecture).map_err(|_| format!("{text:?} is not a number such as 0x10"))
}

/// The answers, grouped by network.
fn table(all: &[Explained]) -> String {
    let mut text = String::new();
    let mut group = None;
    for explained in all {
        let of = (&explained.interface, explained.family);
        if group != Some(of) {
            group = Some(of);
            let _ = writeln!(text, "\n{} on {}", explained.family, explained.interface);
        }
        let _ = writeln!(text, "  {}", printable(&explained.client));
        let _ = writeln!(text, "      {}", printable(&explained.answer));
        if let Some(verdict) = &explained.verdict {
            let _ = writeln!(text, "      {}", printable(verdict));
        }
    }
    text
}
