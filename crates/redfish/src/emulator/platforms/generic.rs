//! A BMC of no vendor, with the standard properties. It may have several systems.

use serde_json::json;

use super::bodies::{BmcDescription, BodiesBuilder, RESETS};
use crate::emulator::machine::SystemLayout;
use crate::emulator::tree::ResourceBodies;
use crate::emulator::vendor::{SystemSpec, VendorRules};

pub(super) struct GenericBmc;

const MANAGER: &str = "/redfish/v1/Managers/1";
const CHASSIS: &str = "/redfish/v1/Chassis/1";

impl VendorRules for GenericBmc {
    fn bodies(&self, specs: &[SystemSpec]) -> ResourceBodies {
        let mut builder = BodiesBuilder::with_etag("\"0\"");
        let mut systems = Vec::new();
        for spec in specs {
            let system = self.layout(&spec.name).system;
            builder.add_bmc(&BmcDescription {
                system: &system,
                manager: MANAGER,
                chassis: CHASSIS,
                root: json!({"Product": "Ferroboot BMC"}),
                system_body: json!({
                    "Name": format!("System {}", spec.name),
                    "Manufacturer": "Ferroboot",
                    "Model": "QEMU machine",
                    "SystemType": "Virtual",
                    "Boot": {
                        "BootSourceOverrideEnabled": "Disabled",
                        "BootSourceOverrideEnabled@Redfish.AllowableValues":
                            ["Disabled", "Once", "Continuous"],
                        "BootSourceOverrideMode": "UEFI",
                        "BootSourceOverrideMode@Redfish.AllowableValues": ["UEFI"],
                        "BootSourceOverrideTarget": "None",
                        "BootSourceOverrideTarget@Redfish.AllowableValues":
                            ["None", "Pxe", "Cd", "Hdd", "UefiHttp", "UefiShell", "BiosSetup"],
                        "HttpBootUri": null,
                    },
                }),
                manager_body: json!({"Model": "Ferroboot BMC"}),
                resets: &RESETS,
                resets_inline: true,
                session_timeout: 1800,
            });
            builder.nics(&system, spec, |position| position.to_string());
            builder.virtual_media(&system, "Cd");
            builder.boot_certificates(&system);
            systems.push(system);
        }
        builder.add_collection("/redfish/v1/Systems", "ComputerSystem", &systems);
        let links: Vec<_> = systems.iter().map(|path| json!({"@odata.id": path})).collect();
        builder.extend(MANAGER, &json!({"Links": {"ManagerForServers": links}}));
        builder.extend(CHASSIS, &json!({"Links": {"ComputerSystems": links}}));
        builder.done()
    }

    fn layout(&self, name: &str) -> SystemLayout {
        let system = format!("/redfish/v1/Systems/{name}");
        let media = vec![format!("{system}/VirtualMedia/Cd")];
        SystemLayout { system, media }
    }

    fn accepts_patch(&self, layout: &SystemLayout, path: &str) -> bool {
        path == layout.system
    }
}
