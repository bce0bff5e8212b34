//! A BMC's virtual CD drive (`VirtualMedia`, DSP2046).

use hardware::RedfishPurpose;
use serde_json::{Value, json};

use super::reader::BootReader;
use crate::channel::BmcChannel;
use crate::failure::BmcFailure;
use crate::resource::{RedfishResource, link_in, strings};
use crate::service::{RedfishService, TaskEnd};

/// Number limit of drives that are read.
const MOST_DRIVES: usize = 16;

/// A virtual drive for CDs or DVDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CdDrive {
    /// Its path.
    pub(super) path: String,
}

impl<C: BmcChannel> BootReader<'_, '_, C> {
    /// The first virtual drive for CDs: the system's, else its manager's.
    pub(super) async fn cd_drive(&mut self) -> Result<Option<CdDrive>, BmcFailure> {
        const PURPOSE: RedfishPurpose = RedfishPurpose::ReadVirtualMedia;
        let mut collections: Vec<_> =
            self.system.link("VirtualMedia").map(str::to_owned).into_iter().collect();
        let managers = self.system.body["Links"]["ManagedBy"].as_array().into_iter().flatten();
        for path in managers.filter_map(link_in).take(MOST_DRIVES) {
            let manager = self.service.find(PURPOSE, path).await?;
            let found = manager.as_ref().and_then(|manager| manager.link("VirtualMedia"));
            collections.extend(found.map(str::to_owned));
        }
        collections.dedup();
        for collection in collections {
            let Some(drives) = self.service.find(PURPOSE, &collection).await? else { continue };
            for path in drives.members().iter().take(MOST_DRIVES) {
                let Some(drive) = self.service.find(PURPOSE, path).await? else { continue };
                let types = strings(&drive.body["MediaTypes"]).unwrap_or_default();
                if types.iter().any(|kind| matches!(*kind, "CD" | "DVD")) {
                    return Ok(Some(CdDrive { path: drive.path }));
                }
            }
        }
        Ok(None)
    }
}

fn action<'r>(drive: &'r RedfishResource, name: &str) -> Option<&'r str> {
    drive.body["Actions"][name]["target"].as_str().filter(|target| target.starts_with('/'))
}

fn has_image(drive: &RedfishResource) -> bool {
    let image = drive.body["Image"].as_str().is_some_and(|image| !image.is_empty());
    image || drive.body["Inserted"] == true
}

impl<C: BmcChannel> RedfishService<'_, C> {
    /// Inserts an image into a drive, in place of another.
    ///
    /// # Errors
    /// [`BmcFailure`]
    pub(super) async fn insert_media(&self, drive: &CdDrive, url: &str) -> Result<(), BmcFailure> {
        const PURPOSE: RedfishPurpose = RedfishPurpose::InsertMedia;
        let mut shown = self.get(RedfishPurpose::ReadVirtualMedia, &drive.path).await?;
        if has_image(&shown) {
            self.eject_media(&drive.path).await?;
            shown = self.get(RedfishPurpose::ReadVirtualMedia, &drive.path).await?;
        }
        let body = json!({ "Image": url, "Inserted": true, "WriteProtected": true });
        let Some(target) = action(&shown, "#VirtualMedia.InsertMedia") else {
            // Before Redfish 1.2 the properties were written.
            let body = json!({ "Image": url });
            return self.patch(PURPOSE, &shown, body, TaskEnd::Awaited).await.map(drop);
        };
        match self.post(PURPOSE, target, body).await {
            // Some BMCs require the parameters that the standard leaves out, others refuse them.
            Err(BmcFailure::Refused { status, .. }) if status == http::StatusCode::BAD_REQUEST => {
                let protocol = if url.starts_with("https:") { "HTTPS" } else { "HTTP" };
                let body = json!({
                    "Image": url, "TransferMethod": "Stream", "TransferProtocolType": protocol,
                });
                self.post(PURPOSE, target, body).await.map(drop)
            }
            done => done.map(drop),
        }
    }

    /// The image that a drive shows.
    pub(super) async fn shown_media(&self, drive: &CdDrive) -> Result<Option<String>, BmcFailure> {
        let shown = self.get(RedfishPurpose::ReadVirtualMedia, &drive.path).await?;
        Ok(shown.body["Image"].as_str().map(str::to_owned))
    }

    /// Ejects the image of a drive, if there is one.
    ///
    /// # Errors
    /// [`BmcFailure`]
    pub(super) async fn eject_media(&self, path: &str) -> Result<(), BmcFailure> {
        const PURPOSE: RedfishPurpose = RedfishPurpose::EjectMedia;
        let Some(shown) = self.find(RedfishPurpose::ReadVirtualMedia, path).await? else {
            return Ok(());
        };
        if !has_image(&shown) {
            return Ok(());
        }
        match action(&shown, "#VirtualMedia.EjectMedia") {
            Some(target) => self.post(PURPOSE, target, json!({})).await.map(drop),
            None => {
                let body = json!({ "Image": Value::Null });
                self.patch(PURPOSE, &shown, body, TaskEnd::Awaited).await.map(drop)
            }
        }
    }
}
