//! Nodes in the API: the fields of each version, and the fields that a creation and a PATCH may set.

use jiff::Timestamp;
use provision::addresses::agent_networks;
use provision::limits::{Excess, FreeFormSize, NODE_LIMIT};
use provision::position::Position;
use provision::secrets::{is_secret, is_secret_of_instance, masked};
use provision::{Attempt, BootInterface, Boots, Node, Procedure, ProvisionState};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::driver;
use crate::field::{
    self, BadBody, ClientView, Field, FieldAccess, FieldKind, Fields, MASKED, Object, time,
};
use crate::guards;
use crate::interface;
use crate::network_data;
use crate::patch;
use crate::version::{Version, since};

const TEXT: FieldKind = FieldKind::Text(255);

/// All fields, in the order of their microversions.
pub const FIELDS: &[Field] = &[
    f("uuid", 1, FieldKind::Uuid, FieldAccess::Create),
    f("created_at", 1, TEXT, FieldAccess::Never),
    f("updated_at", 1, TEXT, FieldAccess::Never),
    f("chassis_uuid", 1, FieldKind::Uuid, FieldAccess::CreateAndPatch),
    f("console_enabled", 1, FieldKind::Boolean, FieldAccess::Never),
    f("driver", 1, TEXT, FieldAccess::CreateAndPatch),
    f("driver_info", 1, FieldKind::Map, FieldAccess::CreateAndPatch),
    f("extra", 1, FieldKind::Map, FieldAccess::CreateAndPatch),
    f("instance_info", 1, FieldKind::Map, FieldAccess::CreateAndPatch),
    f("instance_uuid", 1, FieldKind::Uuid, FieldAccess::CreateAndPatch),
    f("last_error", 1, TEXT, FieldAccess::Never),
    f("links", 1, FieldKind::List, FieldAccess::Never),
    f("maintenance", 1, FieldKind::Boolean, FieldAccess::CreateAndPatch),
    f("maintenance_reason", 1, TEXT, FieldAccess::Never),
    f("ports", 1, FieldKind::List, FieldAccess::Never),
    f("power_state", 1, TEXT, FieldAccess::Never),
    f("properties", 1, FieldKind::Map, FieldAccess::CreateAndPatch),
    f("provision_state", 1, TEXT, FieldAccess::Never),
    f("provision_updated_at", 1, TEXT, FieldAccess::Never),
    f("reservation", 1, TEXT, FieldAccess::Never),
    f("target_power_state", 1, TEXT, FieldAccess::Never),
    f("target_provision_state", 1, TEXT, FieldAccess::Never),
    f("driver_internal_info", 3, FieldKind::Map, FieldAccess::Never),
    f("name", since::NAMES, TEXT, FieldAccess::CreateAndPatch),
    f("inspection_finished_at", 6, TEXT, FieldAccess::Never),
    f("inspection_started_at", 6, TEXT, FieldAccess::Never),
    f("clean_step", 7, FieldKind::Map, FieldAccess::Never),
    f("raid_config", 12, FieldKind::Map, FieldAccess::Never),
    f("target_raid_config", 12, FieldKind::Map, FieldAccess::Never),
    f("states", since::STATES_LINK, FieldKind::List, FieldAccess::Never),
    f("network_interface", 20, TEXT, FieldAccess::CreateAndPatch),
    f("resource_class", 21, FieldKind::Text(80), FieldAccess::CreateAndPatch),
    f("portgroups", since::PORTGROUPS_LINK, FieldKind::List, FieldAccess::Never),
    f("boot_interface", 31, TEXT, FieldAccess::CreateAndPatch),
    f("console_interface", 31, TEXT, FieldAccess::CreateAndPatch),
    f("deploy_interface", 31, TEXT, FieldAccess::CreateAndPatch),
    f("inspect_interface", 31, TEXT, FieldAccess::CreateAndPatch),
    f("management_interface", 31, TEXT, FieldAccess::CreateAndPatch),
    f("power_interface", 31, TEXT, FieldAccess::CreateAndPatch),
    f("raid_interface", 31, TEXT, FieldAccess::CreateAndPatch),
    f("vendor_interface", 31, TEXT, FieldAccess::CreateAndPatch),
    f("volume", since::VOLUME, FieldKind::List, FieldAccess::Never),
    f("storage_interface", 33, TEXT, FieldAccess::CreateAndPatch),
    f("traits", since::TRAITS, FieldKind::List, FieldAccess::Never),
    f("rescue_interface", 38, TEXT, FieldAccess::CreateAndPatch),
    f("bios_interface", 40, TEXT, FieldAccess::CreateAndPatch),
    f("fault", 42, TEXT, FieldAccess::Never),
    f("deploy_step", 44, FieldKind::Map, FieldAccess::Never),
    f("conductor_group", 46, TEXT, FieldAccess::CreateAndPatch),
    f("automated_clean", 47, FieldKind::BooleanOrNull, FieldAccess::CreateAndPatch),
    f("protected", 48, FieldKind::Boolean, FieldAccess::Patch),
    f("protected_reason", 48, TEXT, FieldAccess::Patch),
    f("conductor", 49, TEXT, FieldAccess::Never),
    f("owner", 50, TEXT, FieldAccess::CreateAndPatch),
    f("description", 51, FieldKind::Text(4_096), FieldAccess::CreateAndPatch),
    f("allocation_uuid", 52, FieldKind::Uuid, FieldAccess::Never),
    f("retired", 61, FieldKind::Boolean, FieldAccess::CreateAndPatch),
    f("retired_reason", 61, TEXT, FieldAccess::CreateAndPatch),
    f("lessee", 65, TEXT, FieldAccess::CreateAndPatch),
    f("network_data", 66, FieldKind::Map, FieldAccess::CreateAndPatch),
    f("boot_mode", since::BOOT_MODE, TEXT, FieldAccess::Never),
    f("secure_boot", since::BOOT_MODE, FieldKind::BooleanOrNull, FieldAccess::Never),
    f("shard", 82, TEXT, FieldAccess::CreateAndPatch),
    f("parent_node", 83, FieldKind::Uuid, FieldAccess::CreateAndPatch),
    f("firmware_interface", 86, TEXT, FieldAccess::CreateAndPatch),
    f("service_step", 87, FieldKind::Map, FieldAccess::Never),
    f("disable_power_off", 95, FieldKind::Boolean, FieldAccess::CreateAndPatch),
    f("instance_name", 104, TEXT, FieldAccess::CreateAndPatch),
    f("health", 109, TEXT, FieldAccess::Never),
];

