//! The supported builds of OVMF: the host's own, and those that `scripts/firmware` unpacks.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use bmc::config::FirmwareConfig;
use clap::ValueEnum;

/// The folder of the images in an OVMF package.
const IMAGES: &str = "usr/share/OVMF";

/// A build of OVMF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OvmfBuild {
    /// The installed build: 2022.11 on Debian 12.
    #[default]
    Installed,
    /// Debian 13's build.
    #[value(name = "2025.02")]
    V2025_02,
    /// The first build here whose HTTP boot waits for its IPv6 address.
    #[value(name = "2026.08")]
    V2026_08,
}

impl OvmfBuild {
    /// This build with default settings, from the folder of `scripts/firmware` below the checkout `root`.
    #[must_use]
    pub fn firmware(self, root: &Path) -> FirmwareConfig {
        let images = self.images(root);
        FirmwareConfig {
            code: images.join("OVMF_CODE_4M.fd"),
            variables: images.join("OVMF_VARS_4M.fd"),
            ..FirmwareConfig::default()
        }
    }

    /// This build with Secure Boot and Microsoft's keys.
    #[must_use]
    pub fn with_microsoft_keys(self, root: &Path) -> FirmwareConfig {
        let images = self.images(root);
        FirmwareConfig {
            code: images.join("OVMF_CODE_4M.secboot.fd"),
            variables: images.join("OVMF_VARS_4M.ms.fd"),
            secure_boot: true,
            ..FirmwareConfig::default()
        }
    }

    /// This build with Secure Boot, which trusts one certificate (PEM).
    #[must_use]
    pub fn with_secure_boot(self, root: &Path, certificate: &Path) -> FirmwareConfig {
        let firmware = self.firmware(root);
        FirmwareConfig {
            code: firmware.code.with_file_name("OVMF_CODE_4M.secboot.fd"),
            secure_boot_certificate: Some(certificate.to_owned()),
            ..firmware
        }
    }

    fn images(self, root: &Path) -> PathBuf {
        let root = match self {
            Self::Installed => PathBuf::from("/"),
            Self::V2025_02 | Self::V2026_08 => root.join("target/firmware").join(self.to_string()),
        };
        root.join(IMAGES)
    }
}

/// The installed build with Secure Boot and Microsoft's keys.
#[must_use]
pub fn with_microsoft_keys() -> FirmwareConfig {
    OvmfBuild::Installed.with_microsoft_keys(Path::new("/"))
}

impl fmt::Display for OvmfBuild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Installed => "installed",
            Self::V2025_02 => "2025.02",
            Self::V2026_08 => "2026.08",
        })
    }
}

/// Checks that the images exist.
///
/// # Errors
/// The package that installs them.
pub(super) fn check(firmware: &FirmwareConfig) -> Result<()> {
    for image in [&firmware.code, &firmware.variables] {
        ensure!(
            image.exists(),
            "the firmware {} is not there: run `scripts/firmware`, or install the package ovmf",
            image.display()
        );
    }
    Ok(())
}
