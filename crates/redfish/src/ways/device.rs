//! The boot device that an operator sets or reads, by Ironic's names (`ironic/common/boot_devices.py`).

use std::fmt;

use serde_json::json;
use thiserror::Error;

use super::errors::{CannotHttpBoot, NotKept};
use super::over::OverridePlace;
use super::read_back::kept;
use super::reader::BootReader;
use super::wanted::OverrideEnabled;
use crate::channel::BmcChannel;
use crate::failure::BmcFailure;
use crate::machine::RedfishSystem;
use crate::resource::RedfishResource;
use crate::system::{BootObject, SystemView};

/// A boot device of Ironic that Redfish has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootDevice {
    /// `pxe`: the network.
    Pxe,
    /// `disk`: the first disk.
    Disk,
    /// `cdrom`: the CD drive.
    Cdrom,
    /// `bios`: the setup of the firmware.
    Bios,
    /// `floppy`: the floppy drive.
    Floppy,
    /// `uefihttp`: HTTP, with the URL that the BMC has or DHCP gives.
    UefiHttp,
}

/// The boot device that a BMC shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownBootDevice {
    /// The device; `None` if no override is set, or one that Ironic has no name for.
    pub device: Option<BootDevice>,
    /// Whether it stays; `None` if no override is set.
    pub persistent: Option<bool>,
}

/// The reason why a boot device or a boot mode was not set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeviceNotSet {
    /// A request failed.
    #[error(transparent)]
    Failure(#[from] BmcFailure),
    /// The BMC has no boot override.
    #[error(transparent)]
    Cannot(#[from] CannotHttpBoot),
    /// The BMC does not list the device.
    #[error("the BMC does not allow the boot device {device}: it allows {supported}")]
    Unsupported {
        /// The device.
        device: BootDevice,
        /// The devices that it allows.
        supported: String,
    },
    /// The BMC has only the other duration.
    #[error("the BMC sets a boot device only {}", if *.once { "for the next boot" } else { "until it is cleared" })]
    OtherDuration {
        /// Whether it has `Once` only, not `Continuous` only.
        once: bool,
    },
    /// The boot mode cannot be set.
    #[error("the boot mode cannot be set at this BMC: {0}; set it in the setup of the firmware")]
    FixedMode(String),
    /// The BMC took the change and does not show it.
    #[error(transparent)]
    NotKept(#[from] NotKept),
}

impl BootDevice {
    /// All, in the order of Ironic's lists.
    pub const ALL: [Self; 6] =
        [Self::Pxe, Self::Disk, Self::Cdrom, Self::Bios, Self::Floppy, Self::UefiHttp];

    /// The device of Ironic's name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|device| device.name() == name)
    }

    /// Ironic's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pxe => "pxe",
            Self::Disk => "disk",
            Self::Cdrom => "cdrom",
            Self::Bios => "bios",
            Self::Floppy => "floppy",
            Self::UefiHttp => "uefihttp",
        }
    }

    /// The values of `BootSourceOverrideTarget`, the usual one first. Some of Supermicro's boards list `UsbCd` only
    /// (sushy's `system.py`).
    fn targets(self) -> &'static [&'static str] {
        match self {
            Self::Pxe => &["Pxe"],
            Self::Disk => &["Hdd"],
            Self::Cdrom => &["Cd", "UsbCd"],
            Self::Bios => &["BiosSetup"],
            Self::Floppy => &["Floppy"],
            Self::UefiHttp => &["UefiHttp"],
        }
    }

    /// The target to send: the first that is listed, or the usual one if nothing is.
    fn target(self, listed: Option<&[&str]>) -> Option<&'static str> {
        let is_listed = |target: &&str| listed.is_none_or(|listed| listed.contains(target));
        self.targets().iter().copied().find(is_listed)
    }

    fn of_target(target: &str) -> Option<Self> {
        let has = |device: &Self| device.targets().iter().any(|it| it.eq_ignore_ascii_case(target));
        Self::ALL.into_iter().find(has)
    }
}

impl fmt::Display for BootDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The place of a boot override, and what its resource shows.
pub(super) struct ShownPlace {
    pub(super) place: OverridePlace,
    pub(super) at: RedfishResource,
}

impl ShownPlace {
    /// The targets that the system lists, else those of its settings resource: BlueField's settings have bmcweb's fixed
    /// list, and only the system's holds.
    fn targets<'s>(&'s self, view: &'s SystemView) -> Option<Vec<&'s str>> {
        const TARGET: &str = "BootSourceOverrideTarget";
        view.boot().allowed(TARGET).or_else(|| BootObject::of(&self.at).allowed(TARGET))
    }
}

