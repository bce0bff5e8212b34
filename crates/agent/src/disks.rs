//! The machine's disks: which ones are there, and how they are erased.

mod clustered;
mod disk;
pub mod hints;
pub mod partitions;
mod plan;
mod present;
mod signatures;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

pub use self::disk::{Disk, list};
use crate::hotplug::Activity;

/// Which disks count.
#[derive(Debug, Clone)]
pub enum DiskSource {
    /// All of the machine's own, once its controllers have found them.
    Machine(Arc<Activity>),
    /// These files or devices, whatever else there is.
    Named(Vec<PathBuf>),
}

impl DiskSource {
    /// The disks, sorted by path.
    ///
    /// # Errors
    ///
    /// When drivers do not come to an end, or `/sys/block` or a named file cannot be read.
    pub fn disks(&self) -> Result<Vec<Disk>> {
        match self {
            Self::Machine(activity) => {
                activity
                    .settle(Duration::from_secs(2), Duration::from_secs(300))
                    .context("waiting for the disks")?;
                present::machine()
            }
            Self::Named(paths) => paths.iter().map(|path| present::named(path)).collect(),
        }
    }
}
