//! Boots of machines whose BMC shows Secure Boot on.

use std::fs;
use std::process::Command;

use redfish::emulator::{EmulatedFault, FaultRule};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{World, boot_set};

const ENROLLED: [&str; 3] =
    ["POST a certificate in db", "PATCH Once UEFI UefiHttp with a URL", "POST On"];

/// The settings for a DHCP server that others configure.
const OTHERS_DHCP: &str = "[dhcp]\nprovider = 'none'\n";

/// The BMC shows Secure Boot on.
fn on() -> FaultRule {
    let shown = json!({ "SecureBootEnable": true, "SecureBootCurrentBoot": "Enabled" });
    let path = "/redfish/v1/Systems/1/SecureBoot".to_owned();
    FaultRule { path, ..FaultRule::always(EmulatedFault::Merge(shown)) }
}

/// A folder with a key that signs images.
fn signing() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let command = "umask 077; openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=UKI -keyout uki.key -out uki.pem";
    let made = Command::new("sh").args(["-c", command]).current_dir(dir.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    dir
}

/// What the BMC showed of Secure Boot, in the trace.
async fn shown(world: &World) -> Vec<Value> {
    let trace = world.api(Method::GET, "/v1/nodes/n1/boot-trace", Value::Null).await;
    let events = trace["events"].as_array().unwrap().iter();
    let of_secure_boot = |event: &&Value| {
        event["shows"].as_str().is_some_and(|shows| shows.starts_with("secure_boot"))
    };
    let part = |event: &Value| {
        let is_enrolment = event["outcome"].is_string();
        let part =
            if is_enrolment { &event["outcome"] } else { &event["trust"]["sign_certificate"] };
        part.clone()
    };
    events.filter(of_secure_boot).map(part).collect()
}

async fn boot_validation(world: &World) -> Value {
    let mut validation = world.api(Method::GET, "/v1/nodes/n1/validate", Value::Null).await;
    validation["boot"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_enrolled_in_db_found_before_the_next_boot_and_removed() {
    let world = World::in_dir(signing(), 81, vec![on()], "").await;
    world.set_driver_info("redfish_secure_boot_certificate", "enrol").await;
    world.clean_until_wait().await;
    assert_eq!(world.bmc.changes(), ENROLLED);
    assert_eq!(shown(&world).await, [json!("enrolled"), json!(true)]);
    world.abort_clean().await;

    world.set_driver_info("redfish_secure_boot_certificate", "remove").await;
    world.clean_until_wait().await;
    assert_eq!(shown(&world).await, [json!("found"), json!(true)]);
    world.abort_clean().await;

    let changes = world.bmc.changes();
    let count = |words: &str| changes.iter().filter(|change| *change == words).count();
    assert_eq!((count(ENROLLED[0]), count("DELETE a certificate in db")), (1, 1), "{changes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_db_without_the_certificate_is_named_and_left_alone_unless_the_node_says_otherwise() {
    let world = World::in_dir(signing(), 82, vec![on()], "").await;

    let validation = boot_validation(&world).await;
    let reason = validation["reason"].as_str().unwrap();
    assert_eq!(validation["result"], true, "{reason}");
    assert!(reason.contains("its db lacks the certificate that signs images"), "{reason}");
    world.clean_until_wait().await;

    assert_eq!(world.bmc.changes(), ENROLLED[1..]);
    assert_eq!(shown(&world).await, [json!(false)]);
    world.abort_clean().await;
    world.set_driver_info("redfish_secure_boot_certificate", "enrol").await;
    let validation = boot_validation(&world).await;
    assert!(!validation["reason"].as_str().unwrap().contains("db lacks"), "{validation}");
}

/// `dbx` has the certificate that signs images.
fn forbidden_in(dir: &TempDir) -> FaultRule {
    let pem = fs::read_to_string(dir.path().join("uki.pem")).unwrap();
    let path = "/redfish/v1/Systems/1/SecureBoot/SecureBootDatabases/dbx/Certificates".to_owned();
    let member = json!({ "@odata.id": format!("{path}/1"), "CertificateString": pem });
    let shown = EmulatedFault::Merge(json!({ "Members": [member] }));
    FaultRule { path, ..FaultRule::always(shown) }
}

/// A node that boots by `http`, which others' DHCP tells the firmware.
async fn boots_by_http(world: &World) {
    boot_set::write_boot_set(&world.dir.path().join("state/ramdisk"));
    let node = world.api(Method::GET, "/v1/nodes/n1", Value::Null).await;
    let port = json!({ "node_uuid": node["uuid"], "address": "52:54:00:00:00:09" });
    world.api(Method::POST, "/v1/ports", port).await;
    world.boots_by("http").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_that_dbx_forbids_is_refused_until_dbx_no_longer_does() {
    let dir = signing();
    // Read by `manage` and by the first check.
    let dbx = FaultRule { times: Some(2), ..forbidden_in(&dir) };
    let world = World::in_dir(dir, 85, vec![on(), dbx], OTHERS_DHCP).await;
    boots_by_http(&world).await;

    let refused = boot_validation(&world).await;
    let later = boot_validation(&world).await;

    assert_eq!(refused["result"], false, "{refused}");
    let words = "Secure Boot is on, and dbx forbids the certificate that signs images";
    assert!(refused["reason"].as_str().unwrap().contains(words), "{refused}");
    assert_eq!(later["result"], true, "{later}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_in_dbx_is_named_even_if_the_boot_enrols_it_in_db() {
    let dir = signing();
    let dbx = forbidden_in(&dir);
    let world = World::in_dir(dir, 84, vec![on(), dbx], "").await;
    world.set_driver_info("redfish_secure_boot_certificate", "enrol").await;

    let validation = boot_validation(&world).await;

    let reason = validation["reason"].as_str().unwrap();
    assert!(reason.contains("its dbx forbids the certificate that signs images"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn boots_that_firmware_with_secure_boot_refuses_for_certain_are_refused_in_words() {
    let world = World::with(83, vec![on()], OTHERS_DHCP).await;
    boots_by_http(&world).await;

    for (interface, words) in [
        ("http", "Secure Boot is on, and images are not signed"),
        ("http-ipxe", "Secure Boot is on, and iPXE is not signed"),
    ] {
        world.boots_by(interface).await;
        let validation = boot_validation(&world).await;
        assert_eq!(validation["result"], false, "{validation}");
        assert!(validation["reason"].as_str().unwrap().contains(words), "{validation}");
    }
    // The operator's own image may be signed.
    world.boots_by("redfish-https").await;
    assert_eq!(boot_validation(&world).await["result"], true);
}
