//! The setting of a boot, for each way. Each can be begun anew at any time: none depends on how far it came before.

use std::time::Duration;

use hardware::RedfishPurpose;
use http::StatusCode;
use serde_json::{Map, Value, json};
use url::{Host, Url};

use super::bios::{DellHttpDevice, HpeBootOrder};
use super::boot_option::OptionPick;
use super::chosen::{ChosenWay, WayPlan};
use super::errors::{BootNotSet, CannotHttpBoot};
use super::media_drive::CdBoot;
use super::over::{FORMS, OverridePlace, boot_body, other_form};
use super::wanted::{HttpBootOverride, OverrideEnabled};
use crate::channel::BmcChannel;
use crate::failure::BmcFailure;
use crate::machine::RedfishSystem;
use crate::resource::RedfishResource;
use crate::service::TaskEnd;
use crate::system::{BootObject, SystemPower, SystemView};

/// HPE's name of the boot entry for `UrlBootFile` (python-ilorest-library#123).
const HPE_URL_ENTRY: &str = "File.URL.1.1";
/// iDRAC's attribute of the device that it boots next.
pub(super) const DELL_DEVICE: &str = "ServerBoot.1.FirstBootDevice";
/// Its virtual CD drive there.
pub(super) const DELL_CD: &str = "VCD-DVD";
/// Number limit of jobs that are read.
const MOST_JOBS: usize = 100;
/// Time limit of a reset that only enables Dell's HTTP device.
const ENABLING: Duration = Duration::from_secs(900);
/// Time limit of a start in UEFI mode, after which the targets are listed: a self-test.
const IN_UEFI_MODE: Duration = Duration::from_secs(600);
/// Time for a power change.
const POWER_FOLLOWS: Duration = Duration::from_secs(90);

