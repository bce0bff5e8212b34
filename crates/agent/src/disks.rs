//! The machine's disks: detection and erasure.

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

/// The disks that count.
#[derive(Debug, Clone)]
pub enum DiskSource {
    /// All disks of the machine, once its controllers have found them.
    Machine(Arc<Activity>),
    /// These files or devices only.
    Named(Vec<PathBuf>),
}

impl DiskSource {
    /// The disks, sorted by path.
    ///
    /// # Errors
    ///
    /// Drivers do not settle, or `/sys/block` or a named file cannot be read.
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
