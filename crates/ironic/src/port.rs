//! Ports in the API: the fields of each version, and the fields that a creation and a PATCH may set.

use hardware::Mac;
use jiff::Timestamp;
use provision::Port;
use provision::limits::{Excess, FreeFormSize, PORT_LIMIT};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::field::{
    self, BadBody, ClientView, Field, FieldAccess, FieldKind, Fields, Object, time,
};
use crate::local_link;
use crate::patch;
use crate::version::Version;

const TEXT: FieldKind = FieldKind::Text(255);

/// All fields, in the order of their microversions.
pub const FIELDS: &[Field] = &[
    f("uuid", 1, FieldKind::Uuid, FieldAccess::Create),
    f("created_at", 1, TEXT, FieldAccess::Never),
    f("updated_at", 1, TEXT, FieldAccess::Never),
    f("address", 1, TEXT, FieldAccess::CreateAndPatch),
    f("extra", 1, FieldKind::Map, FieldAccess::CreateAndPatch),
    f("links", 1, FieldKind::List, FieldAccess::Never),
    f("node_uuid", 1, TEXT, FieldAccess::CreateAndPatch),
    f("internal_info", 18, FieldKind::Map, FieldAccess::Never),
    f("local_link_connection", 19, FieldKind::Map, FieldAccess::CreateAndPatch),
    f("pxe_enabled", 19, FieldKind::Boolean, FieldAccess::CreateAndPatch),
    f("portgroup_uuid", 24, FieldKind::Uuid, FieldAccess::CreateAndPatch),
    f("physical_network", 34, FieldKind::Text(64), FieldAccess::CreateAndPatch),
    f("is_smartnic", 53, FieldKind::Boolean, FieldAccess::CreateAndPatch),
    f("name", 88, TEXT, FieldAccess::CreateAndPatch),
    f("description", 97, TEXT, FieldAccess::CreateAndPatch),
    f("vendor", 100, FieldKind::Text(32), FieldAccess::CreateAndPatch),
    f("category", 101, FieldKind::Text(80), FieldAccess::CreateAndPatch),
    f("available_for_dynamic_portgroup", 103, FieldKind::Boolean, FieldAccess::CreateAndPatch),
];

/// The default fields of a list.
pub const LISTED: [&str; 3] = ["uuid", "address", "links"];

/// Fields that are true by default.
const TRUE_BY_DEFAULT: [&str; 2] = ["pxe_enabled", "available_for_dynamic_portgroup"];

const fn f(name: &'static str, since: u16, kind: FieldKind, set: FieldAccess) -> Field {
    Field { name, since, kind, set }
}

/// The port for a client.
#[must_use]
pub fn show(port: &Port, view: &ClientView, fields: &Fields) -> Value {
    FIELDS
        .iter()
        .filter(|field| fields.show(field, view.version))
        .map(|field| (field.name.to_owned(), value(port, field, view)))
        .collect::<Object>()
        .into()
}

fn value(port: &Port, field: &Field, view: &ClientView) -> Value {
    match field.name {
        "uuid" => json!(port.uuid),
        "created_at" => time(port.created_at),
        "updated_at" => port.updated_at.map_or(Value::Null, time),
        "links" => view.links(&format!("ports/{}", port.uuid)),
        _ => written(port, field),
    }
}

/// A field in the form that clients write.
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

/// The port of a `POST /v1/ports`; `uuid` is used if the body has none.
///
/// The caller checks that the node exists.
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
        // `creation` leaves out false, the default of a boolean.
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
    fill(&mut port, &read, version, None)?;
    PORT_LIMIT.check_new(FreeFormSize::of_port(&port)).map_err(too_large)?;
    Ok(port)
}

fn too_large(excess: Excess) -> BadBody {
    BadBody::TooLarge { subject: "port", excess }
}

fn is_false(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Bool(value)) => !value,
        Some(Value::String(text)) => field::boolean(text) == Some(false),
        Some(Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_)) | None => false,
    }
}

/// The port after a `PATCH /v1/ports/{}`.
///
/// # Errors
/// [`BadBody`].
pub fn patched(port: &Port, body: &Value, version: Version) -> Result<Port, BadBody> {
    let patchable = || FIELDS.iter().filter(|field| field.set.by_patch());
    let document = patchable().map(|field| (field.name.to_owned(), written(port, field))).collect();
    let before = FreeFormSize::of_port(port);
    PORT_LIMIT.or(before).check_new(patch::size(body)).map_err(too_large)?;
    let mut document = patch::apply(document, body, FIELDS, version)?;
    for field in patchable() {
        let value = match document.get(field.name) {
            Some(value) => field::accept("patch", field, value)?,
            None => default(field),
        };
        document.insert(field.name.to_owned(), value);
    }
    let mut after = port.clone();
    fill(&mut after, &document, version, Some(port))?;
    PORT_LIMIT.check(before, FreeFormSize::of_port(&after)).map_err(too_large)?;
    Ok(after)
}

