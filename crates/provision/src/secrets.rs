//! The values of a node that are secret, by their keys: masked in the API, and left out of logs.

use std::convert::Infallible;

use serde_json::{Map, Value};

/// The replacement of a secret in output.
pub const MASKED: &str = "******";

/// Whether the value of this `driver_info` key is secret.
#[must_use]
pub fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "secret", "token", "passwd", "snmp_auth_key", "snmp_priv_key", "ssh_key_contents"]
        .iter()
        .any(|word| key.contains(word))
}

/// Whether the value of this `instance_info` key is secret: a config drive contains passwords and keys, and an image
/// URL may be signed.
#[must_use]
pub fn is_secret_of_instance(key: &str) -> bool {
    is_secret(key) || matches!(key, "configdrive" | "image_url")
}

/// A map for output, with secrets masked at every depth.
#[must_use]
pub fn masked(map: &Map<String, Value>, is_secret: fn(&str) -> bool) -> Map<String, Value> {
    let mut map = map.clone();
    let mut mask = |_: &str, value: &mut Value| {
        *value = MASKED.into();
        Ok::<_, Infallible>(())
    };
    let Ok(()) = visit_map(&mut map, "", is_secret, &mut mask);
    map
}

/// Visits each secret of a map with its place below `place`.
pub(crate) fn visit_map<E>(
    map: &mut Map<String, Value>,
    place: &str,
    is_secret: fn(&str) -> bool,
    visit: &mut impl FnMut(&str, &mut Value) -> Result<(), E>,
) -> Result<(), E> {
    for (key, value) in map {
        // Escaped as in a JSON pointer (RFC 6901 §3), so that a slash in a key does not begin a level.
        let place = format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"));
        if is_secret(key) {
            visit(&place, value)?;
        } else {
            visit_inner(value, &place, is_secret, visit)?;
        }
    }
    Ok(())
}

fn visit_inner<E>(
    value: &mut Value,
    place: &str,
    is_secret: fn(&str) -> bool,
    visit: &mut impl FnMut(&str, &mut Value) -> Result<(), E>,
) -> Result<(), E> {
    match value {
        Value::Object(inner) => visit_map(inner, place, is_secret, visit),
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                visit_inner(item, &format!("{place}/{index}"), is_secret, visit)?;
            }
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}