impl<C: BmcChannel> RedfishSystem<'_, C> {
    /// Reads the boot device: a change that waits for the reset counts before the one in force.
    ///
    /// # Errors
    /// [`BmcFailure`]
    pub async fn boot_device(&self, view: &SystemView) -> Result<ShownBootDevice, BmcFailure> {
        let place = self.override_place(view).await?;
        let waiting = place.as_ref().map(|place| BootObject::of(&place.at));
        let boot = waiting.filter(|boot| is_set(*boot)).unwrap_or_else(|| view.boot());
        if !is_set(boot) {
            return Ok(ShownBootDevice { device: None, persistent: None });
        }
        let target = boot.text("BootSourceOverrideTarget").unwrap_or_default();
        let persistent = boot.text("BootSourceOverrideEnabled") == Some("Continuous");
        Ok(ShownBootDevice { device: BootDevice::of_target(target), persistent: Some(persistent) })
    }

    /// The boot devices that the BMC allows: all if it lists none.
    ///
    /// # Errors
    /// [`BmcFailure`]
    pub async fn boot_devices(&self, view: &SystemView) -> Result<Vec<BootDevice>, BmcFailure> {
        let Some(place) = self.override_place(view).await? else { return Ok(Vec::new()) };
        Ok(allowed_devices(place.targets(view).as_deref()))
    }

    /// Sets the boot device, and reads it back.
    ///
    /// # Errors
    /// [`DeviceNotSet`]
    pub async fn set_boot_device(
        &self,
        view: &SystemView,
        device: BootDevice,
        enabled: OverrideEnabled,
    ) -> Result<(), DeviceNotSet> {
        let Some(shown) = self.override_place(view).await? else {
            return Err(CannotHttpBoot::NoOverride.into());
        };
        let listed = shown.targets(view);
        let Some(target) = device.target(listed.as_deref()) else {
            let names: Vec<_> =
                allowed_devices(listed.as_deref()).into_iter().map(BootDevice::name).collect();
            return Err(DeviceNotSet::Unsupported { device, supported: names.join(", ") });
        };
        let known = shown.place.enabled(enabled);
        if known != enabled {
            return Err(DeviceNotSet::OtherDuration { once: known == OverrideEnabled::Once });
        }
        let mut boot = shown.place.properties(enabled, target);
        // A machine in BIOS mode stays in it.
        if shown.place.sends_mode() && self.is_in_bios_mode(view, &shown).await? {
            boot.insert("BootSourceOverrideMode".to_owned(), json!("Legacy"));
        }
        self.patch_boot(&shown.at, boot).await?;
        let view = self.look().await?;
        let at = self.resource(&view, &shown.place.path).await?;
        is_kept(&at, shown.place.is_settings, enabled, target)?;
        Ok(())
    }

    /// The place of the boot override, if the BMC has one.
    pub(super) async fn override_place(
        &self,
        view: &SystemView,
    ) -> Result<Option<ShownPlace>, BmcFailure> {
        let mut reader = BootReader::new(self.service(), view, self.facts());
        let platform = reader.platform().await?;
        let settings = reader.settings().await?;
        Ok(OverridePlace::of(platform, &view.0, settings).map(|place| {
            let at = settings.filter(|_| place.is_settings).unwrap_or(&view.0).clone();
            ShownPlace { place, at }
        }))
    }
}

fn allowed_devices(listed: Option<&[&str]>) -> Vec<BootDevice> {
    BootDevice::ALL.into_iter().filter(|device| device.target(listed).is_some()).collect()
}

/// Whether an override is set. A URL that is left is none.
pub(super) fn is_set(boot: BootObject<'_>) -> bool {
    let is_device = |target| !matches!(target, "" | "None");
    boot.is_enabled() && boot.text("BootSourceOverrideTarget").is_some_and(is_device)
}

fn is_kept(
    at: &RedfishResource,
    is_settings: bool,
    enabled: OverrideEnabled,
    target: &str,
) -> Result<(), NotKept> {
    let boot = BootObject::of(at);
    // A settings resource may be empty until the reset applies it.
    if is_settings && !is_set(boot) {
        return Ok(());
    }
    let shown = boot.text("BootSourceOverrideTarget");
    // Supermicro shows the network as the boot option that it stands for.
    let is_option = |shown: &str| target == "Pxe" && shown == "UefiBootNext";
    if !shown.is_some_and(|shown| shown.eq_ignore_ascii_case(target) || is_option(shown)) {
        kept("BootSourceOverrideTarget", target, shown)?;
    }
    if !boot.shows("BootSourceOverrideEnabled") {
        return Ok(());
    }
    kept("BootSourceOverrideEnabled", enabled.name(), boot.text("BootSourceOverrideEnabled"))
}
