//! `GET /v1/nodes/{}/validate`: errors in a node, before its machine is touched.

use provision::addresses::agent_networks;
use provision::boot::kernel_arguments;
use provision::enrolment::{BOOT_CA, ENROLMENTS, SECURE_BOOT_CERTIFICATE};
use provision::image::{CONFIG_DRIVE, RAMDISK_DEPLOY, instance_image};
use provision::text::shown_url_text;
use provision::virtual_media::{BOOT_FALLBACK, VIRTUAL_MEDIA};
use provision::{BootInterface, Boots, Node, Port, config_drive};
use serde_json::{Value, json};
use url::Url;

use crate::driver;
use crate::field::Object;
use crate::node::interface_of;

/// The results for the interfaces; `Err` has the reason in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validation {
    /// Whether it can boot by its boot interface.
    pub boot: Result<(), String>,
    /// Whether its boot device can be set.
    pub management: Result<(), String>,
    /// Whether its power can be switched.
    pub power: Result<(), String>,
    /// Whether an instance can be booted on it.
    pub deploy: Result<(), String>,
    /// The reasons why other interfaces cannot be used, by kind.
    unusable: Vec<(&'static str, String)>,
    /// The way in which the BMC boots the machine, in words.
    way: Option<String>,
}

/// Kinds of interfaces without a working implementation here.
const UNUSABLE: [&str; 6] = ["bios", "console", "firmware", "inspect", "raid", "rescue"];

impl Validation {
    /// Checks only the node's settings.
    #[must_use]
    pub fn of_settings(node: &Node, ports: &[Port]) -> Self {
        let bmc = bmc(node);
        let unusable = |kind| (kind, driver::why_unusable(kind, &interface_of(node, kind)));
        let unusable = UNUSABLE.map(unusable).to_vec();
        let (boot, deploy) = (boot(node, ports), deploy(node));
        Self { boot, management: bmc.clone(), power: bmc, deploy, unusable, way: None }
    }

    /// Whether there is no error, so that a call to the BMC makes sense.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.boot.is_ok() && self.management.is_ok() && self.power.is_ok()
    }

    /// Adds whether the service's host can boot the machine.
    #[must_use]
    pub fn with_host(self, has: Result<(), String>) -> Self {
        Self { boot: self.boot.and(has), ..self }
    }

    /// Adds the BMC's answer: the way in which it boots the machine, in words.
    #[must_use]
    pub fn with_bmc(self, said: Result<String, String>) -> Self {
        let way = said.as_ref().ok().cloned();
        Self { boot: self.boot.and_then(|()| said.map(drop)), way, ..self }
    }

    /// The answer's body.
    #[must_use]
    pub fn show(&self) -> Value {
        let one = |result: &Result<(), String>| match result {
            Ok(()) => json!({ "result": true }),
            Err(reason) => json!({ "result": false, "reason": reason }),
        };
        let mut shown = json!({
            "boot": match (&self.boot, &self.way) {
                (Ok(()), Some(way)) => json!({ "result": true, "reason": way }),
                (boot, _) => one(boot),
            },
            "deploy": one(&self.deploy),
            "management": one(&self.management),
            "network": one(&Ok(())),
            "power": one(&self.power),
            "storage": one(&Ok(())),
        });
        for (kind, reason) in &self.unusable {
            shown[*kind] = json!({ "result": false, "reason": reason });
        }
        shown
    }
}

