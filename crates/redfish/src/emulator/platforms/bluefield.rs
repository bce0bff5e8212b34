//! NVIDIA BlueField-3: OpenBMC with `UefiHttp` and `HttpBootUri`, which belong to the settings resource.

use serde_json::{Value, json};

use super::bodies::{BmcDescription, BodiesBuilder, BootOptionForm};
use crate::emulator::machine::{MachineResources, SystemLayout};
use crate::emulator::patch::ResourcePatch;
use crate::emulator::response::{EmulatorResponse, no_content, not_writable};
use crate::emulator::tree::ResourceBodies;
use crate::emulator::vendor::{SystemSpec, VendorRules};

pub(super) struct BlueFieldBmc;

const SYSTEM: &str = "/redfish/v1/Systems/Bluefield";
const SETTINGS: &str = "/redfish/v1/Systems/Bluefield/Settings";
const MANAGER: &str = "/redfish/v1/Managers/Bluefield_BMC";

impl VendorRules for BlueFieldBmc {
    fn bodies(&self, specs: &[SystemSpec]) -> ResourceBodies {
        let mut builder = BodiesBuilder::default();
        let boot = json!({
            "BootNext": "",
            "BootSourceOverrideEnabled": "Disabled",
            "BootSourceOverrideMode": "UEFI",
            "BootSourceOverrideTarget": "None",
            "HttpBootUri": "",
            "UefiTargetBootSourceOverride": "None",
        });
        builder.add_bmc(&BmcDescription {
            system: SYSTEM,
            manager: MANAGER,
            chassis: "/redfish/v1/Chassis/Bluefield_BMC",
            root: json!({"Vendor": "Nvidia", "Product": "Nvidia-BMCMezz"}),
            system_body: json!({
                "Name": "Bluefield",
                "Manufacturer": "https://www.mellanox.com",
                "Model": "BlueField-3 SmartNIC Main Card",
                "@Redfish.Settings": {
                    "@odata.type": "#Settings.v1_3_5.Settings",
                    "SettingsObject": {"@odata.id": SETTINGS},
                },
                "Boot": boot,
            }),
            manager_body: json!({"Model": "OpenBmc", "FirmwareVersion": "BF-24.10-10"}),
            resets: &[
                "On",
                "ForceOff",
                "ForceRestart",
                "GracefulRestart",
                "GracefulShutdown",
                "PowerCycle",
            ],
            resets_inline: false,
            session_timeout: 1800,
        });
        builder.extend(SYSTEM, &json!({"Boot": {
            "BootSourceOverrideEnabled@Redfish.AllowableValues": ["Once", "Continuous", "Disabled"],
            "BootSourceOverrideMode@Redfish.AllowableValues": ["Legacy", "UEFI"],
            "BootSourceOverrideTarget@Redfish.AllowableValues":
                ["None", "Pxe", "UefiHttp", "UefiShell", "UefiTarget", "UefiBootNext"],
        }}));
        let nics = specs.first().map_or(0, |spec| spec.nics);
        builder.boot_options(
            SYSTEM,
            nics,
            &BootOptionForm {
                id: |number, _| format!("Boot{number:04X}"),
                name: |nic, kind, ip| match kind {
                    "HTTP" => format!("NET-NIC_P{nic}-IPV{ip}-HTTP"),
                    _ => format!("NET-NIC_P{nic}-IPV{ip}"),
                },
                has_path: true,
            },
        );
        let order: Vec<_> = (0..=3 * nics).map(|number| format!("Boot{number:04X}")).collect();
        let mut pending = boot;
        pending["BootOrder"] = order.into();
        builder.add(
            SETTINGS,
            "ComputerSystem.v1_17_0",
            json!({
                "Name": "Bluefield Pending Settings",
                "Boot": pending,
            }),
        );
        // The list of the settings resource is bmcweb's own; that of the system holds.
        builder.extend(
            SETTINGS,
            &json!({"Boot": {"BootSourceOverrideTarget@Redfish.AllowableValues":
                ["None", "Pxe", "Hdd", "Cd", "Diags", "BiosSetup", "Usb"],
            }}),
        );
        for spec in specs {
            builder.nics(SYSTEM, spec, |position| format!("p{position}"));
        }
        builder.done()
    }

    fn layout(&self, _: &str) -> SystemLayout {
        SystemLayout { system: SYSTEM.to_owned(), media: Vec::new() }
    }

    fn accepts_patch(&self, _: &SystemLayout, path: &str) -> bool {
        [SYSTEM, SETTINGS].contains(&path)
    }

    fn patch(
        &self,
        machine: &mut MachineResources<'_>,
        patch: &ResourcePatch<'_>,
    ) -> Result<EmulatorResponse, EmulatorResponse> {
        if patch.path == SYSTEM {
            let property =
                patch.body.get("Boot").and_then(|boot| boot.as_object()?.keys().next().cloned());
            return Err(not_writable(property.as_deref().unwrap_or("Boot")));
        }
        let mut view = patch.view.clone();
        let known = "BootSourceOverrideTarget@Redfish.AllowableValues";
        if let Some(boot) = view.get_mut("Boot").and_then(Value::as_object_mut) {
            boot.insert(known.to_owned(), machine.boot()[known].clone());
        }
        machine.patch_checked(&ResourcePatch { view: &view, ..*patch }, &[])?;
        Ok(no_content())
    }

    fn apply_settings(&self, machine: &mut MachineResources<'_>) {
        machine.apply(SETTINGS, SYSTEM, "Boot");
    }
}
