//! The check that a BMC does not show what a boot set any more, after it took the undoing.

use std::time::Duration;

use hardware::{BootChange, RedfishPurpose};

use super::media_drive::CdDrive;
use super::undo::has_order;
use crate::channel::BmcChannel;
use crate::machine::RedfishSystem;
use crate::system::BootObject;

/// The times after which what is still shown is read once more: some BMCs show a change some seconds later.
const LATE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(10)];

impl<C: BmcChannel> RedfishSystem<'_, C> {
    /// What is still shown as the boot left it: an override at `cleared`, and each change. A resource that cannot be read
    /// says nothing. A URL without a target boots nothing, and is not read.
    pub(super) async fn still_shown(
        &self,
        cleared: Option<&str>,
        changes: &[BootChange],
    ) -> Vec<String> {
        let mut shown = self.still_shown_now(cleared, changes).await;
        for wait in LATE {
            if shown.is_empty() {
                break;
            }
            self.service().pause(wait).await;
            shown = self.still_shown_now(cleared, changes).await;
        }
        shown
    }

    async fn still_shown_now(&self, cleared: Option<&str>, changes: &[BootChange]) -> Vec<String> {
        let mut shown = Vec::new();
        if let Some(path) = cleared {
            shown.extend(self.override_at(path).await);
        }
        for change in changes {
            shown.extend(self.shown_change(change).await);
        }
        shown
    }

    async fn override_at(&self, path: &str) -> Option<String> {
        let resource = self.service().get(RedfishPurpose::ReadSettings, path).await.ok()?;
        let boot = BootObject::of(&resource);
        let target = boot.text("BootSourceOverrideTarget").filter(|_| boot.has_override())?;
        Some(format!(
            "the BMC took the end of the boot override, and {path} still shows it, with the target {target}"
        ))
    }

    async fn shown_change(&self, change: &BootChange) -> Option<String> {
        match change {
            BootChange::BiosUrl { settings, attribute } => {
                let at = self.bios_settings(settings).await.ok()?;
                let url = at.body["Attributes"][attribute].as_str();
                url.is_some_and(|url| !url.is_empty()).then(|| {
                    format!("the BMC took an empty {attribute}, and {settings} still shows a URL")
                })
            }
            BootChange::Order { resource, property, before } => {
                let at = self.service().get(RedfishPurpose::ReadSettings, resource).await.ok()?;
                (!has_order(&at, property, before)).then(|| {
                    format!("the BMC took {property} as before the boot, and {resource} still shows another")
                })
            }
            BootChange::Media { drive } => {
                let at = CdDrive { path: drive.clone() };
                self.service().shown_media(&at).await.ok()??;
                Some(format!("the BMC took the ejection, and {drive} still shows an image"))
            }
        }
    }
}
