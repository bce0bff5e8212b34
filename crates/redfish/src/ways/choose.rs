//! The choice of the way, by what the BMC shows.

use hardware::BootChange;
use serde_json::{Map, Value};

use super::bios::{self, HpeBootOrder, NoDellDevice};
use super::boot_option::{BootCards, OptionPick};
use super::chosen::{ChosenWay, WayPlan};
use super::errors::{BootNotSet, CannotHttpBoot};
use super::http_attributes;
use super::media_drive::{CdBoot, CdDrive};
use super::over::OverridePlace;
use super::reader::BootReader;
use super::virtual_media::cd_target;
use super::wanted::{BootNeed, MediaUse};
use crate::channel::BmcChannel;
use crate::machine::RedfishSystem;
use crate::platform::BmcPlatform;
use crate::quirks;
use crate::resource::RedfishResource;
use crate::system::{BootObject, SystemView};

/// What the override of a system shows.
struct ShownOverride {
    place: Option<OverridePlace>,
    /// The targets that the system or its settings list; `None` if neither has a list.
    targets: Option<Vec<String>>,
    /// The resource that shows `HttpBootUri`.
    uri_at: Option<String>,
    /// Whether an override mode is shown as `Legacy`.
    may_be_bios: bool,
    /// Whether `Legacy` is the only mode that is allowed.
    is_bios_only: bool,
    /// `UefiTargetBootSourceOverride@Redfish.AllowableValues`.
    device_paths: Vec<String>,
}

impl ShownOverride {
    fn of(
        platform: BmcPlatform,
        system: &RedfishResource,
        settings: Option<&RedfishResource>,
    ) -> Self {
        let resources: Vec<_> = settings.into_iter().chain([system]).collect();
        let boots = || resources.iter().map(|resource| BootObject::of(resource));
        let mut targets = None;
        for listed in boots().filter_map(|boot| boot.allowed("BootSourceOverrideTarget")) {
            let all: &mut Vec<String> = targets.get_or_insert_default();
            all.extend(listed.into_iter().map(str::to_owned));
        }
        if let Some(targets) = &mut targets {
            let mut seen = Vec::new();
            targets.retain(|target| {
                let is_new = !seen.contains(target);
                seen.push(target.clone());
                is_new
            });
        }
        let has_uri = |resource: &&&RedfishResource| BootObject::of(resource).shows("HttpBootUri");
        let paths =
            boots().filter_map(|boot| boot.allowed("UefiTargetBootSourceOverride")).flatten();
        Self {
            place: OverridePlace::of(platform, system, settings),
            targets,
            uri_at: resources.iter().find(has_uri).map(|resource| resource.path.clone()),
            may_be_bios: boots().any(|boot| boot.text("BootSourceOverrideMode") == Some("Legacy")),
            is_bios_only: boots()
                .filter_map(|boot| boot.allowed("BootSourceOverrideMode"))
                .any(|modes| modes == ["Legacy"]),
            device_paths: paths.map(str::to_owned).collect(),
        }
    }

    fn lists(&self, wanted: &str) -> bool {
        self.targets.as_ref().is_some_and(|targets| targets.iter().any(|target| target == wanted))
    }

    /// Whether a target is listed, or nothing is.
    fn may_take(&self, wanted: &str) -> bool {
        self.targets.is_none() || self.lists(wanted)
    }
}

impl<C: BmcChannel> RedfishSystem<'_, C> {
    /// The way in which this BMC has its machine boot over HTTP.
    ///
    /// # Errors
    /// [`BootNotSet::Cannot`] if it has none, or the failure of a request.
    pub async fn choose_way(
        &self,
        view: &SystemView,
        need: &BootNeed<'_>,
    ) -> Result<ChosenWay, BootNotSet> {
        BootReader::new(self.service(), view, self.facts()).choose(need).await
    }
}

