//! The boot mode of a machine: UEFI, or BIOS.

use std::fmt;

use hardware::RedfishPurpose;
use serde_json::{Map, json};

use super::bios;
use super::device::{DeviceNotSet, ShownPlace, is_set};
use super::over::boot_body;
use super::read_back::kept;
use super::reader::BootReader;
use crate::channel::BmcChannel;
use crate::failure::BmcFailure;
use crate::machine::RedfishSystem;
use crate::service::TaskEnd;
use crate::system::{BootObject, SystemView};

const MODE: &str = "BootSourceOverrideMode";

/// A boot mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// The value of `BootSourceOverrideMode`.
    fn override_mode(self) -> &'static str {
        match self {
            Self::Uefi => "UEFI",
            Self::Bios => "Legacy",
        }
    }
}

impl fmt::Display for BootMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<C: BmcChannel> RedfishSystem<'_, C> {
    /// Sets the boot mode by `BootSourceOverrideMode`, as Ironic does, and reads it back.
    ///
    /// # Errors
    /// [`DeviceNotSet`]
    pub async fn set_boot_mode(
        &self,
        view: &SystemView,
        mode: BootMode,
    ) -> Result<(), DeviceNotSet> {
        let fixed = |reason: String| Err(DeviceNotSet::FixedMode(reason));
        let Some(shown) = self.override_place(view).await? else {
            return fixed("it shows no boot override".to_owned());
        };
        let wanted = mode.override_mode();
        let boot = BootObject::of(&shown.at);
        let is_there = boot.text(MODE) == Some(wanted)
            && (mode == BootMode::Uefi || self.is_in_bios_mode(view, &shown).await?);
        if is_there {
            return Ok(());
        }
        if !shown.place.sends_mode() {
            return fixed(format!("{MODE} is read-only, or not shown"));
        }
        if let Some(modes) = boot.allowed(MODE).filter(|modes| !modes.contains(&wanted)) {
            return fixed(format!("it allows {MODE} as {} only", modes.join(", ")));
        }
        let body = boot_body(Map::from_iter([(MODE.to_owned(), json!(wanted))]));
        let purpose = RedfishPurpose::SetBootMode;
        match self.service().patch(purpose, &shown.at, body, TaskEnd::Awaited).await {
            Err(failure) if failure.has_message("PropertyNotWritable") => {
                return fixed(failure.to_string());
            }
            done => drop(done?),
        }
        let view = self.look().await?;
        let at = self.resource(&view, &shown.place.path).await?;
        Ok(kept(MODE, wanted, BootObject::of(&at).text(MODE))?)
    }

    /// Whether the machine boots in BIOS mode: the override's mode is `Legacy`, and an override is in force or a BIOS
    /// attribute says so. Without either, XCC and AMI show `Legacy` on UEFI machines.
    pub(super) async fn is_in_bios_mode(
        &self,
        view: &SystemView,
        shown: &ShownPlace,
    ) -> Result<bool, BmcFailure> {
        let boot = BootObject::of(&shown.at);
        if boot.text(MODE) != Some(BootMode::Bios.override_mode()) {
            return Ok(false);
        }
        let mut reader = BootReader::new(self.service(), view, self.facts());
        Ok(is_set(boot) || bios::bios_mode(&reader.attributes().await?).is_some())
    }
}
