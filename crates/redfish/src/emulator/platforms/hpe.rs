//! HPE iLO 5 and iLO 6: the boot URL is a BIOS attribute, which becomes the boot entry `URL File`.

use http::StatusCode;
use serde_json::{Value, json};

use super::bios::{BiosAttribute, attributes_of, check_attributes};
use super::bodies::{BmcDescription, BodiesBuilder, BootOptionForm};
use crate::emulator::machine::{MachineResources, NextBoot, SystemLayout};
use crate::emulator::patch::{ResourcePatch, is_boot_uri};
use crate::emulator::response::{EmulatorResponse, ok, wrong_format};
use crate::emulator::tree::ResourceBodies;
use crate::emulator::vendor::{SystemSpec, VendorRules};

pub(super) struct HpeIlo {
    pub(super) generation: IloGeneration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum IloGeneration {
    Five,
    Six,
}

const SYSTEM: &str = "/redfish/v1/Systems/1";
const MANAGER: &str = "/redfish/v1/Managers/1";
// Links to these are in lower case and end with a slash.
const BIOS: &str = "/redfish/v1/Systems/1/Bios";
const BIOS_SETTINGS: &str = "/redfish/v1/Systems/1/Bios/settings";
const BOOT: &str = "/redfish/v1/Systems/1/Bios/oem/hpe/boot";
const BOOT_SETTINGS: &str = "/redfish/v1/Systems/1/Bios/oem/hpe/boot/settings";
/// The boot entry of `UrlBootFile`.
const URL_FILE: &str = "File.URL.1.1";
const DISK: &str = "HD.EmbSATA.1.1";
const RESETS: [&str; 7] = [
    "On",
    "ForceOff",
    "GracefulShutdown",
    "ForceRestart",
    "Nmi",
    "PushPowerButton",
    "GracefulRestart",
];
const URL_FILES: [&str; 4] = ["UrlBootFile", "UrlBootFile2", "UrlBootFile3", "UrlBootFile4"];

fn attributes() -> Vec<BiosAttribute> {
    let mut attributes = vec![
        BiosAttribute::choice("BootMode", &["Uefi", "LegacyBios"]),
        BiosAttribute::choice("Dhcpv4", &["Enabled", "Disabled"]),
        BiosAttribute::choice("HttpSupport", &["Auto", "HttpsOnly", "HttpOnly", "Disabled"]),
        BiosAttribute::choice("PreBootNetwork", &["Auto"]),
        BiosAttribute::choice("SecureBootStatus", &["Disabled", "Enabled"]).read_only(),
    ];
    attributes.extend(URL_FILES.map(BiosAttribute::text));
    attributes
}

/// Names of the boot entries of the disk and the cards, in their first order.
fn structured_names(nics: usize) -> Vec<String> {
    let card = |nic: usize| {
        ["IPv4", "Httpv4", "Httpv6"].map(|kind| format!("NIC.Slot.{}.1.{kind}", nic + 1))
    };
    std::iter::once(DISK.to_owned()).chain((0..nics).flat_map(card)).collect()
}

impl VendorRules for HpeIlo {
    fn bodies(&self, specs: &[SystemSpec]) -> ResourceBodies {
        let nics = specs.first().map_or(0, |spec| spec.nics);
        let builder = BodiesBuilder::with_etag("W/\"9B9F7D67\"");
        let mut builder = builder.folding_case();
        let (model, manager) = match self.generation {
            IloGeneration::Five => ("ProLiant DL385 Gen10 Plus v2", ("iLO 5", "iLO 5 v2.72")),
            IloGeneration::Six => ("ProLiant DL380a Gen11", ("iLO 6", "iLO 6 v1.69")),
        };
        builder.add_bmc(&BmcDescription {
            system: SYSTEM,
            manager: MANAGER,
            chassis: "/redfish/v1/Chassis/1",
            root: json!({
                "Name": "HPE RESTful Root Service",
                "Vendor": "HPE",
                "Product": model,
                "Oem": {"Hpe": {
                    "@odata.type": "#HpeiLOServiceExt.v2_4_0.HpeiLOServiceExt",
                    "Manager": [{"ManagerType": manager.0, "ManagerFirmwareVersion": "2.72"}],
                }},
            }),
            system_body: json!({
                "Name": "Computer System",
                "Manufacturer": "HPE",
                "Model": model,
                "Oem": {"Hpe": {"PostState": "PowerOff"}},
                "Boot": {
                    "BootSourceOverrideEnabled": "Disabled",
                    "BootSourceOverrideMode": "UEFI",
                    "BootSourceOverrideTarget": "None",
                    "BootSourceOverrideTarget@Redfish.AllowableValues": [
                        "None", "Cd", "Hdd", "Usb", "SDCard", "Utilities", "Diags", "BiosSetup",
                        "Pxe", "UefiShell", "UefiHttp", "UefiTarget",
                    ],
                    "UefiTargetBootSourceOverride": "None",
                },
            }),
            manager_body: json!({"Model": manager.0, "FirmwareVersion": manager.1}),
            resets: &RESETS,
            resets_inline: true,
            session_timeout: 30,
        });
        builder.event_log(SYSTEM, "IML");
        builder.boot_options(
            SYSTEM,
            nics,
            &BootOptionForm {
                id: |_, position| (position + 1).to_string(),
                name: |nic, kind, ip| {
                    let kind = if kind == "HTTP" { "HTTP(S)" } else { kind };
                    format!(
                        "Slot {} Port 1 : Network Adapter - {{mac{nic}}} ({kind} IPv{ip})",
                        nic + 1
                    )
                },
                has_path: true,
            },
        );
        let paths = builder.device_paths(SYSTEM);
        builder.extend(
            SYSTEM,
            &json!({
                "Boot": {"UefiTargetBootSourceOverride@Redfish.AllowableValues": paths},
            }),
        );
        builder.bios(SYSTEM, BIOS_SETTINGS, "BiosAttributeRegistryA42.v1_2_60", &attributes());
        add_boot_settings(&mut builder, nics);
        for spec in specs {
            builder.nics(SYSTEM, spec, |position| (position + 1).to_string());
        }
        builder.virtual_media(MANAGER, "2");
        builder.done()
    }