/// The default fields of a list.
pub const LISTED: [&str; 7] =
    ["uuid", "name", "instance_uuid", "maintenance", "power_state", "provision_state", "links"];

const fn f(name: &'static str, since: u16, kind: FieldKind, set: FieldAccess) -> Field {
    Field { name, since, kind, set }
}

/// The node for a client; `reservation` is the daemon that works on it, if any.
#[must_use]
pub fn show(node: &Node, view: &ClientView, fields: &Fields, reservation: Option<&str>) -> Value {
    FIELDS
        .iter()
        .filter(|field| fields.show(field, view.version))
        .map(|field| (field.name.to_owned(), value(node, field, view, reservation)))
        .collect::<Object>()
        .into()
}

fn value(node: &Node, field: &Field, view: &ClientView, reservation: Option<&str>) -> Value {
    let at = |time: Option<Timestamp>| time.map_or(Value::Null, field::time);
    let link = |tail: &str| view.links(&format!("nodes/{}{tail}", node.uuid));
    match field.name {
        "uuid" => json!(node.uuid),
        "created_at" => time(node.created_at),
        "updated_at" => at(node.updated_at),
        "driver" => json!(node.driver),
        "driver_info" => driver_info(node),
        "driver_internal_info" => internal(node.attempt.as_ref()),
        "extra" => json!(node.extra),
        "instance_info" => instance_info(node),
        "last_error" => json!(node.last_error),
        "links" => link(""),
        "ports" => link("/ports"),
        "states" => link("/states"),
        "portgroups" => link("/portgroups"),
        "volume" => link("/volume"),
        "maintenance" => json!(node.maintenance),
        "maintenance_reason" => json!(node.maintenance_reason),
        "fault" => json!(node.fault),
        "name" => json!(node.name),
        "power_state" => json!(node.power_state),
        "target_power_state" => json!(node.target_power_state),
        "boot_mode" => json!(node.boot_mode),
        "secure_boot" => json!(node.secure_boot),
        "properties" => json!(node.properties),
        "provision_state" => state(node.provision_state, view.version),
        "target_provision_state" => json!(node.target_provision_state),
        "provision_updated_at" => at(node.provision_updated_at),
        "reservation" => json!(reservation),
        "clean_step" => step_of(node, Procedure::Clean),
        "deploy_step" => step_of(node, Procedure::Deploy),
        "service_step" => step_of(node, Procedure::Service),
        "automated_clean" => json!(node.automated_clean),
        "conductor" => json!(view.host),
        "conductor_group" => json!(""),
        name => match interface(name) {
            Some(kind) => json!(interface_of(node, kind)),
            None => node.kept.get(name).cloned().unwrap_or_else(|| field.kind.empty()),
        },
    }
}

/// The current step, under the name of its procedure.
fn step_of(node: &Node, procedure: Procedure) -> Value {
    let step = node.current_step.as_ref();
    let step = step.filter(|_| node.provision_state.procedure() == Some(procedure));
    step.map_or_else(|| json!({}), |step| json!(step))
}

