//! The only hardware type, `redfish`: its entry in `/v1/drivers`, and the accepted names.

use provision::BootInterface;
use serde_json::{Value, json};

use crate::field::{BadBody, ClientView, Object};
use crate::interface::{INTERFACES, INTERFACES_SINCE, default, enabled};
use crate::python;

/// The only hardware type.
pub const NAME: &str = "redfish";

/// The missing function of each kind of unsupported interface.
const UNBUILT: [(&str, &str); 7] = [
    ("bios", "changes no BIOS settings"),
    ("deploy", "writes no image to a disk"),
    ("firmware", "updates no firmware"),
    ("inspect", "inspects no machine"),
    ("raid", "builds no RAID"),
    ("rescue", "starts no rescue system"),
    ("vendor", "has no vendor methods"),
];

/// The properties of `driver_info`, and their descriptions.
const PROPERTIES: [(&str, &str); 21] = [
    ("redfish_address", "The URL address to the Redfish controller. Required."),
    ("redfish_system_id", "The path of the ComputerSystem; needed where there are several."),
    ("redfish_username", "User account with admin or server-profile access privilege."),
    ("redfish_password", "User account password."),
    ("redfish_verify_ca", "true, false, or the path of a file of certificates (PEM)."),
    ("redfish_fingerprint", "SHA-256 of the BMC's certificate, which alone is trusted then."),
    (
        "redfish_auth_type",
        "auto (the default), session or basic; auto is a session where the BMC offers one, else basic.",
    ),
    (
        "redfish_tls",
        "modern (the default), or legacy for an old BMC: TLS 1.0 and 1.1, RSA key exchange, SHA-1.",
    ),
    (
        "redfish_power_change_timeout",
        "Seconds within which the machine's power must follow a reset, 10 to 600; by default the service's.",
    ),
    ("deploy_kernel", "URL of the deployment kernel; by default our own."),
    ("deploy_ramdisk", "URL of the ramdisk to boot for cleaning; by default our own."),
    (
        "agent_networks",
        "Networks that the agent of a deploy_iso may call from, as a list of CIDRs, where its address is neither the \
         one that fetched the image nor one that this service's DHCP gave.",
    ),
    (
        "deploy_iso",
        "URL of an ISO image to boot for cleaning, as it is (redfish-https, redfish-virtual-media).",
    ),
    (
        "redfish_boot_fallback",
        "virtual-media: redfish-https puts the image into the BMC's virtual CD drive, if the BMC has no other way to \
         take a URL.",
    ),
    (
        "redfish_boot_ca",
        "enrol (the default): the service's CA is put into the firmware before a boot over https, if the BMC shows \
         Boot.Certificates; remove: for the time of the boot; leave: never.",
    ),
    (
        "redfish_secure_boot_certificate",
        "leave (the default): db of Secure Boot is not changed; enrol: the certificate that signs images (sign_certificate \
         of the service) is put into db before a boot; remove: for the time of the boot.",
    ),
    ("kernel_append_params", "Further kernel arguments; %default% stands for the service's."),
    ("external_http_url", "Where this node reaches the boot listener, if not at its usual URL."),
    ("bootloader", "URL of the ESP image; ours is composed, so it is not used."),
    ("config_via_removable", "Not used: the configuration is on the kernel command line."),
    (
        "force_persistent_boot_device",
        "Not used: a clean boots once, an instance for as long as the node is active.",
    ),
];

/// Checks that the driver exists.
///
/// # Errors
/// [`BadBody::NoSuchDriver`], in Ironic's words.
pub fn check(name: &str, conductor_group: &str) -> Result<(), BadBody> {
    if name == NAME && conductor_group.is_empty() {
        return Ok(());
    }
    Err(BadBody::NoSuchDriver { driver: name.to_owned(), group: conductor_group.to_owned() })
}

/// Checks that the driver has the interface `name` of this kind.
///
/// # Errors
/// [`BadBody::NoSuchInterface`], with the existing ones.
pub fn check_interface(kind: &'static str, name: &str) -> Result<(), BadBody> {
    let enabled = enabled(kind);
    if enabled.contains(&name) || kind == "boot" && name.parse::<BootInterface>().is_ok() {
        return Ok(());
    }
    let mut valid = enabled.to_vec();
    valid.sort_unstable();
    Err(BadBody::NoSuchInterface { kind, name: name.to_owned(), valid: python::names(valid) })
}

/// The reason why an interface cannot be used, for `validate`.
#[must_use]
pub fn why_unusable(kind: &str, chosen: &str) -> String {
    let unbuilt = UNBUILT.iter().find(|(of, _)| *of == kind && !chosen.starts_with("no-"));
    match unbuilt {
        Some((_, lack)) if default(kind) != Some(chosen) => format!(
            "The {kind} interface '{chosen}' is taken and shown, but not built yet: this service {lack}."
        ),
        Some(_) | None => {
            format!("Driver {NAME} does not support {kind} (disabled or not implemented).")
        }
    }
}

/// `GET /v1/drivers/redfish`, or an entry of `GET /v1/drivers`.
#[must_use]
pub fn show(view: &ClientView, detail: bool) -> Value {
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
