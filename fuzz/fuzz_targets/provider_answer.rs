//! Any JSON as Kea's or Neutron's state: the resulting announcements can be repeated, and then change nothing.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use hardware::CpuArch;
use netboot::urls::IpFamily;
use provision::{Node, Port};
use serde_json::{Value, json};
use server::config::Config;
use server::providers::announcement::Announcement;
use server::providers::{kea, neutron};
use uuid::Uuid;

/// A boot by each boot interface with DHCP.
static BOOTS: LazyLock<Vec<Announcement>> = LazyLock::new(|| {
    let settings = "[boot]\nurl = 'http://10.0.0.1:8080'\nurl6 = 'http://[fd00::1]:8080'";
    let urls = settings.parse::<Config>().expect("they are settings").urls(None);
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

fuzz_target!(|bytes: &[u8]| {
    let Ok(shown) = serde_json::from_slice::<Value>(bytes) else { return };
    for family in [IpFamily::V4, IpFamily::V6] {
        let told = kea::told_configuration(shown.clone(), &BOOTS, family);
        if let Ok((configuration, warnings)) = told {
            let again = kea::told_configuration(configuration.clone(), &BOOTS, family);
            assert_eq!(again.expect("it was told before"), (configuration, warnings));
        }
    }
    for boot in BOOTS.iter() {
        for request in neutron::requests_for(&shown, boot) {
            assert!(!request.contains(['\n', '\r']), "{request:?}");
        }
    }
});
