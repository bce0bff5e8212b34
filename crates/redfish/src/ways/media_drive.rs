//! Images in a virtual drive: inserted and ejected in the form that the BMC has for it.

use std::time::Duration;

use hardware::RedfishPurpose;
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::channel::BmcChannel;
use crate::failure::BmcFailure;
use crate::resource::{RedfishResource, path_in};
use crate::service::{RedfishService, TaskEnd};

/// Number of tries of an insertion that fails at the BMC: an ejection may still be under way (Ironic's
/// `fix-redfish-vmedia-insert-retry`).
const TRIES: u32 = 3;
/// Time between them.
const BETWEEN_TRIES: Duration = Duration::from_secs(5);
/// The times after which a drive is looked at again, until it shows what was done: some BMCs do it after the answer.
const LOOKS: [u64; 5] = [1, 2, 4, 8, 15];

/// A virtual drive for CDs or DVDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CdDrive {
    /// Its path.
    pub(super) path: String,
}

/// What has the machine boot from its virtual CD drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CdBoot {
    /// A target of the boot override.
    Target(&'static str),
    /// iDRAC's own `ServerBoot.1.FirstBootDevice` = `VCD-DVD`.
    DellFirstBootDevice,
}

/// The actions by which images get into a drive and out of it. Without one, its properties are written, as before
/// Redfish 1.2, and on Lenovo's XCC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MediaActions {
    /// The target of the standard's `InsertMedia`, or of iLO 4's action.
    pub(super) insert: Option<String>,
    /// The target of the standard's `EjectMedia`, or of iLO 4's action. Some BMCs show it only when there is an image.
    eject: Option<String>,
    /// The target of the one action for both of Huawei, xFusion and H3C.
    pub(super) vmm_control: Option<String>,
}

impl MediaActions {
    pub(super) fn of(drive: &RedfishResource) -> Self {
        let body = &drive.body;
        // Vendors' actions are below the vendor's name, in the resource's `Oem` or in that of its actions.
        let of_resource = body["Oem"].as_object().into_iter().flat_map(Map::values);
        let of_resource = of_resource.map(|vendor| &vendor["Actions"]);
        let places: Vec<_> =
            [&body["Actions"], &body["Actions"]["Oem"]].into_iter().chain(of_resource).collect();
        let target = |ending: &str| {
            let named = places.iter().filter_map(|actions| {
                let mut actions = actions.as_object()?.iter();
                actions.find(|(name, _)| name.ends_with(ending)).map(|(_, action)| action)
            });
            let mut targets = named.filter_map(|action| path_in(action["target"].as_str()?));
            targets.next().map(str::to_owned)
        };
        Self {
            insert: target("VirtualMedia.InsertMedia").or_else(|| target(".InsertVirtualMedia")),
            eject: target("VirtualMedia.EjectMedia").or_else(|| target(".EjectVirtualMedia")),
            vmm_control: target("VirtualMedia.VmmControl"),
        }
    }
}

/// Whether a drive has an image. `Inserted` counts before `Image`, which some BMCs keep after an ejection.
fn is_loaded(drive: &RedfishResource) -> bool {
    drive.body["Inserted"].as_bool().unwrap_or_else(|| shows_image(drive))
}

fn shows_image(drive: &RedfishResource) -> bool {
    shown_image(drive).is_some()
}

/// `Image`. AMI shows the text `None` where there is none.
fn shown_image(drive: &RedfishResource) -> Option<&str> {
    drive.body["Image"].as_str().filter(|image| !matches!(*image, "" | "None"))
}