fn bmc(node: &Node) -> Result<(), String> {
    let Some(address) = node.driver_info.get("redfish_address") else {
        return Err("Missing the following Redfish properties in node's driver_info: \
                    ['redfish_address']"
            .to_owned());
    };
    let address = address.as_str().ok_or("driver_info/redfish_address must be a text")?;
    // Ironic accepts a bare host and assumes https.
    let full =
        if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
    match Url::parse(&full) {
        Ok(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() => {}
        Ok(_) | Err(_) => {
            return Err(format!(
                "driver_info/redfish_address is not an http or https URL: {:?}",
                shown_url_text(address)
            ));
        }
    }
    without_password(node, "redfish_address", "set redfish_username and redfish_password")?;
    one_of(node, "redfish_auth_type", &["basic", "session", "auto"])?;
    one_of(node, "redfish_tls", &["modern", "legacy"])?;
    power_change_timeout(node)?;
    match node.driver_info.get("redfish_system_id") {
        None => Ok(()),
        Some(Value::String(path)) if path.starts_with('/') => Ok(()),
        Some(_) => Err("driver_info/redfish_system_id must be the path of a ComputerSystem, such \
                        as /redfish/v1/Systems/1"
            .to_owned()),
    }
}

/// Seconds within which the power of the node's machine must follow a reset; `None` if the node has no time of its own.
///
/// # Errors
/// The setting is not a number of seconds from 10 to 600; in words.
pub fn power_change_timeout(node: &Node) -> Result<Option<u32>, String> {
    const KEY: &str = "redfish_power_change_timeout";
    let secs = match node.driver_info.get(KEY) {
        None => return Ok(None),
        Some(Value::Number(number)) => number.as_u64().and_then(|secs| u32::try_from(secs).ok()),
        // The command line sends texts.
        Some(Value::String(text)) => text.parse().ok(),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => None,
    };
    let fitting = secs.filter(|secs| (10..=600).contains(secs));
    fitting
        .map(Some)
        .ok_or_else(|| format!("driver_info/{KEY} must be a number of seconds from 10 to 600"))
}

fn one_of(node: &Node, key: &str, values: &[&str]) -> Result<(), String> {
    match node.driver_info.get(key) {
        None => Ok(()),
        Some(Value::String(text)) if values.contains(&text.as_str()) => Ok(()),
        Some(_) => Err(format!("driver_info/{key} must be one of {}", values.join(", "))),
    }
}

fn boot(node: &Node, ports: &[Port]) -> Result<(), String> {
    if let Some(mode) = asked_boot_mode(node).filter(|mode| *mode != "uefi") {
        return Err(format!(
            "properties/capabilities asks for boot mode {mode:?}, and HTTP boot needs \"uefi\""
        ));
    }
    images(node)?;
    url(node, "external_http_url")?;
    plain(node, "external_http_url")?;
    without_password(node, "external_http_url", "every machine is told it")?;
    arguments(node)?;
    agent_networks(node).map_err(|bad| bad.to_string())?;
    one_of(node, BOOT_FALLBACK, &[VIRTUAL_MEDIA])?;
    one_of(node, BOOT_CA, &ENROLMENTS)?;
    one_of(node, SECURE_BOOT_CERTIFICATE, &ENROLMENTS)?;
    match node.boot_interface {
        BootInterface::RedfishHttps | BootInterface::RedfishVirtualMedia => Ok(()),
        BootInterface::Http | BootInterface::HttpIpxe => bootable_port(node, ports),
    }
}

/// `boot_mode:…` in the list that Ironic packs into `capabilities`.
fn asked_boot_mode(node: &Node) -> Option<&str> {
    match node.properties.get("capabilities")? {
        Value::String(list) => {
            list.split(',').find_map(|entry| entry.trim().strip_prefix("boot_mode:"))
        }
        Value::Object(map) => map.get("boot_mode")?.as_str(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    }
}

/// An operator's own ramdisk is a kernel and a ramdisk or, if the BMC gets the URL, an ISO image.
fn images(node: &Node) -> Result<(), String> {
    for key in ["deploy_kernel", "deploy_ramdisk", "deploy_iso"] {
        url(node, key)?;
    }
    let has = |key: &str| node.driver_text(key).is_some();
    match (has("deploy_kernel"), has("deploy_ramdisk")) {
        (true, false) => Err("driver_info has deploy_kernel but lacks deploy_ramdisk".to_owned()),
        (false, true) => Err("driver_info has deploy_ramdisk but lacks deploy_kernel".to_owned()),
        (true, true) | (false, false) => Ok(()),
    }
}

fn url(node: &Node, key: &str) -> Result<(), String> {
    url_in(&node.driver_info, "driver_info", key)
}

fn url_in(fields: &Object, field: &str, key: &str) -> Result<(), String> {
    let Some(value) = fields.get(key) else { return Ok(()) };
    match value.as_str().map(Url::parse) {
        Some(Ok(url)) if ["http", "https", "file"].contains(&url.scheme()) => Ok(()),
        Some(_) | None => Err(format!("{field}/{key} is not a URL")),
    }
}

/// A user name or a password in a URL would be visible wherever the URL is.
fn without_password(node: &Node, key: &str, why: &str) -> Result<(), String> {
    let text = node.driver_text(key).unwrap_or_default();
    let authority = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(format!("driver_info/{key} must not hold a user name or a password: {why}"));
    }
    Ok(())
}

/// Machines and external DHCP services get the URL with a path appended: RFC 3986 §2 without the delimiters of query
/// and fragment.
fn plain(node: &Node, key: &str) -> Result<(), String> {
    let odd =
        |character: char| !character.is_ascii_graphic() || "\"<>\\^`{|}?#".contains(character);
    match node.driver_text(key).and_then(|text| text.chars().find(|it| odd(*it))) {
        Some(odd) => Err(format!(
            "driver_info/{key} has a character that is none of a URL's path or host: {odd:?}"
        )),
        None => Ok(()),
    }
}

/// Checks that the kernel command line can be composed.
fn arguments(node: &Node) -> Result<(), String> {
    let arguments = kernel_arguments(node, Boots::Ramdisk, "");
    arguments.map(drop).map_err(|refused| format!("driver_info/{refused}"))
}

/// Checks that an instance can be booted with the node's current settings.
fn deploy(node: &Node) -> Result<(), String> {
    let interface = interface_of(node, "deploy");
    if interface != RAMDISK_DEPLOY {
        return Err(driver::why_unusable("deploy", &interface));
    }
    instance_image(node).map_err(|bad| bad.to_string())?;
    for key in ["boot_iso", "kernel", "ramdisk"] {
        url_in(&node.instance_info, "instance_info", key)?;
    }
    let arguments = kernel_arguments(node, Boots::Instance, "");
    arguments.map_err(|refused| format!("instance_info/{refused}"))?;
    match node.instance_info.get(CONFIG_DRIVE) {
        Some(config_drive) => {
            config_drive::files(config_drive).map(drop).map_err(|bad| bad.to_string())
        }
        None => Ok(()),
    }
}

fn bootable_port(node: &Node, ports: &[Port]) -> Result<(), String> {
    if ports.is_empty() {
        return Err(format!("Node {} does not have any port associated with it.", node.uuid));
    }
    if ports.iter().any(|port| port.pxe_enabled) {
        return Ok(());
    }
    Err(format!(
        "none of the ports of node {} is enabled for booting (pxe_enabled is false)",
        node.uuid
    ))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn node(driver_info: Value) -> Node {
        let mut node = Node::enrolled(Uuid::nil(), "redfish", jiff::Timestamp::UNIX_EPOCH);
        node.driver_info = driver_info.as_object().unwrap().clone();
        node
    }

    fn good() -> Node {
        node(
            json!({ "redfish_address": "https://bmc", "redfish_system_id": "/redfish/v1/Systems/1" }),
        )
    }

    fn boot(node: &Node) -> String {
        Validation::of_settings(node, &[]).boot.unwrap_err()
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_said() {
        for (key, url) in [
            ("redfish_address", "https://me:geheim@bmc"),
            ("redfish_address", "me:geheim@bmc"),
            ("redfish_address", "ftp://me:geheim@bmc"),
            ("external_http_url", "http://me:geheim@boot.example"),
        ] {
            let mut node = good();
            node.driver_info.insert(key.into(), url.into());
            let validation = Validation::of_settings(&node, &[]);
            assert!(validation.power.is_err() || validation.boot.is_err(), "{url}");
            assert!(!validation.show().to_string().contains("geheim"), "{url}");
        }
    }

    #[test]
    fn the_time_of_a_power_change_is_a_number_of_seconds_within_bounds() {
        let of = |value: Value| {
            let mut node = good();
            node.driver_info.insert("redfish_power_change_timeout".into(), value);
            (power_change_timeout(&node), Validation::of_settings(&node, &[]).power.is_ok())
        };

        assert_eq!(power_change_timeout(&good()), Ok(None));
        assert_eq!(of(json!(180)), (Ok(Some(180)), true));
        assert_eq!(of(json!("180")), (Ok(Some(180)), true));
        for wrong in
            [json!(9), json!(601), json!(-1), json!(90.5), json!("soon"), json!(null), json!([])]
        {
            let (secs, is_good) = of(wrong.clone());
            assert!(secs.is_err() && !is_good, "{wrong}");
        }
    }

    #[test]
    fn a_setting_of_the_bmc_with_another_value_is_named_with_the_permitted_ones() {
        for (key, good_value, words) in [
            ("redfish_auth_type", "session", "must be one of basic, session, auto"),
            ("redfish_tls", "legacy", "must be one of modern, legacy"),
        ] {
            let mut node = good();
            node.driver_info.insert(key.into(), good_value.into());
            assert_eq!(Validation::of_settings(&node, &[]).power, Ok(()));
            node.driver_info.insert(key.into(), "other".into());
            let refused = Validation::of_settings(&node, &[]).power.unwrap_err();
            assert_eq!(refused, format!("driver_info/{key} {words}"));
        }
    }

    #[test]
    fn a_good_node_is_shown_as_upstream_shows_it() {
        insta::assert_json_snapshot!(Validation::of_settings(&good(), &[]).show());
    }

    #[test]
    fn a_node_without_a_bmc_address_can_neither_be_switched_nor_managed() {
        let validation = Validation::of_settings(&node(json!({})), &[]);

        assert_eq!(
            validation.power.as_ref().unwrap_err(),
            "Missing the following Redfish properties in node's driver_info: ['redfish_address']"
        );
        assert!(!validation.is_good());
    }

    #[test]
    fn bios_boot_mode_is_refused_before_the_machine_is_touched() {
        let mut node = good();
        node.properties.insert("capabilities".into(), json!("cpus:2,boot_mode:bios"));

        assert_eq!(
            boot(&node),
            "properties/capabilities asks for boot mode \"bios\", and HTTP boot needs \"uefi\""
        );
    }

    #[test]
    fn a_dhcp_boot_needs_a_port() {
        let mut node = good();
        node.boot_interface = BootInterface::Http;

        assert!(boot(&node).contains("does not have any port associated"));
    }

    #[test]
    fn a_boot_from_the_virtual_cd_drive_needs_no_port() {
        let mut node = good();
        node.boot_interface = BootInterface::RedfishVirtualMedia;

        assert_eq!(Validation::of_settings(&node, &[]).boot, Ok(()));
    }

    #[test]
    fn another_fallback_than_virtual_media_is_refused() {
        let mut node = good();
        node.driver_info.insert("redfish_boot_fallback".into(), json!("virtual-media"));
        assert_eq!(Validation::of_settings(&node, &[]).boot, Ok(()));
        node.driver_info.insert("redfish_boot_fallback".into(), json!("pxe"));
        assert_eq!(boot(&node), "driver_info/redfish_boot_fallback must be one of virtual-media");
        node.driver_info.remove("redfish_boot_fallback");
        node.driver_info.insert("redfish_boot_ca".into(), json!("delete"));
        assert_eq!(boot(&node), "driver_info/redfish_boot_ca must be one of enrol, leave, remove");
        node.driver_info.remove("redfish_boot_ca");
        node.driver_info.insert("redfish_secure_boot_certificate".into(), json!("yes"));
        assert_eq!(
            boot(&node),
            "driver_info/redfish_secure_boot_certificate must be one of enrol, leave, remove"
        );
    }

    #[test]
    fn half_a_ramdisk_and_two_lines_of_arguments_are_refused() {
        let mut half = good();
        half.driver_info.insert("deploy_kernel".into(), json!("http://h/k"));
        assert_eq!(boot(&half), "driver_info has deploy_kernel but lacks deploy_ramdisk");

        let mut lines = good();
        lines.driver_info.insert("kernel_append_params".into(), json!("a\nb"));
        assert!(boot(&lines).contains("control character"));
    }

    #[test]
    fn networks_of_the_agent_that_cannot_be_read_are_named() {
        let mut node = good();
        node.driver_info.insert("agent_networks".into(), json!(["192.0.2.0/24", "10.0.0.0/40"]));
        assert!(boot(&node).contains("agent_networks has \"10.0.0.0/40\""));
    }

    #[test]
    fn a_url_that_no_other_dhcp_server_could_be_told_as_it_is_is_refused() {
        for url in ["http://h\"x/", "http://h/a b", "http://h/?x", "http://hö/"] {
            let mut node = good();
            node.driver_info.insert("external_http_url".into(), json!(url));
            assert!(boot(&node).contains("external_http_url has a character"), "{url}");
        }
        let mut node = good();
        node.driver_info.insert("external_http_url".into(), json!("http://[fd00::1]:80/a%20b"));
        assert!(Validation::of_settings(&node, &[]).boot.is_ok());
    }

    #[test]
    fn an_interface_that_is_taken_and_not_built_says_so() {
        let mut node = good();
        for (kind, name) in [("deploy", "direct"), ("raid", "redfish"), ("inspect", "agent")] {
            node.kept.insert(format!("{kind}_interface"), json!(name));
        }
        let shown = Validation::of_settings(&node, &[]).show();

        assert_eq!(
            shown["deploy"]["reason"],
            "The deploy interface 'direct' is taken and shown, but not built yet: this service writes \
             no image to a disk."
        );
        for kind in ["raid", "inspect"] {
            assert!(shown[kind]["reason"].as_str().unwrap().contains("not built yet"), "{kind}");
        }
        assert!(shown["bios"]["reason"].as_str().unwrap().contains("does not support bios"));
    }

    #[test]
    fn what_the_bmc_says_counts_for_booting() {
        let said = "UefiHttp is not among the targets".to_owned();
        let validation = Validation::of_settings(&good(), &[]).with_bmc(Err(said.clone()));
        assert_eq!(validation.boot, Err(said));
        assert!(validation.power.is_ok());

        let validation = Validation::of_settings(&good(), &[]).with_bmc(Ok("by UefiHttp".into()));
        assert_eq!(validation.show()["boot"], json!({"result": true, "reason": "by UefiHttp"}));
    }
}
