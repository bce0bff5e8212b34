//! The parts of `ComputerSystem` (DMTF DSP2046) that booting needs.
//!
//! Our own types: those that nv-redfish generates from the schema leave out the annotation
//! `@Redfish.AllowableValues`, which says whether a BMC can boot over HTTP.

use nv_redfish_core::{EntityTypeRef, ODataETag, ODataId, de_optional_nullable};
use serde::{Deserialize, Serialize};

/// A computer system, as GET shows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ComputerSystem {
    #[serde(rename = "@odata.id")]
    odata_id: ODataId,
    #[serde(rename = "@odata.etag")]
    etag: Option<ODataETag>,
    /// `On`, `Off`, `PoweringOn`, `PoweringOff`, `Paused`; absent on some BMCs in POST.
    pub power_state: Option<String>,
    /// The boot override.
    pub boot: Option<SystemBoot>,
    /// What can be done to it.
    pub actions: Option<SystemActions>,
    /// Who made it; decides quirks.
    pub manufacturer: Option<String>,
}

/// `ComputerSystemCollection`: which systems a BMC has.
#[derive(Clone, Debug, Deserialize)]
pub struct ComputerSystemCollection {
    #[serde(rename = "@odata.id")]
    odata_id: ODataId,
    /// Links to them.
    #[serde(rename = "Members")]
    pub members: Vec<ODataLink>,
}

/// A link to a resource.
#[derive(Clone, Debug, Deserialize)]
pub struct ODataLink {
    /// Its path.
    #[serde(rename = "@odata.id")]
    pub path: String,
}

impl EntityTypeRef for ComputerSystemCollection {
    fn odata_id(&self) -> &ODataId {
        &self.odata_id
    }

    fn etag(&self) -> Option<&ODataETag> {
        None
    }
}

impl EntityTypeRef for ComputerSystem {
    fn odata_id(&self) -> &ODataId {
        &self.odata_id
    }

    fn etag(&self) -> Option<&ODataETag> {
        self.etag.as_ref()
    }
}

/// `Boot` of a computer system.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct SystemBoot {
    /// `Disabled`, `Once`, `Continuous`.
    #[serde(rename = "BootSourceOverrideEnabled")]
    pub enabled: Option<String>,
    /// What `enabled` may be set to; all that the standard knows, where the BMC does not say.
    #[serde(rename = "BootSourceOverrideEnabled@Redfish.AllowableValues")]
    pub enabled_values: Option<Vec<String>>,
    /// `UEFI`, `Legacy`.
    #[serde(rename = "BootSourceOverrideMode")]
    pub mode: Option<String>,
    /// `UefiHttp`, `Pxe`, `Hdd`, `None`, ….
    #[serde(rename = "BootSourceOverrideTarget")]
    pub target: Option<String>,
    /// What `target` may be set to.
    #[serde(rename = "BootSourceOverrideTarget@Redfish.AllowableValues")]
    pub targets: Option<Vec<String>>,
    /// The outer `None` where the BMC has no such property, and so cannot be told a URL; the inner
    /// one where it is null.
    #[serde(rename = "HttpBootUri", default, deserialize_with = "de_optional_nullable")]
    pub http_boot_uri: Option<Option<String>>,
}

/// `Actions` of a computer system.
#[derive(Clone, Debug, Deserialize)]
pub struct SystemActions {
    /// Its power switch.
    #[serde(rename = "#ComputerSystem.Reset")]
    pub reset: Option<ResetAction>,
}

/// The `ComputerSystem.Reset` action.
#[derive(Clone, Debug, Deserialize)]
pub struct ResetAction {
    /// Where to POST.
    pub target: String,
    /// What may be asked for.
    #[serde(rename = "ResetType@Redfish.AllowableValues")]
    pub types: Option<Vec<String>>,
}

/// The body of a PATCH of the boot override.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BootPatch {
    /// What to set.
    #[serde(rename = "Boot")]
    pub boot: BootOverride,
}

/// What to set of a boot override; what is `None` is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BootOverride {
    /// `BootSourceOverrideEnabled`.
    #[serde(rename = "BootSourceOverrideEnabled")]
    pub enabled: &'static str,
    /// `BootSourceOverrideMode`.
    #[serde(rename = "BootSourceOverrideMode", skip_serializing_if = "Option::is_none")]
    pub mode: Option<&'static str>,
    /// `BootSourceOverrideTarget`.
    #[serde(rename = "BootSourceOverrideTarget", skip_serializing_if = "Option::is_none")]
    pub target: Option<&'static str>,
    /// `HttpBootUri`; the inner `None` is sent as null.
    #[serde(rename = "HttpBootUri", skip_serializing_if = "Option::is_none")]
    pub http_boot_uri: Option<Option<String>>,
}