impl<C: BmcChannel> RedfishService<'_, C> {
    /// Inserts an image into a drive, in place of another, and waits until the drive shows it.
    ///
    /// # Errors
    /// [`BmcFailure`]
    pub(super) async fn insert_media(&self, drive: &CdDrive, url: &str) -> Result<(), BmcFailure> {
        let mut shown = self.drive(&drive.path).await?;
        if is_loaded(&shown) || shows_image(&shown) {
            // A BMC that refuses it may replace the image; else the insertion says why not.
            match self.eject(&shown).await {
                Ok(()) | Err(BmcFailure::Refused { .. } | BmcFailure::TaskFailed { .. }) => {}
                Err(failure) => return Err(failure),
            }
            shown = self.drive(&drive.path).await?;
        }
        let mut tries = 1;
        loop {
            match self.put_image(&shown, url).await {
                Ok(()) => break,
                Err(failure) if failure.may_be_done() && tries < TRIES => {
                    self.pause(BETWEEN_TRIES).await;
                    shown = self.drive(&drive.path).await?;
                    if is_loaded(&shown) {
                        break;
                    }
                    tries += 1;
                }
                Err(failure) => return Err(failure),
            }
        }
        self.await_drive(&drive.path, true).await.map(drop)
    }

    async fn put_image(&self, drive: &RedfishResource, url: &str) -> Result<(), BmcFailure> {
        let MediaActions { insert, vmm_control, .. } = MediaActions::of(drive);
        match (insert, vmm_control) {
            (Some(insert), _) => self.post_image(&insert, url).await,
            (None, Some(control)) => {
                let body = json!({ "VmmControlType": "Connect", "Image": url });
                self.post(RedfishPurpose::InsertMedia, &control, body).await.map(drop)
            }
            (None, None) => self.write_image(drive, url).await,
        }
    }

    /// Inserts by the action. The image is the only parameter that the standard requires; some BMCs refuse others
    /// (Supermicro X11, iLO 4), some require some. What a refusal names is added, then what is known to be wanted.
    async fn post_image(&self, target: &str, url: &str) -> Result<(), BmcFailure> {
        let mut parameters = Map::from_iter([("Image".to_owned(), json!(url))]);
        let mut wanted: Vec<(&str, Value)> = vec![
            ("TransferProtocolType", protocol_of(url).into()),
            ("TransferMethod", "Stream".into()),
            ("Inserted", true.into()),
            ("WriteProtected", true.into()),
        ];
        // Required by DGX, without a meaning for HTTP (sushy's `vmedia-blank-auth`).
        let on_demand =
            [("UserName", "none"), ("Password", "none")].map(|(name, it)| (name, it.into()));
        let mut first = None;
        loop {
            let body = Value::Object(parameters.clone());
            let posted = self.post(RedfishPurpose::InsertMedia, target, body).await;
            let Err(failure) = posted else { return Ok(()) };
            if !is_of_the_body(&failure) {
                return Err(failure);
            }
            let named = |(name, _): &(&str, Value)| {
                failure.message().contains(name) && !parameters.contains_key(*name)
            };
            let named: Vec<_> =
                wanted.iter().chain(&on_demand).filter(|it| named(it)).cloned().collect();
            let added = match named.is_empty() {
                false => named,
                true if wanted.is_empty() => return Err(first.unwrap_or(failure)),
                true => vec![wanted.remove(0)],
            };
            wanted.retain(|(name, _)| added.iter().all(|(other, _)| other != name));
            parameters.extend(added.into_iter().map(|(name, value)| (name.to_owned(), value)));
            first.get_or_insert(failure);
        }
    }

    /// Inserts by writing the properties: Lenovo's XCC attaches nothing without `Inserted`.
    async fn write_image(&self, drive: &RedfishResource, url: &str) -> Result<(), BmcFailure> {
        let bodies = [
            json!({ "Image": url, "Inserted": true, "WriteProtected": true }),
            json!({ "Image": url, "Inserted": true }),
            json!({ "Image": url }),
        ];
        self.write_first(RedfishPurpose::InsertMedia, drive, bodies).await
    }

    /// Writes the first of some bodies that the BMC takes.
    async fn write_first<const N: usize>(
        &self,
        purpose: RedfishPurpose,
        drive: &RedfishResource,
        bodies: [Value; N],
    ) -> Result<(), BmcFailure> {
        let mut first = Ok(());
        for body in bodies {
            match self.patch(purpose, drive, body, TaskEnd::Awaited).await {
                Ok(_) => return Ok(()),
                Err(failure) if is_of_the_body(&failure) => first = first.and(Err(failure)),
                Err(failure) => return Err(failure),
            }
        }
        first
    }

    async fn drive(&self, path: &str) -> Result<RedfishResource, BmcFailure> {
        self.get(RedfishPurpose::ReadVirtualMedia, path).await
    }

    /// Reads a drive until it is loaded, or not. Returns the last reading.
    async fn await_drive(&self, path: &str, loaded: bool) -> Result<RedfishResource, BmcFailure> {
        let mut shown = self.drive(path).await?;
        for secs in LOOKS {
            if is_loaded(&shown) == loaded || loaded && shows_image(&shown) {
                break;
            }
            self.pause(Duration::from_secs(secs)).await;
            shown = self.drive(path).await?;
        }
        Ok(shown)
    }

    /// The image that a drive shows; `None` if it has none. A drive that has one may not show which.
    pub(super) async fn shown_media(&self, drive: &CdDrive) -> Result<Option<String>, BmcFailure> {
        let shown = self.drive(&drive.path).await?;
        let image = shown_image(&shown).or_else(|| is_loaded(&shown).then_some(""));
        Ok(image.map(str::to_owned))
    }

    /// Ejects the image of a drive, if there is one.
    ///
    /// # Errors
    /// [`BmcFailure`]
    pub(super) async fn eject_media(&self, path: &str) -> Result<(), BmcFailure> {
        let Some(shown) = self.find(RedfishPurpose::ReadVirtualMedia, path).await? else {
            return Ok(());
        };
        if !is_loaded(&shown) && !shows_image(&shown) {
            return Ok(());
        }
        let ejected = self.eject(&shown).await;
        let Err(failure) = ejected else { return Ok(()) };
        // Some refuse to eject nothing; some answer late, or with an error, and have done it.
        let may_be_empty = failure.may_be_done() || failure.status().is_some();
        if may_be_empty && !is_loaded(&self.drive(path).await?) { Ok(()) } else { Err(failure) }
    }

    /// Ejects, and waits until the drive is empty.
    async fn eject(&self, drive: &RedfishResource) -> Result<(), BmcFailure> {
        const PURPOSE: RedfishPurpose = RedfishPurpose::EjectMedia;
        let MediaActions { eject, vmm_control, .. } = MediaActions::of(drive);
        match (eject, vmm_control) {
            (Some(eject), _) => match self.post(PURPOSE, &eject, json!({})).await {
                // Some want no body at all.
                Err(failure) if is_of_the_body(&failure) => {
                    self.post(PURPOSE, &eject, None).await.map(drop).map_err(|_| failure)?;
                }
                done => done.map(drop)?,
            },
            (None, Some(control)) => {
                let body = json!({ "VmmControlType": "Disconnect" });
                self.post(PURPOSE, &control, body).await.map(drop)?;
            }
            (None, None) => {
                let bodies = [
                    json!({ "Image": null, "Inserted": false }),
                    json!({ "Image": null }),
                    json!({ "Image": "" }),
                ];
                self.write_first(PURPOSE, drive, bodies).await?;
            }
        }
        self.await_drive(&drive.path, false).await.map(drop)
    }
}

fn protocol_of(url: &str) -> &'static str {
    if url.starts_with("https:") { "HTTPS" } else { "HTTP" }
}

/// Whether a request may have been refused because of what its body has or lacks.
fn is_of_the_body(failure: &BmcFailure) -> bool {
    const STATUSES: [StatusCode; 5] = [
        StatusCode::BAD_REQUEST,
        StatusCode::LENGTH_REQUIRED,
        StatusCode::PAYLOAD_TOO_LARGE,
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        StatusCode::UNPROCESSABLE_ENTITY,
    ];
    matches!(failure, BmcFailure::Refused { status, .. } if STATUSES.contains(status))
}
