//! Ports in the API: what each version shows, what a creation and a PATCH may set.

use jiff::Timestamp;
use provision::{Mac, Port};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::field::{self, BadBody, Field, Fields, Kind, Object, Set, View, time};
use crate::patch;
use crate::version::Version;

const TEXT: Kind = Kind::Text(255);

/// Every field, in the order in which the versions brought them.
pub const FIELDS: &[Field] = &[
    f("uuid", 1, Kind::Uuid, Set::Create),
    f("created_at", 1, TEXT, Set::Never),
    f("updated_at", 1, TEXT, Set::Never),
    f("address", 1, TEXT, Set::CreateAndPatch),
    f("extra", 1, Kind::Map, Set::CreateAndPatch),
    f("links", 1, Kind::List, Set::Never),
    f("node_uuid", 1, TEXT, Set::CreateAndPatch),
    f("internal_info", 18, Kind::Map, Set::Never),
    f("local_link_connection", 19, Kind::Map, Set::CreateAndPatch),
    f("pxe_enabled", 19, Kind::Boolean, Set::CreateAndPatch),
    f("portgroup_uuid", 24, Kind::Uuid, Set::CreateAndPatch),
    f("physical_network", 34, Kind::Text(64), Set::CreateAndPatch),
    f("is_smartnic", 53, Kind::Boolean, Set::CreateAndPatch),
    f("name", 88, TEXT, Set::CreateAndPatch),
    f("description", 97, TEXT, Set::CreateAndPatch),
    f("vendor", 100, Kind::Text(32), Set::CreateAndPatch),
    f("category", 101, Kind::Text(80), Set::CreateAndPatch),
    f("available_for_dynamic_portgroup", 103, Kind::Boolean, Set::CreateAndPatch),
];

/// What a list shows where nothing else is asked for.
pub const LISTED: [&str; 3] = ["uuid", "address", "links"];

/// Fields that are true where nothing was said.
const TRUE_BY_DEFAULT: [&str; 2] = ["pxe_enabled", "available_for_dynamic_portgroup"];

const fn f(name: &'static str, since: u16, kind: Kind, set: Set) -> Field {
    Field { name, since, kind, set }
}

/// The port as a client sees it.
#[must_use]
pub fn show(port: &Port, view: &View, fields: &Fields) -> Value {
    FIELDS
        .iter()
        .filter(|field| fields.show(field, view.version))
        .map(|field| (field.name.to_owned(), value(port, field, view)))
        .collect::<Object>()
        .into()
}

fn value(port: &Port, field: &Field, view: &View) -> Value {
    match field.name {
        "uuid" => json!(port.uuid),
        "created_at" => time(port.created_at),
        "updated_at" => port.updated_at.map_or(Value::Null, time),
        "links" => view.links(&format!("ports/{}", port.uuid)),
        _ => written(port, field),
    }
}

/// A field as clients may write it.
fn written(port: &Port, field: &Field) -> Value {
    match field.name {
        "address" => json!(port.address),
        "extra" => json!(port.extra),
        "node_uuid" => json!(port.node_uuid),
        "pxe_enabled" => json!(port.pxe_enabled),
        name => port.kept.get(name).cloned().unwrap_or_else(|| default(field)),
    }
}

fn default(field: &Field) -> Value {
    if TRUE_BY_DEFAULT.contains(&field.name) { json!(true) } else { field.kind.empty() }
}

/// The port that a `POST /v1/ports` asks for; `uuid` is used if the body has none.
///
/// Whether the node is there is the caller's to look up.
///
/// # Errors
/// [`BadBody`].
pub fn create(body: &Value, version: Version, uuid: Uuid, now: Timestamp) -> Result<Port, BadBody> {
    let body = field::object("port", body)?;
    let mut read = field::creation("port", body, FIELDS, version)?;
    for required in ["address", "node_uuid"] {
        if !read.contains_key(required) {
            let reason = format!("'{required}' is a required property");
            return Err(BadBody::Schema { subject: "port", reason });
        }
    }
    for name in TRUE_BY_DEFAULT {
        // `creation` leaves false out, as it is what a Boolean is by itself.
        read.insert(name.to_owned(), json!(!is_false(body.get(name))));
    }
    let uuid = match read.get("uuid") {
        Some(value) => serde_json::from_value(value.clone()).unwrap_or(uuid),
        None => uuid,
    };
    let mut port = Port {
        uuid,
        node_uuid: Uuid::nil(),
        address: Mac([0; 6]),
        pxe_enabled: true,
        created_at: now,
        updated_at: None,
        extra: Object::new(),
        kept: Object::new(),
    };
    fill(&mut port, &read)?;
    Ok(port)
}

