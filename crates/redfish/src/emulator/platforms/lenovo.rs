//! Lenovo XCC: no `UefiHttp`. The target `Pxe` means the network, which is HTTP if an attribute says so.

use serde_json::{Value, json};

use super::bios::{BiosAttribute, attributes_of, check_attributes};
use super::bodies::{BmcDescription, BodiesBuilder};
use crate::emulator::machine::{MachineResources, NextBoot, SystemLayout};
use crate::emulator::patch::ResourcePatch;
use crate::emulator::response::{EmulatorResponse, ok};
use crate::emulator::tree::ResourceBodies;
use crate::emulator::vendor::{SystemSpec, VendorRules};

pub(super) struct LenovoXcc;

const SYSTEM: &str = "/redfish/v1/Systems/1";
const PENDING: &str = "/redfish/v1/Systems/1/Pending";
const BIOS_PENDING: &str = "/redfish/v1/Systems/1/Bios/Pending";
const MANAGER: &str = "/redfish/v1/Managers/1";
const NETWORK: &str = "Boot0003";

fn attributes() -> [BiosAttribute; 5] {
    [
        BiosAttribute::choice("NetworkStackSettings_IPv4HTTPSupport", &["Disabled", "Enabled"]),
        BiosAttribute::choice("NetworkStackSettings_IPv4PXESupport", &["Enabled", "Disabled"]),
        BiosAttribute::choice("NetworkStackSettings_IPv6HTTPSupport", &["Disabled", "Enabled"]),
        BiosAttribute::choice("BootModes_InfiniteBootRetry", &["Disabled", "Enabled"]),
        BiosAttribute::choice("BootModes_SystemBootMode", &["UEFIMode", "LegacyMode"]),
    ]
}

impl VendorRules for LenovoXcc {
    fn bodies(&self, specs: &[SystemSpec]) -> ResourceBodies {
        let mut builder = BodiesBuilder::with_etag("\"387fcecc\"");
        let order = ["Boot0002", NETWORK];
        builder.add_bmc(&BmcDescription {
            system: SYSTEM,
            manager: MANAGER,
            chassis: "/redfish/v1/Chassis/1",
            root: json!({"Vendor": "Lenovo"}),
            system_body: json!({
                "Name": "ComputerSystem",
                "Manufacturer": "Lenovo",
                "Model": "ThinkSystem SR670 V2",
                "@Redfish.Settings": {
                    "@odata.type": "#Settings.v1_3_0.Settings",
                    "SettingsObject": {"@odata.id": PENDING},
                    "SupportedApplyTimes": ["OnReset"],
                },
                "Boot": {
                    "BootOptions": {"@odata.id": format!("{SYSTEM}/BootOptions")},
                    "BootOrder": order,
                    "BootSourceOverrideEnabled": "Disabled",
                    "BootSourceOverrideEnabled@Redfish.AllowableValues": ["Once", "Disabled"],
                    "BootSourceOverrideMode": "UEFI",
                    "BootSourceOverrideTarget": "None",
                    "BootSourceOverrideTarget@Redfish.AllowableValues": [
                        "None", "Pxe", "Cd", "Usb", "Hdd", "BiosSetup", "Diags", "UefiTarget",
                    ],
                    "UefiTargetBootSourceOverride": null,
                },
            }),
            manager_body: json!({
                "Model": "Lenovo XClarity Controller",
                "FirmwareVersion": "TGBT42S 2.83 2023-07-05",
            }),
            resets: &[
                "On",
                "Nmi",
                "GracefulShutdown",
                "GracefulRestart",
                "ForceOn",
                "ForceOff",
                "ForceRestart",
            ],
            resets_inline: true,
            session_timeout: 300,
        });
        builder.add(PENDING, "ComputerSystem.v1_17_0", json!({"Boot": {"BootOrder": order}}));
        // XCC lists kinds of devices, not the cards.
        let options = [("Boot0002", "HardDisk"), (NETWORK, "Network")];
        let folder = format!("{SYSTEM}/BootOptions");
        for (id, name) in options {
            builder.add(
                &format!("{folder}/{id}"),
                "BootOption.v1_0_4",
                json!({
                    "Name": name,
                    "DisplayName": name,
                    "BootOptionReference": id,
                }),
            );
        }
        let members = options.map(|(id, _)| format!("{folder}/{id}"));
        builder.add_collection(&folder, "BootOption", &members);
        builder.bios(SYSTEM, BIOS_PENDING, "BiosAttributeRegistry.1.0.0", &attributes());
        for spec in specs {
            builder.nics(SYSTEM, spec, |position| format!("NIC{}", position + 1));
        }
        builder.virtual_media(MANAGER, "EXT1");
        builder.done()
    }

    fn layout(&self, _: &str) -> SystemLayout {
        SystemLayout {
            system: SYSTEM.to_owned(),
            media: vec![format!("{MANAGER}/VirtualMedia/EXT1")],
        }
    }

    fn accepts_patch(&self, _: &SystemLayout, path: &str) -> bool {
        [SYSTEM, PENDING, BIOS_PENDING].contains(&path)
    }

    fn patch(
        &self,
        machine: &mut MachineResources<'_>,
        patch: &ResourcePatch<'_>,
    ) -> Result<EmulatorResponse, EmulatorResponse> {
        if patch.path == BIOS_PENDING {
            check_attributes(patch, &attributes())?;
            // A second write before the reset drops the first.
            machine.tree.revert(patch.path);
            machine.tree.change(patch.path, &attributes_of(patch));
        } else {
            machine.patch_checked(patch, &["Boot.BootSourceOverrideMode"])?;
        }
        Ok(ok(machine.view(patch.path)))
    }

    fn apply_settings(&self, machine: &mut MachineResources<'_>) {
        machine.apply(PENDING, SYSTEM, "Boot");
        machine.apply(BIOS_PENDING, &format!("{SYSTEM}/Bios"), "Attributes");
    }

    fn boot_over_pxe(&self, machine: &MachineResources<'_>) -> NextBoot {
        let is_on = |name: &str| machine.attribute(name) == "Enabled";
        let http = is_on("NetworkStackSettings_IPv4HTTPSupport");
        let pxe = is_on("NetworkStackSettings_IPv4PXESupport");
        match (pxe, http) {
            (true, _) => NextBoot::Pxe { nic: 0 },
            (false, true) => NextBoot::Http { nic: 0 },
            (false, false) => NextBoot::Usual,
        }
    }

    fn usual_boot(&self, machine: &MachineResources<'_>, boot: &Value) -> NextBoot {
        if boot["BootOrder"][0] == NETWORK { self.boot_over_pxe(machine) } else { NextBoot::Usual }
    }
}
