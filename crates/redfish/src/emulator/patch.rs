//! The check of a PATCH against the resource as it is shown.

use serde_json::{Map, Value};

use super::response::{
    EmulatorResponse, bad_request, not_writable, unknown_property, wrong_format, wrong_value,
};

/// A PATCH of a resource.
pub(super) struct ResourcePatch<'a> {
    /// The path of the resource, as it is kept.
    pub(super) path: &'a str,
    /// The properties to set.
    pub(super) body: &'a Map<String, Value>,
    /// The resource as it is shown.
    pub(super) view: &'a Value,
}

/// Properties that no client may write.
const READ_ONLY: [&str; 16] = [
    "Id",
    "Name",
    "Description",
    "PowerState",
    "Manufacturer",
    "Model",
    "SKU",
    "SerialNumber",
    "PartNumber",
    "UUID",
    "Status",
    "SystemType",
    "BiosVersion",
    "Links",
    "Actions",
    "BootProgress",
];

/// Values of the schema, where a resource lists none.
const ENABLED: [&str; 3] = ["Disabled", "Once", "Continuous"];
const MODES: [&str; 2] = ["UEFI", "Legacy"];
const TARGETS: [&str; 17] = [
    "None",
    "Pxe",
    "Floppy",
    "Cd",
    "Usb",
    "Hdd",
    "BiosSetup",
    "Utilities",
    "Diags",
    "UefiShell",
    "UefiTarget",
    "SDCard",
    "UefiHttp",
    "RemoteDrive",
    "UefiBootNext",
    "Recovery",
    "UsbCd",
];

impl ResourcePatch<'_> {
    /// The property of `Boot` that is to be set.
    pub(super) fn boot(&self, property: &str) -> Option<&Value> {
        self.body.get("Boot")?.get(property)
    }

    /// Checks that every property is shown, writable, and gets a value of its list.
    ///
    /// `read_only` has further properties in the form `Boot.BootSourceOverrideMode`.
    pub(super) fn check(&self, read_only: &[&str]) -> Result<(), EmulatorResponse> {
        let nothing = Map::new();
        check_object(self.view.as_object().unwrap_or(&nothing), self.body, "", read_only)
    }
}

fn check_object(
    view: &Map<String, Value>,
    body: &Map<String, Value>,
    above: &str,
    read_only: &[&str],
) -> Result<(), EmulatorResponse> {
    for (name, value) in body {
        let full = format!("{above}{name}");
        if name.contains('@') {
            return Err(unknown_property(name));
        }
        let Some(shown) = view.get(name) else { return Err(unknown_property(name)) };
        if (above.is_empty() && READ_ONLY.contains(&name.as_str()))
            || read_only.contains(&full.as_str())
            || shown.get("@odata.id").is_some()
        {
            return Err(not_writable(name));
        }
        match (shown, value) {
            (Value::Object(shown), Value::Object(value)) => {
                check_object(shown, value, &format!("{full}."), read_only)?;
            }
            (Value::Object(_), _) => return Err(wrong_value(name, value)),
            _ => check_value(view, name, shown, value)?,
        }
    }
    Ok(())
}

fn check_value(
    view: &Map<String, Value>,
    name: &str,
    shown: &Value,
    value: &Value,
) -> Result<(), EmulatorResponse> {
    if name == "HttpBootUri" {
        return if is_boot_uri(value) { Ok(()) } else { Err(wrong_format(name)) };
    }
    let listed = view.get(&format!("{name}@Redfish.AllowableValues"));
    let listed = listed.and_then(Value::as_array);
    let of_schema: &[&str] = match name {
        "BootSourceOverrideEnabled" => &ENABLED,
        "BootSourceOverrideMode" => &MODES,
        "BootSourceOverrideTarget" => &TARGETS,
        _ => &[],
    };
    let fits = match listed {
        Some(listed) => listed.contains(value),
        None => {
            of_schema.is_empty() || of_schema.iter().any(|known| value.as_str() == Some(*known))
        }
    };
    let same_kind = shown.is_null()
        || value.is_null()
        || std::mem::discriminant(shown) == std::mem::discriminant(value);
    match (fits, same_kind) {
        (false, _) => Err(wrong_value(name, value)),
        (true, false) => {
            let words = format!(
                "The value {value} for the property {name} is of a different type than the property can accept."
            );
            Err(bad_request("PropertyValueTypeError", &words))
        }
        (true, true) => Ok(()),
    }
}

/// Whether firmware can fetch it; null and the empty text clear it.
pub(super) fn is_boot_uri(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) if text.is_empty() => true,
        // EDK2's boot URI has at most 255 characters (`HttpBootDxe.h`).
        Value::String(text) => text.len() <= 255 && is_image_uri(text),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => false,
    }
}

/// Whether it is an HTTP URL without blanks and control characters.
pub(super) fn is_image_uri(text: &str) -> bool {
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    let scheme = url::Url::parse(text).map(|url| url.scheme().to_owned());
    printable && matches!(scheme.as_deref(), Ok("http" | "https"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(body: Value) -> String {
        let view = json!({
            "Id": "1",
            "AssetTag": "",
            "Bios": {"@odata.id": "/b"},
            "Boot": {
                "BootSourceOverrideTarget": "None",
                "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe"],
                "BootSourceOverrideEnabled": "Disabled",
                "BootOrder": [],
                "HttpBootUri": null,
                "Mode": "x",
            },
        });
        let patch = ResourcePatch { path: "/s", body: body.as_object().unwrap(), view: &view };
        match patch.check(&["Boot.Mode"]) {
            Ok(()) => "ok".to_owned(),
            Err(refused) => {
                let code = refused.body.unwrap()["error"]["code"].take();
                code.as_str().unwrap().replace("Base.1.18.", "")
            }
        }
    }

    #[test]
    fn a_property_is_written_only_if_it_is_shown_and_not_read_only() {
        for (body, expected) in [
            (json!({"AssetTag": "x"}), "ok"),
            (json!({"AssetTag": 1}), "PropertyValueTypeError"),
            (json!({"Other": "x"}), "PropertyUnknown"),
            (json!({"Id": "2"}), "PropertyNotWritable"),
            (json!({"Bios": {"x": 1}}), "PropertyNotWritable"),
            (json!({"Boot": {"@odata.type": "x"}}), "PropertyUnknown"),
            (json!({"Boot": 1}), "PropertyValueNotInList"),
            (json!({"Boot": {"Mode": "y"}}), "PropertyNotWritable"),
            (json!({"Boot": {"BootSourceOverrideTarget": "Pxe"}}), "ok"),
            (json!({"Boot": {"BootSourceOverrideTarget": "Cd"}}), "PropertyValueNotInList"),
            (json!({"Boot": {"BootSourceOverrideEnabled": "Twice"}}), "PropertyValueNotInList"),
            (json!({"Boot": {"HttpBootUri": "http://a/b c"}}), "PropertyValueFormatError"),
            (json!({"Boot": {"HttpBootUri": "http://a/b\nc"}}), "PropertyValueFormatError"),
            (json!({"Boot": {"HttpBootUri": "ftp://a/b"}}), "PropertyValueFormatError"),
            (json!({"Boot": {"HttpBootUri": "http://a/b"}}), "ok"),
            (json!({"Boot": {"HttpBootUri": null}}), "ok"),
        ] {
            assert_eq!(message(body.clone()), expected, "{body}");
        }
    }
}
