//! The choice of a BMC's virtual CD drive (`VirtualMedia`, DSP2046), and of the boot target that boots from it.

use hardware::RedfishPurpose;
use serde_json::Value;

use super::media_drive::{CdDrive, MediaActions};
use super::reader::{BootReader, unless_refused};
use crate::channel::BmcChannel;
use crate::failure::BmcFailure;
use crate::platform::BmcPlatform;
use crate::resource::{RedfishResource, link_in, strings};

/// Number limit of drives that are read.
const MOST_DRIVES: usize = 16;

impl<C: BmcChannel> BootReader<'_, '_, C> {
    /// The virtual drive for CDs that takes an image by URL: one of the system's, else one of its manager's. Of several,
    /// the first with an action for it: others are for the BMC's own web page only (Cisco C845A M8), or want the image
    /// uploaded (Lenovo's RDOC).
    pub(super) async fn cd_drive(&mut self) -> Result<Option<CdDrive>, BmcFailure> {
        Ok(self.cd_drive_of().await?.map(|(drive, _)| drive))
    }

    /// The same, with the `FirmwareVersion` of its manager; empty for a drive of the system.
    pub(super) async fn cd_drive_of(&mut self) -> Result<Option<(CdDrive, String)>, BmcFailure> {
        if let Some(collection) = self.system.link("VirtualMedia").map(str::to_owned)
            && let Some(drive) = self.best_drive(&collection).await?
        {
            return Ok(Some((drive, String::new())));
        }
        for manager in self.managers().await? {
            const PURPOSE: RedfishPurpose = RedfishPurpose::ReadVirtualMedia;
            let manager = unless_refused(self.service.find(PURPOSE, &manager).await)?;
            let Some(manager) = manager else { continue };
            let Some(collection) = manager.link("VirtualMedia") else { continue };
            if let Some(drive) = self.best_drive(collection).await? {
                let firmware = manager.body["FirmwareVersion"].as_str().unwrap_or_default();
                return Ok(Some((drive, firmware.to_owned())));
            }
        }
        Ok(None)
    }

    /// The managers of the system. Without a link, those of the BMC (Huawei 1288H; sushy's `retry-on-missing-managedby`).
    async fn managers(&self) -> Result<Vec<String>, BmcFailure> {
        const MANAGERS: &str = "/redfish/v1/Managers";
        let links = &self.system.body["Links"];
        let linked = ["ManagedBy", "Managers"].iter().find_map(|name| links[*name].as_array());
        let linked: Vec<_> = linked.into_iter().flatten().filter_map(link_in).collect();
        if !linked.is_empty() {
            return Ok(linked.into_iter().take(MOST_DRIVES).map(str::to_owned).collect());
        }
        let all = self.service.collection(RedfishPurpose::ReadVirtualMedia, MANAGERS).await;
        let all = unless_refused(all)?.map(|all| all.members()).unwrap_or_default();
        Ok(all.into_iter().take(MOST_DRIVES).collect())
    }

    async fn best_drive(&self, collection: &str) -> Result<Option<CdDrive>, BmcFailure> {
        const PURPOSE: RedfishPurpose = RedfishPurpose::ReadVirtualMedia;
        let drives = self.service.collection(PURPOSE, collection).await;
        let Some(drives) = unless_refused(drives)? else { return Ok(None) };
        let mut best: Option<(u8, CdDrive)> = None;
        for path in drives.members().iter().take(MOST_DRIVES) {
            // One that is not shown does not hide the others.
            let drive = unless_refused(self.service.find(PURPOSE, path).await)?;
            let Some(drive) = drive.filter(is_for_cds) else { continue };
            let rank = rank(&drive);
            if best.as_ref().is_none_or(|(other, _)| rank < *other) {
                best = Some((rank, CdDrive { path: drive.path }));
            }
            if rank == 0 {
                break;
            }
        }
        Ok(best.map(|(_, drive)| drive))
    }
}

/// Whether a drive takes CDs: by its media types; by its name if it shows none.
fn is_for_cds(drive: &RedfishResource) -> bool {
    let is_cd = |text: &str| {
        let text = text.to_ascii_lowercase();
        text.contains("cd") || text.contains("dvd")
    };
    match strings(&drive.body["MediaTypes"]).filter(|types| !types.is_empty()) {
        Some(types) => types.into_iter().any(is_cd),
        None => ["Id", "Name"].iter().filter_map(|name| drive.body[*name].as_str()).any(is_cd),
    }
}

/// How well a drive takes an image by URL, 0 being the best.
fn rank(drive: &RedfishResource) -> u8 {
    let id = drive.body["Id"].as_str().unwrap_or_default();
    match MediaActions::of(drive) {
        MediaActions { insert: Some(_), .. } => 0,
        MediaActions { vmm_control: Some(_), .. } => 1,
        _ if id.starts_with("RDOC") => 3,
        _ => 2,
    }
}

/// The boot target of the virtual CD drive, of those that are listed. Supermicro's boots by `UsbCd` (sushy's
/// `change-bootdev-smc`), except for one model.
pub(super) fn cd_target(
    platform: BmcPlatform,
    system: &Value,
    listed: Option<&[String]>,
) -> Option<&'static str> {
    const USUAL: [&str; 5] = ["Cd", "UsbCd", "UefiUsbCd", "UefiCd", "CD/DVD"];
    const SUPERMICRO: [&str; 5] = ["UsbCd", "UefiUsbCd", "Cd", "UefiCd", "CD/DVD"];
    let is_grace =
        system["Model"].as_str().is_some_and(|it| it.eq_ignore_ascii_case("ars-111gl-nhr"));
    let targets = if platform == BmcPlatform::Supermicro && !is_grace { SUPERMICRO } else { USUAL };
    match listed {
        None => Some("Cd"),
        Some(listed) => targets.into_iter().find(|target| listed.iter().any(|it| it == target)),
    }
}
