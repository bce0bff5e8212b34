//! Boot sets: the folder of each, and its `manifest.json` with the lengths and digests of its files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use efi::PeMachine;
use hardware::CpuArch;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of the format.
const VERSION: u32 = 1;

/// shim, with its distribution's name for it.
pub const SHIM: &str = "shimx64.efi.signed";
/// The GRUB that this shim starts.
pub const SIGNED_GRUB: &str = "grubnetx64.efi.signed";

/// The manifest of a boot set: kernel, initramfs and the loaders that start them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootSetManifest {
    version: u32,
    files: BTreeMap<String, FileEntry>,
    #[serde(default)]
    kernel_version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileEntry {
    len: u64,
    sha256: String,
}

/// A file's entry in the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// Its length in bytes.
    pub len: u64,
    /// The SHA-256 digest of its content.
    pub sha256: [u8; 32],
}

/// The reason for rejecting a manifest.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// The file is not JSON of this form.
    #[error(transparent)]
    Form(#[from] serde_json::Error),
    /// The format version is newer than this daemon.
    #[error("boot set version {0} is unknown")]
    Version(u32),
    /// A digest that is not 64 hexadecimal digits.
    #[error("the manifest's digest of {0} is not a SHA-256")]
    Digest(String),
}

impl BootSetManifest {
    /// A manifest without files.
    #[must_use]
    pub fn new(kernel_version: &str) -> Self {
        let kernel_version = kernel_version.to_owned();
        Self { version: VERSION, files: BTreeMap::new(), kernel_version }
    }

    /// Adds or replaces a file's entry.
    pub fn insert(&mut self, name: &str, file: ManifestFile) {
        let sha256 = file.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        self.files.insert(name.to_owned(), FileEntry { len: file.len, sha256 });
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// [`ManifestError::Form`] and [`ManifestError::Version`].
    pub fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(json)?;
        match manifest.version {
            VERSION => Ok(manifest),
            version => Err(ManifestError::Version(version)),
        }
    }

    /// A file's entry; `None` if the manifest does not have the file.
    ///
    /// # Errors
    /// [`ManifestError::Digest`]
    pub fn file(&self, name: &str) -> Result<Option<ManifestFile>, ManifestError> {
        let Some(FileEntry { len, sha256 }) = self.files.get(name) else { return Ok(None) };
        let sha256 = digest(sha256).ok_or_else(|| ManifestError::Digest(name.to_owned()))?;
        Ok(Some(ManifestFile { len: *len, sha256 }))
    }

    /// The names of all files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The version of the kernel, as `uname -r` shows it.
    #[must_use]
    pub fn kernel_version(&self) -> &str {
        &self.kernel_version
    }
}

/// The folder of an architecture's boot set: `boot_sets` itself for x64, subfolders for others.
#[must_use]
pub fn folder_of(boot_sets: &Path, cpu_arch: CpuArch) -> PathBuf {
    match cpu_arch {
        CpuArch::X64 => boot_sets.to_owned(),
        CpuArch::Arm64 | CpuArch::Riscv64 => boot_sets.join(cpu_arch.name()),
    }
}

/// The instruction to make the boot set for an architecture in `path`, in words.
#[must_use]
pub fn boot_set_instructions(cpu_arch: CpuArch, path: &Path) -> String {
    match cpu_arch {
        CpuArch::X64 => {
            format!("make one with `ferroboot image build --output {}`", path.display())
        }
        CpuArch::Arm64 | CpuArch::Riscv64 => format!(
            "make one with `ferroboot image build --architecture {cpu_arch} --output {}`",
            path.display()
        ),
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (n, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()?;
    }
    Some(digest)
}

/// The machine type in the headers of EFI programs for an architecture.
#[must_use]
pub fn efi_machine(cpu_arch: CpuArch) -> PeMachine {
    match cpu_arch {
        CpuArch::X64 => PeMachine::X64,
        CpuArch::Arm64 => PeMachine::Arm64,
        CpuArch::Riscv64 => PeMachine::Riscv64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_that_is_written_is_read_again() {
        let mut manifest = BootSetManifest::new("6.12.0");
        let kernel = ManifestFile { len: 5, sha256: [0xa5; 32] };
        manifest.insert("kernel", kernel);

        let read = BootSetManifest::parse(&serde_json::to_vec(&manifest).unwrap()).unwrap();

        assert_eq!(read, manifest);
        assert_eq!(read.file("kernel").unwrap(), Some(kernel));
        assert_eq!(read.file("initramfs").unwrap(), None);
    }

    #[test]
    fn a_manifest_of_another_version_or_with_a_damaged_digest_is_refused() {
        let newer = BootSetManifest::parse(br#"{"version": 2, "files": {}}"#).unwrap_err();
        let damaged = br#"{"version": 1, "files": {"kernel": {"len": 1, "sha256": "+f"}}}"#;
        let damaged = BootSetManifest::parse(damaged).unwrap().file("kernel").unwrap_err();

        assert_eq!(newer.to_string(), "boot set version 2 is unknown");
        assert_eq!(damaged.to_string(), "the manifest's digest of kernel is not a SHA-256");
    }
}
