//! The check that a BMC shows the boot that it took, where it shows it.

use std::time::Duration;

use serde_json::Value;

use super::chosen::{ChosenWay, WayPlan};
use super::errors::{BootNotSet, NotKept};
use super::media_drive::{CdBoot, CdDrive};
use super::over::OverridePlace;
use super::set::{DELL_CD, DELL_DEVICE};
use super::wanted::HttpBootOverride;
use crate::channel::BmcChannel;
use crate::machine::RedfishSystem;
use crate::quirks;
use crate::resource::RedfishResource;
use crate::system::{BootObject, SystemView};

/// The waits until a boot that the BMC took is shown.
const WAITS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// What a read-back found.
#[derive(Clone, Debug, PartialEq)]
pub struct BootReadBack {
    /// The state of the system.
    pub view: SystemView,
    /// What differs without harm, in sentences.
    pub warnings: Vec<String>,
}

impl<C: BmcChannel> RedfishSystem<'_, C> {
    /// Reads the system again, and checks that the boot is shown, where this platform shows it; some take a few
    /// seconds.
    ///
    /// # Errors
    /// [`NotKept`], or the failure of a request.
    pub async fn read_back(
        &self,
        way: &ChosenWay,
        wanted: &HttpBootOverride,
    ) -> Result<BootReadBack, BootNotSet> {
        let mut waits = WAITS.into_iter();
        loop {
            match (self.read_back_once(way, wanted).await, waits.next()) {
                (Err(BootNotSet::NotKept(_)), Some(wait)) => self.service().pause(wait).await,
                (done, _) => return done,
            }
        }
    }

    async fn read_back_once(
        &self,
        way: &ChosenWay,
        wanted: &HttpBootOverride,
    ) -> Result<BootReadBack, BootNotSet> {
        let view = self.look().await?;
        let mut warnings = Vec::new();
        match &way.plan {
            WayPlan::HttpBootUri { place, uri_at, .. } => {
                let at = self.resource(&view, &place.path).await?;
                has_target(&at, place, "UefiHttp", &mut warnings)?;
                let holder = self.resource(&view, uri_at).await?;
                match has_uri(&holder, *uri_at != view.0.path, wanted, &mut warnings) {
                    Err(_) if quirks::shares_boot_uri(way.platform) => warnings.push(format!(
                        "{} shows the HttpBootUri of another machine: the fetch of the image confirms it",
                        way.platform
                    )),
                    done => done?,
                }
            }
            WayPlan::UefiHttp { place, .. } | WayPlan::UefiHttpAfterReset { place } => {
                has_target(
                    &self.resource(&view, &place.path).await?,
                    place,
                    "UefiHttp",
                    &mut warnings,
                )?;
            }
            WayPlan::Pxe { place } => {
                has_target(&self.resource(&view, &place.path).await?, place, "Pxe", &mut warnings)?;
            }
            WayPlan::VirtualMedia { place, drive, by } => {
                match by {
                    CdBoot::Target(target) => {
                        let at = self.resource(&view, &place.path).await?;
                        has_target(&at, place, target, &mut warnings)?;
                    }
                    CdBoot::DellFirstBootDevice => {
                        let at = self.dell_attributes().await?;
                        kept(DELL_DEVICE, DELL_CD, at.body["Attributes"][DELL_DEVICE].as_str())?;
                    }
                }
                let shown = self.service().shown_media(drive).await?;
                has_media(shown.as_deref(), drive, wanted, &mut warnings)?;
            }
            WayPlan::BootOption { place, .. } => {
                let at = self.resource(&view, &place.path).await?;
                is_enabled(&at, place, &mut warnings)?;
            }
            WayPlan::BootOrder { resource, order, .. } => {
                let at = self.resource(&view, resource).await?;
                let shown = BootObject::of(&at).list("BootOrder").unwrap_or_default();
                kept("BootOrder", &order.join(", "), Some(&shown.join(", ")))?;
            }
            WayPlan::DellHttpDevice { device, .. } => {
                let at = self.bios_settings(&device.settings).await?;
                let is_in_force = device.shown.get("HttpDev1Uri").and_then(Value::as_str)
                    == wanted.uri.as_deref();
                if !has_attribute(&at, "HttpDev1Uri", wanted)?
                    && !is_in_force
                    && self.waiting_bios_jobs().await?.is_empty()
                {
                    kept_url("HttpDev1Uri", wanted.uri.as_deref().unwrap_or_default(), None)?;
                }
            }
            WayPlan::HpeUrlBootFile { settings, .. } => {
                let at = self.bios_settings(settings).await?;
                has_attribute(&at, "UrlBootFile", wanted).map(drop)?;
            }
        }
        Ok(BootReadBack { view, warnings })
    }
}

pub(super) fn kept(
    property: &'static str,
    wanted: &str,
    shown: Option<&str>,
) -> Result<(), NotKept> {
    if shown == Some(wanted) {
        return Ok(());
    }
    let shown = shown.filter(|shown| !shown.is_empty()).unwrap_or("nothing").to_owned();
    Err(NotKept { property, wanted: wanted.to_owned(), shown })
}

