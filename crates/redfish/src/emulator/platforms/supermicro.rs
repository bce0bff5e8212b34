//! Supermicro X13: `UefiHttp` is listed always, and works once HTTP is on in the BIOS. On A21GE it is listed only after a
//! start in UEFI mode.

use serde_json::{Value, json};

use super::bios::{BiosAttribute, attributes_of, check_attributes};
use super::bodies::{BmcDescription, BodiesBuilder, BootOptionForm};
use crate::emulator::machine::{MachineResources, NextBoot, SystemLayout};
use crate::emulator::patch::ResourcePatch;
use crate::emulator::response::{EmulatorResponse, ok};
use crate::emulator::tree::ResourceBodies;
use crate::emulator::vendor::{SystemSpec, VendorRules};

pub(super) struct SupermicroBmc {
    /// Whether `UefiHttp` is listed always.
    pub(super) lists_http: bool,
}

const SYSTEM: &str = "/redfish/v1/Systems/1";
const BIOS_SETTINGS: &str = "/redfish/v1/Systems/1/Bios/SD";
const MANAGER: &str = "/redfish/v1/Managers/1";
/// The boot option of PXE on the first card.
const PXE_OPTION: &str = "Boot0001";

fn attributes() -> [BiosAttribute; 4] {
    [
        BiosAttribute::choice("IPv4HTTPSupport_00F5", &["Disabled", "Enabled"]),
        BiosAttribute::choice("IPv4PXESupport_00F4", &["Enabled", "Disabled"]),
        BiosAttribute::choice("NetworkStack_00F3", &["Enabled", "Disabled"]),
        BiosAttribute::choice(
            "HTTPBootPolicy_010D",
            &["Apply to each LAN", "Boot Priority #1 instantly"],
        ),
    ]
}

fn targets(lists_http: bool) -> Vec<&'static str> {
    let mut targets =
        vec!["None", "Pxe", "Floppy", "Cd", "Usb", "Hdd", "BiosSetup", "UsbCd", "UefiBootNext"];
    if lists_http {
        targets.push("UefiHttp");
    }
    targets
}

impl VendorRules for SupermicroBmc {
    fn bodies(&self, specs: &[SystemSpec]) -> ResourceBodies {
        let mut builder = BodiesBuilder::with_etag("\"a0a7128477b35520\"");
        builder.add_bmc(&BmcDescription {
            system: SYSTEM,
            manager: MANAGER,
            chassis: "/redfish/v1/Chassis/1",
            root: json!({
                "Id": "ServiceRoot",
                "Oem": {"Supermicro": {"@odata.type": "#SmcServiceRootExtensions.v1_0_0.ServiceRoot"}},
            }),
            system_body: json!({
                "Manufacturer": "Supermicro",
                "Model": if self.lists_http { "SYS-821GE-TNHR" } else { "SYS-A21GE-NBRT" },
                "Boot": {
                    "BootNext": null,
                    "BootSourceOverrideEnabled": "Disabled",
                    "BootSourceOverrideMode": if self.lists_http { "UEFI" } else { "Legacy" },
                    "BootSourceOverrideTarget": "Pxe",
                    "BootSourceOverrideTarget@Redfish.AllowableValues": targets(self.lists_http),
                },
            }),
            manager_body: json!({"Model": "ASPEED", "FirmwareVersion": "01.03.18"}),
            resets: &["On", "ForceOff", "GracefulShutdown", "GracefulRestart", "ForceRestart", "Nmi", "ForceOn"],
            resets_inline: false,
            session_timeout: 300,
        });
        builder.boot_options(
            SYSTEM,
            specs.first().map_or(0, |spec| spec.nics),
            &BootOptionForm {
                id: |number, _| format!("Boot{number:04X}"),
                name: |nic, kind, ip| {
                    format!(
                        "(B{}/D0/F0) UEFI {kind} IPv{ip} Network Adapter - {{MAC{nic}}}",
                        26 + nic
                    )
                },
                has_path: false,
            },
        );
        builder.bios(SYSTEM, BIOS_SETTINGS, "BiosAttributeRegistry.v1_0_0", &attributes());
        for spec in specs {
            builder.nics(SYSTEM, spec, |position| (position + 1).to_string());
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

    fn accepts_patch(&self, _: &SystemLayout, path: &str) -> bool {
        [SYSTEM, BIOS_SETTINGS].contains(&path)
    }

    fn patch(
        &self,
        machine: &mut MachineResources<'_>,
        patch: &ResourcePatch<'_>,
    ) -> Result<EmulatorResponse, EmulatorResponse> {
        if patch.path == BIOS_SETTINGS {
            check_attributes(patch, &attributes())?;
            machine.tree.change(patch.path, &attributes_of(patch));
            return Ok(success());
        }
        machine.patch_checked(patch, &[])?;
        let mut after = json!({});
        // Without a mode, the mode is the default again.
        if patch.body.contains_key("Boot") && patch.boot("BootSourceOverrideMode").is_none() {
            after["BootSourceOverrideMode"] = "Legacy".into();
        }
        if patch.boot("BootSourceOverrideTarget").is_some_and(|target| target == "Pxe") {
            after["BootSourceOverrideTarget"] = "UefiBootNext".into();
            after["BootNext"] = PXE_OPTION.into();
        }
        machine.tree.change(SYSTEM, &json!({"Boot": after}));
        Ok(success())
    }

    fn apply_settings(&self, machine: &mut MachineResources<'_>) {
        machine.apply(BIOS_SETTINGS, &format!("{SYSTEM}/Bios"), "Attributes");
        if !self.lists_http && machine.boot()["BootSourceOverrideMode"] == "UEFI" {
            let listed = json!({"BootSourceOverrideTarget@Redfish.AllowableValues": targets(true)});
            machine.tree.change(SYSTEM, &json!({"Boot": listed}));
        }
    }

    fn needs_reset_after_settings(&self) -> bool {
        true
    }

    fn boot_over_http(&self, machine: &MachineResources<'_>, boot: &Value) -> NextBoot {
        let works = boot["BootSourceOverrideMode"] == "UEFI"
            && machine.attribute("IPv4HTTPSupport_00F5") == "Enabled"
            && machine.attribute("NetworkStack_00F3") == "Enabled";
        if works { NextBoot::Http { nic: 0 } } else { NextBoot::Usual }
    }
}

fn success() -> EmulatorResponse {
    ok(json!({
        "Success": {
            "code": "Base.v1_4_0.Success",
            "message": "Successfully Completed Request.",
        },
    }))
}
