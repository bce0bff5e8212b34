//! Any JSON as Kea's or Neutron's state: the resulting announcements can be repeated, and then change nothing.

#![no_main]

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use hardware::CpuArch;
use netboot::providers::announcement::Announcement;
use netboot::providers::{kea, neutron};
use netboot::urls::{IpFamily, UrlSettings, Urls};
use provision::{Node, Port};
use serde_json::{Value, json};
use providers::neutron::keystone;
use uuid::Uuid;

/// A boot by each boot interface with DHCP.
static BOOTS: LazyLock<Vec<Announcement>> = LazyLock::new(|| {
    let url = |url: &str| Some(url.parse().expect("it is a URL"));
    let settings = UrlSettings {
        boot: url("http://10.0.0.1:8080"),
        boot6: url("http://[fd00::1]:8080"),
        ..UrlSettings::default()
    };
    let urls = Urls::new(settings, None);
    let boot = |(number, boot_interface): (u8, &str)| {
        let uuid = Uuid::from_u128(number.into());
        let at = "2026-01-02T03:04:05Z";
        let mut node = Node::enrolled(uuid, "redfish", at.parse().expect("it is a time"));
        // As a document, so that new fields get their defaults.
        let attempt = json!({
            "id": uuid, "ticket": "a-ticket-of-22-letters", "agent_token": "t", "token_given": false,
            "boot_interface": boot_interface, "started_at": at, "powered_on_at": null,
            "ended_at": null, "agent": null,
            "clean": {
                "automated": false, "steps": [], "hardware_manager_version": null, "done": 0,
                "command_id": null, "settled_commands": [],
            },
        });
        node.attempt = Some(serde_json::from_value(attempt).expect("it is an attempt"));
        let port = json!({
            "uuid": uuid, "node_uuid": uuid, "address": format!("52:54:00:00:00:{number:02x}"),
            "pxe_enabled": true, "created_at": at, "updated_at": null, "extra": {}, "kept": {},
        });
        let port: Port = serde_json::from_value(port).expect("it is a port");
        Announcement::of(&node, &[Arc::new(port)], &urls, &[CpuArch::X64, CpuArch::Arm64])
    };
    let boots: Vec<_> = [(1, "http"), (2, "http-ipxe")].into_iter().filter_map(boot).collect();
    assert_eq!(boots.len(), 2);
    boots
});

/// What a configuration becomes when Kea is told of the boots, and what their clients may not be sent all the same.
fn changed_configuration(shown: &Value, family: IpFamily) -> Option<(Value, Vec<String>)> {
    let mut boots = kea::KeaBoots::default();
    boots.set_all(&BOOTS);
    let mut configuration = shown.clone();
    let told = boots.configure(&mut configuration, family, 0).ok()?;
    assert!(!boots.are_lacking_in(&configuration, family), "a class of ours is not there");
    assert!(kea::in_ascii(&configuration).is_ascii());
    let warnings = BOOTS.iter().map(|boot| match told.obstacles.warning(boot) {
        Ok(warning) => warning.map(|in_front| in_front.to_string()),
        Err(refused) => Some(refused.to_string()),
    });
    Some((configuration, warnings.flatten().collect()))
}

/// The requests that follow from what Neutron shows of a port, and from Keystone's catalogue.
fn requests_for(shown: &Value, told: &Announcement) -> Vec<String> {
    let mut requests = Vec::new();
    if let Ok(options) = neutron::options_of(told) {
        let options = neutron::options_for(&options, shown);
        requests.push(json!({"port": {"extra_dhcp_opts": options}}).to_string());
    }
    if neutron::has_link(shown, &HashSet::from([told.ticket()])) {
        let options = neutron::present(shown);
        requests.push(json!({"port": {"extra_dhcp_opts": options}}).to_string());
    }
    requests.extend(shown["id"].as_str().map(neutron::path_of));
    requests.extend(keystone::endpoint(shown, None).map(String::from));
    requests
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(shown) = serde_json::from_slice::<Value>(bytes) else { return };
    // The daemon takes nothing else for a configuration.
    for family in [IpFamily::V4, IpFamily::V6].into_iter().filter(|_| shown.is_object()) {
        if let Some((configuration, warnings)) = changed_configuration(&shown, family) {
            let again = changed_configuration(&configuration, family);
            assert_eq!(again.expect("it was told before"), (configuration, warnings));
        }
    }
    for boot in BOOTS.iter() {
        for request in requests_for(&shown, boot) {
            assert!(!request.contains(['\n', '\r']), "{request:?}");
        }
    }
});