fn is_false(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Bool(value)) => !value,
        Some(Value::String(text)) => field::boolean(text) == Some(false),
        Some(Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_)) | None => false,
    }
}

/// The port as a `PATCH /v1/ports/{}` wants it.
///
/// # Errors
/// [`BadBody`].
pub fn patched(port: &Port, body: &Value, version: Version) -> Result<Port, BadBody> {
    let patchable = || FIELDS.iter().filter(|field| field.set.by_patch());
    let document = patchable().map(|field| (field.name.to_owned(), written(port, field))).collect();
    let mut document = patch::apply(document, body, FIELDS, version)?;
    for field in patchable() {
        let value = match document.get(field.name) {
            Some(value) => field::accept("patch", field, value)?,
            None => default(field),
        };
        document.insert(field.name.to_owned(), value);
    }
    let mut port = port.clone();
    fill(&mut port, &document)?;
    Ok(port)
}

/// Sets what `document` holds; its values are of their fields' kinds.
fn fill(port: &mut Port, document: &Object) -> Result<(), BadBody> {
    for (name, value) in document {
        match name.as_str() {
            "uuid" => {}
            "address" => port.address = address(value)?,
            "node_uuid" => port.node_uuid = node_uuid(value)?,
            "extra" => port.extra = value.as_object().cloned().unwrap_or_default(),
            "pxe_enabled" => port.pxe_enabled = value == true,
            _ => keep(&mut port.kept, name, value),
        }
    }
    Ok(())
}

fn address(value: &Value) -> Result<Mac, BadBody> {
    let text = value.as_str().unwrap_or_default();
    text.parse().map_err(|_| BadBody::NotAMac { field: "address", value: text.to_owned() })
}

/// Upstream takes no names here, and clients look the UUID up when it says so.
fn node_uuid(value: &Value) -> Result<Uuid, BadBody> {
    let text = value.as_str().unwrap_or_default();
    let wrong = |_| BadBody::NotAUuid { field: "node_uuid", value: text.to_owned() };
    Uuid::try_parse(text).map_err(wrong)
}

fn keep(kept: &mut Object, name: &str, value: &Value) {
    let Some(field) = FIELDS.iter().find(|field| field.name == name) else { return };
    if *value == default(field) {
        kept.remove(name);
    } else {
        kept.insert(name.to_owned(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn view() -> View {
        View {
            version: Version::MAX,
            base_url: "http://127.0.0.1:6385".into(),
            host: "ferroboot".into(),
        }
    }

    fn new(body: &Value) -> Result<Port, BadBody> {
        let now = "2026-01-02T03:04:05.678901Z".parse().unwrap();
        create(body, Version::MAX, Uuid::nil(), now)
    }

    fn port() -> Port {
        new(&json!({ "address": "52-54-00-AA-BB-01", "node_uuid": Uuid::nil() })).unwrap()
    }

    #[test]
    fn a_new_port_looks_as_upstreams_does() {
        insta::assert_json_snapshot!(show(&port(), &view(), &Fields::All));
    }

    #[test]
    fn ports_are_refused_in_upstreams_words() {
        let words = |body: Value| new(&body).unwrap_err().to_string();

        insta::assert_json_snapshot!([
            words(json!({ "address": "zz", "node_uuid": Uuid::nil() })),
            words(json!({ "address": "52:54:00:aa:bb:01" })),
            words(json!({ "address": "52:54:00:aa:bb:01", "node_uuid": "c1" })),
        ]);
    }

    #[test]
    fn a_port_may_be_closed_for_booting_at_its_creation_and_later() {
        let closed = new(&json!({
            "address": "52:54:00:aa:bb:01", "node_uuid": Uuid::nil(), "pxe_enabled": false,
        }))
        .unwrap();
        assert!(!closed.pxe_enabled);

        let change = json!([{ "op": "replace", "path": "/pxe_enabled", "value": "False" }]);
        assert!(!patched(&port(), &change, Version::MAX).unwrap().pxe_enabled);
        let back = json!([{ "op": "remove", "path": "/pxe_enabled" }]);
        assert!(patched(&closed, &back, Version::MAX).unwrap().pxe_enabled);
    }

    proptest! {
        #[test]
        fn what_is_shown_makes_the_same_port_again(mac in any::<[u8; 6]>(), open in any::<bool>()) {
            let body = json!({
                "address": Mac(mac), "node_uuid": Uuid::nil(), "pxe_enabled": open,
            });
            let port = new(&body).unwrap();
            let mut shown = show(&port, &view(), &Fields::All);
            let settable = |name: &str| FIELDS.iter().any(|f| f.name == name && f.set.on_create());
            shown.as_object_mut().unwrap().retain(|name, _| settable(name));
            prop_assert_eq!(new(&shown).unwrap(), port);
        }
    }
}
