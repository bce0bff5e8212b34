//! The hardware type there is, `redfish`, and the interfaces it has.

use provision::BootInterface;
use serde_json::{Value, json};

use crate::field::{BadBody, Object, View};
use crate::python;

/// The one hardware type.
pub const NAME: &str = "redfish";

/// The microversion that shows a driver's interfaces.
const INTERFACES_SINCE: u16 = 30;

/// A sort of interface.
#[derive(Clone, Copy, Debug)]
pub struct Interface {
    /// `boot`, `deploy`, ….
    pub kind: &'static str,
    /// It came with 1.`since`.
    pub since: u16,
    /// Those there are, the default first.
    pub enabled: &'static [&'static str],
}

/// Every sort of interface. `no-…` is upstream's name for having none; `custom-agent` is its deploy
/// interface that runs an agent's steps and deploys nothing by itself.
pub const INTERFACES: [Interface; 13] = [
    only("bios", 40, &["no-bios"]),
    only("boot", INTERFACES_SINCE, &["redfish-https", "http", "http-ipxe"]),
    only("console", INTERFACES_SINCE, &["no-console"]),
    only("deploy", INTERFACES_SINCE, &["custom-agent"]),
    only("firmware", 86, &["no-firmware"]),
    only("inspect", INTERFACES_SINCE, &["no-inspect"]),
    only("management", INTERFACES_SINCE, &["redfish"]),
    only("network", INTERFACES_SINCE, &["noop"]),
    only("power", INTERFACES_SINCE, &["redfish"]),
    only("raid", INTERFACES_SINCE, &["no-raid"]),
    only("rescue", 38, &["no-rescue"]),
    only("storage", 33, &["noop"]),
    only("vendor", INTERFACES_SINCE, &["no-vendor"]),
];

const fn only(kind: &'static str, since: u16, enabled: &'static [&'static str]) -> Interface {
    Interface { kind, since, enabled }
}

/// Properties of `driver_info` that the driver reads, and what they are.
const PROPERTIES: [(&str, &str); 14] = [
    ("redfish_address", "The URL address to the Redfish controller. Required."),
    ("redfish_system_id", "The path of the ComputerSystem; needed where there are several."),
    ("redfish_username", "User account with admin or server-profile access privilege."),
    ("redfish_password", "User account password."),
    ("redfish_verify_ca", "true, false, or the path of a CA bundle."),
    ("redfish_auth_type", "basic, session or auto; basic authentication is used with each."),
    ("deploy_kernel", "URL of the deployment kernel; by default our own."),
    ("deploy_ramdisk", "URL of the ramdisk to boot for cleaning; by default our own."),
    ("deploy_iso", "URL of an ISO image to boot for cleaning, as it is (redfish-https)."),
    ("kernel_append_params", "Further kernel arguments; %default% stands for the service's."),
    ("external_http_url", "Where this node reaches the boot listener, if not at its usual URL."),
    ("bootloader", "URL of the ESP image; ours is composed, so it is not used."),
    ("config_via_removable", "Not used: the configuration is on the kernel command line."),
    ("force_persistent_boot_device", "Not used: the boot override is always for one boot."),
];

/// Whether there is such a driver.
///
/// # Errors
/// [`BadBody::NoSuchDriver`], as upstream says it.
pub fn check(name: &str, conductor_group: &str) -> Result<(), BadBody> {
    if name == NAME && conductor_group.is_empty() {
        return Ok(());
    }
    Err(BadBody::NoSuchDriver { driver: name.to_owned(), group: conductor_group.to_owned() })
}

/// Whether the driver has the interface `name` of the sort `kind`.
///
/// # Errors
/// [`BadBody::NoSuchInterface`], with those it has.
pub fn check_interface(kind: &'static str, name: &str) -> Result<(), BadBody> {
    let enabled = enabled(kind);
    if enabled.contains(&name) || kind == "boot" && name.parse::<BootInterface>().is_ok() {
        return Ok(());
    }
    let mut valid = enabled.to_vec();
    valid.sort_unstable();
    Err(BadBody::NoSuchInterface { kind, name: name.to_owned(), valid: python::names(valid) })
}

/// The interfaces of a sort, the default first.
#[must_use]
pub fn enabled(kind: &str) -> &'static [&'static str] {
    INTERFACES.iter().find(|interface| interface.kind == kind).map_or(&[], |i| i.enabled)
}

/// `GET /v1/drivers/redfish`, or an entry of `GET /v1/drivers`.
#[must_use]
pub fn show(view: &View, detail: bool) -> Value {
    let mut out = Object::new();
    out.insert("name".into(), json!(NAME));
    out.insert("hosts".into(), json!([view.host]));
    out.insert("links".into(), view.links(&format!("drivers/{NAME}")));
    out.insert("properties".into(), view.links(&format!("drivers/{NAME}/properties")));
    if view.version.has(INTERFACES_SINCE) {
        out.insert("type".into(), json!("dynamic"));
    }
    for interface in INTERFACES.iter().filter(|i| detail && view.version.has(i.since)) {
        let kind = interface.kind;
        out.insert(format!("default_{kind}_interface"), json!(interface.enabled[0]));
        out.insert(format!("enabled_{kind}_interfaces"), json!(interface.enabled));
    }
    Value::Object(out)
}

/// `GET /v1/drivers/redfish/properties`.
#[must_use]
pub fn properties() -> Value {
    PROPERTIES
        .iter()
        .map(|(name, what)| ((*name).to_owned(), json!(what)))
        .collect::<Object>()
        .into()
}
