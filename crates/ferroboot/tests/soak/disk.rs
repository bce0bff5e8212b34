//! A small disk that can be filled.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in memory, mounted only in the run's namespace.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    pub(crate) path: PathBuf,
}

impl SmallDisk {
    /// A disk of `mib` MiB.
    pub(crate) fn mount(path: &Path, mib: u32) -> Self {
        fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(path)
            .status()
            .unwrap();
        assert!(mounted.success(), "a small disk cannot be mounted at {}", path.display());
        Self { path: path.to_owned() }
    }

    /// Fills the disk; returns the number of bytes written.
    pub(crate) fn fill(&self) -> u64 {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        let mut taken = 0;
        for size in [1 << 20, 4_096, 1] {
            let block = vec![0x5a; size];
            while file.write_all(&block).is_ok() {
                taken += size as u64;
            }
        }
        taken
    }

    pub(crate) fn free(&self) {
        let _ = fs::remove_file(self.filler());
    }

    /// The size of all files except the one that [`SmallDisk::fill`] wrote.
    pub(crate) fn used(&self) -> u64 {
        used(&self.path)
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

fn used(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().filter(|entry| entry.file_name() != "filler").map(|entry| {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => used(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        }
    });
    sizes.sum()
}