impl<C: BmcChannel> BootReader<'_, '_, C> {
    /// The way of this BMC for `need`, and what an operator should know about it.
    ///
    /// # Errors
    /// [`BootNotSet::Cannot`] if there is none, or the failure of a request.
    async fn choose(&mut self, need: &BootNeed<'_>) -> Result<ChosenWay, BootNotSet> {
        if SystemView(self.system.clone()).reset_action().is_none() {
            return Err(CannotHttpBoot::NoReset.into());
        }
        let platform = self.platform_by_system();
        let system = self.system;
        let shown = ShownOverride::of(platform, system, self.settings().await?);
        let mut warnings = self.boot_mode(&shown, need.media == MediaUse::Only).await?;
        let is_standard = need.by_url && shown.uri_at.as_ref() == Some(&system.path);
        // The standard's own way needs no more requests.
        let platform = if is_standard { platform } else { self.platform().await? };
        let shown = ShownOverride::of(platform, system, self.settings().await?);
        if shown.targets.is_none() && shown.place.is_some() {
            warnings.push(
                "the BMC does not say which boot targets it allows (no \
                 BootSourceOverrideTarget@Redfish.AllowableValues): UefiHttp is tried"
                    .to_owned(),
            );
        }
        if let Some(support) = need.advice {
            let mut attributes = self.attributes().await?;
            // The ways by these attributes set what else they need themselves.
            attributes.retain(|name, _| {
                !need.by_url || !(name.starts_with("HttpDev1") || name == "HttpSupport")
            });
            warnings.extend(http_attributes::advice(&attributes, support));
        }
        let plan = match (need.by_url, need.media) {
            (_, MediaUse::Only) => self.virtual_media(&shown).await?,
            (true, media) => match self.by_url(platform, &shown, need).await? {
                Ok(plan) => plan,
                Err(cannot) if media == MediaUse::AsFallback => {
                    warnings.push(format!("{cannot}; the virtual CD drive is used"));
                    self.virtual_media(&shown).await?
                }
                Err(cannot) => return Err(cannot.into()),
            },
            (false, _) => {
                if quirks::has_url_in_bios(platform) {
                    warnings.extend(bios::leftover_urls(&self.attributes().await?));
                }
                self.by_dhcp(platform, &shown, need).await?
            }
        };
        if let WayPlan::HttpBootUri { drive: Some(_), .. } = plan {
            warnings.push(format!(
                "{platform} fetches the image itself, and its machine boots it as a CD"
            ));
        }
        if let WayPlan::UefiHttpAfterReset { .. } = plan {
            warnings.push(
                "UefiHttp is not among the boot targets while BootSourceOverrideMode is Legacy: the boot sends UEFI, \
                 resets the machine once, and looks again; it fails if UefiHttp is not there then"
                    .to_owned(),
            );
        }
        let changes = plan.changes();
        Ok(ChosenWay { platform, warnings, plan, changes })
    }

    /// BIOS mode is what a BIOS attribute says. `BootSourceOverrideMode` is the override's, and says nothing while no
    /// override is set: XCC and AMI show `Legacy` on UEFI machines then.
    async fn boot_mode(
        &mut self,
        shown: &ShownOverride,
        is_media: bool,
    ) -> Result<Vec<String>, BootNotSet> {
        if !shown.may_be_bios {
            return Ok(Vec::new());
        }
        if shown.is_bios_only {
            let attribute = "BootSourceOverrideMode@Redfish.AllowableValues".to_owned();
            let value = "Legacy".to_owned();
            return Err(CannotHttpBoot::BiosMode { attribute, value, is_media }.into());
        }
        let attributes: Map<String, Value> = self.attributes().await?;
        if let Some((attribute, value)) = bios::bios_mode(&attributes) {
            return Err(CannotHttpBoot::BiosMode { attribute, value, is_media }.into());
        }
        Ok(vec![
            "the BMC shows BootSourceOverrideMode as Legacy, and no BIOS attribute says in which mode the machine \
             boots: it may be in BIOS mode, and UEFI is tried"
                .to_owned(),
        ])
    }

