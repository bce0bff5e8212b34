//! The whole daemon against a BMC in memory: the emulator behind HTTP, whose answers can be held. A machine here is
//! only on or off; real firmware boots in the end-to-end tests.

#![expect(clippy::unwrap_used, reason = "in a test, what cannot be unwrapped has failed")]

mod agent_channel;
mod backup;
mod bmc;
mod boot_set;
mod daemons;
mod firmware_ca;
mod secure_boot;
#[path = "../../store/tests/small_disk/mod.rs"]
mod small_disk;

use std::future::pending;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use redfish::emulator::{EmulatedFault, FaultRule, Platform};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Deserializer, Value, json};
use server::config::Config;
use small_disk::on_a_small_disk;
use sqlx::SqlitePool;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use bmc::{Bmc, NO_FAULTS};

const PROVISION: &str = "/v1/nodes/n1/states/provision";
const AMI_BIOS: &str = "/redfish/v1/Systems/DGX/Bios";
static HTTP_BOOT: LazyLock<Value> =
    LazyLock::new(|| json!({ "interface": "bios", "step": "enable_http_boot" }));
const STEPS: &str = r#"[{"interface": "deploy", "step": "erase_devices_metadata"}]"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_by_the_bmc_is_powered_off_set_read_back_and_powered_on() {
    let world = World::new(1, NO_FAULTS).await;
    world.bmc.switch_on();
    world.clean().await;

    let node = world.node_in("clean wait").await;

    assert_eq!(node["power_state"], "power on");
    assert_eq!(
        world.bmc.changes(),
        ["POST ForceOff", "PATCH Once UEFI UefiHttp with a URL", "POST On"]
    );
    let url = world.bmc.booted_from().expect("a URL");
    let iso = world.http.get(url).send().await.unwrap();
    assert_eq!(iso.headers()["content-type"], "application/vnd.efi-iso");
    assert_eq!(iso.bytes().await.unwrap(), "an image of the operator's");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_an_own_image_goes_once_to_the_machine_that_fetched_it() {
    let world = World::new(21, NO_FAULTS).await;
    let machine = client_at([127, 88, 0, 1]);
    let stranger = client_at([127, 88, 0, 2]);
    world.clean().await;
    let node = world.node_in("clean wait").await;
    let uuid = node["uuid"].as_str().unwrap();

    // The image has not been fetched yet.
    let (status, text) = world.looks_up(&machine, uuid).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{text}");
    world.fetches(&machine).await;

    let (status, text) = world.looks_up(&stranger, uuid).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(text.contains("agent_networks") && !text.contains("127.88.0.1 "), "{text}");
    let (one, other) = tokio::join!(world.looks_up(&machine, uuid), world.looks_up(&machine, uuid));
    let mut statuses = [one.0, other.0];
    statuses.sort();
    assert_eq!(statuses, [StatusCode::OK, StatusCode::CONFLICT], "{} {}", one.1, other.1);
    let given = if one.0 == StatusCode::OK { one.1 } else { other.1 };
    let given: Value = serde_json::from_str(&given).unwrap();
    assert_eq!(given["config"]["agent_token"].as_str().unwrap().len(), 43);

    let trace = world.api(Method::GET, "/v1/nodes/n1/boot-trace", Value::Null).await.to_string();
    let refused = "the image was fetched by 127.88.0.1, and the lookup came from 127.88.0.2";
    assert!(trace.contains(refused), "{trace}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_inserted_for_a_boot_from_virtual_media_and_ejected_afterwards() {
    let world = World::new(41, NO_FAULTS).await;
    world.boots_by("redfish-virtual-media").await;
    let report = world.api(Method::GET, "/v1/nodes/n1/validate", Value::Null).await;
    let way = report["boot"]["reason"].as_str().unwrap();
    assert!(way.contains("by the virtual CD drive at /redfish/v1/"), "{way}");
    world.clean().await;
    let node = world.node_in("clean wait").await;
    let begin = ["POST InsertMedia with a URL", "PATCH Once UEFI Cd", "POST On"];
    assert_eq!(world.bmc.changes(), begin);

    // The BMC reads the image for its machine, and is another host.
    let bmc = client_at([127, 88, 0, 11]);
    world.fetches(&bmc).await;
    let (status, text) = world.looks_up(&bmc, node["uuid"].as_str().unwrap()).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{text}");
    let trace = world.api(Method::GET, "/v1/nodes/n1/boot-trace", Value::Null).await.to_string();
    assert!(trace.contains("the image is read by the BMC, and the lookup came from"), "{trace}");

    world.begin("abort").await;
    world.node_in("clean failed").await;
    world.until(|node| node["power_state"] == "power off" && node["reservation"].is_null()).await;
    let changes = world.bmc.changes();
    assert!(changes.contains(&"POST EjectMedia".to_owned()), "{changes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_that_the_bmc_shows_otherwise_than_it_was_set_is_in_the_trace() {
    let spelling = json!({ "Boot": { "BootSourceOverrideTarget": "UefiBootNext" } });
    let world = World::new(49, vec![FaultRule::always(EmulatedFault::Merge(spelling))]).await;

    world.clean().await;

    world.node_in("clean wait").await;
    let shown = "the BMC took BootSourceOverrideTarget UefiHttp and shows it as UefiBootNext";
    world
        .until_at("/v1/nodes/n1/boot-trace", |trace| {
            let mut events = trace["events"].as_array().unwrap().iter();
            events.any(|event| event["kind"] == "bmc_shows" && event["warning"] == shown)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bmc_shows_of_a_silent_machine_is_in_the_trace_and_in_the_diagnosis() {
    let state = "MemoryInitializationStarted".to_owned();
    let stays = FaultRule::always(EmulatedFault::BootStays { state: state.clone() });
    let world = World::new(47, vec![stays]).await;
    world.clean().await;
    world.node_in("clean wait").await;
    let is_shown = |trace: &Value| {
        trace["events"].as_array().unwrap().iter().any(|event| event["state"] == state.as_str())
    };
    let path = "/v1/nodes/n1/boot-trace";
    assert!(!is_shown(&world.api(Method::GET, path, Value::Null).await));

    world.traces_age(35).await;

    world.until_at(path, is_shown).await;
    world.traces_age(50).await;
    let shows = "the BMC shows BootProgress MemoryInitializationStarted";
    let trace = world.until_at(path, |trace| trace["diagnosis"].to_string().contains(shows)).await;
    let events = trace["events"].as_array().unwrap().iter();
    assert_eq!(events.filter(|event| event["kind"] == "bmc_shows").count(), 1, "{trace}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_boot_changed_is_undone_though_its_trace_is_gone() {
    let world = World::new(59, NO_FAULTS).await;
    world.boots_by("redfish-virtual-media").await;
    world.clean().await;
    world.node_in("clean wait").await;
    let database = world.database().await;
    sqlx::query("DELETE FROM boot_events").execute(&database).await.unwrap();

    world.begin("abort").await;

    world.node_in("clean failed").await;
    world.until(|node| node["power_state"] == "power off" && node["reservation"].is_null()).await;
    let changes = world.bmc.changes();
    assert!(changes.contains(&"POST EjectMedia".to_owned()), "{changes:?}");
    let kept: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM boot_changes").fetch_one(&database).await.unwrap();
    assert_eq!(kept, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_media_is_the_fallback_of_a_bmc_that_takes_no_url_if_its_node_allows_it() {
    let no_url = EmulatedFault::Merge(json!({ "Boot": { "HttpBootUri": null } }));
    let world = World::new(43, vec![FaultRule::always(no_url)]).await;
    let validate =
        async || world.api(Method::GET, "/v1/nodes/n1/validate", Value::Null).await["boot"].clone();
    assert_eq!(validate().await["result"], false);
    world.set_driver_info("redfish_boot_fallback", "virtual-media").await;
    let way = validate().await["reason"].to_string();
    assert!(way.contains("the virtual CD drive is used"), "{way}");

    world.clean().await;

    world.node_in("clean wait").await;
    let begin = ["POST InsertMedia with a URL", "PATCH Once UEFI Cd", "POST On"];
    assert_eq!(world.bmc.changes(), begin);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_from_virtual_media_is_active_when_its_machine_has_read_it_after_its_power_on()
{
    let settings = "[clean]\nautomated = false\n";
    let world = World::with(42, NO_FAULTS, settings).await;
    world.boots_by("redfish-virtual-media").await;
    let held = world.bmc.hold("POST On");
    world.deploy().await;
    held.reached().await;
    let url = world.bmc.booted_from().expect("a URL");
    let read = async |range: &str| {
        let read = world.http.get(&url).header("Range", range).send().await.unwrap();
        assert_eq!(read.status(), StatusCode::PARTIAL_CONTENT);
        read.bytes().await.unwrap();
    };
    read("bytes=0-9").await;
    held.let_go();
    world.node_in("wait call-back").await;

    read("bytes=10-19").await;

    world.node_in("active").await;
    let image = "an image of the operator's";
    // The boot override is undone meanwhile, which is an event too.
    let fetches = |trace: &Value| {
        let events = trace["events"].as_array().unwrap().iter();
        events.filter(|event| event["kind"] == "http").cloned().collect::<Vec<_>>()
    };
    let begun = world.api(Method::GET, "/v1/nodes/n1/boot-trace", Value::Null).await;
    for _ in 0..3 {
        let live = world.http.get(&url).send().await.unwrap();
        assert_eq!(live.bytes().await.unwrap(), image, "the root of a live system is on the CD");
    }
    let later = world.api(Method::GET, "/v1/nodes/n1/boot-trace", Value::Null).await;
    assert!(!fetches(&begun).is_empty());
    assert_eq!(fetches(&later), fetches(&begun));
    assert_eq!(later["attempt"]["id"], begun["attempt"]["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_the_token_of_an_own_image_before_the_machine_is_on() {
    let world = World::new(22, NO_FAULTS).await;
    let machine = client_at([127, 88, 0, 3]);
    let node = world.api(Method::GET, "/v1/nodes/n1", Value::Null).await;
    let uuid = node["uuid"].as_str().unwrap();
    world.set_driver_info("agent_networks", json!(["127.88.0.0/16"])).await;
    let held = world.bmc.hold("POST On");
    world.clean().await;
    held.reached().await;

    // It waits for the node; its time of arrival decides.
    let (early, ()) = tokio::join!(world.looks_up(&machine, uuid), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        held.let_go();
    });

    assert_eq!(early.0, StatusCode::CONFLICT, "{}", early.1);
    world.node_in("clean wait").await;
    let (status, text) = world.looks_up(&machine, uuid).await;
    assert_eq!(status, StatusCode::OK, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_started_anew_still_knows_who_fetched_the_image() {
    let mut world = World::new(23, NO_FAULTS).await;
    let machine = client_at([127, 88, 0, 4]);
    world.clean().await;
    let node = world.node_in("clean wait").await;
    world.fetches(&machine).await;
    world.until(|now| now["updated_at"] != node["updated_at"]).await;

    world.die();
    world.start().await;

    let (status, text) = world.looks_up(&machine, node["uuid"].as_str().unwrap()).await;
    assert_eq!(status, StatusCode::OK, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_before_it_has_recorded_the_end_of_a_deployments_fetch_knows_of_it() {
    let settings = "[clean]\nautomated = false\n";
    let mut world = World::with(25, NO_FAULTS, settings).await;
    world.deploy().await;
    world.node_in("wait call-back").await;
    let database = world.database().await;
    // As if the daemon were killed between the last byte and the write of this event.
    let killed = "CREATE TRIGGER killed BEFORE INSERT ON boot_events \
                  WHEN NEW.event LIKE '%\"kind\":\"http\"%' BEGIN SELECT RAISE(ABORT, 'killed'); END";
    sqlx::query(killed).execute(&database).await.unwrap();

    let url = world.bmc.booted_from().expect("a URL");
    let image = world.http.get(url).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(image, "an image of the operator's");
    world.die();
    sqlx::query("DROP TRIGGER killed").execute(&database).await.unwrap();
    database.close().await;
    world.start().await;

    world.node_in("active").await;
    let resets = world.bmc.changes().iter().filter(|change| *change == "POST On").count();
    assert_eq!(resets, 1, "{:?}", world.bmc.changes());
}

/// A client at a separate loopback address.
fn client_at(address: [u8; 4]) -> Client {
    Client::builder().local_address(IpAddr::from(address)).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_refuses_the_override_is_named_and_the_machine_never_started() {
    let refuses = vec![FaultRule::refused_override()];
    let world = World::new(2, refuses).await;
    world.clean().await;

    let node = world.node_in("clean failed").await;

    let error = node["last_error"].as_str().unwrap();
    assert!(error.contains("BMC answered 400 Bad Request to the boot override"), "{error}");
    assert_eq!(node["maintenance"], true);
    assert!(!world.bmc.changes().iter().any(|change| change == "POST On"));
    let trace = world.api(Method::GET, "/v1/nodes/n1/boot-trace", Value::Null).await;
    let diagnosis = trace["diagnosis"]["text"].as_str().unwrap();
    assert!(diagnosis.contains("the BMC refused the boot override with status 400"), "{diagnosis}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_in_bios_mode_is_refused_before_it_is_touched() {
    let mode = EmulatedFault::Merge(json!({"Boot": {
        "BootSourceOverrideMode": "Legacy",
        "BootSourceOverrideMode@Redfish.AllowableValues": ["Legacy"],
    }}));
    let bios = vec![FaultRule::always(mode)];
    let world = World::new(3, bios).await;
    world.bmc.switch_on();

    let validation = world.api(Method::GET, "/v1/nodes/n1/validate", Value::Null).await;
    let reason = validation["boot"]["reason"].as_str().unwrap();
    assert!(reason.contains("BIOS (legacy) mode"), "{reason}");
    world.clean().await;
    let node = world.node_in("clean failed").await;

    let error = node["last_error"].as_str().unwrap();
    assert!(error.contains("BIOS (legacy) mode"), "{error}");
    // Failing the clean switches the machine off, as every end does; no boot was set.
    assert!(!world.bmc.changes().iter().any(|change| change.starts_with("PATCH Once")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_on_the_database_file_of_another_is_refused() {
    let first = World::new(53, NO_FAULTS).await;
    let dir = tempfile::tempdir().unwrap();
    let (state, database) = (dir.path().display(), first.dir());
    let second: Config = format!(
        "state_dir = '{state}'\n[database]\nurl = 'sqlite://{database}/state/ferroboot.db'\n"
    )
    .parse()
    .unwrap();

    let refused = server::serve(second, async {}).await.unwrap_err();

    let words = format!("{refused:#}");
    assert!(words.contains("another ferroboot serves from the database"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_before_the_reset_resets_once() {
    let mut world = World::new(4, NO_FAULTS).await;
    let held = world.bmc.hold("PATCH");
    world.clean().await;
    held.reached().await;

    world.die();
    held.let_go();
    world.start().await;

    world.node_in("clean wait").await;
    let resets = world.bmc.changes().iter().filter(|change| *change == "POST On").count();
    assert_eq!(resets, 1, "{:?}", world.bmc.changes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_after_the_reset_leaves_the_machine_on() {
    let mut world = World::new(5, NO_FAULTS).await;
    let held = world.bmc.hold("POST On");
    world.clean().await;
    held.reached().await;

    world.die();
    held.let_go();
    world.start().await;

    world.node_in("clean wait").await;
    assert_eq!(world.bmc.changes(), ["PATCH Once UEFI UefiHttp with a URL", "POST On"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_on_after_a_crash_stays_on_though_its_image_could_not_be_made_any_more() {
    let mut world = World::new(54, NO_FAULTS).await;
    let held = world.bmc.hold("POST On");
    world.clean().await;
    held.reached().await;

    world.die();
    held.let_go();
    std::fs::remove_file(world.images.join("own.iso")).unwrap();
    world.start().await;

    world.node_in("clean wait").await;
    assert_eq!(world.bmc.changes(), ["PATCH Once UEFI UefiHttp with a URL", "POST On"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_missing_fails_the_boot_before_the_machine_is_touched() {
    let world = World::new(6, NO_FAULTS).await;
    let patch = json!([{
        "op": "replace",
        "path": "/driver_info/deploy_iso",
        "value": format!("file://{}/state/images/gone.iso", world.dir()),
    }]);
    world.api(Method::PATCH, "/v1/nodes/n1", patch).await;
    world.clean().await;

    let node = world.node_in("clean failed").await;

    let error = node["last_error"].as_str().unwrap();
    assert!(error.contains("driver_info/deploy_iso cannot be used"), "{error}");
    assert_eq!(world.bmc.changes(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_ends_a_clean_that_waits_for_an_image_server_and_frees_the_node() {
    let world = World::new(30, NO_FAULTS).await;
    world.bmc.switch_on();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/own.iso", silent.local_addr().unwrap());
    let patch = json!([{ "op": "replace", "path": "/driver_info/deploy_iso", "value": url }]);
    world.api(Method::PATCH, "/v1/nodes/n1", patch).await;
    world.clean().await;
    let (mut connection, _) = silent.accept().await.unwrap();
    world.until(|node| !node["reservation"].is_null()).await;

    world.begin("abort").await;

    let node = world.node_in("clean failed").await;
    assert!(node["last_error"].as_str().unwrap().contains("aborted"), "{node:#}");
    // The download has ended, too.
    while connection.read_u8().await.is_ok() {}
    world.until(|node| node["power_state"] == "power off" && node["reservation"].is_null()).await;
    let patch = json!([{ "op": "remove", "path": "/driver_info/deploy_iso" }]);
    world.api(Method::PATCH, "/v1/nodes/n1", patch).await;
    world.api(Method::DELETE, "/v1/nodes/n1", Value::Null).await;
    assert_eq!(world.bmc.changes(), ["POST ForceOff"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_nodes_that_wait_for_an_image_server_keep_no_other_from_being_worked_on() {
    let world = World::new(32, NO_FAULTS).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let steps: Value = serde_json::from_str(STEPS).unwrap();
    // More nodes than workers.
    for number in 0..66 {
        let iso = format!("http://{address}/{number}.iso");
        let bmc = json!({
            "redfish_address": world.bmc.url(),
            "redfish_username": bmc::USERNAME,
            "redfish_password": bmc::PASSWORD,
            "deploy_iso": iso,
        });
        let name = format!("waits{number}");
        let node = json!({ "name": name, "driver": "redfish", "driver_info": bmc });
        world.api(Method::POST, "/v1/nodes", node).await;
        let path = format!("/v1/nodes/{name}");
        let patch = json!([{ "op": "add", "path": "/boot_interface", "value": "redfish-https" }]);
        world.api(Method::PATCH, &path, patch).await;
        let states = format!("{path}/states/provision");
        world.api(Method::PUT, &states, json!({ "target": "manage" })).await;
        world.until_at(&path, |node| node["provision_state"] == "manageable").await;
        let clean = json!({ "target": "clean", "clean_steps": steps });
        world.api(Method::PUT, &states, clean).await;
    }
    let mut asked = Vec::new();
    for _ in 0..66 {
        asked.push(silent.accept().await.unwrap());
    }

    let on = json!({ "target": "power on" });
    world.api(Method::PUT, "/v1/nodes/n1/states/power", on).await;

    world.until(|node| node["power_state"] == "power on").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_ends_a_clean_that_waits_for_its_bmc() {
    let world = World::new(31, NO_FAULTS).await;
    let held = world.bmc.hold("PATCH");
    world.clean().await;
    held.reached().await;

    world.begin("abort").await;

    let node = world.node_in("clean failed").await;
    assert_eq!(node["reservation"], Value::Null);
    let patch = json!([{ "op": "add", "path": "/extra/note", "value": "free" }]);
    world.api(Method::PATCH, "/v1/nodes/n1", patch).await;
    held.let_go();
    // The pending override is not sent any more.
    assert!(!world.bmc.changes().contains(&"POST On".to_owned()), "{:?}", world.bmc.changes());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_dhcp_network_a_boot_by_dhcp_is_refused_with_what_to_do() {
    let world = World::new(7, NO_FAULTS).await;
    let patch = json!([{ "op": "replace", "path": "/boot_interface", "value": "httpboot" }]);
    let node = world.api(Method::PATCH, "/v1/nodes/n1", patch).await;
    let port = json!({ "node_uuid": node["uuid"], "address": "52:54:00:00:00:08" });
    world.api(Method::POST, "/v1/ports", port).await;
    let steps: Value = serde_json::from_str(STEPS).unwrap();
    let clean = json!({ "target": "clean", "clean_steps": steps });

    let states = "/v1/nodes/n1/states/provision";
    let (status, said) = world.ask(Method::PUT, states, &clean).await;

    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(said.contains("nobody answers DHCP: add a [[dhcp.network]]"), "{said}");
    world.node_in("manageable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn power_follows_an_operator() {
    let world = World::new(8, NO_FAULTS).await;
    let power = |target: &str| json!({ "target": target });

    world.api(Method::PUT, "/v1/nodes/n1/states/power", power("power on")).await;
    world.until(|node| node["power_state"] == "power on").await;
    world.api(Method::PUT, "/v1/nodes/n1/states/power", power("rebooting")).await;
    world.until(|node| node["target_power_state"].is_null()).await;
    world.api(Method::PUT, "/v1/nodes/n1/states/power", power("power off")).await;
    world.until(|node| node["power_state"] == "power off").await;

    assert_eq!(world.bmc.changes(), ["POST On", "POST ForceOff", "POST On", "POST ForceOff"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sets_the_boot_device_and_mode_and_sends_an_nmi() {
    let world = World::new(62, NO_FAULTS).await;
    let (device, mode) = ("/v1/nodes/n1/management/boot_device", "/v1/nodes/n1/states/boot_mode");
    let none = world.api(Method::GET, device, Value::Null).await;
    assert_eq!(none, json!({ "boot_device": null, "persistent": null }));
    let all = world.api(Method::GET, &format!("{device}/supported"), Value::Null).await;
    let all = &all["supported_boot_devices"];
    assert_eq!(all, &json!(["pxe", "disk", "cdrom", "bios", "uefihttp"]));

    let disk = json!({ "boot_device": "disk", "persistent": true });
    assert_eq!(world.ask(Method::PUT, device, &disk).await.0, StatusCode::NO_CONTENT);
    let shown = world.api(Method::GET, device, Value::Null).await;
    assert_eq!(shown, disk);
    let refused = world.ask(Method::PUT, device, &json!({ "boot_device": "floppy" })).await;
    assert_eq!(refused.0, StatusCode::BAD_REQUEST);
    assert!(refused.1.contains("does not allow the boot device floppy"), "{}", refused.1);
    let refused = world.ask(Method::PUT, device, &json!({ "boot_device": "tape" })).await;
    assert_eq!(refused.0, StatusCode::BAD_REQUEST);
    assert!(refused.1.contains("Invalid boot device tape specified."), "{}", refused.1);

    let uefi = world.ask(Method::PUT, mode, &json!({ "target": "uefi" })).await;
    assert_eq!(uefi.0, StatusCode::ACCEPTED, "{}", uefi.1);
    let refused = world.ask(Method::PUT, mode, &json!({ "target": "bios" })).await;
    assert_eq!(refused.0, StatusCode::BAD_REQUEST);
    assert!(refused.1.contains("it allows BootSourceOverrideMode as UEFI only"), "{}", refused.1);
    let refused = world.ask(Method::PUT, mode, &json!({ "target": "x" })).await;
    assert_eq!(refused.0, StatusCode::BAD_REQUEST);

    world.bmc.switch_on();
    let nmi = world.ask(Method::PUT, "/v1/nodes/n1/management/inject_nmi", &json!({})).await;
    assert_eq!(nmi.0, StatusCode::NO_CONTENT, "{}", nmi.1);
    assert_eq!(world.bmc.changes(), ["PATCH Continuous UEFI Hdd", "POST Nmi"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn boot_mode_and_secure_boot_are_shown_as_the_bmc_shows_them() {
    let world = World::on(Platform::DellIdrac9, 64).await;
    let (states, secure) = ("/v1/nodes/n1/states", "/v1/nodes/n1/states/secure_boot");
    let shown = world.api(Method::GET, states, Value::Null).await;
    assert_eq!((&shown["boot_mode"], &shown["secure_boot"]), (&json!("uefi"), &json!(false)));

    let asked = world.ask(Method::PUT, secure, &json!({ "target": true })).await;
    assert_eq!(asked.0, StatusCode::ACCEPTED, "{}", asked.1);
    let shown = world.api(Method::GET, states, Value::Null).await;
    assert_eq!(shown["secure_boot"], false, "the next reset applies it");
    let on = json!({ "target": "power on" });
    world.api(Method::PUT, "/v1/nodes/n1/states/power", on).await;
    world.until(|node| node["secure_boot"] == true).await;
    let resource = "/redfish/v1/Systems/System.Embedded.1/SecureBoot";
    assert_eq!(world.bmc.resource(resource)["SecureBootCurrentBoot"], "Enabled");

    let refused = world.ask(Method::PUT, secure, &json!({ "target": "perhaps" })).await;
    assert_eq!(refused.0, StatusCode::BAD_REQUEST, "{}", refused.1);
    world.clean().await;
    let refused = world.ask(Method::PUT, secure, &json!({ "target": false })).await;
    assert_eq!(refused.0, StatusCode::CONFLICT, "{}", refused.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_cannot_replace_the_boot_device_of_a_boot_under_way() {
    let world = World::new(63, NO_FAULTS).await;
    world.clean().await;
    world.node_in("clean wait").await;
    let before = world.bmc.changes();

    for (path, body) in [
        ("/v1/nodes/n1/management/boot_device", json!({ "boot_device": "disk" })),
        ("/v1/nodes/n1/states/boot_mode", json!({ "target": "bios" })),
    ] {
        let (status, words) = world.ask(Method::PUT, path, &body).await;
        assert_eq!(status, StatusCode::CONFLICT, "{words}");
        assert!(words.contains("is in a boot of this service"), "{words}");
    }
    let nmi = world.ask(Method::PUT, "/v1/nodes/n1/management/inject_nmi", &json!({})).await;
    assert_eq!(nmi.0, StatusCode::NO_CONTENT, "{}", nmi.1);
    assert_eq!(world.bmc.changes()[before.len()..], ["POST Nmi"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_step_enables_http_boot_in_the_bios_by_one_change_and_one_reset() {
    for (platform, last, attribute, from, to) in [
        (Platform::Supermicro, 65, "IPv4HTTPSupport_00F5", "Disabled", "Enabled"),
        (Platform::LenovoXcc, 66, "NetworkStackSettings_IPv4PXESupport", "Enabled", "Disabled"),
    ] {
        let world = World::on(platform, last).await;
        world.bmc.switch_on();

        world.clean_by(&json!([*HTTP_BOOT])).await;
        let node = world.until(|node| node["provision_state"] == "manageable").await;

        assert_eq!(node["last_error"], Value::Null);
        let changes = world.bmc.changes();
        let (patches, resets): (Vec<_>, Vec<_>) =
            changes.iter().partition(|change| change.starts_with("PATCH"));
        assert_eq!(patches.len(), 1, "{changes:?}");
        // The last one ends the clean.
        assert_eq!(resets, ["POST ForceOff", "POST On", "POST ForceOff"], "{changes:?}");
        let trace = world.api(Method::GET, "/v1/nodes/n1/boot-trace", Value::Null).await;
        let events = trace["events"].as_array().unwrap();
        let of = |shows| events.iter().find(|event| event["shows"] == shows);
        let changed = of("bios_staged").expect("the changes")["changes"].as_array().unwrap();
        let change = json!({ "attribute": attribute, "from": from, "to": to });
        assert!(changed.contains(&change), "{changed:?}");
        assert!(of("bios_as_wanted").is_some(), "{trace}");

        world.clean_by(&json!([*HTTP_BOOT])).await;
        world.until(|node| node["provision_state"] == "manageable").await;
        assert_eq!(world.bmc.changes().len(), changes.len(), "nothing is left to do");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn firmware_whose_http_boot_is_off_boots_the_ramdisk_after_the_step_that_enables_it() {
    let world = World::on(Platform::Ami, 67).await;
    let off = json!([{ "interface": "bios", "step": "apply_configuration", "args": {
        "settings": [{ "name": "Ipv4Http", "value": "Disabled" }],
    } }]);
    world.clean_by(&off).await;
    world.until(|node| node["provision_state"] == "manageable").await;
    assert_eq!(world.bmc.resource(AMI_BIOS)["Attributes"]["Ipv4Http"], "Disabled");
    world.clean().await;
    world.node_in("clean wait").await;
    assert!(world.bmc.booted_from().is_none(), "its firmware does not boot over HTTP");
    world.begin("abort").await;
    world
        .until(|node| node["provision_state"] == "clean failed" && node["reservation"].is_null())
        .await;
    world.begin("manage").await;
    world.node_in("manageable").await;

    let erase = json!({ "interface": "deploy", "step": "erase_devices_metadata" });
    world.clean_by(&json!([*HTTP_BOOT, erase])).await;
    let node = world.node_in("clean wait").await;

    assert!(world.bmc.booted_from().is_some(), "{node:#}");
    assert_eq!(world.bmc.resource(AMI_BIOS)["Attributes"]["Ipv4Http"], "Enabled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_in_a_step_at_the_bmc_goes_on_and_resets_the_machine_once() {
    for (last, held) in [(68, "PATCH IPv4HTTPSupport"), (69, "POST On")] {
        let mut world = World::on(Platform::Supermicro, last).await;
        world.bmc.switch_on();
        let answer = world.bmc.hold(held);
        world.clean_by(&json!([*HTTP_BOOT])).await;
        answer.reached().await;

        world.die();
        answer.let_go();
        world.start().await;
        world.until(|node| node["provision_state"] == "manageable").await;

        let bios = world.bmc.resource("/redfish/v1/Systems/1/Bios");
        assert_eq!(bios["Attributes"]["IPv4HTTPSupport_00F5"], "Enabled");
        let changes = world.bmc.changes();
        let starts = changes.iter().filter(|change| *change == "POST On").count();
        assert_eq!(starts, 1, "{changes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bios_without_attributes_fails_the_step_that_was_asked_for_and_not_an_automated_clean() {
    let world = World::with(70, NO_FAULTS, "[clean]\nenable_http_boot_priority = 10\n").await;

    world.clean_by(&json!([*HTTP_BOOT])).await;
    let node = world.until(|node| node["provision_state"] == "clean failed").await;
    assert_eq!(
        node["last_error"],
        "the step bios.enable_http_boot failed: the BMC shows no BIOS attributes (no Bios of the system, or no right to \
         read it)"
    );
    world.until(|node| node["reservation"].is_null()).await;
    world.begin("manage").await;
    world.node_in("manageable").await;
    world.begin("provide").await;
    world.node_in("clean wait").await;
    assert!(world.bmc.booted_from().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn power_that_somebody_else_switched_is_seen() {
    let world = World::new(9, NO_FAULTS).await;

    world.bmc.switch_on();

    world.until(|node| node["power_state"] == "power on").await;
    assert_eq!(world.bmc.changes(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_seen_of_the_power_before_an_operator_changed_it_is_dropped() {
    let world = World::new(24, NO_FAULTS).await;
    let look = "GET /redfish/v1/Systems/1";
    // The first answer tells the system, the second its power state.
    let found = world.bmc.hold(look);
    found.reached().await;
    world.bmc.switch_on();
    let stale = world.bmc.hold(look);
    found.let_go();
    stale.reached().await;
    world.api(Method::PUT, "/v1/nodes/n1/states/power", json!({ "target": "power off" })).await;
    let node = world.until(|node| node["target_power_state"].is_null()).await;
    assert_eq!(
        (&node["power_state"], world.bmc.changes()),
        (&json!("power off"), vec!["POST ForceOff".to_owned()])
    );

    let next = world.bmc.hold(look);
    stale.let_go();
    next.reached().await;

    assert_eq!(world.api(Method::GET, "/v1/nodes/n1", Value::Null).await, node);
    next.let_go();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_switched_off_though_the_dhcp_server_does_not_answer_any_more() {
    let kea = PretendedKea::start();
    let world = World::announcing_to(&kea, 10).await;
    world.bmc.switch_on();
    boot_set::write_boot_set(&world.dir.path().join("state/ramdisk"));
    let gone = format!("file://{}/state/images/gone", world.dir());
    let own =
        |name: &str| json!({ "op": "add", "path": format!("/driver_info/{name}"), "value": gone });
    let own = json!([own("deploy_kernel"), own("deploy_ramdisk")]);
    world.api(Method::PATCH, "/v1/nodes/n1", own).await;

    // Kea gets the announcement, and then the image is missing.
    world.clean().await;

    let began = Instant::now();
    while world.bmc.changes().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(8), "it is still on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.bmc.changes(), ["POST ForceOff"]);
    let node = world.node_in("clean failed").await;
    let error = node["last_error"].as_str().unwrap();
    assert!(error.contains("driver_info/deploy_kernel cannot be used"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_fails_under_a_worker_fails_no_boot() {
    let world = World::new(11, NO_FAULTS).await;
    world.bmc.switch_on();
    let held = world.bmc.hold("POST ForceOff");
    world.clean().await;
    held.reached().await;

    let database = world.database().await;
    let fail = "CREATE TRIGGER fails BEFORE UPDATE OF progress ON work \
                BEGIN SELECT RAISE(ABORT, 'as if the disk had failed'); END";
    sqlx::query(fail).execute(&database).await.unwrap();
    held.let_go();
    world
        .until_metrics(|metrics| !metrics.contains("database_failures_total{cause=\"other\"} 0"))
        .await;
    let node = world.api(Method::GET, "/v1/nodes/n1", Value::Null).await;
    assert_eq!(node["provision_state"], "cleaning");
    sqlx::query("DROP TRIGGER fails").execute(&database).await.unwrap();

    let node = world.node_in("clean wait").await;
    assert_eq!(node["maintenance"], false);
    assert_eq!(
        world.bmc.changes(),
        ["POST ForceOff", "PATCH Once UEFI UefiHttp with a URL", "POST On"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_restarted_again_and_again_gets_past_a_power_on_that_was_noted_and_not_sent()
 {
    let mut world = World::new(13, NO_FAULTS).await;
    let held = world.bmc.hold("PATCH");
    world.clean().await;
    held.reached().await;
    world.die();
    held.let_go();
    let progress = async |world: &World, to: &str| {
        let database = world.database().await;
        let set = sqlx::query("UPDATE work SET progress = ?").bind(to.to_owned());
        set.execute(&database).await.unwrap();
        database.close().await;
    };

    // The daemon died between the record and the reset; each start of it records its readings before it waits.
    progress(&world, r#""powering_on""#).await;
    world.start().await;
    let database = world.database().await;
    let mut seen = String::new();
    while !seen.contains("seen_off") {
        seen = sqlx::query_scalar("SELECT progress FROM work").fetch_one(&database).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    database.close().await;
    world.die();
    progress(&world, r#"{"seen_off":9}"#).await;
    world.start().await;

    world.node_in("clean wait").await;
    let resets = world.bmc.changes().iter().filter(|change| *change == "POST On").count();
    assert_eq!(resets, 1, "{:?}", world.bmc.changes());
}

#[test]
fn a_disk_that_runs_full_in_the_middle_of_a_boot_is_named_and_fails_no_boot() {
    let name = "a_disk_that_runs_full_in_the_middle_of_a_boot_is_named_and_fails_no_boot";
    on_a_small_disk(name, "16m", |disk| {
        Runtime::new().unwrap().block_on(async {
            let dir = tempfile::tempdir_in(disk.path()).unwrap();
            let world = World::in_dir(dir, 12, NO_FAULTS, "").await;
            let held = world.bmc.hold("PATCH");
            world.clean().await;
            held.reached().await;

            disk.fill_but(0);
            let node = json!({ "driver": "redfish", "extra": { "x": "y".repeat(20_000) } });
            let (status, said) = loop {
                // The rest of the log's last page may absorb a small change.
                let (status, said) = world.ask(Method::POST, "/v1/nodes", &node).await;
                if !status.is_success() {
                    break (status, said);
                }
            };
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{said}");
            assert!(said.contains("The disk of the service's database is full"), "{said}");
            held.let_go();
            world.until_metrics(|metrics| metrics.contains("ferroboot_database_usable 0")).await;
            disk.free();

            let node = world.node_in("clean wait").await;
            assert_eq!(node["maintenance"], false);
            // The rest of the log's last page may absorb the record after the first PATCH, or not.
            let mut changes = world.bmc.changes();
            changes.dedup();
            assert_eq!(changes, ["PATCH Once UEFI UefiHttp with a URL", "POST On"]);
            world.until_metrics(|metrics| metrics.contains("ferroboot_database_usable 1")).await;
        });
    });
}

/// A fake Kea that stops answering after its first boot.
struct PretendedKea(TempDir);

impl PretendedKea {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("kea.sock")).unwrap();
        thread::spawn(move || {
            let mut unanswered = Vec::new();
            let mut is_told = false;
            for mut stream in listener.incoming().map(Result::unwrap) {
                let mut asked = Deserializer::from_reader(&stream).into_iter::<Value>();
                let Some(Ok(request)) = asked.next() else { continue };
                if is_told {
                    unanswered.push(stream);
                    continue;
                }
                is_told = request["command"] == "config-set";
                let answer = json!({ "result": 0, "arguments": { "Dhcp4": {}, "reload": 60 } });
                stream.write_all(answer.to_string().as_bytes()).unwrap();
            }
        });
        Self(dir)
    }

    fn socket(&self) -> String {
        self.0.path().join("kea.sock").display().to_string()
    }
}

/// A daemon with one manageable node, `n1`, which boots its own ISO image.
struct World {
    dir: TempDir,
    /// The daemon's name.
    host: String,
    address: Ipv4Addr,
    bmc: Bmc,
    http: Client,
    settings: String,
    /// The operator's image folder.
    images: PathBuf,
    daemon: Option<Daemon>,
}

struct Daemon {
    thread: JoinHandle<()>,
    kill: oneshot::Sender<()>,
}

impl World {
    /// Each test has a separate loopback address, and so the usual ports.
    async fn new(last: u8, faults: Vec<FaultRule>) -> Self {
        Self::with(last, faults, "").await
    }

    async fn with(last: u8, faults: Vec<FaultRule>, settings: &str) -> Self {
        Self::in_dir(tempfile::tempdir().unwrap(), last, faults, settings).await
    }

    /// A daemon whose node's BMC is of another platform.
    async fn on(platform: Platform, last: u8) -> Self {
        let bmc = Bmc::of(platform, NO_FAULTS).await;
        Self::with_bmc(tempfile::tempdir().unwrap(), last, bmc, "").await
    }

    async fn in_dir(dir: TempDir, last: u8, faults: Vec<FaultRule>, settings: &str) -> Self {
        Self::with_bmc(dir, last, Bmc::start(faults).await, settings).await
    }

    async fn with_bmc(dir: TempDir, last: u8, bmc: Bmc, settings: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = Ipv4Addr::new(127, 77, 0, last);
        let images = dir.path().join("state/images");
        std::fs::create_dir_all(&images).unwrap();
        std::fs::write(images.join("own.iso"), "an image of the operator's").unwrap();
        let http = Client::new();
        let settings = settings.to_owned();
        let host = "one".to_owned();
        if settings.contains("postgres://") {
            daemons::give_key(dir.path());
        }
        let mut world = Self { dir, host, address, bmc, http, settings, images, daemon: None };
        world.start().await;
        world.enroll().await;
        world
    }

    /// Another daemon with the same settings, and so the same database.
    async fn beside(other: &Self, last: u8, host: &str) -> Self {
        Self::beside_with(other, last, host, &other.settings).await
    }

    /// Another daemon for the same node, with other settings.
    async fn beside_with(other: &Self, last: u8, host: &str, settings: &str) -> Self {
        let (dir, address) = (tempfile::tempdir().unwrap(), Ipv4Addr::new(127, 77, 0, last));
        let (bmc, http) = (other.bmc.clone(), other.http.clone());
        let (settings, images) = (settings.to_owned(), other.images.clone());
        let host = host.to_owned();
        daemons::give_key(dir.path());
        let mut world = Self { dir, host, address, bmc, http, settings, images, daemon: None };
        world.start().await;
        world
    }

    /// A daemon whose node boots over HTTP, through a DHCP server.
    async fn announcing_to(kea: &PretendedKea, last: u8) -> Self {
        let socket = kea.socket();
        let settings = format!("[dhcp]\nprovider = 'kea'\n[dhcp.kea]\nsocket4 = '{socket}'\n");
        let world = Self::with(last, NO_FAULTS, &settings).await;
        let patch = json!([{ "op": "replace", "path": "/boot_interface", "value": "httpboot" }]);
        let node = world.api(Method::PATCH, "/v1/nodes/n1", patch).await;
        let port = json!({ "node_uuid": node["uuid"], "address": "52:54:00:00:00:09" });
        world.api(Method::POST, "/v1/ports", port).await;
        world
    }

    fn dir(&self) -> std::path::Display<'_> {
        self.dir.path().display()
    }

    async fn start(&mut self) {
        let (dir, address, settings) = (self.dir(), self.address, &self.settings);
        let (host, images) = (&self.host, self.images.display());
        let https = if settings.contains("[tls]") {
            format!(", 'https://{address}:8443'")
        } else {
            String::new()
        };
        // The key that signs images, where a test has made one.
        let key = self.dir.path().join("uki.key");
        let signs = if key.exists() {
            format!("sign_key = '{dir}/uki.key'\nsign_certificate = '{dir}/uki.pem'\n")
        } else {
            String::new()
        };
        let config: Config = format!(
            "host = '{host}'\n\
             state_dir = '{dir}/state'\n\
             [api]\nlisten = '{address}:6385'\n\
             [agent]\nlisten = '{address}:6386'\n\
             [boot]\nlisten = ['{address}:8080'{https}]\nurl = 'http://{address}:8080'\n\
             image_dirs = ['{images}']\n{signs}\
             [images]\nloopback = true\n\
             [power]\nsync_secs = 1\n\
             {settings}"
        )
        .parse()
        .unwrap();
        let (kill, killed) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = Runtime::new().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    served = server::serve(config, pending()) => served.expect("serving"),
                    _ = killed => {}
                }
            });
            runtime.shutdown_timeout(Duration::from_secs(10));
        });
        self.daemon = Some(Daemon { thread, kill });
        let root = format!("http://{address}:6385/");
        while self.http.get(&root).send().await.is_err() {
            assert!(!self.daemon.as_ref().unwrap().thread.is_finished(), "the daemon has ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Every task stops where it is; nothing is sent, saved or ended in an orderly way.
    fn die(&mut self) {
        let Daemon { thread, kill } = self.daemon.take().unwrap();
        drop(kill);
        thread.join().unwrap();
    }

    async fn enroll(&self) {
        let node = json!({
            "name": "n1",
            "driver": "redfish",
            "boot_interface": "redfish-http-url",
            "driver_info": {
                "redfish_address": self.bmc.url(),
                "redfish_username": bmc::USERNAME,
                "redfish_password": bmc::PASSWORD,
                "deploy_iso": format!("file://{}/own.iso", self.images.display()),
            },
        });
        self.api(Method::POST, "/v1/nodes", node).await;
        self.begin("manage").await;
        self.node_in("manageable").await;
    }

    /// Begins a verb.
    async fn begin(&self, verb: &str) {
        self.api(Method::PUT, PROVISION, json!({ "target": verb })).await;
    }

    async fn set_driver_info(&self, key: &str, value: impl Into<Value>) {
        let path = format!("/driver_info/{key}");
        let patch = json!([{ "op": "add", "path": path, "value": value.into() }]);
        self.api(Method::PATCH, "/v1/nodes/n1", patch).await;
    }

    async fn clean_until_wait(&self) {
        self.clean().await;
        self.node_in("clean wait").await;
    }

    /// Aborts a clean, until the node is manageable and its machine off.
    async fn abort_clean(&self) {
        self.begin("abort").await;
        self.node_in("clean failed").await;
        self.until(|node| node["power_state"] == "power off" && node["reservation"].is_null())
            .await;
        self.begin("manage").await;
        self.node_in("manageable").await;
    }

    async fn clean(&self) {
        self.clean_by(&serde_json::from_str(STEPS).unwrap()).await;
    }

    async fn clean_by(&self, steps: &Value) {
        let clean = json!({ "target": "clean", "clean_steps": steps });
        self.api(Method::PUT, PROVISION, clean).await;
    }

    async fn boots_by(&self, interface: &str) {
        let patch = json!([{ "op": "add", "path": "/boot_interface", "value": interface }]);
        self.api(Method::PATCH, "/v1/nodes/n1", patch).await;
    }

    /// Begins the deployment of an instance that boots the node's own image.
    async fn deploy(&self) {
        self.begin("provide").await;
        self.node_in("available").await;
        let iso = json!({ "boot_iso": format!("file://{}/own.iso", self.images.display()) });
        let patch = json!([
            { "op": "replace", "path": "/deploy_interface", "value": "ramdisk" },
            { "op": "add", "path": "/instance_info", "value": iso },
        ]);
        self.api(Method::PATCH, "/v1/nodes/n1", patch).await;
        self.begin("active").await;
    }

    /// The daemon's database, for changes that the API does not offer.
    async fn database(&self) -> SqlitePool {
        SqlitePool::connect(&format!("sqlite://{}/state/ferroboot.db", self.dir())).await.unwrap()
    }

    /// Sets the times of all events back, as if they had happened so many seconds earlier.
    async fn traces_age(&self, seconds: i64) {
        // What is recorded comes into the database a little later.
        self.api(Method::GET, "/v1/nodes/n1/boot-trace", Value::Null).await;
        let database = self.database().await;
        let events: Vec<(i64, i64, String)> =
            sqlx::query_as("SELECT at, seq, event FROM boot_events")
                .fetch_all(&database)
                .await
                .unwrap();
        for (at, seq, event) in events {
            let mut event: Value = serde_json::from_str(&event).unwrap();
            let earlier = at - seconds * 1_000_000;
            event["at"] = json!(Timestamp::from_microsecond(earlier).unwrap());
            sqlx::query("UPDATE boot_events SET at = $1, event = $2 WHERE at = $3 AND seq = $4")
                .bind(earlier)
                .bind(event.to_string())
                .bind(at)
                .bind(seq)
                .execute(&database)
                .await
                .unwrap();
        }
    }

    async fn until_metrics(&self, is_so: impl Fn(&str) -> bool) {
        let mut last = String::new();
        let asked = async {
            loop {
                (_, last) = self.ask(Method::GET, "/metrics", &Value::Null).await;
                if is_so(&last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), asked).await.is_err() {
            panic!("it never came to that: {last}");
        }
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> (StatusCode, String) {
        let request = self
            .http
            .request(method, format!("http://{}:6385{path}", self.address))
            .header("X-OpenStack-Ironic-API-Version", "latest");
        let request = if body.is_null() { request } else { request.json(body) };
        let answer = request.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    async fn api(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, text) = self.ask(method, path, &body).await;
        assert!(status.is_success(), "{path}: {status}: {text}");
        if status == StatusCode::NO_CONTENT || text.is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&text).unwrap()
    }

    async fn looks_up(&self, from: &Client, node: &str) -> (StatusCode, String) {
        let url = format!("http://{}:6386/v1/lookup?node_uuid={node}", self.address);
        let answer =
            from.get(url).header("X-OpenStack-Ironic-API-Version", "1.62").send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    /// The machine fetches the image of the BMC's override, and the fetch is in the trace.
    async fn fetches(&self, machine: &Client) {
        let url = self.bmc.booted_from().expect("a URL");
        machine.get(url).send().await.unwrap().bytes().await.unwrap();
        let fetched = async {
            loop {
                let trace = self.api(Method::GET, "/v1/nodes/n1/boot-trace", Value::Null).await;
                let mut events = trace["events"].as_array().unwrap().iter();
                if events.any(|event| event["kind"] == "http") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), fetched).await.expect("it is in the trace");
    }

    async fn node_in(&self, state: &str) -> Value {
        self.until(|node| node["provision_state"] == state).await
    }

    /// The API has no way to wait for a change except polling.
    async fn until(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        self.until_at("/v1/nodes/n1", is_so).await
    }

    async fn until_at(&self, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let asked = async {
            loop {
                last = self.api(Method::GET, path, Value::Null).await;
                if is_so(&last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), asked).await.is_err() {
            panic!("it never came to that: {last:#}");
        }
        last
    }
}
