//! AMI MegaRAC, as on DGX H100: what is to change belongs to the future state at `/SD`.

use http::StatusCode;
use serde_json::{Value, json};

use super::bios::{BiosAttribute, attributes_of, check_attributes};
use super::bodies::{BmcDescription, BodiesBuilder, BootOptionForm};
use crate::emulator::machine::{MachineResources, NextBoot, SystemLayout};
use crate::emulator::patch::ResourcePatch;
use crate::emulator::response::{EmulatorResponse, error, no_content, vendor_error};
use crate::emulator::tree::ResourceBodies;
use crate::emulator::vendor::{SystemSpec, VendorRules};

pub(super) struct AmiMegaRac;

const SYSTEM: &str = "/redfish/v1/Systems/DGX";
const FUTURE: &str = "/redfish/v1/Systems/DGX/SD";
const MANAGER: &str = "/redfish/v1/Managers/BMC";
const FUTURE_BIOS: &str = "/redfish/v1/Systems/DGX/Bios/SD";

fn attributes() -> [BiosAttribute; 4] {
    let on = ["Enabled", "Disabled"];
    ["Ipv4Http", "Ipv4Pxe", "Ipv6Http", "NetworkStack"].map(|name| BiosAttribute::choice(name, &on))
}

impl VendorRules for AmiMegaRac {
    fn bodies(&self, specs: &[SystemSpec]) -> ResourceBodies {
        let mut builder = BodiesBuilder::with_etag("\"1720574208\"");
        let settings = json!({
            "@odata.type": "#Settings.v1_2_2.Settings",
            "SettingsObject": {"@odata.id": FUTURE},
        });
        builder.add_bmc(&BmcDescription {
            system: SYSTEM,
            manager: MANAGER,
            chassis: "/redfish/v1/Chassis/DGX",
            root: json!({
                "Vendor": "AMI",
                "Product": "AMI Redfish Server",
                "Oem": {"Ami": {"@odata.type": "#AMIServiceRoot.v1_0_0.AMIServiceRoot"}},
            }),
            system_body: json!({
                "@Redfish.Settings": settings,
                "Manufacturer": "NVIDIA",
                "Model": "DGXH100",
                "Boot": {
                    "BootNext": null,
                    "BootSourceOverrideEnabled": "Disabled",
                    "BootSourceOverrideMode": null,
                    "BootSourceOverrideTarget": "None",
                    "HttpBootUri": null,
                    "UefiTargetBootSourceOverride": null,
                },
            }),
            manager_body: json!({"FirmwareVersion": "23.11.20", "Model": "77171220"}),
            resets: &["On", "ForceOff", "GracefulShutdown", "ForceRestart", "PowerCycle"],
            resets_inline: false,
            session_timeout: 30,
        });
        let nics = specs.first().map_or(0, |spec| spec.nics);
        builder.boot_options(
            SYSTEM,
            nics,
            &BootOptionForm {
                id: |number, _| format!("{number:04X}"),
                name: |nic, kind, ip| {
                    format!("UEFI: {kind} IPv{ip} Network Adapter - {{mac{nic}}}")
                },
                has_path: true,
            },
        );
        builder.bios(SYSTEM, FUTURE_BIOS, "BiosAttributeRegistry113.1.1.3", &attributes());
        builder.add(FUTURE, "ComputerSystem.v1_17_0", future_state(nics));
        for spec in specs {
            builder.nics(SYSTEM, spec, |position| format!("eth{position}"));
        }
        builder.virtual_media(MANAGER, "CD1");
        builder.done()
    }

    fn layout(&self, _: &str) -> SystemLayout {
        SystemLayout {
            system: SYSTEM.to_owned(),
            media: vec![format!("{MANAGER}/VirtualMedia/CD1")],
        }
    }

    fn accepts_patch(&self, layout: &SystemLayout, path: &str) -> bool {
        path == layout.system || path == FUTURE || path == FUTURE_BIOS
    }

    fn needs_if_match(&self) -> bool {
        true
    }

    fn patch(
        &self,
        machine: &mut MachineResources<'_>,
        patch: &ResourcePatch<'_>,
    ) -> Result<EmulatorResponse, EmulatorResponse> {
        if patch.path == SYSTEM && patch.body.contains_key("Boot") {
            let words = format!("The operation is moved to FutureState URI({FUTURE}).");
            let code = "Ami.1.0.OperationSupportedInFutureStateURI";
            return Err(vendor_error(StatusCode::BAD_REQUEST, code, &words));
        }
        if patch.path == FUTURE_BIOS {
            check_attributes(patch, &attributes())?;
            machine.tree.change(patch.path, &attributes_of(patch));
            return Ok(no_content());
        }
        machine.patch_checked(patch, &[])?;
        Ok(no_content())
    }

    fn apply_settings(&self, machine: &mut MachineResources<'_>) {
        machine.apply(FUTURE, SYSTEM, "Boot");
        machine.apply(FUTURE_BIOS, &format!("{SYSTEM}/Bios"), "Attributes");
    }

    fn boot_over_http(&self, machine: &MachineResources<'_>, boot: &Value) -> NextBoot {
        let is_on = |name: &str| machine.attribute(name) == "Enabled";
        match boot["HttpBootUri"].as_str() {
            _ if !is_on("Ipv4Http") || !is_on("NetworkStack") => NextBoot::Usual,
            Some(url) if !url.is_empty() => NextBoot::Url(url.to_owned()),
            Some(_) | None => NextBoot::Http { nic: 0 },
        }
    }

    fn busy(&self) -> EmulatorResponse {
        let words = "The host is booting; the future state cannot be changed now.";
        error(StatusCode::SERVICE_UNAVAILABLE, "ServiceTemporarilyUnavailable", words)
    }
}

fn future_state(nics: usize) -> Value {
    let order: Vec<_> = (0..=3 * nics).map(|number| format!("Boot{number:04X}")).collect();
    json!({
        "Name": "System",
        "AssetTag": "",
        "Boot": {
            "BootNext": null,
            "BootOrder": order,
            "BootSourceOverrideEnabled": "Disabled",
            "BootSourceOverrideEnabled@Redfish.AllowableValues": ["Disabled", "Once", "Continuous"],
            "BootSourceOverrideMode": null,
            "BootSourceOverrideMode@Redfish.AllowableValues": ["UEFI"],
            "BootSourceOverrideTarget": "None",
            "BootSourceOverrideTarget@Redfish.AllowableValues": [
                "None", "Pxe", "Floppy", "Cd", "Usb", "Hdd", "BiosSetup", "Utilities", "Diags",
                "UefiShell", "UefiTarget", "SDCard", "UefiHttp", "RemoteDrive", "UefiBootNext",
            ],
            "HttpBootUri": null,
            "UefiTargetBootSourceOverride": null,
        },
    })
}
