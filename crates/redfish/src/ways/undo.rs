//! The end of a boot: the override cleared, and everything else as it was before.

use hardware::{BootChange, RedfishPurpose};
use serde_json::{Map, Value, json};

use super::over::{self, boot_body};
use super::reader::unless_refused;
use crate::channel::BmcChannel;
use crate::failure::BmcFailure;
use crate::machine::RedfishSystem;
use crate::platform::BmcPlatform;
use crate::quirks;
use crate::resource::{RedfishResource, strings};
use crate::service::TaskEnd;
use crate::system::{BootObject, SystemView};

const ENABLED: &str = "BootSourceOverrideEnabled";
const TARGET: &str = "BootSourceOverrideTarget";

/// What a boot left of its override at a resource.
#[derive(Clone, Copy)]
struct LeftOverride {
    /// The target, if only in order to clear the URL with it.
    target: bool,
    /// Whether the target is set: the machine would boot by it.
    is_in_force: bool,
    /// `HttpBootUri`.
    url: bool,
}

impl LeftOverride {
    /// Where a target can be set, it is cleared with the URL.
    fn of(shown: BootObject<'_>, platform: BmcPlatform) -> Self {
        let url = shown.has_url() && !quirks::shares_boot_uri(platform);
        let is_in_force = shown.has_override();
        Self { target: (is_in_force || url) && shown.shows(TARGET), is_in_force, url }
    }

    /// The properties that clear it, in the forms to be tried in turn: some BMCs refuse the usual target, others
    /// know no `Disabled`, and some refuse null for a string.
    fn cleared(self, usual_target: Option<&str>) -> Vec<Map<String, Value>> {
        const DISABLED: (&str, &str) = (ENABLED, "Disabled");
        let forms = match usual_target {
            _ if !self.target => vec![vec![]],
            Some(usual) => {
                vec![vec![DISABLED, (TARGET, usual)], vec![DISABLED], vec![(TARGET, usual)]]
            }
            None => vec![vec![DISABLED]],
        };
        let urls = if self.url { vec![Some(Value::Null), Some(json!(""))] } else { vec![None] };
        let mut all = Vec::new();
        for form in forms {
            for url in &urls {
                let properties = form.iter().map(|(name, value)| (*name, json!(value)));
                let url = url.iter().map(|url| ("HttpBootUri", url.clone()));
                let properties = properties.chain(url);
                all.push(properties.map(|(name, value)| (name.to_owned(), value)).collect());
            }
        }
        all
    }
}

impl SystemView {
    /// Whether a boot may have left something at the BMC.
    #[must_use]
    pub fn needs_undoing(&self, changes: &[BootChange]) -> bool {
        self.is_overridden() || self.0.settings().is_some() || !changes.is_empty()
    }
}

