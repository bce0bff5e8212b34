//! `SecureBoot` of a system, and its databases, as the recordings show them. No recording has what is in the databases:
//! there they follow the schema.

use hardware::SecureBootDatabase;
use serde_json::{Value, json};

use super::bodies::collection;
use crate::emulator::tree::{ResourceBodies, merge};

/// The values of `ResetKeysType` in the schema.
pub(super) const STANDARD_RESETS: [&str; 3] =
    ["ResetAllKeysToDefault", "DeleteAllKeys", "DeletePK"];
/// Those of iDRAC.
pub(super) const DELL_RESETS: [&str; 7] = [
    "ResetAllKeysToDefault",
    "DeleteAllKeys",
    "DeletePK",
    "ResetPK",
    "ResetKEK",
    "ResetDB",
    "ResetDBX",
];

/// What a platform shows of Secure Boot.
#[derive(Clone, Copy)]
pub(super) struct SecureBootShape {
    /// `SecureBootMode`.
    pub(super) mode: &'static str,
    pub(super) reset: KeyReset,
    /// Whether there is `SecureBootDatabases`.
    pub(super) has_databases: bool,
}

/// How the action `SecureBoot.ResetKeys` is shown.
#[derive(Clone, Copy)]
pub(super) enum KeyReset {
    /// Not at all.
    None,
    /// Its target alone.
    Bare,
    /// With these values.
    Inline(&'static [&'static str]),
    /// With the values of the schema in an `ActionInfo`.
    ActionInfo,
}

/// Adds `SecureBoot` to a system, disabled.
pub(super) fn add_secure_boot(bodies: &mut ResourceBodies, system: &str, shape: SecureBootShape) {
    let path = format!("{system}/SecureBoot");
    let Some(body) = bodies.bodies.get_mut(system) else { return };
    merge(body, &json!({"SecureBoot": {"@odata.id": path}}));
    let etag = body.get("@odata.etag").cloned();
    let mut secure_boot = json!({
        "@odata.id": path,
        "@odata.type": "#SecureBoot.v1_1_0.SecureBoot",
        "Id": "SecureBoot",
        "Name": "UEFI Secure Boot",
        "SecureBootEnable": false,
        "SecureBootCurrentBoot": "Disabled",
        "SecureBootMode": shape.mode,
    });
    if let Some(etag) = &etag {
        secure_boot["@odata.etag"] = etag.clone();
    }
    let target = format!("{path}/Actions/SecureBoot.ResetKeys");
    let info = format!("{path}/ResetKeysActionInfo");
    let action = match shape.reset {
        KeyReset::None => None,
        KeyReset::Bare => Some(json!({"target": target})),
        KeyReset::Inline(values) => {
            Some(json!({"target": target, "ResetKeysType@Redfish.AllowableValues": values}))
        }
        KeyReset::ActionInfo => {
            bodies.bodies.insert(info.clone(), reset_keys_info(&info));
            Some(json!({"target": target, "@Redfish.ActionInfo": info}))
        }
    };
    if let Some(action) = action {
        secure_boot["Actions"] = json!({"#SecureBoot.ResetKeys": action});
    }
    if shape.has_databases {
        let folder = format!("{path}/SecureBootDatabases");
        secure_boot["SecureBootDatabases"] = json!({"@odata.id": folder});
        add_databases(bodies, &folder, etag.as_ref());
    }
    bodies.bodies.insert(path, secure_boot);
}

fn add_databases(bodies: &mut ResourceBodies, folder: &str, etag: Option<&Value>) {
    let paths = SecureBootDatabase::ALL.map(|it| format!("{folder}/{}", it.name()));
    for (database, path) in SecureBootDatabase::ALL.into_iter().zip(&paths) {
        let mut body = json!({
            "@odata.id": path,
            "@odata.type": "#SecureBootDatabase.v1_0_3.SecureBootDatabase",
            "Id": database.name(),
            "Name": format!("{} of Secure Boot", database.name()),
            "DatabaseId": database.name(),
            "Actions": {"#SecureBootDatabase.ResetKeys": {
                "target": format!("{path}/Actions/SecureBootDatabase.ResetKeys"),
                "ResetKeysType@Redfish.AllowableValues": &STANDARD_RESETS[..2],
            }},
        });
        if let Some(etag) = etag {
            body["@odata.etag"] = etag.clone();
        }
        let mut parts = vec![("Certificates", "Certificate")];
        match database {
            // Only certificates sign changes of other databases.
            SecureBootDatabase::PlatformKey | SecureBootDatabase::KeyExchangeKeys => {}
            SecureBootDatabase::Allowed | SecureBootDatabase::Forbidden => {
                parts.push(("Signatures", "Signature"));
            }
        }
        for (name, kind) in parts {
            let part = format!("{path}/{name}");
            body[name] = json!({"@odata.id": part});
            bodies.bodies.insert(part.clone(), collection(&part, kind, &[]));
        }
        bodies.bodies.insert(path.clone(), body);
    }
    let all = collection(folder, "SecureBootDatabase", &paths);
    bodies.bodies.insert(folder.to_owned(), all);
}

fn reset_keys_info(path: &str) -> Value {
    json!({
        "@odata.id": path,
        "@odata.type": "#ActionInfo.v1_4_2.ActionInfo",
        "Id": "ResetKeysActionInfo",
        "Name": "Reset Keys Action Info",
        "Parameters": [{
            "Name": "ResetKeysType",
            "Required": true,
            "DataType": "String",
            "AllowableValues": STANDARD_RESETS,
        }],
    })
}
