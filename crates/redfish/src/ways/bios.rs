//! BIOS attributes: boot mode, HTTP support, and the vendors' attributes for a boot URL.

use hardware::{BootMode, Mac, RedfishPurpose};
use serde_json::{Map, Value};
use url::Url;

use super::reader::BootReader;
use crate::channel::BmcChannel;
use crate::failure::BmcFailure;
use crate::platform::BmcPlatform;
use crate::quirks;
use crate::resource::{RedfishResource, strings};

/// Number limit of network interfaces that are read.
const MOST_INTERFACES: usize = 64;

/// Dell's first HTTP device: the attributes `HttpDev1…` (libredfish#75, iDRAC-Redfish-Scripting#306).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DellHttpDevice {
    /// The path of the BIOS settings resource.
    pub(super) settings: String,
    /// `HttpDev1Interface` for the node's card; `None` if it stays as it is.
    pub(super) interface: Option<String>,
    /// Whether `HttpDev1EnDis` is `Enabled`.
    pub(super) is_enabled: bool,
    /// The value of `HttpDev1TlsMode` that permits plain HTTP.
    pub(super) tls_off: String,
    /// The attributes that the BIOS shows, of those that are set.
    pub(super) shown: Map<String, Value>,
}

/// The reason for having no HTTP device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoDellDevice {
    /// The BIOS shows no `HttpDev1Uri`.
    Missing,
    /// The BIOS registry says that it cannot be written.
    ReadOnly,
}

/// HPE's persistent boot order, for firmware that refuses the override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HpeBootOrder {
    /// The path of its settings resource.
    pub(super) resource: String,
    /// `PersistentBootConfigOrder`.
    pub(super) before: Vec<String>,
}

/// A BIOS attribute that says that the machine boots in BIOS mode: Dell's and HPE's `BootMode`, Lenovo's
/// `BootModes_SystemBootMode`, Supermicro's `BootModeSelect_…`, Huawei's `BootType`. The modes of Secure Boot, of slots
/// and of the video card are other matters.
pub(super) fn bios_mode(attributes: &Map<String, Value>) -> Option<(String, String)> {
    attributes.iter().find_map(|(name, value)| {
        let (lower, value) = (name.to_ascii_lowercase(), value.as_str()?);
        let mode = value.to_ascii_lowercase();
        let is_mode = lower.split('_').any(|part| {
            matches!(
                part,
                "bootmode" | "systembootmode" | "bootmodeselect" | "bootmodeselection" | "boottype"
            )
        });
        let is_bios = mode.starts_with("bios") || mode.starts_with("legacy");
        (is_mode && is_bios).then(|| (name.clone(), value.to_owned()))
    })
}

/// The BIOS attribute that says in which mode the machine boots, its value, and the mode: those of [`bios_mode`], and
/// AMI's `FBO001` (libredfish's `ami.rs`). A value that is both (`DUAL`) says nothing.
pub(super) fn mode_attribute(attributes: &Map<String, Value>) -> Option<(&str, &str, BootMode)> {
    attributes.iter().find_map(|(name, value)| {
        let (lower, value) = (name.to_ascii_lowercase(), value.as_str()?);
        let is_mode = lower.contains("bootmode")
            && !["secure", "onetime", "hide"].iter().any(|other| lower.contains(other));
        let mode = mode_of_value(value).filter(|_| is_mode || lower == "fbo001")?;
        Some((name.as_str(), value, mode))
    })
}

/// The boot mode of an attribute's value: `Uefi`, `UEFIMode`, `Bios`, `LegacyBios`, `LegacyMode`, `Legacy`.
pub(super) fn mode_of_value(value: &str) -> Option<BootMode> {
    match value.to_ascii_lowercase().as_str() {
        "uefi" | "uefimode" => Some(BootMode::Uefi),
        "bios" | "legacybios" | "legacymode" | "legacy" => Some(BootMode::Bios),
        _ => None,
    }
}

/// Warnings about URLs of other boots or tools in the attributes of Dell and HPE. Firmware prefers them to a URL from DHCP.
/// A URL may hold a secret, so only its host is named.
pub(super) fn leftover_urls(attributes: &Map<String, Value>) -> Vec<String> {
    let text = |name: &str| attributes.get(name).and_then(Value::as_str);
    let leftover = |(name, value): (&String, &Value)| {
        let device = name.strip_prefix("HttpDev").and_then(|rest| rest.strip_suffix("Uri"));
        let is_off =
            device.is_some_and(|it| text(&format!("HttpDev{it}EnDis")) == Some("Disabled"));
        let url = value.as_str().filter(|url| !url.trim().is_empty() && !is_off)?;
        if device.is_none() && !name.starts_with("UrlBootFile") {
            return None;
        }
        let host = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
        let at = host.map(|host| format!(" at {host}")).unwrap_or_default();
        Some(format!(
            "the BIOS attribute {name} has a URL{at} that this boot does not set: the firmware may boot from it instead \
             of the URL from DHCP, so empty it"
        ))
    };
    attributes.iter().filter_map(leftover).collect()
}

