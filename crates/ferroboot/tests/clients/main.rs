//! The built daemon, driven over real sockets by the unmodified `baremetal` command, switches a
//! machine through its BMC. `crates/server/tests/clients.rs` tries the API alone, and more of it.

#![expect(clippy::unwrap_used, reason = "in a test, what cannot be unwrapped has failed")]

mod bmc;
mod service;

use std::time::{Duration, Instant};

use redfish::brain::{NextBoot, Personality};
use serde_json::json;

use bmc::Bmc;
use service::Service;

const MAC: &str = "52:54:00:aa:bb:01";
/// For what takes seconds; the machines that run tests can be slow.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn the_baremetal_command_takes_a_node_from_enrolment_to_available() {
    let mut bmc = Bmc::start(Personality::default());
    let service = Service::start();
    let uuid = enroll(&service, "n1", "redfish-http-url", &bmc.address.to_string());
    let port = service.json(&["port", "create", MAC, "--node", &uuid]);
    assert_eq!((&port["address"], &port["node_uuid"]), (&json!(MAC), &json!(uuid)));
    let iso = service.image("own.iso", b"an image");
    service.does(&["node", "set", "n1", "--driver-info", &format!("deploy_iso={iso}")]);
    let valid = service.json(&["node", "validate", "n1"]);
    let boot = valid.as_array().unwrap().iter().find(|row| row["Interface"] == "boot").unwrap();
    assert_eq!(boot["Result"], true, "{boot}");

    service.does(&["node", "manage", "n1", "--wait", "60"]);
    service.does(&["node", "power", "on", "n1", "--power-timeout", "60"]);
    assert_eq!(bmc.started(), NextBoot::Usual);
    let steps = r#"[{"interface":"deploy","step":"erase_devices_metadata"}]"#;
    service.does(&["node", "clean", "n1", "--clean-steps", steps]);
    let NextBoot::Url(url) = bmc.started() else { panic!("not started from a URL") };
    assert!(url.ends_with("/boot.iso"), "{url}");
    assert_eq!(fetch(&url), b"an image");
    await_state(&service, "n1", "clean wait");
    service.does(&["node", "abort", "n1"]);
    await_state(&service, "n1", "clean failed");
    let node = service.json(&["node", "show", "n1", "--fields", "last_error", "maintenance"]);
    assert!(node["last_error"].as_str().unwrap().contains("abort"), "{node}");

    service.does(&["node", "manage", "n1", "--wait", "60"]);
    service.does(&["node", "set", "n1", "--no-automated-clean"]);
    service.does(&["node", "provide", "n1", "--wait", "60"]);
    let list = service.json(&["node", "list", "--fields", "uuid", "provision_state"]);
    assert_eq!(list, json!([{ "uuid": uuid, "provision_state": "available" }]));
}

/// Creates a node whose BMC is at `address`, and gives its UUID.
fn enroll(service: &Service, name: &str, boot_interface: &str, address: &str) -> String {
    let address = format!("redfish_address=http://{address}");
    let info = [&address, "redfish_system_id=/redfish/v1/Systems/1", "redfish_username=admin"];
    let mut arguments = vec!["node", "create", "--driver", "redfish", "--name", name];
    arguments.extend(["--boot-interface", boot_interface]);
    arguments.extend(info.into_iter().flat_map(|setting| ["--driver-info", setting]));
    arguments.extend(["--driver-info", "redfish_password=secret"]);
    let node = service.json(&arguments);
    node["uuid"].as_str().unwrap().to_owned()
}

/// Asks again and again, since the command waits for states of its own choice alone.
fn await_state(service: &Service, node: &str, wanted: &str) {
    let until = Instant::now() + PATIENCE;
    loop {
        let shown =
            service.json(&["node", "show", node, "--fields", "provision_state", "last_error"]);
        if shown["provision_state"] == wanted {
            return;
        }
        assert!(Instant::now() < until, "{node} is not {wanted} but {shown}");
    }
}

fn fetch(url: &str) -> Vec<u8> {
    let answer = async { reqwest::get(url).await?.error_for_status()?.bytes().await };
    ferroboot::service::runtime().unwrap().block_on(answer).unwrap().to_vec()
}
