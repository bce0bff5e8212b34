//! The contents of each resource (DMTF DSP0268).

use serde_json::{Value, json};

use super::system::{BootSourceOverrideEnabled, EmulatedPower, EmulatedSystem, RESETS};

pub(super) fn versions() -> Value {
    json!({"v1": "/redfish/v1/"})
}

pub(super) fn systems(ids: &[String]) -> Value {
    collection("Systems", "ComputerSystem", ids)
}

pub(super) fn manager(systems: &[String]) -> Value {
    json!({
        "@odata.id": "/redfish/v1/Managers/1",
        "@odata.type": "#Manager.v1_19_0.Manager",
        "Id": "1",
        "Name": "Manager",
        "ManagerType": "BMC",
        "Status": {"State": "Enabled", "Health": "OK"},
        "Links": {"ManagerForServers": links(systems)},
    })
}

pub(super) fn chassis(systems: &[String]) -> Value {
    json!({
        "@odata.id": "/redfish/v1/Chassis/1",
        "@odata.type": "#Chassis.v1_25_0.Chassis",
        "Id": "1",
        "Name": "Chassis",
        "ChassisType": "RackMount",
        "Status": {"State": "Enabled", "Health": "OK"},
        "Links": {"ComputerSystems": links(systems)},
    })
}

fn links(systems: &[String]) -> Vec<Value> {
    let link = |id: &String| json!({"@odata.id": format!("/redfish/v1/Systems/{id}")});
    systems.iter().map(link).collect()
}

/// A session.
pub(super) fn session(id: &str, username: &str) -> Value {
    json!({
        "@odata.id": format!("/redfish/v1/SessionService/Sessions/{id}"),
        "@odata.type": "#Session.v1_7_0.Session",
        "Id": id,
        "Name": "User Session",
        "UserName": username,
    })
}

pub(super) fn root() -> Value {
    json!({
        "@odata.id": "/redfish/v1/",
        "@odata.type": "#ServiceRoot.v1_16_1.ServiceRoot",
        "Id": "RootService",
        "Name": "Root Service",
        "RedfishVersion": "1.20.0",
        "Product": "Ferroboot BMC",
        "Systems": {"@odata.id": "/redfish/v1/Systems"},
        "Managers": {"@odata.id": "/redfish/v1/Managers"},
        "Chassis": {"@odata.id": "/redfish/v1/Chassis"},
        "SessionService": {"@odata.id": "/redfish/v1/SessionService"},
        "Links": {"Sessions": {"@odata.id": "/redfish/v1/SessionService/Sessions"}},
    })
}

pub(super) fn session_service() -> Value {
    json!({
        "@odata.id": "/redfish/v1/SessionService",
        "@odata.type": "#SessionService.v1_1_9.SessionService",
        "Id": "SessionService",
        "Name": "Session Service",
        "ServiceEnabled": true,
        "Sessions": {"@odata.id": "/redfish/v1/SessionService/Sessions"},
    })
}

pub(super) fn system(id: &str, system: &EmulatedSystem) -> Value {
    let mut boot = json!({
        "BootSourceOverrideEnabled": match system.boot.enabled {
            BootSourceOverrideEnabled::Disabled => "Disabled",
            BootSourceOverrideEnabled::Once => "Once",
            BootSourceOverrideEnabled::Continuous => "Continuous",
        },
        "BootSourceOverrideMode": if system.personality.bios_mode { "Legacy" } else { "UEFI" },
        "BootSourceOverrideTarget": system.boot.target,
    });
    if !system.personality.no_targets {
        boot["BootSourceOverrideTarget@Redfish.AllowableValues"] =
            system.targets().collect::<Vec<_>>().into();
    }
    if !system.personality.no_http_boot_uri {
        boot["HttpBootUri"] = system.boot.http_boot_uri.clone().into();
    }
    let path = format!("/redfish/v1/Systems/{id}");
    json!({
        "@odata.id": path,
        "@odata.type": "#ComputerSystem.v1_23_0.ComputerSystem",
        "@odata.etag": system.etag(),
        "Id": id,
        "Name": format!("System {id}"),
        "Manufacturer": "Ferroboot",
        "Model": "QEMU machine",
        "SystemType": "Virtual",
        "PowerState": match system.shown_power() {
            EmulatedPower::On => "On",
            EmulatedPower::Off => "Off",
        },
        "Status": {"State": "Enabled", "Health": "OK"},
        "Boot": boot,
        "EthernetInterfaces": {"@odata.id": format!("{path}/EthernetInterfaces")},
        "Actions": {
            "#ComputerSystem.Reset": {
                "target": format!("{path}/Actions/ComputerSystem.Reset"),
                "@Redfish.ActionInfo": format!("{path}/ResetActionInfo"),
                "ResetType@Redfish.AllowableValues": RESETS,
            },
        },
        "Links": {
            "Chassis": [{"@odata.id": "/redfish/v1/Chassis/1"}],
            "ManagedBy": [{"@odata.id": "/redfish/v1/Managers/1"}],
        },
    })
}

pub(super) fn reset_action_info(id: &str) -> Value {
    json!({
        "@odata.id": format!("/redfish/v1/Systems/{id}/ResetActionInfo"),
        "@odata.type": "#ActionInfo.v1_4_2.ActionInfo",
        "Id": "ResetActionInfo",
        "Name": "Reset Action Info",
        "Parameters": [{
            "Name": "ResetType",
            "Required": true,
            "DataType": "String",
            "AllowableValues": RESETS,
        }],
    })
}

pub(super) fn nics(id: &str, system: &EmulatedSystem) -> Value {
    let numbers: Vec<_> = (0..system.macs.len()).map(|number| number.to_string()).collect();
    collection(&format!("Systems/{id}/EthernetInterfaces"), "EthernetInterface", &numbers)
}

pub(super) fn interface(id: &str, number: &str, mac: &str) -> Value {
    json!({
        "@odata.id": format!("/redfish/v1/Systems/{id}/EthernetInterfaces/{number}"),
        "@odata.type": "#EthernetInterface.v1_12_1.EthernetInterface",
        "Id": number,
        "Name": format!("Network interface {number}"),
        "MACAddress": mac,
        "PermanentMACAddress": mac,
        "Status": {"State": "Enabled", "Health": "OK"},
    })
}

pub(super) fn collection(path: &str, kind: &str, ids: &[String]) -> Value {
    let link = |id: &String| json!({"@odata.id": format!("/redfish/v1/{path}/{id}")});
    json!({
        "@odata.id": format!("/redfish/v1/{path}"),
        "@odata.type": format!("#{kind}Collection.{kind}Collection"),
        "Name": format!("{kind} Collection"),
        "Members@odata.count": ids.len(),
        "Members": ids.iter().map(link).collect::<Vec<_>>(),
    })
}