/// The path of the resource that takes new BIOS attributes. Some of AMI's name none, and have it at `SD`.
pub(super) fn settings_of(bios: &RedfishResource, platform: BmcPlatform) -> String {
    let name = if quirks::keeps_bios_settings_at_sd(platform) { "SD" } else { "Settings" };
    let own = || format!("{}/{name}", bios.path.trim_end_matches('/'));
    bios.settings().map_or_else(own, str::to_owned)
}

impl<C: BmcChannel> BootReader<'_, '_, C> {
    /// Dell's HTTP device, if the BIOS has one.
    pub(super) async fn dell_http_device(
        &mut self,
        macs: &[Mac],
    ) -> Result<Result<DellHttpDevice, NoDellDevice>, BmcFailure> {
        const URI: &str = "HttpDev1Uri";
        let Some(bios) = self.bios().await?.cloned() else { return Ok(Err(NoDellDevice::Missing)) };
        let Some(attributes) = bios.body["Attributes"].as_object() else {
            return Ok(Err(NoDellDevice::Missing));
        };
        if !attributes.contains_key(URI) {
            return Ok(Err(NoDellDevice::Missing));
        }
        let is_enabled =
            attributes.get("HttpDev1EnDis").and_then(Value::as_str) != Some("Disabled");
        let registry = self.bios_registry(&bios).await?;
        let entry = |name: &str| registry.iter().find(|entry| entry["AttributeName"] == name);
        // A child of a disabled device is read-only until it is enabled (IDRAC.*.SYS410).
        if is_enabled && entry(URI).is_some_and(|entry| entry["ReadOnly"] == true) {
            return Ok(Err(NoDellDevice::ReadOnly));
        }
        let values = |name: &str| -> Vec<String> {
            let values = entry(name).and_then(|entry| entry["Value"].as_array());
            let names = values.into_iter().flatten().filter_map(|it| it["ValueName"].as_str());
            names.map(str::to_owned).collect()
        };
        let tls_off =
            values("HttpDev1TlsMode").into_iter().find(|it| it == "None" || it == "Disabled");
        let current = attributes.get("HttpDev1Interface").and_then(Value::as_str);
        let allowed = values("HttpDev1Interface");
        let interface = self.dell_interface(macs, &allowed, current).await?;
        let shown = attributes.iter().filter(|(name, _)| name.starts_with("HttpDev1"));
        Ok(Ok(DellHttpDevice {
            settings: settings_of(&bios, BmcPlatform::DellIdrac),
            interface,
            is_enabled,
            tls_off: tls_off.unwrap_or_else(|| "None".to_owned()),
            shown: shown.map(|(name, value)| (name.clone(), value.clone())).collect(),
        }))
    }

    /// The entries of the BIOS attribute registry, below the BIOS or where the registries name it; empty if it cannot be
    /// read.
    pub(super) async fn attribute_registry(&self, bios: &RedfishResource) -> Vec<Value> {
        if let Ok(entries) = self.bios_registry(bios).await
            && !entries.is_empty()
        {
            return entries;
        }
        let name = bios.body["AttributeRegistry"].as_str().filter(|name| !name.is_empty());
        let Some(name) = name else { return Vec::new() };
        let read = async |path: &str| self.service.find(RedfishPurpose::ReadBios, path).await;
        let Ok(Some(file)) = read(&format!("/redfish/v1/Registries/{name}")).await else {
            return Vec::new();
        };
        let uri = file.body["Location"][0]["Uri"].as_str().filter(|uri| uri.starts_with('/'));
        let Some(uri) = uri else { return Vec::new() };
        match read(uri).await {
            Ok(Some(registry)) => registry_entries(&registry),
            Ok(None) | Err(_) => Vec::new(),
        }
    }

    /// The entries of the BIOS attribute registry below the BIOS; empty if it is not there.
    async fn bios_registry(&self, bios: &RedfishResource) -> Result<Vec<Value>, BmcFailure> {
        let path = format!("{}/BiosRegistry", bios.path.trim_end_matches('/'));
        let registry = match self.service.get(RedfishPurpose::ReadBios, &path).await {
            Ok(registry) => registry,
            Err(BmcFailure::Refused { .. }) => return Ok(Vec::new()),
            Err(failure) => return Err(failure),
        };
        Ok(registry_entries(&registry))
    }