impl<C: BmcChannel> RedfishSystem<'_, C> {
    /// Sets a boot. `view` is the latest state of the system. Returns the path of the job that the next reset runs for
    /// it, if there is one.
    ///
    /// # Errors
    /// [`BootNotSet::Cannot`] if a target is still missing after a reset that should have brought it, or the failure of a
    /// request.
    pub async fn set_boot(
        &self,
        view: &SystemView,
        way: &ChosenWay,
        wanted: &HttpBootOverride,
    ) -> Result<Option<String>, BootNotSet> {
        if let WayPlan::UefiHttpAfterReset { place } = &way.plan {
            let view = self.reset_in_uefi_mode(view, place).await?;
            self.set_target(&view, place, wanted.enabled, "UefiHttp").await?;
            return Ok(None);
        }
        Ok(self.set_by_plan(view, &way.plan, wanted).await?)
    }

    async fn set_by_plan(
        &self,
        view: &SystemView,
        plan: &WayPlan,
        wanted: &HttpBootOverride,
    ) -> Result<Option<String>, BmcFailure> {
        let url = wanted.uri.as_deref().unwrap_or_default();
        let set = match plan {
            WayPlan::HttpBootUri { place, uri_at, .. } => {
                self.set_with_uri(view, place, uri_at, wanted.enabled, json!(url)).await
            }
            WayPlan::UefiHttp { place, uri_at } => match uri_at {
                // A URL of an older boot would take precedence over DHCP's.
                Some(uri_at) if self.has_url(view, uri_at).await? => {
                    self.set_with_uri(view, place, uri_at, wanted.enabled, Value::Null).await
                }
                Some(_) | None => self.set_target(view, place, wanted.enabled, "UefiHttp").await,
            },
            WayPlan::UefiHttpAfterReset { place } => {
                self.set_target(view, place, wanted.enabled, "UefiHttp").await
            }
            WayPlan::Pxe { place } => self.set_target(view, place, wanted.enabled, "Pxe").await,
            WayPlan::BootOption { place, reference, pick } => {
                self.set_option(view, place, wanted.enabled, reference, pick).await
            }
            WayPlan::BootOrder { resource, order, .. } => {
                let boot = json!({ "Boot": { "BootOrder": order } });
                let resource = self.resource(view, resource).await?;
                let purpose = RedfishPurpose::SetBootOrder;
                self.service().patch(purpose, &resource, boot, TaskEnd::Awaited).await.map(drop)
            }
            WayPlan::DellHttpDevice { place, device } => {
                let job = self.set_dell(view, device, url).await?;
                self.set_dell_target(view, place, wanted.enabled).await?;
                return Ok(job);
            }
            WayPlan::HpeUrlBootFile { place, settings, order } => {
                self.set_hpe(settings, url).await?;
                let set = self.set_target(view, place, wanted.enabled, "UefiHttp").await;
                self.set_hpe_order(set, order.as_ref()).await
            }
            WayPlan::VirtualMedia { place, drive, by } => {
                self.service().insert_media(drive, url).await?;
                match by {
                    CdBoot::Target(target) => {
                        self.set_target(view, place, wanted.enabled, target).await
                    }
                    CdBoot::DellFirstBootDevice => {
                        self.set_dell_device(place.enabled(wanted.enabled), DELL_CD).await
                    }
                }
            }
        };
        set.map(|()| None)
    }

    /// Starts the machine once in UEFI mode, and switches it off again; unless `UefiHttp` is listed already.
    async fn reset_in_uefi_mode(
        &self,
        view: &SystemView,
        place: &OverridePlace,
    ) -> Result<SystemView, BootNotSet> {
        let lists_http = |view: &SystemView| {
            let listed = view.boot().allowed("BootSourceOverrideTarget");
            listed.is_some_and(|listed| listed.contains(&"UefiHttp"))
        };
        if lists_http(view) {
            return Ok(view.clone());
        }
        self.set_target(view, place, OverrideEnabled::Once, "None").await?;
        self.power_on(view).await?;
        let (mut left, mut wait) = (IN_UEFI_MODE, Duration::from_secs(5));
        let mut shown = self.look().await?;
        while !lists_http(&shown) && !left.is_zero() {
            let now = wait.min(left);
            self.service().pause(now).await;
            left -= now;
            wait = (wait * 2).min(Duration::from_secs(30));
            shown = self.look().await?;
        }
        self.power_off(&shown).await?;
        let view = self.await_power(SystemPower::Off, POWER_FOLLOWS).await?;
        if lists_http(&view) {
            return Ok(view);
        }
        let targets = view.boot().allowed("BootSourceOverrideTarget").unwrap_or_default();
        let targets = targets.join(", ");
        let advice = ", even after a start in UEFI mode";
        Err(CannotHttpBoot::NoUefiHttp { targets, advice }.into())
    }

    /// The resource at `path`: the system as it was just seen, or another one, read now.
    pub(super) async fn resource(
        &self,
        view: &SystemView,
        path: &str,
    ) -> Result<RedfishResource, BmcFailure> {
        if path == view.0.path {
            return Ok(view.0.clone());
        }
        self.service().get(RedfishPurpose::ReadSettings, path).await
    }

    async fn has_url(&self, view: &SystemView, path: &str) -> Result<bool, BmcFailure> {
        Ok(BootObject::of(&self.resource(view, path).await?).has_url())
    }

    pub(super) async fn patch_boot(
        &self,
        resource: &RedfishResource,
        boot: Map<String, Value>,
    ) -> Result<(), BmcFailure> {
        let purpose = RedfishPurpose::BootOverride;
        let (mut boot, mut first) = (boot, None);
        for _ in 0..FORMS {
            let body = boot_body(boot.clone());
            let patched = self.service().patch(purpose, resource, body, TaskEnd::Awaited).await;
            let Err(failure) = patched else { return Ok(()) };
            let other = other_form(boot, &failure, BootObject::of(resource));
            // The first refusal says more, if what differs was not its reason.
            let failure = first.unwrap_or(failure);
            let Some(other) = other else { return Err(failure) };
            (boot, first) = (other, Some(failure));
        }
        Err(first.expect("there is at least one form, which was refused"))
    }

    async fn set_target(
        &self,
        view: &SystemView,
        place: &OverridePlace,
        enabled: OverrideEnabled,
        target: &str,
    ) -> Result<(), BmcFailure> {
        let resource = self.resource(view, &place.path).await?;
        self.patch_boot(&resource, place.properties(enabled, target)).await
    }

    /// Sets the override with `HttpBootUri`, in one request if one resource takes both.
    async fn set_with_uri(
        &self,
        view: &SystemView,
        place: &OverridePlace,
        uri_at: &str,
        enabled: OverrideEnabled,
        uri: Value,
    ) -> Result<(), BmcFailure> {
        let resource = self.resource(view, &place.path).await?;
        let mut boot = place.properties(enabled, "UefiHttp");
        if uri_at == place.path {
            boot.insert("HttpBootUri".into(), uri);
            return self.patch_boot(&resource, boot).await;
        }
        let holder = self.resource(view, uri_at).await?;
        self.patch_boot(&holder, Map::from_iter([("HttpBootUri".to_owned(), uri)])).await?;
        self.patch_boot(&resource, boot).await
    }

    async fn set_option(
        &self,
        view: &SystemView,
        place: &OverridePlace,
        enabled: OverrideEnabled,
        reference: &str,
        pick: &OptionPick,
    ) -> Result<(), BmcFailure> {
        let (target, property, value) = match pick {
            OptionPick::BootNext => ("UefiBootNext", "BootNext", reference),
            OptionPick::UefiTarget(path) => {
                ("UefiTarget", "UefiTargetBootSourceOverride", path.as_str())
            }
        };
        let resource = self.resource(view, &place.path).await?;
        let mut boot = place.properties(enabled, target);
        boot.insert(property.to_owned(), json!(value));
        self.patch_boot(&resource, boot).await
    }

    /// Dell: the URL is staged as a job, which the next reset runs. A job of before is replaced.
    async fn set_dell(
        &self,
        view: &SystemView,
        device: &DellHttpDevice,
        url: &str,
    ) -> Result<Option<String>, BmcFailure> {
        let attributes = dell_attributes(device, url);
        let is_in_force =
            attributes.iter().all(|(name, value)| device.shown.get(name) == Some(value));
        if is_in_force {
            return Ok(None);
        }
        match self.stage_bios(&device.settings, attributes.clone()).await {
            Err(failure) if failure.has_message("SYS011") => {
                let waiting = self.delete_bios_jobs(&device.settings).await?;
                let all = waiting.into_iter().chain(attributes).collect();
                self.stage_bios(&device.settings, all).await
            }
            Err(failure) if !device.is_enabled && failure.status() == Some(400) => {
                self.enable_dell_device(view, device).await?;
                self.stage_bios(&device.settings, attributes).await
            }
            done => done,
        }
    }

    /// The BIOS settings resource. Where it cannot be read, it may still take a change.
    pub(super) async fn bios_settings(&self, path: &str) -> Result<RedfishResource, BmcFailure> {
        let found = self.service().find(RedfishPurpose::ReadBios, path).await?;
        Ok(found.unwrap_or_else(|| RedfishResource {
            path: path.to_owned(),
            etag: None,
            body: Value::Null,
        }))
    }

    /// Stages BIOS attributes for the next reset. Returns the path of the job, if the BMC makes one. Without an apply
    /// time, iDRAC stages them as deferred, and no reset runs them.
    async fn stage_bios(
        &self,
        settings: &str,
        attributes: Map<String, Value>,
    ) -> Result<Option<String>, BmcFailure> {
        let resource = self.bios_settings(settings).await?;
        let body = json!({
            "@Redfish.SettingsApplyTime": { "ApplyTime": "OnReset" },
            "Attributes": attributes,
        });
        let purpose = RedfishPurpose::SetBios;
        Ok(self.service().patch(purpose, &resource, body, TaskEnd::AtReset).await?.location)
    }

    /// Deletes jobs for the BIOS that wait for a reset. Returns the attributes that they would have set.
    pub(super) async fn delete_bios_jobs(
        &self,
        settings: &str,
    ) -> Result<Map<String, Value>, BmcFailure> {
        let pending = self.service().get(RedfishPurpose::ReadBios, settings).await?;
        let pending = pending.body["Attributes"].as_object().cloned().unwrap_or_default();
        for job in self.waiting_bios_jobs().await? {
            self.service().delete(RedfishPurpose::DeleteJob, &job).await?;
        }
        Ok(pending)
    }

    /// The paths of jobs for the BIOS that wait for a reset.
    pub(super) async fn waiting_bios_jobs(&self) -> Result<Vec<String>, BmcFailure> {
        let jobs = self
            .service()
            .collection(RedfishPurpose::ReadJobs, "/redfish/v1/JobService/Jobs")
            .await?;
        let jobs = jobs.map(|jobs| jobs.members()).unwrap_or_default();
        let mut waiting = Vec::new();
        for path in jobs.iter().rev().take(MOST_JOBS) {
            let Some(job) = self.service().find(RedfishPurpose::ReadJobs, path).await? else {
                continue;
            };
            let text = |name: &str| job.body[name].as_str().unwrap_or_default();
            let waits = matches!(text("JobState"), "New" | "Scheduled" | "Pending");
            let is_bios =
                [text("JobType"), text("Name")].iter().any(|it| it.to_uppercase().contains("BIOS"));
            if waits && is_bios {
                waiting.push(path.clone());
            }
        }
        Ok(waiting)
    }

    /// Some BIOS releases take the device's attributes only when it is enabled, which takes a reset of its own.
    async fn enable_dell_device(
        &self,
        view: &SystemView,
        device: &DellHttpDevice,
    ) -> Result<(), BmcFailure> {
        let enabled = Map::from_iter([("HttpDev1EnDis".to_owned(), json!("Enabled"))]);
        let job = self.stage_bios(&device.settings, enabled).await?;
        self.power_on(view).await?;
        if let Some(job) = job {
            let service = self.service();
            let rounds = ENABLING.as_secs() / self.patience().as_secs().max(1) + 1;
            for round in 1..=rounds {
                match service
                    .await_task(RedfishPurpose::SetBios, &job, None, TaskEnd::Completed)
                    .await
                {
                    Err(BmcFailure::TaskFailed { state, .. })
                        if state == "Running" && round < rounds => {}
                    done => {
                        done?;
                        break;
                    }
                }
            }
        }
        let view = self.look().await?;
        self.power_off(&view).await?;
        self.await_power(SystemPower::Off, POWER_FOLLOWS).await.map(drop)
    }

    /// Dell's iDRAC sets its own attributes where the override is read-only (bmclib#470).
    async fn set_dell_target(
        &self,
        view: &SystemView,
        place: &OverridePlace,
        enabled: OverrideEnabled,
    ) -> Result<(), BmcFailure> {
        match self.set_target(view, place, enabled, "UefiHttp").await {
            Err(failure) if failure.has_message("PropertyNotWritable") => {
                self.set_dell_device(place.enabled(enabled), "UefiHttp").await
            }
            done => done,
        }
    }

    /// iDRAC's own form of a boot override.
    async fn set_dell_device(
        &self,
        enabled: OverrideEnabled,
        device: &str,
    ) -> Result<(), BmcFailure> {
        let once = match enabled {
            OverrideEnabled::Once => "Enabled",
            OverrideEnabled::Continuous => "Disabled",
        };
        let resource = self.dell_attributes().await?;
        // An apply time is refused here.
        let body = json!({ "Attributes": { DELL_DEVICE: device, "ServerBoot.1.BootOnce": once } });
        let purpose = RedfishPurpose::BootOverride;
        self.service().patch(purpose, &resource, body, TaskEnd::Awaited).await.map(drop)
    }

    /// iDRAC's own attributes; before 5.00 at another path.
    pub(super) async fn dell_attributes(&self) -> Result<RedfishResource, BmcFailure> {
        const MANAGER: &str = "/redfish/v1/Managers/iDRAC.Embedded.1";
        const PURPOSE: RedfishPurpose = RedfishPurpose::ReadSettings;
        let path = format!("{MANAGER}/Oem/Dell/DellAttributes/iDRAC.Embedded.1");
        match self.service().find(PURPOSE, &path).await? {
            Some(found) => Ok(found),
            None => self.service().get(PURPOSE, &format!("{MANAGER}/Attributes")).await,
        }
    }

    /// HPE: the URL is a BIOS attribute, which becomes a boot entry at the next self-test.
    async fn set_hpe(&self, settings: &str, url: &str) -> Result<(), BmcFailure> {
        let resource = self.bios_settings(settings).await?;
        let shown = resource.body["Attributes"].as_object().cloned().unwrap_or_default();
        let support = if url.starts_with("https:") { "HttpOnly" } else { "HttpsOnly" };
        let mut attributes = Map::from_iter([("UrlBootFile".to_owned(), json!(url))]);
        for (name, value) in [("PreBootNetwork", "Auto"), ("Dhcpv4", "Enabled")] {
            if shown.contains_key(name) && shown[name] != value {
                attributes.insert(name.to_owned(), json!(value));
            }
        }
        let http = shown.get("HttpSupport").and_then(Value::as_str);
        if http.is_some_and(|http| http == "Disabled" || http == support) {
            attributes.insert("HttpSupport".to_owned(), json!("Auto"));
        }
        let purpose = RedfishPurpose::SetBios;
        let body = json!({ "Attributes": attributes });
        self.service().patch(purpose, &resource, body, TaskEnd::Awaited).await.map(drop)
    }

    /// iLO 6 refuses the override on some releases: then the URL's entry goes first in the persistent order.
    async fn set_hpe_order(
        &self,
        set: Result<(), BmcFailure>,
        order: Option<&HpeBootOrder>,
    ) -> Result<(), BmcFailure> {
        let (Err(failure), Some(order)) = (&set, order) else { return set };
        if failure.status() != Some(StatusCode::BAD_REQUEST.as_u16()) {
            return set;
        }
        let rest = order.before.iter().map(String::as_str).filter(|entry| *entry != HPE_URL_ENTRY);
        let entries: Vec<_> = [HPE_URL_ENTRY].into_iter().chain(rest).collect();
        let resource = self.service().get(RedfishPurpose::ReadBios, &order.resource).await?;
        let body = json!({ "PersistentBootConfigOrder": entries });
        let purpose = RedfishPurpose::SetBootOrder;
        self.service().patch(purpose, &resource, body, TaskEnd::Awaited).await.map(drop)
    }
}

/// The attributes for a boot from `url`, of those that the BIOS shows.
fn dell_attributes(device: &DellHttpDevice, url: &str) -> Map<String, Value> {
    let parsed = Url::parse(url).ok();
    let is_ipv6 = parsed.as_ref().is_some_and(|url| matches!(url.host(), Some(Host::Ipv6(_))));
    let is_https = parsed.is_some_and(|url| url.scheme() == "https");
    let tls = if is_https { "OneWay" } else { device.tls_off.as_str() };
    let mut attributes = Map::new();
    let mut set = |name: &str, value: &str| {
        if device.shown.contains_key(name) {
            attributes.insert(name.to_owned(), json!(value));
        }
    };
    set("HttpDev1EnDis", "Enabled");
    set("HttpDev1Uri", url);
    set("HttpDev1Protocol", if is_ipv6 { "IPv6" } else { "IPv4" });
    set("HttpDev1DhcpEnDis", "Enabled");
    set("HttpDev1TlsMode", tls);
    if let Some(interface) = &device.interface {
        set("HttpDev1Interface", interface);
    }
    attributes
}