    fn layout(&self, _: &str) -> SystemLayout {
        SystemLayout { system: SYSTEM.to_owned(), media: vec![format!("{MANAGER}/VirtualMedia/2")] }
    }

    fn accepts_patch(&self, _: &SystemLayout, path: &str) -> bool {
        [SYSTEM, BIOS_SETTINGS, BOOT_SETTINGS].contains(&path)
    }

    fn patch(
        &self,
        machine: &mut MachineResources<'_>,
        patch: &ResourcePatch<'_>,
    ) -> Result<EmulatorResponse, EmulatorResponse> {
        match patch.path {
            BIOS_SETTINGS => patch_bios(machine, patch),
            BOOT_SETTINGS => patch_boot_order(machine, patch),
            _ => self.patch_system(machine, patch),
        }
    }

    fn apply_settings(&self, machine: &mut MachineResources<'_>) {
        // The settings go on showing all values.
        if let Some(changes) = machine.tree.changes(BIOS_SETTINGS).cloned() {
            machine.tree.change(BIOS, &changes);
        }
        if let Some(changes) = machine.tree.changes(BOOT_SETTINGS).cloned() {
            machine.tree.change(BOOT, &changes);
        }
        list_url_file(machine);
    }

    fn boot_over_http(&self, machine: &MachineResources<'_>, _: &Value) -> NextBoot {
        match url_file(machine).as_str() {
            "" => NextBoot::Http { nic: 0 },
            url => boot_from_url(machine, url),
        }
    }