    /// The name of the node's card (FQDD), such as `NIC.Slot.5-1-1`: the `Id` of the interface with its address.
    async fn dell_interface(
        &self,
        macs: &[Mac],
        allowed: &[String],
        current: Option<&str>,
    ) -> Result<Option<String>, BmcFailure> {
        let Some(path) = self.system.link("EthernetInterfaces") else { return Ok(None) };
        let all = self.service.collection(RedfishPurpose::ReadInterfaces, path).await?;
        let members = all.map(|all| all.members()).unwrap_or_default();
        for member in members.iter().take(MOST_INTERFACES) {
            let found = self.service.find(RedfishPurpose::ReadInterfaces, member).await?;
            let Some(found) = found else { continue };
            let address = |name: &str| found.body[name].as_str()?.parse::<Mac>().ok();
            let addresses = [address("MACAddress"), address("PermanentMACAddress")];
            if !addresses.iter().flatten().any(|address| macs.contains(address)) {
                continue;
            }
            let Some(id) = found.body["Id"].as_str() else { continue };
            return Ok(named_interface(id, allowed, current));
        }
        Ok(None)
    }

    /// HPE's persistent boot order, if the BIOS has one.
    pub(super) async fn hpe_boot_order(&mut self) -> Result<Option<HpeBootOrder>, BmcFailure> {
        let Some(bios) = self.bios().await? else { return Ok(None) };
        let path = format!("{}/oem/hpe/boot/settings/", bios.path.trim_end_matches('/'));
        let found = match self.service.find(RedfishPurpose::ReadBios, &path).await {
            Ok(found) => found,
            Err(BmcFailure::Refused { .. }) => None,
            Err(failure) => return Err(failure),
        };
        Ok(found.and_then(|found| {
            let before = strings(&found.body["PersistentBootConfigOrder"])?;
            let before = before.into_iter().map(str::to_owned).collect();
            Some(HpeBootOrder { resource: found.path.clone(), before })
        }))
    }
}

fn registry_entries(registry: &RedfishResource) -> Vec<Value> {
    let entries = registry.body["RegistryEntries"]["Attributes"].as_array();
    entries.cloned().unwrap_or_default()
}

/// `HttpDev1Interface` names a port, the interfaces have partitions as well: `NIC.Slot.5-1-1` is on `NIC.Slot.5-1`.
fn named_interface(id: &str, allowed: &[String], current: Option<&str>) -> Option<String> {
    let port = id.rsplit_once('-').map_or(id, |(port, _)| port);
    let fits = |name: &str| name == id || name == port;
    if allowed.is_empty() {
        // The form of the present value is the form of all.
        let dashes = |name: &str| name.matches('-').count();
        let current = current?;
        return [id, port]
            .into_iter()
            .find(|name| dashes(name) == dashes(current))
            .map(str::to_owned);
    }
    allowed.iter().find(|name| fits(name)).cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn attributes(json: Value) -> Map<String, Value> {
        json.as_object().unwrap().clone()
    }

    #[test]
    fn bios_mode_is_what_an_attribute_of_the_bios_says() {
        for name in ["BootMode", "BootModes_SystemBootMode", "BootModeSelect_00B5"] {
            assert!(bios_mode(&attributes(json!({name: "LegacyBios"}))).is_some(), "{name}");
        }
        assert!(bios_mode(&attributes(json!({"BootMode": "Bios"}))).is_some());
        assert!(
            bios_mode(&attributes(json!({"BootMode": "Uefi", "SecureBootMode": "Legacy"})))
                .is_none()
        );
        assert!(bios_mode(&attributes(json!({"BootMode": 1}))).is_none());
    }

    #[test]
    fn a_card_is_named_as_the_attribute_names_it() {
        let allowed = ["NIC.Integrated.1-1".to_owned(), "NIC.Slot.5-1".to_owned()];

        assert_eq!(
            named_interface("NIC.Slot.5-1-1", &allowed, None).as_deref(),
            Some("NIC.Slot.5-1")
        );
        assert_eq!(named_interface("NIC.Slot.7-1-1", &allowed, None), None);
        assert_eq!(
            named_interface("NIC.Slot.7-1-1", &[], Some("NIC.Slot.5-1")).as_deref(),
            Some("NIC.Slot.7-1")
        );
        assert_eq!(
            named_interface("NIC.Slot.7-1-1", &[], Some("NIC.Slot.5-1-1")).as_deref(),
            Some("NIC.Slot.7-1-1")
        );
    }
}