/// Sets the fields of `document`, whose values are of their fields' kinds. Unchanged values are not checked again:
/// older versions may have accepted them by other rules.
fn fill(
    port: &mut Port,
    document: &Object,
    version: Version,
    before: Option<&Port>,
) -> Result<(), BadBody> {
    let smart_nic = document.get("is_smartnic") == Some(&Value::Bool(true));
    let same = |name: &str| {
        let field = FIELDS.iter().find(|field| field.name == name);
        let there = before.zip(field).map(|(before, field)| written(before, field));
        there.is_some_and(|there| document.get(name) == Some(&there))
    };
    for (name, value) in document {
        match (name.as_str(), value) {
            ("uuid", _) => {}
            ("address", _) => port.address = address(value)?,
            ("node_uuid", _) => port.node_uuid = node_uuid(value)?,
            ("extra", _) => port.extra = value.as_object().cloned().unwrap_or_default(),
            ("pxe_enabled", _) => port.pxe_enabled = value == true,
            ("local_link_connection", _) if !same(name) || !same("is_smartnic") => {
                keep(&mut port.kept, name, &local_link::accept(value, smart_nic, version)?);
            }
            ("is_smartnic", Value::Bool(true))
                if !document.contains_key("local_link_connection") =>
            {
                return Err(BadBody::SmartNicWithoutLink);
            }
            ("portgroup_uuid", Value::String(group)) if !same(name) => {
                return Err(BadBody::NoSuchPortgroup(group.clone()));
            }
            ("physical_network", Value::String(network)) if network.is_empty() => {
                return Err(BadBody::Empty("physical_network"));
            }
            _ => keep(&mut port.kept, name, value),
        }
    }
    Ok(())
}

fn address(value: &Value) -> Result<Mac, BadBody> {
    let text = value.as_str().unwrap_or_default();
    text.parse().map_err(|_| BadBody::NotAMac { field: "address", value: text.to_owned() })
}

/// Ironic accepts no names here; clients that get this error look the UUID up.
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

    fn view() -> ClientView {
        ClientView {
            version: Version::MAX,
            base_url: "http://127.0.0.1:6385".into(),
            host: "ferroboot".into(),
        }
    }

    fn new(body: &Value) -> Result<Port, BadBody> {
        let now = "2026-01-02T03:04:05.678901Z".parse().unwrap();
        create(body, Version::MAX, Uuid::nil(), now)
    }

    fn with(field: &str, value: Value) -> Value {
        json!({ "address": "52:54:00:aa:bb:01", "node_uuid": Uuid::nil(), field: value })
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
            words(with("local_link_connection", json!({ "port_id": "1" }))),
            words(with("is_smartnic", json!(true))),
            words(with("physical_network", json!(""))),
            words(with("portgroup_uuid", json!(Uuid::nil()))),
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

    #[test]
    fn no_number_of_patches_makes_a_port_larger_than_it_may_be() {
        let mut port = port();
        let add = |port: &Port, number: usize| {
            let path = format!("/extra/{number}");
            let change = json!([{ "op": "add", "path": path, "value": "x".repeat(10_000) }]);
            patched(port, &change, Version::MAX)
        };
        for number in 0..6 {
            port = add(&port, number).unwrap();
        }
        assert_eq!(
            add(&port, 6).unwrap_err().to_string(),
            "The port would hold more than 65536 bytes of JSON, in all the fields together that \
             clients fill freely"
        );
    }

    #[test]
    fn a_port_whose_connection_is_not_taken_any_more_can_still_be_changed() {
        let mut port = port();
        port.kept.insert("local_link_connection".into(), json!({ "colour": "red" }));
        port.kept.insert("portgroup_uuid".into(), json!(Uuid::nil()));
        let change = json!([{ "op": "add", "path": "/extra/a", "value": 1 }]);

        assert_eq!(patched(&port, &change, Version::MAX).unwrap().kept, port.kept);
    }

    #[test]
    fn a_smart_nic_keeps_saying_where_it_is() {
        let link = json!({ "port_id": "1", "hostname": "h" });
        let mut body = with("is_smartnic", json!(true));
        body["local_link_connection"] = link;
        let port = new(&body).unwrap();

        let forget = json!([{ "op": "remove", "path": "/local_link_connection" }]);
        assert_eq!(patched(&port, &forget, Version::MAX), Err(BadBody::SmartNicWithoutLink));
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