    async fn by_url(
        &mut self,
        platform: BmcPlatform,
        shown: &ShownOverride,
        need: &BootNeed<'_>,
    ) -> Result<Result<WayPlan, CannotHttpBoot>, BootNotSet> {
        let mode = if shown.may_be_bios { "; the machine may be in BIOS mode" } else { "" };
        let Some(place) = shown.place.clone() else {
            return Ok(Err(CannotHttpBoot::NoOverride));
        };
        if let Some(uri_at) = &shown.uri_at
            && shown.may_take("UefiHttp")
        {
            let from_cd = quirks::boots_url_from_cd(platform);
            let drive = if from_cd { self.cd_drive().await? } else { None };
            return Ok(Ok(WayPlan::HttpBootUri { place, uri_at: uri_at.clone(), drive }));
        }
        let advice = advice_without_url(platform, shown);
        let absent = CannotHttpBoot::NoUrl { platform, advice, mode };
        match platform {
            BmcPlatform::DellIdrac => {
                let device = self.dell_http_device(need.macs).await?;
                Ok(device.map(|device| WayPlan::DellHttpDevice { place, device }).map_err(
                    |no_device| match no_device {
                        NoDellDevice::Missing => absent,
                        NoDellDevice::ReadOnly => CannotHttpBoot::Attribute {
                            attribute: "HttpDev1Uri",
                            problem: "the BIOS registry says that it is read-only: use boot_interface http or \
                                      http-ipxe",
                        },
                    },
                ))
            }
            BmcPlatform::HpeIlo5 => Ok(self.hpe_url(place, None).await?.ok_or(absent)),
            BmcPlatform::HpeIlo6 => {
                let order = self.hpe_boot_order().await?;
                Ok(self.hpe_url(place, order).await?.ok_or(absent))
            }
            BmcPlatform::LenovoXcc
            | BmcPlatform::Supermicro
            | BmcPlatform::Ami
            | BmcPlatform::AsrockRack
            | BmcPlatform::Nvidia
            | BmcPlatform::OpenBmc
            | BmcPlatform::Cisco
            | BmcPlatform::Huawei
            | BmcPlatform::Fujitsu
            | BmcPlatform::SushyTools
            | BmcPlatform::Standard => Ok(Err(absent)),
        }
    }

    async fn hpe_url(
        &mut self,
        place: OverridePlace,
        order: Option<HpeBootOrder>,
    ) -> Result<Option<WayPlan>, BootNotSet> {
        if !self.attributes().await?.contains_key("UrlBootFile") {
            return Ok(None);
        }
        let platform = self.platform().await?;
        let settings = self.bios().await?.map(|bios| bios::settings_of(bios, platform));
        Ok(settings.map(|settings| WayPlan::HpeUrlBootFile { place, settings, order }))
    }

    async fn by_dhcp(
        &mut self,
        platform: BmcPlatform,
        shown: &ShownOverride,
        need: &BootNeed<'_>,
    ) -> Result<WayPlan, BootNotSet> {
        if let Some(place) = &shown.place {
            let paths: Vec<_> = shown.device_paths.iter().map(String::as_str).collect();
            let cards = BootCards { macs: need.macs, allows_pxe: false };
            let path = cards.best_device_path(&paths).map(str::to_owned);
            // iLO 6 refuses UefiHttp on some releases (libredfish#76), and lists the cards' own paths.
            let by_path = platform == BmcPlatform::HpeIlo6 || !shown.may_take("UefiHttp");
            if let (true, true, Some(path)) = (by_path, shown.lists("UefiTarget"), path) {
                let pick = OptionPick::UefiTarget(path.clone());
                return Ok(WayPlan::BootOption { place: place.clone(), reference: path, pick });
            }
            if shown.may_take("UefiHttp") {
                let uri_at = shown.uri_at.clone();
                return Ok(WayPlan::UefiHttp { place: place.clone(), uri_at });
            }
        }
        if let Some(plan) = self.boot_option(shown, need).await? {
            return Ok(plan);
        }
        if let Some(place) = &shown.place
            && place.sends_mode()
            && shown.may_be_bios
            && quirks::lists_http_after_uefi_mode(platform)
        {
            return Ok(WayPlan::UefiHttpAfterReset { place: place.clone() });
        }
        if let Some(place) = &shown.place
            && shown.lists("Pxe")
            && (quirks::tries_http_for_pxe(platform) || need.allows_pxe)
        {
            return Ok(WayPlan::Pxe { place: place.clone() });
        }
        let Some(targets) = &shown.targets else {
            return Err(CannotHttpBoot::NoHttpOption.into());
        };
        let advice = if shown.lists("Pxe") {
            ": PXE would do if it is allowed (tftp in [dhcp])"
        } else {
            ""
        };
        Err(CannotHttpBoot::NoUefiHttp { targets: targets.join(", "), advice }.into())
    }