impl<C: BmcChannel> RedfishSystem<'_, C> {
    /// Clears the override, so that no later boot uses an expired URL, and undoes `changes`. It can be repeated. A
    /// changed resource that the BMC does not have any more, after an update or an exchange of the mainboard, needs no
    /// undoing. Returns what is still shown although the BMC took the undoing, in sentences.
    ///
    /// # Errors
    /// The first failure; everything was tried.
    pub async fn undo_boot(
        &self,
        view: &SystemView,
        changes: &[BootChange],
    ) -> Result<Vec<String>, BmcFailure> {
        let mut done = self.clear_override(view).await;
        for change in changes {
            let undone = match change {
                BootChange::BiosUrl { settings, attribute } => {
                    self.clear_bios_url(view, settings, attribute).await
                }
                BootChange::Order { resource, property, before } => {
                    self.restore_order(view, resource, property, before).await
                }
                BootChange::Media { drive } => self.service().eject_media(drive).await,
            };
            let undone = undone.or_else(nothing_there);
            done = done.and_then(|cleared| undone.map(|()| cleared));
        }
        let cleared = done?;
        Ok(self.still_shown(cleared.as_deref(), changes).await)
    }

    /// Clears the override where it is set: at the settings resource if that takes it, which the system follows at its
    /// next reset, else at the system. A URL that the last reset has moved from the settings to the system is cleared
    /// in the same way. Returns the path of the resource that took the clearing of a target.
    async fn clear_override(&self, view: &SystemView) -> Result<Option<String>, BmcFailure> {
        let settings = match view.0.settings() {
            Some(path) => {
                unless_refused(self.service().find(RedfishPurpose::ReadSettings, path).await)?
            }
            None => None,
        };
        let platform = BmcPlatform::of(self.facts().root(), &view.0);
        let at_system = LeftOverride::of(view.boot(), platform);
        let Some(settings) = &settings else {
            return self.clear_at(&view.0, at_system, platform).await;
        };
        let pending = BootObject::of(settings);
        let (takes_target, takes_url) = (pending.shows(TARGET), pending.shows("HttpBootUri"));
        let in_settings = LeftOverride::of(pending, platform);
        let left = LeftOverride {
            target: in_settings.target || takes_target && at_system.target,
            is_in_force: in_settings.is_in_force || takes_target && at_system.is_in_force,
            url: in_settings.url || takes_url && at_system.url,
        };
        let cleared = self.clear_at(settings, left, platform).await?;
        let left = LeftOverride {
            target: at_system.target && !takes_target,
            is_in_force: at_system.is_in_force && !takes_target,
            url: at_system.url && !takes_url,
        };
        Ok(self.clear_at(&view.0, left, platform).await?.or(cleared))
    }

    /// Returns the path of the resource, if it took the clearing of a target that was set.
    async fn clear_at(
        &self,
        resource: &RedfishResource,
        left: LeftOverride,
        platform: BmcPlatform,
    ) -> Result<Option<String>, BmcFailure> {
        const PURPOSE: RedfishPurpose = RedfishPurpose::ClearOverride;
        if !left.target && !left.url {
            return Ok(None);
        }
        let mut first = Ok(None);
        let mut wants_mode = quirks::wants_mode_when_clearing(platform);
        let usual_target = BootObject::of(resource).usual_target();
        for mut boot in left.cleared(usual_target) {
            if wants_mode && boot.contains_key(ENABLED) {
                boot.insert("BootSourceOverrideMode".into(), json!("UEFI"));
            }
            let body = boot_body(boot);
            match self.service().patch(PURPOSE, resource, body, TaskEnd::Awaited).await {
                Ok(_) => return Ok(left.is_in_force.then(|| resource.path.clone())),
                // Without a disk, there is nothing else that the machine could boot.
                Err(failure) if quirks::has_no_such_device(&failure) => return Ok(None),
                Err(failure) if failure.status() == Some(400) => {
                    wants_mode |= over::wants_mode(&failure);
                    first = first.and(Err(failure));
                }
                Err(failure) => return Err(failure),
            }
        }
        first
    }

    /// Empties a BIOS attribute. On iDRAC that is a job, which the next start of the machine runs.
    async fn clear_bios_url(
        &self,
        view: &SystemView,
        settings: &str,
        attribute: &str,
    ) -> Result<(), BmcFailure> {
        let resource = self.bios_settings(settings).await?;
        let next = match resource.body["Attributes"][attribute].as_str() {
            Some(waiting) => Some(waiting.to_owned()),
            // The boot was refused before it waited for a reset, or the reset was made.
            None => self.bios_attribute(view, attribute).await?,
        };
        if next.as_deref() == Some("") {
            return Ok(());
        }
        let mut body = json!({ "Attributes": { attribute: "" } });
        let is_job = attribute.starts_with("HttpDev");
        if is_job {
            body["@Redfish.SettingsApplyTime"] = json!({ "ApplyTime": "OnReset" });
        }
        let purpose = RedfishPurpose::SetBios;
        let end = if is_job { TaskEnd::AtReset } else { TaskEnd::Awaited };
        match self.service().patch(purpose, &resource, body.clone(), end).await {
            // The boot never ran its own job. What else that job would have set stays pending, such as the device itself,
            // without which its attributes are read-only (SYS410).
            Err(failure) if ["SYS011", "SYS410"].iter().any(|name| failure.has_message(name)) => {
                let mut waiting = self.delete_bios_jobs(settings).await?;
                waiting.insert(attribute.to_owned(), json!(""));
                body["Attributes"] = waiting.into();
                self.service().patch(purpose, &resource, body, end).await.map(drop)
            }
            done => done.map(drop),
        }
    }

    /// A BIOS attribute in force; `None` if it is not shown.
    async fn bios_attribute(
        &self,
        view: &SystemView,
        name: &str,
    ) -> Result<Option<String>, BmcFailure> {
        let own = || format!("{}/Bios", view.0.path.trim_end_matches('/'));
        let path = view.0.link("Bios").map_or_else(own, str::to_owned);
        let bios = self.service().find(RedfishPurpose::ReadBios, &path).await?;
        Ok(bios.and_then(|bios| bios.body["Attributes"][name].as_str().map(str::to_owned)))
    }

    /// Restores an order, unless it is shown as before: by the settings resource, and by the system, which follows it
    /// at a reset.
    async fn restore_order(
        &self,
        view: &SystemView,
        resource: &str,
        property: &str,
        before: &[String],
    ) -> Result<(), BmcFailure> {
        let shown = self.service().get(RedfishPurpose::ReadSettings, resource).await?;
        let is_boot = property == "BootOrder";
        let in_force = view.boot().list("BootOrder").filter(|_| is_boot);
        let is_in_force = in_force.is_none_or(|order| order == before);
        if is_in_force && has_order(&shown, property, before) {
            return Ok(());
        }
        let order = json!({ property: before });
        let body = if is_boot { json!({ "Boot": order }) } else { order };
        let purpose = RedfishPurpose::RestoreBootOrder;
        self.service().patch(purpose, &shown, body, TaskEnd::Awaited).await.map(drop)
    }
}

/// Whether a resource shows this order.
pub(super) fn has_order(shown: &RedfishResource, property: &str, order: &[String]) -> bool {
    let is_boot = property == "BootOrder";
    let shown = if is_boot { &shown.body["Boot"][property] } else { &shown.body[property] };
    strings(shown).is_some_and(|shown| shown == order)
}

/// Success if the resource does not exist.
fn nothing_there(failure: BmcFailure) -> Result<(), BmcFailure> {
    if failure.status() == Some(404) { Ok(()) } else { Err(failure) }
}