/// The same for a boot URL, which has a ticket: it is not repeated in an error.
fn kept_url(property: &'static str, wanted: &str, shown: Option<&str>) -> Result<(), NotKept> {
    if shown == Some(wanted) {
        return Ok(());
    }
    let has_other = shown.is_some_and(|shown| !shown.is_empty());
    let shown = if has_other { "another value" } else { "nothing" }.to_owned();
    Err(NotKept { property, wanted: "the boot URL".to_owned(), shown })
}

/// Whether an override is in force. A settings resource may be empty until the reset applies it.
fn is_enabled(
    at: &RedfishResource,
    place: &OverridePlace,
    warnings: &mut Vec<String>,
) -> Result<bool, NotKept> {
    let enabled = BootObject::of(at).text("BootSourceOverrideEnabled");
    match enabled {
        // A BMC may support only one of the two values and keep that one. The next boot is the same, and Continuous
        // is cleared afterwards.
        Some("Once" | "Continuous") => Ok(true),
        Some(other) if ["once", "continuous"].contains(&other.to_ascii_lowercase().as_str()) => {
            warnings.push(format!("the BMC shows BootSourceOverrideEnabled as {other}"));
            Ok(true)
        }
        None | Some("Disabled" | "") if place.is_settings => {
            warnings.push(format!(
                "{} does not show the boot override yet: the fetch of the image will confirm it",
                place.path
            ));
            Ok(false)
        }
        None if !BootObject::of(at).shows("BootSourceOverrideEnabled") => {
            warnings.push(
                "the BMC does not show BootSourceOverrideEnabled: the boot override may last longer than one boot, \
                 until it is cleared"
                    .to_owned(),
            );
            Ok(true)
        }
        other => kept("BootSourceOverrideEnabled", "Once", other).map(|()| true),
    }
}

/// Another spelling of the target is no other target: sushy-tools shows `Cd` and `Pxe`, Supermicro `UefiBootNext`.
fn has_target(
    at: &RedfishResource,
    place: &OverridePlace,
    wanted: &str,
    warnings: &mut Vec<String>,
) -> Result<(), NotKept> {
    if !is_enabled(at, place, warnings)? {
        return Ok(());
    }
    let shown = BootObject::of(at).text("BootSourceOverrideTarget");
    match shown {
        Some(shown) if shown == wanted => Ok(()),
        Some(other)
            if matches!(
                other,
                "Cd" | "UsbCd" | "Pxe" | "UefiBootNext" | "UefiTarget" | "UefiHttp"
            ) || other.eq_ignore_ascii_case(wanted) =>
        {
            warnings.push(format!(
                "the BMC took BootSourceOverrideTarget {wanted} and shows it as {other}"
            ));
            Ok(())
        }
        other => kept("BootSourceOverrideTarget", wanted, other),
    }
}

fn has_uri(
    at: &RedfishResource,
    is_settings: bool,
    wanted: &HttpBootOverride,
    warnings: &mut Vec<String>,
) -> Result<(), NotKept> {
    let wanted = wanted.uri.as_deref().unwrap_or_default();
    match BootObject::of(at).text("HttpBootUri") {
        None | Some("") if is_settings => {
            warnings.push(format!(
                "{} does not show HttpBootUri yet: the fetch of the image will confirm it",
                at.path
            ));
            Ok(())
        }
        shown => kept_url("HttpBootUri", wanted, shown),
    }
}

/// Whether a drive has the image. Some BMCs show the URL without its scheme or its host, the name of the file alone, or
/// only that there is an image.
fn has_media(
    shown: Option<&str>,
    drive: &CdDrive,
    wanted: &HttpBootOverride,
    warnings: &mut Vec<String>,
) -> Result<(), NotKept> {
    let wanted = wanted.uri.as_deref().unwrap_or_default();
    let path = wanted.split_once("://").and_then(|(_, rest)| Some(&rest[rest.find('/')?..]));
    let file = wanted.rsplit('/').next().unwrap_or_default();
    let is_file = |shown: &str| shown.trim_start_matches(['/', '\\']) == file;
    match shown {
        Some("") => {
            warnings.push(format!(
                "{} has an image and does not show which: its reads will confirm it",
                drive.path
            ));
            Ok(())
        }
        Some(shown) if path.is_some_and(|path| shown.ends_with(path)) || is_file(shown) => Ok(()),
        shown => kept_url("Image", wanted, shown),
    }
}

/// Whether the pending BIOS settings show the URL, and no other. Some show only what a job has not taken yet.
fn has_attribute(
    at: &RedfishResource,
    name: &'static str,
    wanted: &HttpBootOverride,
) -> Result<bool, NotKept> {
    let wanted = wanted.uri.as_deref().unwrap_or_default();
    match at.body["Attributes"][name].as_str() {
        None => Ok(false),
        shown => kept_url(name, wanted, shown).map(|()| true),
    }
}
