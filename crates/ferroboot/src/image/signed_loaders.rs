//! `ferroboot image loaders`: shim and GRUB as Debian signs them, for Secure Boot.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use efi::program_signatures;
use hardware::CpuArch;
use netboot::boot_set::{SHIM, SIGNED_GRUB};
use netboot::shim_signers::{common_name, microsoft_authorities};

use super::files::read;
use super::manifest::BootSetWriter;
use super::packages::DebianPackages;

/// The boot set, and the source of its signed loaders.
#[derive(Debug, Args)]
pub struct AddLoaders {
    /// Boot set for x64, to which the loaders are added; `image build` leaves them out again.
    #[arg(long, value_name = "DIR")]
    boot_set: PathBuf,

    /// Debian release of the packages shim-signed and grub-efi-amd64-signed. GRUB 2.06 of bookworm finds no
    /// configuration over HTTP; 2.12 of trixie does.
    #[arg(long, value_name = "NAME", default_value = "trixie")]
    release: String,

    /// shim, signed by Microsoft, instead of the package's.
    #[arg(long, value_name = "FILE", requires = "grub")]
    shim: Option<PathBuf>,

    /// GRUB with the prefix /grub, signed by a certificate that is in this shim, instead of the package's.
    #[arg(long, value_name = "FILE", requires = "shim")]
    grub: Option<PathBuf>,

    /// Folder for downloaded packages.
    #[arg(long, value_name = "DIR", env = "FERROBOOT_PACKAGES")]
    packages: Option<PathBuf>,
}

impl AddLoaders {
    pub(super) fn run(&self) -> Result<()> {
        let mut manifest = BootSetWriter::open(&self.boot_set)?;
        let (shim, grub) = match (&self.shim, &self.grub) {
            (Some(shim), Some(grub)) => (read(shim)?, read(grub)?),
            (_, None) | (None, _) => self.debian()?,
        };
        say_signers(&shim, &grub)?;
        manifest.add(SHIM, &shim)?;
        manifest.add(SIGNED_GRUB, &grub)?;
        manifest.write()
    }

    fn debian(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let packages =
            DebianPackages::open(self.packages.as_deref(), CpuArch::X64, Some(&self.release))?;
        let file = |package, folder: &str, name: &str| {
            let found = packages.find(package, &format!("{folder}/{name}"));
            read(&found.with_context(|| format!("Debian {}", self.release))?)
        };
        let shim = file("shim-signed", "usr/lib/shim", SHIM)?;
        let grub = file("grub-efi-amd64-signed", "usr/lib/grub/x86_64-efi-signed", SIGNED_GRUB)?;
        Ok((shim, grub))
    }
}

/// Refuses loaders that no firmware with Secure Boot would start.
fn say_signers(shim: &[u8], grub: &[u8]) -> Result<()> {
    for (name, program) in [("shim", shim), ("GRUB", grub)] {
        let signatures = program_signatures(program).context(name)?;
        ensure!(!signatures.is_empty(), "this {name} is not signed");
    }
    match microsoft_authorities(shim)?.as_slice() {
        [] => eprintln!("shim has no signature of Microsoft's: machines need its signer in db"),
        authorities => {
            let names: Vec<_> = authorities.iter().map(|it| common_name(*it)).collect();
            eprintln!("shim is signed by {}", names.join(" and "));
        }
    }
    Ok(())
}
