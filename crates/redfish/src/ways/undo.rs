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

/// The properties that clear an override and a URL, in the forms to be tried in turn: some BMCs refuse `None` as a
/// target, others know no `Disabled`, and some refuse null for a string.
fn cleared(shown: BootObject<'_>) -> Vec<Map<String, Value>> {
    const FORMS: [&[(&str, &str)]; 3] =
        [&[(ENABLED, "Disabled"), (TARGET, "None")], &[(ENABLED, "Disabled")], &[(TARGET, "None")]];
    let forms: &[&[(&str, &str)]] = if shown.shows(TARGET) { &FORMS } else { &[&[]] };
    let urls = if shown.has_url() { vec![Some(Value::Null), Some(json!(""))] } else { vec![None] };
    let mut all = Vec::new();
    for form in forms {
        for url in &urls {
            let properties = form.iter().map(|(name, value)| (*name, json!(value)));
            let url = url.iter().map(|url| ("HttpBootUri", url.clone()));
            all.push(properties.chain(url).map(|(name, value)| (name.to_owned(), value)).collect());
        }
    }
    all
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
    /// undoing.
    ///
    /// # Errors
    /// The first failure; everything was tried.
    pub async fn undo_boot(
        &self,
        view: &SystemView,
        changes: &[BootChange],
    ) -> Result<(), BmcFailure> {
        let mut done = self.clear_override(view).await;
        for change in changes {
            let undone = match change {
                BootChange::BiosUrl { settings, attribute } => {
                    self.clear_bios_url(settings, attribute).await
                }
                BootChange::Order { resource, property, before } => {
                    self.restore_order(view, resource, property, before).await
                }
                BootChange::Media { drive } => self.service().eject_media(drive).await,
            };
            let undone = undone.or_else(nothing_there);
            done = done.and(undone);
        }
        done
    }

    /// Clears the override at the system and at its settings resource, where one is set.
    async fn clear_override(&self, view: &SystemView) -> Result<(), BmcFailure> {
        let platform = BmcPlatform::of(self.facts().root(), &view.0);
        let in_settings = match view.0.settings() {
            Some(path) => {
                unless_refused(self.service().find(RedfishPurpose::ReadSettings, path).await)?
            }
            None => None,
        };
        let settings_take_it = in_settings
            .as_ref()
            .is_some_and(|it| BootObject::of(it).shows("BootSourceOverrideTarget"));
        if let Some(settings) = &in_settings
            && BootObject::of(settings).is_overridden()
        {
            self.clear_at(settings, platform).await?;
        }
        // The system follows its settings resource.
        if view.is_overridden() && !settings_take_it {
            self.clear_at(&view.0, platform).await?;
        }
        Ok(())
    }

    async fn clear_at(
        &self,
        resource: &RedfishResource,
        platform: BmcPlatform,
    ) -> Result<(), BmcFailure> {
        const PURPOSE: RedfishPurpose = RedfishPurpose::ClearOverride;
        let shown = BootObject::of(resource);
        let mut first = Ok(());
        let mut wants_mode = quirks::wants_mode_when_clearing(platform);
        for mut boot in cleared(shown) {
            if wants_mode && boot.contains_key(ENABLED) {
                boot.insert("BootSourceOverrideMode".into(), json!("UEFI"));
            }
            let body = boot_body(boot);
            match self.service().patch(PURPOSE, resource, body, TaskEnd::Awaited).await {
                Ok(_) => return Ok(()),
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
    async fn clear_bios_url(&self, settings: &str, attribute: &str) -> Result<(), BmcFailure> {
        let resource = self.bios_settings(settings).await?;
        if resource.body["Attributes"][attribute].as_str() == Some("") {
            return Ok(());
        }
        let mut body = json!({ "Attributes": { attribute: "" } });
        if attribute.starts_with("HttpDev") {
            body["@Redfish.SettingsApplyTime"] = json!({ "ApplyTime": "OnReset" });
        }
        let purpose = RedfishPurpose::SetBios;
        match self.service().patch(purpose, &resource, body.clone(), TaskEnd::AtReset).await {
            // The boot never ran its own job. What else that job would have set stays pending.
            Err(failure) if failure.has_message("SYS011") => {
                let mut waiting = self.delete_bios_jobs(settings).await?;
                waiting.insert(attribute.to_owned(), json!(""));
                body["Attributes"] = waiting.into();
                self.service().patch(purpose, &resource, body, TaskEnd::AtReset).await.map(drop)
            }
            done => done.map(drop),
        }
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
        let order = if is_boot { &shown.body["Boot"][property] } else { &shown.body[property] };
        if is_in_force && strings(order).is_some_and(|order| order == before) {
            return Ok(());
        }
        let order = json!({ property: before });
        let body = if is_boot { json!({ "Boot": order }) } else { order };
        let purpose = RedfishPurpose::RestoreBootOrder;
        self.service().patch(purpose, &shown, body, TaskEnd::Awaited).await.map(drop)
    }
}

/// Success if the resource does not exist.
fn nothing_there(failure: BmcFailure) -> Result<(), BmcFailure> {
    if failure.status() == Some(404) { Ok(()) } else { Err(failure) }
}
