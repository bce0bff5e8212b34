//! `local_link_connection` of a port: its connection to a switch, in Ironic's forms.

use serde_json::{Value, json};

use crate::field::{BadBody, Object};
use crate::python;
use crate::version::{Version, since};

const FIELD: &str = "local_link_connection";

/// Permitted keys; each value is a text.
const KNOWN: [&str; 7] = [
    "port_id",
    "switch_id",
    "hostname",
    "switch_info",
    "network_type",
    "vtep-logical-switch",
    "vtep-physical-switch",
];

/// Required keys: one of these sets.
const SHAPES: [&[&str]; 3] = [
    &["port_id", "switch_id"],
    &["port_id", "hostname"],
    &["port_id", "vtep-logical-switch", "vtep-physical-switch"],
];

/// The value to store, with the switch's MAC address in lower case.
///
/// # Errors
/// [`BadBody`]; [`BadBody::Newer`] for a key of a later version.
pub(crate) fn accept(value: &Value, smart_nic: bool, version: Version) -> Result<Value, BadBody> {
    let link = value.as_object().ok_or_else(|| misshapen(value))?;
    for (field, since) in [
        ("network_type", since::NETWORK_TYPE),
        ("vtep-logical-switch", since::VTEP),
        ("vtep-physical-switch", since::VTEP),
    ] {
        if link.contains_key(field) && !version.has(since) {
            return Err(BadBody::Newer);
        }
    }
    if !link.is_empty() && !is_shaped(link) {
        return Err(misshapen(value));
    }
    if smart_nic && !(link.contains_key("port_id") && link.contains_key("hostname")) {
        return Err(BadBody::SmartNicWithoutLink);
    }
    let mut link = link.clone();
    if let Some(id) = link.get("switch_id").and_then(Value::as_str) {
        let id = switch_id(id).ok_or_else(|| BadBody::NotASwitch(id.to_owned()))?;
        link.insert("switch_id".to_owned(), json!(id));
    }
    Ok(Value::Object(link))
}

fn is_shaped(link: &Object) -> bool {
    let has = |field: &&str| link.contains_key(*field);
    let known =
        link.iter().all(|(name, value)| KNOWN.contains(&name.as_str()) && value.is_string());
    let network = link.get("network_type").and_then(Value::as_str);
    let pair = has(&"vtep-logical-switch") == has(&"vtep-physical-switch");
    known
        && pair
        && matches!(network, None | Some("managed" | "unmanaged"))
        && (network == Some("unmanaged") || SHAPES.iter().any(|shape| shape.iter().all(has)))
}

/// A MAC address of six bytes, or an OpenFlow datapath ID of eight.
fn switch_id(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let is_byte = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let parts: Vec<_> = text.split(':').collect();
    let fits = [6, 8].contains(&parts.len()) && parts.iter().all(|part| is_byte(part));
    fits.then_some(text)
}

fn misshapen(value: &Value) -> BadBody {
    let reason = format!(
        "{} is not valid under any of the given schemas: it must have port_id with switch_id or \
         hostname, or network_type 'unmanaged', all of them texts",
        python::repr(value)
    );
    BadBody::Schema { subject: FIELD, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(value: Value) -> Result<Value, BadBody> {
        accept(&value, false, Version::MAX)
    }

    #[test]
    fn each_of_upstreams_shapes_is_kept_with_its_switch_in_lower_case() {
        let link = json!({ "port_id": "Gig0/1", "switch_id": "0A:1B:2C:3D:4E:5F" });
        assert_eq!(take(link).unwrap()["switch_id"], "0a:1b:2c:3d:4e:5f");
        for link in [
            json!({}),
            json!({ "port_id": "1", "switch_id": "00:00:0a:1b:2c:3d:4e:5f", "switch_info": "s" }),
            json!({ "port_id": "1", "hostname": "h" }),
            json!({ "network_type": "unmanaged" }),
            json!({ "port_id": "1", "vtep-logical-switch": "a", "vtep-physical-switch": "b" }),
        ] {
            assert_eq!(take(link.clone()), Ok(link));
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        for link in [
            json!([]),
            json!({ "port_id": "1" }),
            json!({ "switch_id": "0a:1b:2c:3d:4e:5f" }),
            json!({ "port_id": 1, "hostname": "h" }),
            json!({ "port_id": "1", "hostname": "h", "colour": "red" }),
            json!({ "network_type": "managed" }),
            json!({ "network_type": "wild" }),
            json!({ "port_id": "1", "hostname": "h", "vtep-logical-switch": "a" }),
        ] {
            assert!(matches!(take(link.clone()), Err(BadBody::Schema { .. })), "{link}");
        }
        let link = json!({ "port_id": "1", "switch_id": "the big one" });
        assert_eq!(
            take(link).unwrap_err().to_string(),
            "Expected a MAC address or OpenFlow datapath ID but received the big one."
        );
    }

    #[test]
    fn a_smart_nic_needs_its_host_and_an_old_client_cannot_name_the_network() {
        let link = json!({ "port_id": "1", "switch_id": "0a:1b:2c:3d:4e:5f" });
        assert_eq!(accept(&link, true, Version::MAX), Err(BadBody::SmartNicWithoutLink));

        let old = Version::new(63).unwrap();
        let link = json!({ "network_type": "unmanaged" });
        assert_eq!(accept(&link, false, old), Err(BadBody::Newer));
    }
}
