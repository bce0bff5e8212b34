//! Several daemons on one PostgreSQL, if `FERROBOOT_TEST_POSTGRES` has the URL of one (`scripts/with-postgres` starts
//! one).

mod pools;
mod segment;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{AnyPool, AssertSqlSafe};

use super::bmc::NO_FAULTS;
use super::{World, client_at};

/// The longest lag of a daemon behind the others, with a margin for the test.
const BEHIND: Duration = Duration::from_millis(1_500);

/// Settings with a separate database, if there is a PostgreSQL.
pub(super) async fn database() -> Option<String> {
    let url = std::env::var("FERROBOOT_TEST_POSTGRES").ok()?;
    sqlx::any::install_default_drivers();
    let pool = AnyPool::connect(&url).await.expect("the PostgreSQL that was asked for answers");
    let name = format!("daemons_{}", rand::random::<u64>());
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&pool).await.unwrap();
    pool.close().await;
    let (place, more) = url.split_once("/postgres?").expect("the URL of scripts/with-postgres");
    Some(format!("[database]\nurl = '{place}/{name}?{more}'\n"))
}

/// Puts the key file of all daemons in these tests into a state directory.
pub(super) fn give_key(dir: &Path) {
    let state = dir.join("state");
    fs::create_dir_all(&state).unwrap();
    let key = state.join("ferroboot.key");
    fs::write(&key, "0123456789abcdef".repeat(4)).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
}

/// The status of a GET for a URL's path at another address.
async fn status_at(world: &World, url: &str, address: std::net::Ipv4Addr) -> StatusCode {
    let url = url.replace(&world.address.to_string(), &address.to_string());
    world.http.get(url).send().await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_daemon_serves_what_another_has_begun_until_it_is_over() {
    let Some(database) = database().await else { return };
    let first = World::with(40, NO_FAULTS, &database).await;
    let second = World::beside(&first, 41, "two").await;
    first.clean().await;
    let node = first.node_in("clean wait").await;
    let url = first.bmc.booted_from().expect("a URL");

    let (begun, machine) = (Instant::now(), client_at([127, 88, 0, 40]));
    while status_at(&first, &url, second.address).await != StatusCode::OK {
        assert!(begun.elapsed() < BEHIND, "the other daemon does not serve the image");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let at_second = url.replace(&first.address.to_string(), &second.address.to_string());
    machine.get(at_second).send().await.unwrap().bytes().await.unwrap();
    let (status, text) = first.looks_up(&machine, node["uuid"].as_str().unwrap()).await;
    assert_eq!(status, StatusCode::OK, "who fetched it from one is known to the other: {text}");

    first.begin("abort").await;
    let over = Instant::now();
    while status_at(&first, &url, second.address).await == StatusCode::OK {
        assert!(over.elapsed() < BEHIND, "the other daemon still serves the image");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    first.node_in("clean failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_another_daemon_deleted_is_gone() {
    let Some(database) = database().await else { return };
    let first = World::with(42, NO_FAULTS, &database).await;
    let second = World::beside(&first, 43, "two").await;
    let node = first.api(Method::GET, "/v1/nodes/n1", Value::Null).await;
    let child = json!({ "name": "n2", "driver": "redfish", "parent_node": node["uuid"] });
    first.api(Method::POST, "/v1/nodes", child).await;
    // The children of a node are looked up in memory.
    let children = async || {
        let listed = second.api(Method::GET, "/v1/nodes/n1/children", Value::Null).await;
        listed["children"].as_array().unwrap().len()
    };
    let created = Instant::now();
    while children().await != 1 {
        assert!(created.elapsed() < BEHIND, "the other daemon does not know the node");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    first.api(Method::DELETE, "/v1/nodes/n2", Value::Null).await;

    let deleted = Instant::now();
    while children().await != 0 {
        assert!(deleted.elapsed() < BEHIND, "the other daemon still knows the node");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_starts_frees_nothing_of_a_living_twin_with_its_name() {
    let Some(database) = database().await else { return };
    let first = World::with(44, NO_FAULTS, &database).await;
    let held = first.bmc.hold("PATCH");
    first.clean().await;
    held.reached().await;

    let twin = World::beside(&first, 45, "one").await;
    let node = twin.api(Method::GET, "/v1/nodes/n1", Value::Null).await;
    assert_eq!(node["reservation"], "one");
    held.let_go();

    first.node_in("clean wait").await;
    let changes = first.bmc.changes();
    assert_eq!(changes, ["PATCH Once UEFI UefiHttp with a URL", "POST On"], "it is booted once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_daemon_held_when_it_died_is_free_when_it_starts_anew_beside_others() {
    let Some(database) = database().await else { return };
    let mut first = World::with(46, NO_FAULTS, &database).await;
    let _second = World::beside(&first, 47, "two").await;
    let held = first.bmc.hold("PATCH");
    first.clean().await;
    held.reached().await;
    let claimed = Instant::now();

    first.die();
    held.let_go();
    first.start().await;

    first.node_in("clean wait").await;
    assert!(
        claimed.elapsed() < Duration::from_secs(45),
        "it does not wait for the lease of a minute"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_daemon_shows_all_that_share_its_database() {
    let Some(database) = database().await else { return };
    let first = World::with(48, NO_FAULTS, &database).await;
    let second = World::beside(&first, 49, "two").await;

    for world in [&first, &second] {
        let listed = world.api(Method::GET, "/v1/conductors", Value::Null).await;
        let conductors = listed["conductors"].as_array().unwrap().iter();
        let conductors = conductors.map(|it| (it["hostname"].clone(), it["alive"].clone()));
        let both = [(json!("one"), json!(true)), (json!("two"), json!(true))];
        assert_eq!(conductors.collect::<Vec<_>>(), both);
        let other = world.api(Method::GET, "/v1/conductors/two", Value::Null).await;
        assert_eq!(other["drivers"], json!(["redfish"]));
        // Nodes are filtered by what each daemon shows as their conductor, which is itself.
        for host in ["one", "two"] {
            let path = format!("/v1/nodes?fields=conductor&conductor={host}");
            let nodes = world.api(Method::GET, &path, Value::Null).await["nodes"].take();
            let own = (host == world.host).then_some(host);
            let shown = nodes.as_array().unwrap().iter().map(|node| &node["conductor"]);
            assert_eq!(shown.collect::<Vec<_>>(), own.into_iter().collect::<Vec<_>>());
        }
    }
    let (status, _) = first.ask(Method::GET, "/v1/conductors/three", &Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_ends_when_a_newer_version_has_upgraded_its_database() {
    let Some(settings) = database().await else { return };
    let world = World::with(52, NO_FAULTS, &settings).await;
    let url = settings.split('\'').nth(1).expect("a URL");
    let pool = AnyPool::connect(url).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 SELECT 9999, description, success, checksum, execution_time FROM _sqlx_migrations LIMIT 1";

    sqlx::query(newer).execute(&pool).await.unwrap();

    let upgraded = Instant::now();
    while !world.daemon.as_ref().unwrap().thread.is_finished() {
        assert!(upgraded.elapsed() < Duration::from_secs(30), "it goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ended = world.daemon.unwrap().thread.join().unwrap_err();
    let words = ended.downcast_ref::<String>().unwrap();
    assert!(words.contains("its database now belongs to another version"), "{words}");
}