    /// The boot option of the node's card, where `UefiHttp` is missing.
    async fn boot_option(
        &mut self,
        shown: &ShownOverride,
        need: &BootNeed<'_>,
    ) -> Result<Option<WayPlan>, BootNotSet> {
        if need.macs.is_empty() {
            return Ok(None);
        }
        let cards = BootCards { macs: need.macs, allows_pxe: need.allows_pxe };
        let options =
            self.boot_options(|option| cards.rank(&option.device_path) == Some(0)).await?;
        let Some(option) = cards.best_option(&options) else { return Ok(None) };
        let reference = option.reference.clone();
        if let Some(place) = &shown.place {
            let pick = if shown.lists("UefiBootNext") {
                Some(OptionPick::BootNext)
            } else if shown.lists("UefiTarget") {
                Some(OptionPick::UefiTarget(option.device_path.clone()))
            } else {
                None
            };
            if let Some(pick) = pick {
                return Ok(Some(WayPlan::BootOption { place: place.clone(), reference, pick }));
            }
        }
        let Some((resource, before)) = self.boot_order().await? else { return Ok(None) };
        // Vera Rubin's orders have the names as well: `Boot0019: Ubuntu` (nv-redfish's quirks).
        let is_option = |entry: &&String| {
            entry
                .strip_prefix(&reference)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        };
        Ok(before.iter().find(is_option).cloned().map(|entry| {
            let rest = before.iter().filter(|other| **other != entry);
            let order = [&entry].into_iter().chain(rest).cloned().collect();
            WayPlan::BootOrder { resource, order, before }
        }))
    }

    async fn virtual_media(&mut self, shown: &ShownOverride) -> Result<WayPlan, BootNotSet> {
        let Some(place) = shown.place.clone() else {
            return Err(CannotHttpBoot::NoOverride.into());
        };
        let Some((drive, firmware)) = self.cd_drive_of().await? else {
            return Err(CannotHttpBoot::NoVirtualMedia.into());
        };
        let platform = self.platform_by_system();
        if quirks::boots_only_real_cds(platform, &firmware) {
            return Ok(WayPlan::VirtualMedia { place, drive, by: CdBoot::DellFirstBootDevice });
        }
        let Some(target) = cd_target(platform, &self.system.body, shown.targets.as_deref()) else {
            let targets = shown.targets.as_ref().map(|targets| targets.join(", "));
            return Err(CannotHttpBoot::NoCdTarget { targets: targets.unwrap_or_default() }.into());
        };
        Ok(WayPlan::VirtualMedia { place, drive, by: CdBoot::Target(target) })
    }
}

impl WayPlan {
    fn changes(&self) -> Vec<BootChange> {
        let url = |settings: &String, attribute: &str| BootChange::BiosUrl {
            settings: settings.clone(),
            attribute: attribute.to_owned(),
        };
        let order = |resource: &String, property: &str, before: &[String]| BootChange::Order {
            resource: resource.clone(),
            property: property.to_owned(),
            before: before.to_vec(),
        };
        let media = |drive: &CdDrive| BootChange::Media { drive: drive.path.clone() };
        match self {
            Self::UefiHttp { .. }
            | Self::UefiHttpAfterReset { .. }
            | Self::Pxe { .. }
            | Self::BootOption { .. } => Vec::new(),
            Self::HttpBootUri { drive, .. } => drive.iter().map(media).collect(),
            Self::DellHttpDevice { device, .. } => vec![url(&device.settings, "HttpDev1Uri")],
            Self::HpeUrlBootFile { settings, order: persistent, .. } => {
                let persistent = persistent.iter().map(|persistent| {
                    order(&persistent.resource, "PersistentBootConfigOrder", &persistent.before)
                });
                [url(settings, "UrlBootFile")].into_iter().chain(persistent).collect()
            }
            Self::BootOrder { resource, before, .. } => vec![order(resource, "BootOrder", before)],
            Self::VirtualMedia { drive, .. } => vec![media(drive)],
        }
    }
}

/// What works in place of a URL.
fn advice_without_url(platform: BmcPlatform, shown: &ShownOverride) -> &'static str {
    let by_dhcp = shown.may_take("UefiHttp") || shown.lists("Pxe");
    match platform {
        BmcPlatform::Supermicro => {
            ": newer firmware has HttpBootUri; else use boot_interface http or http-ipxe"
        }
        BmcPlatform::OpenBmc | BmcPlatform::Nvidia => {
            ": use boot_interface redfish-virtual-media, http or http-ipxe"
        }
        BmcPlatform::DellIdrac
        | BmcPlatform::HpeIlo5
        | BmcPlatform::HpeIlo6
        | BmcPlatform::LenovoXcc
        | BmcPlatform::Ami
        | BmcPlatform::AsrockRack
        | BmcPlatform::Cisco
        | BmcPlatform::Huawei
        | BmcPlatform::Fujitsu
        | BmcPlatform::SushyTools
        | BmcPlatform::Standard => {
            if by_dhcp {
                ": use boot_interface http or http-ipxe"
            } else {
                ""
            }
        }
    }
}
