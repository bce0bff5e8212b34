//! Which boot sets there are, and where each lies.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use hardware::CpuArch;
use netboot::boot_set::folder_of;

use crate::boot_set::BootSet;

/// Whether a boot set is whole: that for `cpu_arch` of those in `folder`.
///
/// # Errors
/// What is missing or damaged.
pub fn check_boot_set(folder: &Path, cpu_arch: CpuArch) -> Result<()> {
    BootSet::open(&folder_of(folder, cpu_arch), cpu_arch).map(drop)
}

/// The architectures that there are boot sets for; clones share what was seen last.
#[derive(Clone, Debug)]
pub struct BootSets {
    folder: PathBuf,
    there: Arc<Mutex<Vec<CpuArch>>>,
}

impl BootSets {
    /// Looks into a folder of boot sets.
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

    /// What was there when somebody last looked.
    #[must_use]
    pub fn there(&self) -> Vec<CpuArch> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Boot sets may be made while we run.
    pub fn look_again(&self) {
        let manifest = |cpu_arch| folder_of(&self.folder, cpu_arch).join("manifest.json");
        let there = CpuArch::ALL.into_iter().filter(|cpu_arch| manifest(*cpu_arch).exists());
        *self.there.lock().unwrap_or_else(PoisonError::into_inner) = there.collect();
    }
}
