//! The boot mode of a machine: UEFI, or BIOS.

use hardware::{BootMode, RedfishPurpose};
use serde_json::{Map, json};

use super::bios;
use super::bios_settings::{BiosNotSet, WantedBios};
use super::device::{DeviceNotSet, ShownPlace, is_set};
use super::over::boot_body;
use super::read_back::kept;
use super::reader::BootReader;
use crate::channel::BmcChannel;
use crate::failure::BmcFailure;
use crate::machine::RedfishSystem;
use crate::service::TaskEnd;
use crate::system::{BootObject, SystemView};

pub(super) const MODE: &str = "BootSourceOverrideMode";

/// When a change of the boot mode or of Secure Boot takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeEffect {
    /// The BMC shows it; the next boot uses it.
    Shown,
    /// The next reset applies it, and it is not shown before.
    AtReset,
}

/// The value of `BootSourceOverrideMode`.
fn override_mode(mode: BootMode) -> &'static str {
    match mode {
        BootMode::Uefi => "UEFI",
        BootMode::Bios => "Legacy",
    }
}

impl<C: BmcChannel> RedfishSystem<'_, C> {
    /// Sets the boot mode: by the BIOS attribute that says it, if there is one that says another, which a reset applies;
    /// else by `BootSourceOverrideMode`, as Ironic does, which is read back.
    ///
    /// # Errors
    /// [`DeviceNotSet`]
    pub async fn set_boot_mode(
        &self,
        view: &SystemView,
        mode: BootMode,
    ) -> Result<ModeEffect, DeviceNotSet> {
        let mut reader = BootReader::new(self.service(), view, self.facts());
        let attributes = reader.attributes().await?;
        let attribute = bios::mode_attribute(&attributes);
        if let Some((name, value, shown)) = attribute
            && shown != mode
        {
            self.set_mode_attribute(view, name, value, mode).await?;
            return Ok(ModeEffect::AtReset);
        }
        match self.set_override_mode(view, mode).await {
            // The attribute is what counts.
            Err(DeviceNotSet::FixedMode(_)) if attribute.is_some() => Ok(ModeEffect::Shown),
            done => done.map(|()| ModeEffect::Shown),
        }
    }

    async fn set_mode_attribute(
        &self,
        view: &SystemView,
        name: &str,
        value: &str,
        mode: BootMode,
    ) -> Result<(), DeviceNotSet> {
        let mut reader = BootReader::new(self.service(), view, self.facts());
        let bios = reader.bios().await?.cloned();
        let registry = match &bios {
            Some(bios) => reader.attribute_registry(bios).await,
            None => Vec::new(),
        };
        let entry = registry.iter().find(|entry| entry["AttributeName"] == name);
        let listed = entry.and_then(|entry| entry["Value"].as_array());
        let listed = listed.into_iter().flatten().filter_map(|value| value["ValueName"].as_str());
        let of_mode = |value: &&str| bios::mode_of_value(value) == Some(mode);
        let wanted = listed.into_iter().find(of_mode).or_else(|| other_mode(value));
        let Some(wanted) = wanted else {
            return Err(DeviceNotSet::FixedMode(format!("the BIOS attribute {name} is {value}")));
        };
        let wanted = Map::from_iter([(name.to_owned(), json!(wanted))]);
        let plan = self.plan_bios(view, &WantedBios::Attributes(wanted)).await;
        let plan = plan.map_err(|error| {
            let words = error.to_string();
            match error {
                BiosNotSet::Failure(failure) => DeviceNotSet::Failure(failure),
                BiosNotSet::NoAttributes
                | BiosNotSet::NoHttpAttribute
                | BiosNotSet::Unknown(_)
                | BiosNotSet::ReadOnly(_)
                | BiosNotSet::NotApplied { .. } => DeviceNotSet::FixedMode(words),
            }
        })?;
        self.stage_bios_plan(&plan).await?;
        Ok(())
    }

    async fn set_override_mode(
        &self,
        view: &SystemView,
        mode: BootMode,
    ) -> Result<(), DeviceNotSet> {
        let fixed = |reason: String| Err(DeviceNotSet::FixedMode(reason));
        let Some(shown) = self.override_place(view).await? else {
            return fixed("it shows no boot override".to_owned());
        };
        let wanted = override_mode(mode);
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
        if boot.text(MODE) != Some(override_mode(BootMode::Bios)) {
            return Ok(false);
        }
        let mut reader = BootReader::new(self.service(), view, self.facts());
        Ok(is_set(boot) || bios::bios_mode(&reader.attributes().await?).is_some())
    }
}

/// The value of the other mode, spelled as the present one, where no registry says it: Dell's `Bios` and `Uefi`, HPE's
/// `LegacyBios` and `Uefi`, Lenovo's `LegacyMode` and `UEFIMode`, AMI's and Supermicro's `LEGACY` and `UEFI`.
fn other_mode(value: &str) -> Option<&'static str> {
    match value {
        "Bios" | "LegacyBios" => Some("Uefi"),
        "UEFIMode" => Some("LegacyMode"),
        "LegacyMode" => Some("UEFIMode"),
        "LEGACY" | "Legacy" => Some("UEFI"),
        _ => None,
    }
}