/// The state's name. Below 1.2 the state `available` had none.
fn state(state: ProvisionState, version: Version) -> Value {
    if state == ProvisionState::Available && !version.has(since::AVAILABLE) {
        return Value::Null;
    }
    json!(state)
}

/// Ironic's internal data that it nevertheless shows: the agent, and the progress of a clean.
fn internal(attempt: Option<&Attempt>) -> Value {
    let live = attempt.filter(|attempt| attempt.ended_at.is_none());
    let Some(attempt) = live.filter(|attempt| attempt.boots() == Boots::Ramdisk) else {
        return json!({});
    };
    let mut out = json!({
        "agent_secret_token": MASKED,
        "clean_steps": attempt.run.steps,
        "clean_step_index": attempt.run.done,
        "hardware_manager_version": attempt.run.hardware_manager_version,
    });
    if let Some(agent) = &attempt.agent {
        out["agent_url"] = json!(agent.callback_url.as_str().trim_end_matches('/'));
        out["agent_version"] = json!(agent.version);
        out["agent_last_heartbeat"] = time(agent.last_heartbeat);
    }
    out
}

/// The answer to `GET /v1/nodes/{}/states`.
#[must_use]
pub fn states(node: &Node, view: &ClientView) -> Value {
    const SHOWN: [&str; 11] = [
        "boot_mode",
        "console_enabled",
        "last_error",
        "power_state",
        "provision_state",
        "provision_updated_at",
        "raid_config",
        "secure_boot",
        "target_power_state",
        "target_provision_state",
        "target_raid_config",
    ];
    FIELDS
        .iter()
        .filter(|field| SHOWN.contains(&field.name) && view.version.has(field.since))
        .map(|field| (field.name.to_owned(), value(node, field, view, None)))
        .collect::<Object>()
        .into()
}

/// `driver_info` without its secrets, for agents and clients.
#[must_use]
pub fn driver_info(node: &Node) -> Value {
    masked(&node.driver_info, is_secret).into()
}

/// `instance_info` without its secrets.
#[must_use]
pub fn instance_info(node: &Node) -> Value {
    masked(&node.instance_info, is_secret_of_instance).into()
}

/// The node of a `POST /v1/nodes`; `uuid` is used if the body has none.
///
/// # Errors
/// [`BadBody`].
pub fn create(body: &Value, version: Version, uuid: Uuid, now: Timestamp) -> Result<Node, BadBody> {
    let body = field::creation("node", field::object("node", body)?, FIELDS, version)?;
    let uuid = match body.get("uuid") {
        Some(value) => serde_json::from_value(value.clone()).unwrap_or(uuid),
        None => uuid,
    };
    let mut node = Node::enrolled(uuid, driver::NAME, now);
    if !version.has(since::ENROLL) {
        node.provision_state = ProvisionState::Available;
    }
    fill(&mut node, &body, WriteContext { subject: "node", version, before: None })?;
    NODE_LIMIT.check_new(FreeFormSize::of_node(&node)).map_err(too_large)?;
    Ok(node)
}

/// The node after a `PATCH /v1/nodes/{}`.
///
/// # Errors
/// [`BadBody`]; [`BadBody::InTransition`] during a procedure.
pub fn patched(node: &Node, body: &Value, version: Version) -> Result<Node, BadBody> {
    let patchable = || FIELDS.iter().filter(|field| field.set.by_patch());
    let document = patchable().map(|field| (field.name.to_owned(), written(node, field))).collect();
    let before = FreeFormSize::of_node(node);
    NODE_LIMIT.or(before).check_new(patch::size(body)).map_err(too_large)?;
    let mut document = patch::apply(document, body, FIELDS, version)?;
    if is_in_transition(node) && !frees_instance(node, body) {
        return Err(BadBody::InTransition(node.uuid.to_string()));
    }
    for (name, stored) in
        [("driver_info", &node.driver_info), ("instance_info", &node.instance_info)]
    {
        if let Some(Value::Object(map)) = document.get_mut(name) {
            keep_masked(map, stored);
        }
    }
    for field in patchable() {
        // A removed field gets its default; an existing one must be of its kind.
        let value = document.get(field.name).unwrap_or(&Value::Null);
        let value = field::accept("patch", field, value)?;
        document.insert(field.name.to_owned(), value);
    }
    let mut after = node.clone();
    fill(&mut after, &document, WriteContext { subject: "patch", version, before: Some(node) })?;
    guards::check_change(node, &mut after)?;
    NODE_LIMIT.check(before, FreeFormSize::of_node(&after)).map_err(too_large)?;
    Ok(after)
}

fn too_large(excess: Excess) -> BadBody {
    BadBody::TooLarge { subject: "node", excess }
}

/// The only change during a transition: a node in maintenance drops an instance that is gone.
fn frees_instance(node: &Node, body: &Value) -> bool {
    node.maintenance && *body == json!([{ "op": "remove", "path": "/instance_uuid" }])
}

