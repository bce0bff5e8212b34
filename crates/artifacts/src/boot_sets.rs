//! The available boot sets, and their folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use hardware::{CpuArch, MicrosoftUefiCa};
use netboot::boot_set::{SHIM, folder_of};
use netboot::composition::CompositionError;
use netboot::shim_signers::microsoft_authorities;
use provision::artifact::Artifact;

use crate::boot_set::BootSet;

/// Checks that the boot set for `cpu_arch` in `folder` is complete.
///
/// # Errors
/// A file that is missing or damaged.
pub fn check_boot_set(folder: &Path, cpu_arch: CpuArch) -> Result<()> {
    BootSet::open(&folder_of(folder, cpu_arch), cpu_arch).map(drop)
}

/// Whether the iPXE in the boot set for `cpu_arch` fetches over HTTPS with the CAs that the firmware trusts: it reads
/// the firmware's variable `TlsCaCertificate` (`interface/efi/efi_cacert.c`, since 2023; Debian's from version 13 on).
#[must_use]
pub fn ipxe_trusts_firmware_cas(folder: &Path, cpu_arch: CpuArch) -> bool {
    let Some(ipxe) = Artifact::ipxe(cpu_arch) else { return false };
    let program = fs::read(folder_of(folder, cpu_arch).join(ipxe.file_name()));
    let variable: Vec<_> = "TlsCaCertificate".encode_utf16().flat_map(u16::to_le_bytes).collect();
    program.is_ok_and(|program| program.windows(variable.len()).any(|part| part == variable))
}

/// Microsoft's authorities that signed the shim in the boot set for `cpu_arch`; none if others did.
///
/// # Errors
/// A file that is missing or damaged.
pub fn shim_authorities(folder: &Path, cpu_arch: CpuArch) -> Result<Vec<MicrosoftUefiCa>> {
    let folder = folder_of(folder, cpu_arch);
    let boot_set = BootSet::open(&folder, cpu_arch)?;
    ensure!(boot_set.has_signed_loaders(), CompositionError::NoShim);
    let shim = folder.join(SHIM);
    let context = || format!("{} cannot be used", shim.display());
    let program = fs::read(&shim).with_context(context)?;
    microsoft_authorities(&program).with_context(context)
}

/// The architectures with boot sets; clones share the last result.
#[derive(Clone, Debug)]
pub struct BootSets {
    folder: PathBuf,
    there: Arc<Mutex<Vec<CpuArch>>>,
}

impl BootSets {
    /// Searches a folder for boot sets.
    #[must_use]
    pub fn look(folder: &Path) -> Self {
        let boot_sets = Self { folder: folder.to_owned(), there: Arc::default() };
        boot_sets.look_again();
        boot_sets
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The result of the last search.
    #[must_use]
    pub fn there(&self) -> Vec<CpuArch> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Searches again: boot sets may be created while the daemon runs.
    pub fn look_again(&self) {
        let manifest = |cpu_arch| folder_of(&self.folder, cpu_arch).join("manifest.json");
        let there = CpuArch::ALL.into_iter().filter(|cpu_arch| manifest(*cpu_arch).exists());
        *self.there.lock().unwrap_or_else(PoisonError::into_inner) = there.collect();
    }
}
