//! The parts of `ComputerSystem` (DMTF DSP2046) for booting.
//!
//! These types replace those that nv-redfish generates from the schema, which lack the annotation
//! `@Redfish.AllowableValues`; it tells whether a BMC can boot over HTTP.

use nv_redfish_core::{EntityTypeRef, ODataETag, ODataId, de_optional_nullable};
use serde::{Deserialize, Serialize};

/// A computer system, as returned by GET.
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
    /// Its actions.
    pub actions: Option<SystemActions>,
    /// Its manufacturer, which decides quirks.
    pub manufacturer: Option<String>,
}

/// `ComputerSystemCollection`: the systems of a BMC.
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
    /// Allowable values of `enabled`; all of the standard's if the BMC lists none.
    #[serde(rename = "BootSourceOverrideEnabled@Redfish.AllowableValues")]
    pub enabled_values: Option<Vec<String>>,
    /// `UEFI`, `Legacy`.
    #[serde(rename = "BootSourceOverrideMode")]
    pub mode: Option<String>,
    /// `UefiHttp`, `Pxe`, `Hdd`, `None`, ….
    #[serde(rename = "BootSourceOverrideTarget")]
    pub target: Option<String>,
    /// Allowable values of `target`.
    #[serde(rename = "BootSourceOverrideTarget@Redfish.AllowableValues")]
    pub targets: Option<Vec<String>>,
    /// The outer `None` means that the BMC has no such property and accepts no URL; the inner `None` is null.
    #[serde(rename = "HttpBootUri", default, deserialize_with = "de_optional_nullable")]
    pub http_boot_uri: Option<Option<String>>,
}

/// `Actions` of a computer system.
#[derive(Clone, Debug, Deserialize)]
pub struct SystemActions {
    /// Its reset action.
    #[serde(rename = "#ComputerSystem.Reset")]
    pub reset: Option<ResetAction>,
}

/// The `ComputerSystem.Reset` action.
#[derive(Clone, Debug, Deserialize)]
pub struct ResetAction {
    /// The URI to POST to.
    pub target: String,
    /// Allowable reset types.
    #[serde(rename = "ResetType@Redfish.AllowableValues")]
    pub types: Option<Vec<String>>,
}

/// The body of a PATCH of the boot override.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BootPatch {
    /// The properties to set.
    #[serde(rename = "Boot")]
    pub boot: BootOverride,
}

/// The properties of a boot override to set; those that are `None` are left out.
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