/// During a boot, the data behind its settings must not change.
fn is_in_transition(node: &Node) -> bool {
    match node.provision_state.position() {
        Position::In(Procedure::Verify, _) | Position::Rest => false,
        Position::In(..) => {
            node.target_provision_state.is_some() && node.provision_state.is_under_way()
        }
    }
}

/// A field in the form that clients write, with secrets.
fn written(node: &Node, field: &Field) -> Value {
    match field.name {
        "driver" => json!(node.driver),
        "driver_info" => json!(node.driver_info),
        "extra" => json!(node.extra),
        "instance_info" => json!(node.instance_info),
        "boot_mode" => json!(node.boot_mode),
        "secure_boot" => json!(node.secure_boot),
        "properties" => json!(node.properties),
        "maintenance" => json!(node.maintenance),
        "name" => json!(node.name),
        "automated_clean" => json!(node.automated_clean),
        "conductor_group" => json!(""),
        name => match interface(name) {
            Some(kind) => json!(interface_of(node, kind)),
            None => node.kept.get(name).cloned().unwrap_or_else(|| field.kind.empty()),
        },
    }
}

/// A client that writes masked values back keeps the secrets.
fn keep_masked(map: &mut Object, stored: &Object) {
    for (key, value) in map {
        if let Some(stored) = stored.get(key) {
            keep_masked_value(value, stored);
        }
    }
}

fn keep_masked_value(value: &mut Value, stored: &Value) {
    match (value, stored) {
        (Value::Object(inner), Value::Object(stored)) => keep_masked(inner, stored),
        (Value::Array(items), Value::Array(stored)) => {
            items.iter_mut().zip(stored).for_each(|(item, stored)| keep_masked_value(item, stored));
        }
        (value, secret) if value == MASKED => value.clone_from(secret),
        (_, _) => {}
    }
}

/// The context of a write: words for errors, the version, the former node.
#[derive(Clone, Copy)]
struct WriteContext<'a> {
    subject: &'static str,
    version: Version,
    /// The node before the write; `None` for a new one. Unchanged values are not checked again: older versions may
    /// have accepted them by other rules.
    before: Option<&'a Node>,
}

/// Sets the fields of `document`; its values are of their fields' kinds.
fn fill(node: &mut Node, document: &Object, writer: WriteContext<'_>) -> Result<(), BadBody> {
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    let Some(driver) = text("driver") else {
        let reason = "'driver' is a required property".to_owned();
        return Err(BadBody::Schema { subject: writer.subject, reason });
    };
    driver::check(driver, text("conductor_group").unwrap_or_default())?;
    if let Some(chassis) = text("chassis_uuid") {
        return Err(BadBody::NoSuchChassis(chassis.to_owned()));
    }
    for (name, value) in document {
        set(node, name, value, writer)?;
    }
    if !node.maintenance {
        node.maintenance_reason = None;
        node.fault = None;
    }
    agent_networks(node)
        .map_err(|bad| BadBody::Schema { subject: writer.subject, reason: bad.to_string() })?;
    Ok(())
}

fn set(
    node: &mut Node,
    name: &str,
    value: &Value,
    writer: WriteContext<'_>,
) -> Result<(), BadBody> {
    let map = || value.as_object().cloned().unwrap_or_default();
    match name {
        // Checked already, or read-only.
        "uuid" | "driver" | "chassis_uuid" | "conductor_group" => {}
        "driver_info" => node.driver_info = map(),
        "extra" => node.extra = map(),
        "instance_info" => node.instance_info = map(),
        "properties" => node.properties = map(),
        "maintenance" => node.maintenance = value == true,
        "automated_clean" => node.automated_clean = value.as_bool(),
        "name" => node.name = self::name(value.as_str(), writer)?,
        "network_data" if writer.before.and_then(|it| it.kept.get(name)) != Some(value) => {
            network_data::check(value)?;
            keep(&mut node.kept, name, value);
        }
        "instance_name" if value == "" => {
            let reason = "'' should be non-empty".to_owned();
            return Err(BadBody::Schema { subject: writer.subject, reason });
        }
        _ => match (interface(name), value.as_str()) {
            (Some(kind), chosen) => set_interface(node, kind, chosen)?,
            (None, _) => keep(&mut node.kept, name, value),
        },
    }
    Ok(())
}

fn set_interface(node: &mut Node, kind: &'static str, chosen: Option<&str>) -> Result<(), BadBody> {
    if let Some(chosen) = chosen {
        driver::check_interface(kind, chosen)?;
    }
    if kind == "boot" {
        node.boot_interface =
            chosen.map_or_else(BootInterface::default, |name| name.parse().unwrap_or_default());
        return Ok(());
    }
    let field = format!("{kind}_interface");
    match chosen.filter(|chosen| interface::default(kind) != Some(chosen)) {
        Some(chosen) => node.kept.insert(field, json!(chosen)),
        None => node.kept.remove(&field),
    };
    Ok(())
}

