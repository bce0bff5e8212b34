//! Operators' requests for the hardware of a node: boot device and boot mode.

use serde_json::Value;

use crate::python;
use crate::states::{BadTarget, as_boolean, given, object_argument, text_argument};

/// The body of a `PUT …/management/boot_device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootDeviceRequest<'b> {
    /// `boot_device`.
    pub device: &'b str,
    /// `persistent`: whether the device stays; by default for the next boot only.
    pub persistent: bool,
}

/// The arguments of a `PUT …/management/boot_device`.
///
/// # Errors
/// [`BadTarget`]
pub fn boot_device(body: &Value) -> Result<BootDeviceRequest<'_>, BadTarget> {
    let (body, device) = text_argument(body, "boot_device", &["boot_device", "persistent"])?;
    let persistent = match given(body, "persistent") {
        None => false,
        Some(value) => as_boolean(value).ok_or_else(|| BadTarget::WrongType {
            argument: "persistent",
            expected: "a yes or no",
            value: python::repr(value),
        })?,
    };
    Ok(BootDeviceRequest { device, persistent })
}

/// The target of a `PUT …/states/boot_mode`.
///
/// # Errors
/// [`BadTarget`]
pub fn boot_mode(body: &Value) -> Result<&str, BadTarget> {
    Ok(text_argument(body, "target", &["target"])?.1)
}

/// The target of a `PUT …/states/secure_boot`.
///
/// # Errors
/// [`BadTarget`]
pub fn secure_boot(body: &Value) -> Result<bool, BadTarget> {
    let body = object_argument(body, "target", &["target"])?;
    let target = given(body, "target").ok_or(BadTarget::Absent("target"))?;
    as_boolean(target).ok_or_else(|| BadTarget::WrongType {
        argument: "target",
        expected: "a yes or no",
        value: python::repr(target),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secure_boot_is_a_yes_or_no() {
        let parsed = |body: Value| secure_boot(&body).map_err(|it| it.to_string());

        for (target, enable) in [(json!(true), true), (json!("False"), false), (json!("1"), true)] {
            assert_eq!(parsed(json!({ "target": target })), Ok(enable));
        }
        for (body, words) in [
            (Value::Null, "Missing mandatory parameter: target"),
            (json!({ "target": null }), "Missing mandatory parameter: target"),
            (json!({ "target": "maybe" }), "Expected a yes or no for target: 'maybe'"),
            (json!({ "target": true, "x": 1 }), "Unexpected arguments: x"),
        ] {
            assert_eq!(parsed(body), Err(words.to_owned()));
        }
    }

    #[test]
    fn a_boot_device_is_for_one_boot_unless_it_is_persistent() {
        let parsed =
            |body: Value| boot_device(&body).map(|it| it.persistent).map_err(|it| it.to_string());

        assert_eq!(parsed(json!({ "boot_device": "pxe" })), Ok(false));
        assert_eq!(parsed(json!({ "boot_device": "pxe", "persistent": null })), Ok(false));
        assert_eq!(parsed(json!({ "boot_device": "pxe", "persistent": "True" })), Ok(true));
        for (body, words) in [
            (Value::Null, "Missing mandatory parameter: boot_device"),
            (json!({}), "Missing mandatory parameter: boot_device"),
            (json!({ "boot_device": 1 }), "Expected string for boot_device: 1"),
            (
                json!({ "boot_device": "pxe", "persistent": 2 }),
                "Expected a yes or no for persistent: 2",
            ),
            (json!({ "boot_device": "pxe", "x": 1 }), "Unexpected arguments: x"),
        ] {
            assert_eq!(parsed(body), Err(words.to_owned()));
        }
    }
}
