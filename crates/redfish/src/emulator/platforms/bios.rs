//! BIOS attributes: their registry, and the check of a PATCH against it.

use serde_json::{Value, json};

use crate::emulator::patch::ResourcePatch;
use crate::emulator::response::{
    EmulatorResponse, malformed, not_writable, unknown_property, wrong_value,
};

/// A BIOS attribute with its registry entry.
#[derive(Clone, Debug)]
pub(super) struct BiosAttribute {
    pub(super) name: &'static str,
    pub(super) value: Value,
    /// Allowable values; empty for a text.
    pub(super) allowable: Vec<String>,
    pub(super) read_only: bool,
}

impl BiosAttribute {
    /// One of some values, the first of which it has.
    pub(super) fn choice(name: &'static str, allowable: &[&str]) -> Self {
        let allowable: Vec<String> = allowable.iter().map(|value| (*value).to_owned()).collect();
        let value = allowable.first().cloned().unwrap_or_default().into();
        Self { name, value, allowable, read_only: false }
    }

    /// A text, empty at first.
    pub(super) fn text(name: &'static str) -> Self {
        Self { name, value: "".into(), allowable: Vec::new(), read_only: false }
    }

    /// The same attribute, which no client can set.
    pub(super) fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }
}

/// Checks `Attributes` of a PATCH against the registry.
pub(super) fn check_attributes(
    patch: &ResourcePatch<'_>,
    registry: &[BiosAttribute],
) -> Result<(), EmulatorResponse> {
    let other = patch
        .body
        .keys()
        .find(|name| *name != "Attributes" && *name != "@Redfish.SettingsApplyTime");
    if let Some(other) = other {
        return Err(unknown_property(other));
    }
    let Some(attributes) = patch.body.get("Attributes").and_then(Value::as_object) else {
        return Err(malformed());
    };
    for (name, value) in attributes {
        let Some(known) = registry.iter().find(|attribute| attribute.name == name) else {
            return Err(unknown_property(name));
        };
        if known.read_only {
            return Err(not_writable(name));
        }
        let Some(text) = value.as_str() else { return Err(wrong_value(name, value)) };
        let listed = known.allowable.is_empty() || known.allowable.iter().any(|v| v == text);
        if !listed || text.len() > 255 {
            return Err(wrong_value(name, value));
        }
    }
    Ok(())
}

/// The part of a PATCH of BIOS settings that is kept.
pub(super) fn attributes_of(patch: &ResourcePatch<'_>) -> Value {
    let attributes = patch.body.get("Attributes").cloned().unwrap_or_default();
    json!({"Attributes": attributes})
}