    fn usual_boot(&self, machine: &MachineResources<'_>, boot: &Value) -> NextBoot {
        let order = machine.view(BOOT);
        let first = order["PersistentBootConfigOrder"][0].as_str().unwrap_or_default();
        if first == URL_FILE {
            let url = url_file(machine);
            return boot_from_url(machine, &url);
        }
        if let Some(slot) = first.strip_prefix("NIC.Slot.") {
            let number = slot.split('.').next().and_then(|number| number.parse::<usize>().ok());
            let nic = number.map_or(0, |number| number.saturating_sub(1));
            return if slot.contains("Http") {
                NextBoot::Http { nic }
            } else {
                NextBoot::Pxe { nic }
            };
        }
        boot["BootOrder"][0]
            .as_str()
            .map_or(NextBoot::Usual, |first| machine.boot_from_option(first))
    }

    fn busy(&self) -> EmulatorResponse {
        hpe_error(StatusCode::BAD_REQUEST, "iLO.2.14.UnableToModifyDuringSystemPOST", &[])
    }

    fn sessions_full(&self) -> EmulatorResponse {
        hpe_error(StatusCode::BAD_REQUEST, "Base.1.4.SessionLimitExceeded", &[])
    }
}

impl HpeIlo {
    fn patch_system(
        &self,
        machine: &mut MachineResources<'_>,
        patch: &ResourcePatch<'_>,
    ) -> Result<EmulatorResponse, EmulatorResponse> {
        let has_mode = patch.boot("BootSourceOverrideMode").is_some();
        match self.generation {
            IloGeneration::Five if has_mode => {
                let property = "BootSourceOverrideMode";
                let message = "Base.1.4.PropertyNotWritable";
                return Err(hpe_error(StatusCode::BAD_REQUEST, message, &[property]));
            }
            IloGeneration::Six
                if has_mode
                    && patch
                        .boot("BootSourceOverrideTarget")
                        .is_some_and(|to| to == "UefiHttp") =>
            {
                return Err(hpe_error(
                    StatusCode::BAD_REQUEST,
                    "iLO.2.15.UnsupportedOperation",
                    &[],
                ));
            }
            IloGeneration::Five | IloGeneration::Six => {}
        }
        machine.patch_checked(patch, &[])?;
        Ok(success("Base.1.4.Success"))
    }
}

fn add_boot_settings(builder: &mut BodiesBuilder, nics: usize) {
    let lower = |path: &str| format!("{}/", path.to_lowercase());
    let values: Value = attributes()
        .into_iter()
        .map(|attribute| (attribute.name.to_owned(), attribute.value))
        .collect::<serde_json::Map<_, _>>()
        .into();
    builder.extend(SYSTEM, &json!({"Bios": {"@odata.id": lower(BIOS)}}));
    builder.extend(
        BIOS,
        &json!({
            "@odata.id": lower(BIOS),
            "@Redfish.Settings": {"SettingsObject": {"@odata.id": lower(BIOS_SETTINGS)}},
            "Oem": {"Hpe": {
                "@odata.type": "#HpeBiosExt.v2_0_0.HpeBiosExt",
                "Links": {"Boot": {"@odata.id": lower(BOOT)}},
            }},
        }),
    );
    builder
        .extend(BIOS_SETTINGS, &json!({"@odata.id": lower(BIOS_SETTINGS), "Attributes": values}));
    let names = structured_names(nics);
    let paths = builder.device_paths(SYSTEM);
    let source = |(name, path): (&String, &String)| json!({"StructuredBootString": name, "BootString": name, "UEFIDevicePath": path});
    let sources: Vec<_> = names.iter().zip(&paths).map(source).collect();
    let body = json!({
        "Name": "Boot Order",
        "BootSources": sources,
        "PersistentBootConfigOrder": names,
    });
    builder.add(BOOT, "HpeServerBootSettings.v2_0_0", body.clone());
    builder.add(BOOT_SETTINGS, "HpeServerBootSettings.v2_0_0", body);
    builder.extend(
        BOOT,
        &json!({
            "@odata.id": lower(BOOT),
            "@Redfish.Settings": {"SettingsObject": {"@odata.id": lower(BOOT_SETTINGS)}},
        }),
    );
    builder.extend(BOOT_SETTINGS, &json!({"@odata.id": lower(BOOT_SETTINGS)}));
}

fn patch_bios(
    machine: &mut MachineResources<'_>,
    patch: &ResourcePatch<'_>,
) -> Result<EmulatorResponse, EmulatorResponse> {
    check_attributes(patch, &attributes())?;
    for name in URL_FILES {
        if !is_boot_uri(&patch.body["Attributes"][name]) {
            return Err(wrong_format(name));
        }
    }
    machine.tree.change(patch.path, &attributes_of(patch));
    Ok(success("iLO.2.14.SystemResetRequired"))
}

fn patch_boot_order(
    machine: &mut MachineResources<'_>,
    patch: &ResourcePatch<'_>,
) -> Result<EmulatorResponse, EmulatorResponse> {
    patch.check(&["BootSources"])?;
    let pending = machine.view(BIOS_SETTINGS);
    let has_url = pending["Attributes"]["UrlBootFile"].as_str().is_some_and(|url| !url.is_empty());
    let mut known = structured_names(machine.macs.len());
    known.extend(has_url.then(|| URL_FILE.to_owned()));
    let order = patch.body.get("PersistentBootConfigOrder").and_then(Value::as_array);
    let unknown = |name: &&Value| !known.iter().any(|known| name.as_str() == Some(known));
    if let Some(name) = order.into_iter().flatten().find(unknown) {
        let name = name.to_string();
        let message = "Base.1.4.PropertyValueNotInList";
        return Err(hpe_error(
            StatusCode::BAD_REQUEST,
            message,
            &[&name, "PersistentBootConfigOrder"],
        ));
    }
    machine.tree.change(patch.path, &Value::Object(patch.body.clone()));
    Ok(success("iLO.2.14.SystemResetRequired"))
}

fn url_file(machine: &MachineResources<'_>) -> String {
    machine.attribute("UrlBootFile")
}

fn boot_from_url(machine: &MachineResources<'_>, url: &str) -> NextBoot {
    let plain = !url.starts_with("https:");
    match machine.attribute("HttpSupport").as_str() {
        "Auto" if !url.is_empty() => NextBoot::Url(url.to_owned()),
        "HttpsOnly" if !plain => NextBoot::Url(url.to_owned()),
        "HttpOnly" if plain && !url.is_empty() => NextBoot::Url(url.to_owned()),
        _ => NextBoot::Usual,
    }
}

/// Lists the boot entry of `UrlBootFile` among the boot options.
fn list_url_file(machine: &mut MachineResources<'_>) {
    let url = url_file(machine);
    let folder = machine.below("BootOptions");
    let path = format!("{folder}/{}", structured_names(machine.macs.len()).len() + 1);
    if url.is_empty() {
        machine.tree.delete(&path);
    } else {
        machine.tree.change(
            &path,
            &json!({
                "@odata.id": path,
                "@odata.type": "#BootOption.v1_0_1.BootOption",
                "Id": path.rsplit('/').next(),
                "Name": "Boot Option",
                "BootOptionReference": "Boot0099",
                "DisplayName": "URL File",
                "UefiDevicePath": format!("Uri({url})"),
            }),
        );
    }
    machine.tree.list_children(&folder);
}

/// An error as iLO words it: its message is in the registry only.
fn hpe_error(status: StatusCode, message_id: &str, arguments: &[&str]) -> EmulatorResponse {
    EmulatorResponse::new(status, Some(hpe_message(message_id, arguments)))
}

fn success(message_id: &str) -> EmulatorResponse {
    ok(hpe_message(message_id, &[]))
}

fn hpe_message(message_id: &str, arguments: &[&str]) -> Value {
    json!({
        "error": {
            "code": "iLO.0.10.ExtendedInfo",
            "message": "See @Message.ExtendedInfo for more information.",
            "@Message.ExtendedInfo": [{"MessageId": message_id, "MessageArgs": arguments}],
        },
    })
}
