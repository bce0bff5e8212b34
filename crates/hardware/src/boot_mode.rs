//! Boot modes of a machine, and whether Secure Boot is on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::secure_boot::SecureBootTrust;

/// A boot mode, under Ironic's name (`ironic/common/boot_modes.py`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootMode {
    /// `uefi`.
    Uefi,
    /// `bios`, also called legacy.
    Bios,
}

impl BootMode {
    /// Ironic's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uefi => "uefi",
            Self::Bios => "bios",
        }
    }

    /// The mode of Ironic's name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Uefi, Self::Bios].into_iter().find(|mode| mode.name() == name)
    }
}

impl fmt::Display for BootMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a BMC shows of its machine's boot mode and of Secure Boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShownBootMode {
    /// The boot mode; `None` if the BMC does not show it.
    pub boot_mode: Option<BootMode>,
    /// Whether Secure Boot is enabled; `None` if the BMC does not show it.
    pub secure_boot: Option<bool>,
    /// What the databases of Secure Boot hold; `None` if they were not read.
    pub trust: Option<SecureBootTrust>,
}

/// `uefi, secure boot off`
impl fmt::Display for ShownBootMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.boot_mode.map_or("unknown", BootMode::name))?;
        match self.secure_boot {
            None => Ok(()),
            Some(true) => f.write_str(", secure boot on"),
            Some(false) => f.write_str(", secure boot off"),
        }
    }
}
