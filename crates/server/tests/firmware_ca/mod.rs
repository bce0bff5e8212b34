//! The service's CA in the firmware of machines that boot over https.

use redfish::emulator::{EmulatedFault, FaultRule};
use reqwest::Method;
use serde_json::{Value, json};

use super::{World, boot_set};
use crate::bmc::NO_FAULTS;

const TRACE: &str = "/v1/nodes/n1/boot-trace";
const WITHOUT_CA: [&str; 2] = ["PATCH Once UEFI UefiHttp with a URL", "POST On"];
const WITH_CA: [&str; 3] = ["POST a certificate", "PATCH Once UEFI UefiHttp with a URL", "POST On"];

/// A node whose machine boots over https.
async fn over_https(last: u8, faults: Vec<FaultRule>, settings: &str) -> World {
    let settings = format!("[tls]\nonly = false\n{settings}");
    let world = World::with(last, faults, &settings).await;
    let url = format!("https://{}:8443", world.address);
    world.set_driver_info("external_http_url", url).await;
    world
}

/// The texts of what became of the CA, in the trace.
async fn outcomes(world: &World) -> Vec<(String, Value)> {
    let trace = world.api(Method::GET, TRACE, Value::Null).await;
    let events = trace["events"].as_array().unwrap().iter();
    let of_ca = events.filter(|event| event["shows"] == "boot_certificate");
    of_ca
        .map(|event| (event["outcome"].as_str().unwrap().to_owned(), event["reason"].clone()))
        .collect()
}

async fn reason(world: &World) -> String {
    let validation = world.api(Method::GET, "/v1/nodes/n1/validate", Value::Null).await;
    assert_eq!(validation["boot"]["result"], true, "{validation}");
    validation["boot"]["reason"].as_str().unwrap().to_owned()
}

