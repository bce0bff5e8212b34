//! OpenBMC as on NVIDIA GB200: no `UefiHttp`, no mode; the boot order belongs to the settings resource.

use serde_json::json;

use super::bodies::{BmcDescription, BodiesBuilder, BootOptionForm};
use crate::emulator::machine::{MachineResources, NextBoot, SystemLayout};
use crate::emulator::patch::ResourcePatch;
use crate::emulator::response::{EmulatorResponse, no_content};
use crate::emulator::tree::ResourceBodies;
use crate::emulator::vendor::{SystemSpec, VendorRules};

pub(super) struct OpenBmc;

const SYSTEM: &str = "/redfish/v1/Systems/System_0";
const SETTINGS: &str = "/redfish/v1/Systems/System_0/Settings";
const MANAGER: &str = "/redfish/v1/Managers/BMC_0";
/// The list is fixed in bmcweb (`systems.hpp`).
const TARGETS: [&str; 7] = ["None", "Pxe", "Hdd", "Cd", "Diags", "BiosSetup", "Usb"];

impl VendorRules for OpenBmc {
    fn bodies(&self, specs: &[SystemSpec]) -> ResourceBodies {
        let mut builder = BodiesBuilder::default();
        let boot = json!({
            "BootSourceOverrideEnabled": "Disabled",
            "BootSourceOverrideEnabled@Redfish.AllowableValues": ["Once", "Continuous", "Disabled"],
            "BootSourceOverrideTarget": "None",
            "BootSourceOverrideTarget@Redfish.AllowableValues": TARGETS,
        });
        builder.add_bmc(&BmcDescription {
            system: SYSTEM,
            manager: MANAGER,
            chassis: "/redfish/v1/Chassis/BMC_0",
            root: json!({"Vendor": "NVIDIA", "Product": "GB200 NVL"}),
            system_body: json!({
                "Name": "System_0",
                "Manufacturer": "NVIDIA",
                "Model": "GB200 NVL",
                "@Redfish.Settings": {
                    "@odata.type": "#Settings.v1_3_5.Settings",
                    "SettingsObject": {"@odata.id": SETTINGS},
                },
                "Boot": boot,
            }),
            manager_body: json!({"Model": "OpenBmc", "FirmwareVersion": "GB200Nvl-24.12-8"}),
            resets: &[
                "On",
                "ForceOff",
                "ForceOn",
                "ForceRestart",
                "GracefulRestart",
                "GracefulShutdown",
                "PowerCycle",
                "Nmi",
            ],
            resets_inline: false,
            session_timeout: 1800,
        });
        let nics = specs.first().map_or(0, |spec| spec.nics);
        builder.boot_options(
            SYSTEM,
            nics,
            &BootOptionForm {
                id: |number, _| format!("Boot{number:04X}"),
                name: |nic, kind, ip| format!("UEFI {kind}v{ip} (MAC:{{MAC{nic}}})"),
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
                "Name": "System_0 Pending Settings",
                "Boot": pending,
            }),
        );
        for spec in specs {
            builder.nics(SYSTEM, spec, |position| format!("eth{position}"));
        }
        builder.virtual_media(MANAGER, "Slot_0");
        builder.done()
    }

    fn layout(&self, _: &str) -> SystemLayout {
        SystemLayout {
            system: SYSTEM.to_owned(),
            media: vec![format!("{MANAGER}/VirtualMedia/Slot_0")],
        }
    }

    fn accepts_patch(&self, _: &SystemLayout, path: &str) -> bool {
        [SYSTEM, SETTINGS].contains(&path)
    }

    fn patch(
        &self,
        machine: &mut MachineResources<'_>,
        patch: &ResourcePatch<'_>,
    ) -> Result<EmulatorResponse, EmulatorResponse> {
        let read_only: &[&str] = if patch.path == SYSTEM { &["Boot.BootOrder"] } else { &[] };
        machine.patch_checked(patch, read_only)?;
        Ok(no_content())
    }

    fn apply_settings(&self, machine: &mut MachineResources<'_>) {
        machine.apply(SETTINGS, SYSTEM, "Boot");
    }

    fn boot_over_pxe(&self, _: &MachineResources<'_>) -> NextBoot {
        NextBoot::Http { nic: 0 }
    }
}
