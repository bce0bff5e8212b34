//! Backup and restore, by the book's commands.

use std::fs;
use std::path::Path;
use std::process::Command;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::World;
use super::bmc::NO_FAULTS;
use super::daemons::database;

const BOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/book/src/backup.md");

/// The commands in a section of the book, in order.
fn commands(section: &str) -> Vec<String> {
    let book = fs::read_to_string(BOOK).unwrap();
    let (_, section) = book.split_once(&format!("## {section}\n")).expect("the book has it");
    let section = section.split("\n## ").next().unwrap_or_default();
    let blocks = section.split("```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default().to_owned()).collect()
}

fn run(commands: &str, state: &Path, backup: &Path, url: &str) {
    let ran = Command::new("sh")
        .args(["-euc", commands])
        .env("STATE", state)
        .env("BACKUP", backup)
        .env("URL", url)
        .env("KEY", state.join("ferroboot.key"))
        .output()
        .unwrap();
    assert!(ran.status.success(), "{commands}: {}", String::from_utf8_lossy(&ran.stderr));
}

async fn node_status(world: &World, name: &str) -> StatusCode {
    world.ask(Method::GET, &format!("/v1/nodes/{name}"), &Value::Null).await.0
}

/// Makes a copy while the daemon serves, changes nodes, and restores the copy while the daemon is stopped.
async fn restores(mut world: World, section: &str, url: &str) {
    let [save, restore] = &commands(section)[..] else { panic!("two blocks of commands") };
    let (state, backup) = (world.dir.path().join("state"), tempfile::tempdir().unwrap());
    let create = |name: &str| json!({ "name": name, "driver": "redfish" });
    world.api(Method::POST, "/v1/nodes", create("before")).await;
    run(save, &state, backup.path(), url);
    world.api(Method::POST, "/v1/nodes", create("after")).await;
    world.api(Method::DELETE, "/v1/nodes/before", Value::Null).await;

    world.die();
    fs::remove_file(state.join("ferroboot.key")).unwrap();
    run(restore, &state, backup.path(), url);
    world.start().await;

    assert_eq!(node_status(&world, "before").await, StatusCode::OK);
    assert_eq!(node_status(&world, "after").await, StatusCode::NOT_FOUND);
    world.api(Method::POST, "/v1/nodes", create("later")).await;
    world.clean().await;
    world.node_in("clean wait").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_is_restored_as_the_book_says() {
    restores(World::new(50, NO_FAULTS).await, "SQLite", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_is_restored_as_the_book_says() {
    let Some(settings) = database().await else { return };
    let url = settings.split('\'').nth(1).expect("a URL").to_owned();
    restores(World::with(51, NO_FAULTS, &settings).await, "PostgreSQL", &url).await;
}
