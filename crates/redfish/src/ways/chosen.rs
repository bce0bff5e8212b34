//! The way that was chosen, with what its conversation needs.

use std::fmt;

use hardware::{BootChange, BootWayKind};

use super::bios::{DellHttpDevice, HpeBootOrder};
use super::boot_option::OptionPick;
use super::media_drive::{CdBoot, CdDrive};
use super::over::OverridePlace;
use crate::platform::BmcPlatform;

/// The way that a BMC has for a boot.
#[derive(Clone, Debug, PartialEq)]
pub struct ChosenWay {
    /// The platform of the BMC.
    pub platform: BmcPlatform,
    /// What an operator should know, in sentences.
    pub warnings: Vec<String>,
    pub(super) plan: WayPlan,
    pub(super) changes: Vec<BootChange>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum WayPlan {
    /// `drive` is the one that gets the image, at a BMC that fetches it itself.
    HttpBootUri {
        place: OverridePlace,
        uri_at: String,
        drive: Option<CdDrive>,
    },
    DellHttpDevice {
        place: OverridePlace,
        device: DellHttpDevice,
    },
    HpeUrlBootFile {
        place: OverridePlace,
        settings: String,
        order: Option<HpeBootOrder>,
    },
    UefiHttp {
        place: OverridePlace,
        uri_at: Option<String>,
    },
    /// `UefiHttp` is listed only after a start in UEFI mode.
    UefiHttpAfterReset {
        place: OverridePlace,
    },
    Pxe {
        place: OverridePlace,
    },
    BootOption {
        place: OverridePlace,
        reference: String,
        pick: OptionPick,
    },
    BootOrder {
        resource: String,
        order: Vec<String>,
        before: Vec<String>,
    },
    VirtualMedia {
        place: OverridePlace,
        drive: CdDrive,
        by: CdBoot,
    },
}

impl ChosenWay {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> BootWayKind {
        match self.plan {
            WayPlan::HttpBootUri { .. } => BootWayKind::HttpBootUri,
            WayPlan::DellHttpDevice { .. } => BootWayKind::DellHttpDevice,
            WayPlan::HpeUrlBootFile { .. } => BootWayKind::HpeUrlBootFile,
            WayPlan::UefiHttp { .. } | WayPlan::UefiHttpAfterReset { .. } => BootWayKind::UefiHttp,
            WayPlan::Pxe { .. } => BootWayKind::Pxe,
            WayPlan::BootOption { .. } => BootWayKind::BootOption,
            WayPlan::BootOrder { .. } => BootWayKind::BootOrder,
            WayPlan::VirtualMedia { .. } => BootWayKind::VirtualMedia,
        }
    }

    /// What it changes beside the boot override. It is recorded before the boot is set, so that it can be undone
    /// whatever happens.
    #[must_use]
    pub fn changes(&self) -> &[BootChange] {
        &self.changes
    }

    /// Whether the BMC, not the firmware, fetches the image.
    pub(crate) fn is_fetched_by_bmc(&self) -> bool {
        match &self.plan {
            WayPlan::VirtualMedia { .. } => true,
            WayPlan::HttpBootUri { drive, .. } => drive.is_some(),
            WayPlan::DellHttpDevice { .. }
            | WayPlan::HpeUrlBootFile { .. }
            | WayPlan::UefiHttp { .. }
            | WayPlan::UefiHttpAfterReset { .. }
            | WayPlan::Pxe { .. }
            | WayPlan::BootOption { .. }
            | WayPlan::BootOrder { .. } => false,
        }
    }

    /// The resource that takes the boot.
    #[must_use]
    pub fn resource(&self) -> &str {
        match &self.plan {
            WayPlan::HttpBootUri { uri_at, .. } => uri_at,
            WayPlan::DellHttpDevice { device, .. } => &device.settings,
            WayPlan::HpeUrlBootFile { settings, .. } => settings,
            WayPlan::UefiHttp { place, .. }
            | WayPlan::UefiHttpAfterReset { place }
            | WayPlan::Pxe { place }
            | WayPlan::BootOption { place, .. } => &place.path,
            WayPlan::BootOrder { resource, .. } => resource,
            WayPlan::VirtualMedia { drive, .. } => &drive.path,
        }
    }
}

/// The way, where it is, and what an operator should know.
impl fmt::Display for ChosenWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the BMC ({}) boots the machine by {} at {}",
            self.platform,
            self.kind(),
            self.resource()
        )?;
        self.warnings.iter().try_for_each(|warning| write!(f, "; {warning}"))
    }
}
