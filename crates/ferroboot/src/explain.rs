//! `ferroboot explain MAC`: what each sort of client on this machine would get from DHCP now, and why.

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

/// Says what a machine would get from DHCP now, and why. Nothing is sent or changed.
#[derive(Debug, Args)]
pub struct Explain {
    /// The machine's MAC address.
    mac: Mac,

    /// What its firmware is, as IANA numbers it: 0x10 is x64 over HTTP, 0x13 arm64, 0x1c riscv64. By
    /// default, what cpu_arch in the properties of its node says.
    #[arg(long, value_name = "CODE", value_parser = architecture)]
    architecture: Option<ClientArchitecture>,

    /// The service's address on an interface that this host does not have, such as eth1=192.0.2.1/24;
    /// may be given several times.
    #[arg(long = "address", value_name = "INTERFACE=ADDRESS/LENGTH")]
    addresses: Vec<InterfaceAddress>,

    #[command(flatten)]
    settings: ServeSettings,
}

impl Explain {
    /// Prints it.
    ///
    /// # Errors
    /// The settings are wrong, the database cannot be read, nobody knows the service's address.
    pub fn run(self) -> Result<()> {
        let config = self.settings.config()?;
        let runtime = runtime()?;
        let dry_run = runtime.block_on(DryRun::open(&config, &self.addresses))?;
        let mut text = format!("{} {}\n", self.mac, dry_run.known(self.mac));
        if let Some(other) = dry_run.other_server() {
            let told = runtime.block_on(dry_run.told(self.mac)).context("cannot read its trace")?;
            let _ = writeln!(text, "\nit is {other} that answers DHCP, and it {told}");
        } else if dry_run.interfaces().next().is_none() {
            bail!(
                "these settings have no DHCP network: add --config FILE or --dhcp as `serve` has them"
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
    number.map(ClientArchitecture).map_err(|_| format!("{text:?} is no number such as 0x10"))
}

/// Grouped by network.
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