/// The node's interface of a kind.
pub(crate) fn interface_of(node: &Node, kind: &str) -> String {
    if kind == "boot" {
        return node.boot_interface.name().to_owned();
    }
    let chosen = node.kept_text(&format!("{kind}_interface"));
    chosen.or_else(|| interface::default(kind)).unwrap_or_default().to_owned()
}

/// Stores a field without effect here. Defaults are not stored.
fn keep(kept: &mut Object, name: &str, value: &Value) {
    let Some(field) = FIELDS.iter().find(|field| field.name == name) else { return };
    if *value == field.kind.empty() {
        kept.remove(name);
    } else {
        kept.insert(name.to_owned(), value.clone());
    }
}

/// `boot` from `boot_interface`.
fn interface(field: &str) -> Option<&'static str> {
    let kind = field.strip_suffix("_interface")?;
    interface::INTERFACES.iter().find(|interface| interface.kind == kind).map(|i| i.kind)
}

/// A name must not look like a UUID, since both identify a node in the same part of a URL.
fn name(name: Option<&str>, writer: WriteContext<'_>) -> Result<Option<String>, BadBody> {
    let Some(name) = name else { return Ok(None) };
    let written = Some(name.to_owned());
    if writer.before.is_some_and(|before| before.name == written) {
        return Ok(written);
    }
    let fits = guards::is_name(name, writer.version.has(since::FREE_NAMES));
    if !fits || Uuid::try_parse(name).is_ok() {
        let name = name.to_owned();
        return Err(match writer.before {
            Some(before) => BadBody::BadNewName { node: before.uuid, name },
            None => BadBody::BadName(name),
        });
    }
    guards::check_reserved(name)?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn view(minor: u16) -> ClientView {
        ClientView {
            version: Version::new(minor).unwrap(),
            base_url: "http://127.0.0.1:6385".into(),
            host: "ferroboot".into(),
        }
    }

    fn now() -> Timestamp {
        "2026-01-02T03:04:05.678901Z".parse().unwrap()
    }

    fn new(body: &Value) -> Result<Node, BadBody> {
        create(body, Version::MAX, Uuid::nil(), now())
    }

    fn node() -> Node {
        new(&json!({ "driver": "redfish", "name": "n1" })).unwrap()
    }

    fn patch(node: &Node, body: Value) -> Result<Node, String> {
        patched(node, &body, Version::MAX).map_err(|error| error.to_string())
    }

    #[test]
    fn a_new_node_looks_as_upstreams_does() {
        let node = new(&json!({
            "driver": "redfish",
            "name": "A",
            "boot_interface": "http-ipxe",
            "properties": { "capabilities": "boot_mode:uefi", "cpu_arch": "x86_64" },
            "driver_info": { "redfish_address": "http://127.0.0.1:1", "redfish_password": "b" },
        }))
        .unwrap();

        insta::assert_json_snapshot!(show(&node, &view(110), &Fields::All, None));
    }

    #[test]
    fn the_oldest_version_knows_neither_names_nor_interfaces() {
        let shown = show(&node(), &view(1), &Fields::All, None);

        let mut names: Vec<_> = shown.as_object().unwrap().keys().collect();
        names.sort();
        insta::assert_json_snapshot!(names);
    }

    #[test]
    fn a_node_made_before_1_11_is_available_at_once_and_before_1_2_that_is_null() {
        let old = Version::new(10).unwrap();
        let node = create(&json!({ "driver": "redfish" }), old, Uuid::nil(), now()).unwrap();

        assert_eq!(show(&node, &view(2), &Fields::All, None)["provision_state"], "available");
        assert_eq!(show(&node, &view(1), &Fields::All, None)["provision_state"], Value::Null);
    }

    #[test]
    fn secrets_are_masked_at_every_depth() {
        let node = new(&json!({
            "driver": "redfish",
            "driver_info": { "Redfish_Password": "s3cret", "deep": { "auth_token": "s3cret" },
                "list": [{ "password": "s3cret" }] },
            "instance_info": { "configdrive": "s3cret", "image_url": "s3cret" },
        }))
        .unwrap();

        let shown = show(&node, &view(110), &Fields::All, None).to_string();

        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn the_specifications_names_of_boot_interfaces_are_understood_and_upstreams_are_shown() {
        for (asked, shown) in [("httpboot", "http"), ("redfish-http-url", "redfish-https")] {
            let node = new(&json!({ "driver": "redfish", "boot_interface": asked })).unwrap();
            assert_eq!(show(&node, &view(110), &Fields::All, None)["boot_interface"], shown);
        }
    }

    #[test]
    fn creations_are_refused_in_upstreams_words() {
        let words = |body: Value| new(&body).unwrap_err().to_string();

        insta::assert_json_snapshot!([
            words(json!({ "driver": "nope" })),
            words(json!({ "name": "x" })),
            words(json!({ "driver": "redfish", "boot_interface": "nope" })),
            words(json!({ "driver": "redfish", "zzz": 1 })),
            words(json!({ "driver": "redfish", "name": "a b" })),
            words(json!({ "driver": "redfish", "name": Uuid::nil() })),
            words(json!({ "driver": "redfish", "extra": [1] })),
            words(json!({ "driver": "redfish", "instance_uuid": "x" })),
            words(json!({ "driver": "redfish", "automated_clean": "maybe" })),
            words(json!({ "driver": "redfish", "provision_state": "available" })),
            words(json!([])),
        ]);
    }

    #[test]
    fn a_name_that_a_url_could_not_tell_from_something_else_is_refused() {
        let refused = |name: &str| {
            let created = new(&json!({ "driver": "redfish", "name": name })).unwrap_err();
            let change = json!([{ "op": "add", "path": "/name", "value": name }]);
            (created, patched(&node(), &change, Version::MAX).unwrap_err())
        };
        for name in [".", "..", "", "8f259d3d-81a7-49cf-a5c3-8f0ec4d9c39f"] {
            let (created, changed) = refused(name);
            assert!(matches!(created, BadBody::BadName(_)), "{created}");
            assert!(matches!(changed, BadBody::BadNewName { .. }), "{changed}");
        }
        for name in ["maintenance", "management", "states", "vendor_passthru", "detail", "validate"]
        {
            let (created, changed) = refused(name);
            assert_eq!(
                created.to_string(),
                format!(
                    "The word \"{name}\" is reserved and can not be used as a node name. Reserved \
                     words are: maintenance, management, states, vendor_passthru, detail, validate."
                )
            );
            assert_eq!(created, changed);
        }
    }

    #[test]
    fn a_node_whose_name_is_not_taken_any_more_can_still_be_changed() {
        let mut node = node();
        node.name = Some("validate".into());
        let change = json!([{ "op": "add", "path": "/extra/a", "value": 1 }]);
        assert_eq!(patch(&node, change).unwrap().name, node.name);
    }

    #[test]
    fn what_metal3_sets_is_kept_and_shown_and_goes_back_to_its_default() {
        let chosen = [
            ("bios_interface", "redfish", "no-bios"),
            ("deploy_interface", "direct", "custom-agent"),
            ("firmware_interface", "redfish", "no-firmware"),
            ("inspect_interface", "agent", "no-inspect"),
            ("management_interface", "redfish", "redfish"),
            ("network_interface", "noop", "noop"),
            ("power_interface", "redfish", "redfish"),
            ("raid_interface", "redfish", "no-raid"),
            ("vendor_interface", "redfish", "no-vendor"),
        ];
        for (field, value, default) in chosen {
            let created = new(&json!({ "driver": "redfish", field: value })).unwrap();
            assert_eq!(show(&created, &view(110), &Fields::All, None)[field], value);
            let set = json!([{ "op": "add", "path": format!("/{field}"), "value": value }]);
            assert_eq!(patch(&node(), set).unwrap().kept, created.kept, "{field}");
            let unset = json!([{ "op": "remove", "path": format!("/{field}") }]);
            let back = patch(&created, unset).unwrap();
            assert_eq!(show(&back, &view(110), &Fields::All, None)[field], default);
        }
    }

    #[test]
    fn changes_are_guarded_as_upstream_guards_them() {
        let words = |change: &dyn Fn(&mut Node), path: &str, value: Value| {
            let mut node = node();
            change(&mut node);
            patch(&node, json!([{ "op": "add", "path": path, "value": value }])).unwrap_err()
        };
        let state = |state| move |node: &mut Node| node.provision_state = state;
        let verifying = state(ProvisionState::Verifying);
        let kept = |field: &'static str, value: &'static str| {
            move |node: &mut Node| {
                node.provision_state = ProvisionState::CleanFailed;
                node.kept.insert(field.into(), json!(value));
            }
        };

        insta::assert_json_snapshot!([
            words(&|_| {}, "/protected", json!(true)),
            words(&|_| {}, "/protected_reason", json!("mine")),
            words(&|_| {}, "/retired_reason", json!("old")),
            words(&state(ProvisionState::Available), "/retired", json!(true)),
            words(&verifying, "/boot_interface", json!("http")),
            words(&verifying, "/raid_interface", json!("redfish")),
            words(&kept("instance_uuid", "i1"), "/instance_uuid", json!(Uuid::nil())),
            words(&kept("resource_class", "small"), "/resource_class", json!("large")),
        ]);
    }

    #[test]
    fn the_end_of_maintenance_ends_its_fault_and_that_of_retirement_its_reason() {
        let mut node = node();
        node.maintenance = true;
        node.maintenance_reason = Some("clean failed".into());
        node.fault = Some("clean failure".into());
        node.kept.insert("retired".into(), json!(true));
        node.kept.insert("retired_reason".into(), json!("old"));

        let change = json!([
            { "op": "replace", "path": "/maintenance", "value": false },
            { "op": "replace", "path": "/retired", "value": false },
        ]);
        let node = patch(&node, change).unwrap();

        assert_eq!((node.maintenance_reason, node.fault), (None, None));
        assert_eq!(node.kept, Object::new());
    }

    #[test]
    fn the_instance_of_a_node_in_maintenance_can_be_forgotten_while_it_is_cleaned() {
        let mut node = node();
        node.provision_state = ProvisionState::CleanWait;
        node.target_provision_state = Some(ProvisionState::Available);
        node.kept.insert("instance_uuid".into(), json!(Uuid::nil()));
        let forget = json!([{ "op": "remove", "path": "/instance_uuid" }]);

        let refused = patched(&node, &forget, Version::MAX);
        assert!(matches!(refused, Err(BadBody::InTransition(_))), "{refused:?}");
        node.maintenance = true;
        assert_eq!(patch(&node, forget).unwrap().kept, Object::new());
    }

    #[test]
    fn no_number_of_patches_makes_a_node_larger_than_it_may_be() {
        let chunk = "x".repeat(30_000);
        let mut node = node();
        for (number, field) in
            (1..).zip(["extra", "driver_info", "properties", "instance_info"].into_iter().cycle())
        {
            let path = format!("/{field}/{number}");
            let change = json!([{ "op": "add", "path": path, "value": chunk }]);
            match patched(&node, &change, Version::MAX) {
                Ok(next) => node = next,
                Err(refused) => {
                    assert_eq!(
                        refused.to_string(),
                        "The node would hold more than 262144 bytes of JSON, in all the fields \
                         together that clients fill freely"
                    );
                    assert_eq!(number, 9);
                    break;
                }
            }
        }
        let change = json!([{ "op": "remove", "path": "/extra/1" }]);
        patch(&node, change).unwrap();
        let body = json!({ "driver": "redfish", "properties": { "a": "x".repeat(300_000) } });
        assert!(matches!(new(&body), Err(BadBody::TooLarge { .. })));
        let body = json!({ "driver": "redfish", "extra": { "a": vec![0; 20_000] } });
        assert!(matches!(new(&body), Err(BadBody::TooLarge { .. })));
    }

    #[test]
    fn what_one_request_writes_is_limited_before_it_is_applied() {
        // A list that gets a thousand insertions at its front, and is removed then.
        let list = json!({ "op": "add", "path": "/extra/a", "value": vec![0; 20_000] });
        let forget = json!({ "op": "remove", "path": "/extra/a" });
        let refused = patch(&node(), json!([list, forget])).unwrap_err();
        assert!(refused.contains("more than 10000 values"), "{refused}");
    }

    #[test]
    fn a_request_has_no_more_operations_than_it_may() {
        let operation = json!({ "op": "add", "path": "/extra/a", "value": 1 });
        let refused = patch(&node(), Value::Array(vec![operation; 1_001])).unwrap_err();
        assert_eq!(refused, "Schema error for patch: there are more than 1000 operations");
    }

    #[test]
    fn a_text_with_a_nul_is_refused_since_not_every_database_keeps_it() {
        let refused = new(&json!({ "driver": "redfish", "owner": "a\0" })).unwrap_err();
        assert_eq!(refused.to_string(), "Schema error for node: 'a\\x00' holds a NUL");
    }

    #[test]
    fn no_chain_of_operations_makes_a_node_too_deep_to_be_dropped() {
        let deep = format!("/extra{}", "/a".repeat(1_000));
        let refused = patch(&node(), json!([{ "op": "add", "path": deep, "value": 1 }]));
        assert!(refused.unwrap_err().contains("more than 64 parts"));
    }

    #[test]
    fn patches_are_refused_in_upstreams_words() {
        let node = node();
        let words = |body: Value| patch(&node, body).unwrap_err();

        insta::assert_json_snapshot!([
            words(json!([{ "op": "add", "path": "/foo", "value": "b" }])),
            words(json!([{ "op": "remove", "path": "/extra/zz" }])),
            words(json!([{ "op": "replace", "path": "/instance_uuid", "value": "x" }])),
            words(json!({ "a": 1 })),
            words(json!([{ "op": "test", "path": "/extra", "value": {} }])),
            words(json!([{ "op": "add", "path": "/extra/a" }])),
            words(json!([{ "op": "add", "path": "", "value": {} }])),
            words(json!([{ "op": "add", "path": "/extra/a", "value": 1, "from": "/name" }])),
            words(json!([{ "op": "add", "path": "/extra/a/b", "value": 1 }])),
            words(json!([{ "op": "replace", "path": "/driver_info", "value": "x" }])),
            words(json!([{ "op": "remove", "path": "/driver" }])),
            words(json!([{ "op": "add", "path": "/boot_interface", "value": "pxe" }])),
        ]);
    }

    #[test]
    fn add_sets_what_is_there_and_remove_gives_the_default_back() {
        let node = patch(
            &node(),
            json!([
                { "op": "add", "path": "/boot_interface", "value": "http" },
                { "op": "add", "path": "/driver_info/a~1b", "value": "c" },
                { "op": "add", "path": "/resource_class", "value": "x" },
                { "op": "add", "path": "/automated_clean", "value": "False" },
            ]),
        )
        .unwrap();
        assert_eq!(node.boot_interface, BootInterface::Http);
        assert_eq!(node.driver_info["a/b"], "c");
        assert_eq!(node.kept["resource_class"], "x");
        assert_eq!(node.automated_clean, Some(false));

        let node = patch(
            &node,
            json!([
                { "op": "remove", "path": "/boot_interface" },
                { "op": "remove", "path": "/resource_class" },
                { "op": "remove", "path": "/name" },
            ]),
        )
        .unwrap();
        assert_eq!(node.boot_interface, BootInterface::RedfishHttps);
        assert!(node.kept.is_empty());
        assert_eq!(node.name, None);
    }

    #[test]
    fn a_masked_password_that_comes_back_stays_the_password() {
        let mut before = node();
        before.driver_info.insert("redfish_password".into(), json!("s3cret"));
        before.driver_info.insert("deep".into(), json!({ "auth_token": "s3cret" }));

        let after = patch(
            &before,
            json!([{ "op": "replace", "path": "/driver_info", "value": {
                "redfish_password": MASKED,
                "redfish_address": "http://b",
                "deep": { "auth_token": MASKED },
            } }]),
        )
        .unwrap();

        assert_eq!(after.driver_info["redfish_password"], "s3cret");
        assert_eq!(after.driver_info["deep"]["auth_token"], "s3cret");
    }

    #[test]
    fn a_node_under_way_is_not_patched_but_one_that_failed_is() {
        let mut node = node();
        node.provision_state = ProvisionState::CleanWait;
        node.target_provision_state = Some(ProvisionState::Manageable);
        let change = json!([{ "op": "add", "path": "/extra/a", "value": 1 }]);

        assert!(matches!(patched(&node, &change, Version::MAX), Err(BadBody::InTransition(_))));
        node.provision_state = ProvisionState::CleanFailed;
        patched(&node, &change, Version::MAX).unwrap();
    }

    #[test]
    fn patches_cannot_nest_until_the_node_is_unreadable() {
        let mut node = node();
        let mut path = "/extra".to_owned();
        let refused = (0..200).find_map(|_| {
            path.push_str("/a");
            match patch(&node, json!([{ "op": "add", "path": path, "value": {} }])) {
                Ok(next) => {
                    node = next;
                    None
                }
                Err(refused) => Some(refused),
            }
        });

        assert!(refused.unwrap().contains("nested deeper"));
        let text = serde_json::to_string(&node).unwrap();
        serde_json::from_str::<Node>(&text).unwrap();
    }

    /// Any JSON of limited depth.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z/~_]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z_]{0,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn any_field() -> impl Strategy<Value = &'static str> {
        prop::sample::select(FIELDS.iter().map(|field| field.name).collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn no_creation_panics_and_what_is_made_can_be_shown(
            fields in prop::collection::btree_map(any_field(), any_json(), 0..5),
            minor in 1_u16..=110,
        ) {
            let mut body = json!({ "driver": "redfish" });
            for (name, value) in fields {
                body[name] = value;
            }
            let version = Version::new(minor).unwrap();
            if let Ok(node) = create(&body, version, Uuid::nil(), now()) {
                let _ = show(&node, &view(minor), &Fields::All, None);
            }
        }

        #[test]
        fn no_patch_panics(
            op in "add|replace|remove|test|",
            root in any_field(),
            rest in "(/[a-z0-9~-]{0,3}){0,3}",
            value in any_json(),
        ) {
            let body = json!([{ "op": op, "path": format!("/{root}{rest}"), "value": value }]);
            let _ = patched(&node(), &body, Version::MAX);
        }

        #[test]
        fn a_kept_field_is_shown_as_it_was_set(owner in "[a-z]{1,20}", description in "[^\\x00]{1,50}") {
            let node = new(&json!({
                "driver": "redfish", "owner": owner, "description": description,
            })).unwrap();
            let shown = show(&node, &view(110), &Fields::All, None);
            prop_assert_eq!(&shown["owner"], &json!(owner));
            prop_assert_eq!(&shown["description"], &json!(description));
        }
    }
}