fn refusal(path: &str, method: &str, status: u16) -> FaultRule {
    let (body, retry_after_secs, location) = (None, None, None);
    let fault = EmulatedFault::Answer { status, body, retry_after_secs, location };
    let (path, method) = (path.to_owned(), Some(method.to_owned()));
    FaultRule { path, method, ..FaultRule::always(fault) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ca_is_enrolled_before_a_boot_over_https_and_found_before_the_next() {
    let world = over_https(71, NO_FAULTS, "").await;
    world.clean_until_wait().await;

    assert_eq!(world.bmc.changes(), WITH_CA);
    assert_eq!(world.bmc.looks_at_certificates(), 1);
    assert_eq!(outcomes(&world).await, [("enrolled".to_owned(), Value::Null)]);
    world.abort_clean().await;
    assert_eq!(world.bmc.looks_at_certificates(), 1);
    assert!(!reason(&world).await.contains("ferroboot ca"));
    assert_eq!(world.bmc.looks_at_certificates(), 3);

    world.clean_until_wait().await;

    // The collection and its member.
    assert_eq!(world.bmc.looks_at_certificates(), 5);
    assert_eq!(outcomes(&world).await, [("found".to_owned(), Value::Null)]);
    let posts = world.bmc.changes().iter().filter(|change| *change == WITH_CA[0]).count();
    assert_eq!(posts, 1);
    let kept = world.bmc.certificates();
    assert!(kept.len() == 1 && kept[0].contains("BEGIN CERTIFICATE"), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ca_is_enrolled_before_a_boot_by_dhcp() {
    let world = over_https(72, NO_FAULTS, "[dhcp]\nprovider = 'none'\n").await;
    boot_set::write_boot_set(&world.dir.path().join("state/ramdisk"));
    world.boots_by("httpboot").await;
    let node = world.api(Method::GET, "/v1/nodes/n1", Value::Null).await;
    let port = json!({ "node_uuid": node["uuid"], "address": "52:54:00:00:00:09" });
    world.api(Method::POST, "/v1/ports", port).await;

    world.clean_until_wait().await;

    assert_eq!(world.bmc.changes(), ["POST a certificate", "PATCH Once UEFI UefiHttp", "POST On"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_of_certificates_for_plain_http_or_where_they_are_the_operators_matter() {
    let world = over_https(73, NO_FAULTS, "").await;
    world.set_driver_info("redfish_boot_ca", "leave").await;
    world.clean_until_wait().await;
    world.abort_clean().await;
    world.set_driver_info("redfish_boot_ca", "enrol").await;
    world.set_driver_info("external_http_url", format!("http://{}:8080", world.address)).await;
    reason(&world).await;
    world.clean_until_wait().await;

    assert_eq!(world.bmc.looks_at_certificates(), 0);
    assert_eq!(world.bmc.certificates(), [""; 0]);
    assert_eq!(world.bmc.changes()[..2], WITHOUT_CA);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_while_it_enrols_the_ca_enrols_it_once() {
    let mut world = over_https(74, NO_FAULTS, "").await;
    let held = world.bmc.hold("POST a certificate");
    world.clean().await;
    held.reached().await;

    world.die();
    held.let_go();
    world.start().await;

    world.node_in("clean wait").await;
    assert_eq!(world.bmc.changes(), WITH_CA);
    assert_eq!(outcomes(&world).await, [("found".to_owned(), Value::Null)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ca_is_removed_after_the_boot_if_the_node_says_so() {
    let world = over_https(75, NO_FAULTS, "").await;
    world.set_driver_info("redfish_boot_ca", "remove").await;
    world.clean_until_wait().await;
    assert_eq!(world.bmc.certificates().len(), 1);

    world.abort_clean().await;

    assert_eq!(world.bmc.certificates(), [""; 0]);
    let changes = world.bmc.changes();
    assert_eq!(changes.iter().filter(|change| *change == "DELETE a certificate").count(), 1);
    let outcomes: Vec<_> = outcomes(&world).await.into_iter().map(|(outcome, _)| outcome).collect();
    assert_eq!(outcomes, ["enrolled", "removed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ca_is_removed_by_manage_if_the_node_says_so() {
    let world = over_https(76, NO_FAULTS, "").await;
    world.clean_until_wait().await;
    world.abort_clean().await;
    let url = world.bmc.url();
    let node = json!({
        "name": "n2", "driver": "redfish", "driver_info": {
            "redfish_address": url, "redfish_boot_ca": "remove",
            "redfish_username": "admin", "redfish_password": "secret",
        },
    });
    world.api(Method::DELETE, "/v1/nodes/n1", Value::Null).await;
    world.api(Method::POST, "/v1/nodes", node).await;
    assert_eq!(world.bmc.certificates().len(), 1);

    let manage = json!({ "target": "manage" });
    world.api(Method::PUT, "/v1/nodes/n2/states/provision", manage).await;

    world.until_at("/v1/nodes/n2", |node| node["provision_state"] == "manageable").await;
    assert_eq!(world.bmc.certificates(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_goes_on_though_the_bmc_refuses_the_ca_and_says_so() {
    let refused = refusal("/redfish/v1/Systems/1/Boot/Certificates", "POST", 403);
    let world = over_https(77, vec![refused], "").await;

    world.clean_until_wait().await;

    assert_eq!(world.bmc.changes(), WITH_CA);
    let outcomes = outcomes(&world).await;
    let (outcome, why) = &outcomes[0];
    assert_eq!(outcome, "not_enrolled");
    assert!(why.as_str().unwrap().contains("403 Forbidden"), "{why}");
    world.traces_age(300).await;
    let trace = world.api(Method::GET, TRACE, Value::Null).await;
    let diagnosis = &trace["diagnosis"];
    assert!(diagnosis["text"].as_str().unwrap().contains("CA was not enrolled"), "{diagnosis}");
    assert!(diagnosis["hint"].as_str().unwrap().contains("ferroboot ca"), "{diagnosis}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_without_a_place_for_the_ca_is_named_before_the_boot() {
    let hidden = EmulatedFault::Merge(json!({ "Boot": { "Certificates": null } }));
    let world = over_https(78, vec![FaultRule::always(hidden)], "").await;

    let words = reason(&world).await;
    assert!(words.contains("shows no Boot.Certificates: the firmware must trust"), "{words}");
    assert!(words.contains("`ferroboot ca`"), "{words}");
    world.clean_until_wait().await;

    assert_eq!(world.bmc.changes(), WITHOUT_CA);
    assert_eq!(outcomes(&world).await[0].0, "not_enrolled");
    world.abort_clean().await;
    world.set_driver_info("redfish_boot_ca", "leave").await;
    assert!(!reason(&world).await.contains("Boot.Certificates"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_fetches_the_image_itself_needs_no_ca_in_the_firmware() {
    let world = over_https(79, NO_FAULTS, "").await;
    world.boots_by("redfish-virtual-media").await;

    world.clean_until_wait().await;

    assert_eq!(world.bmc.looks_at_certificates(), 0);
    assert_eq!(world.bmc.certificates(), [""; 0]);
}
