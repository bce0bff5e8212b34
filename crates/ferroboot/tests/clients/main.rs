//! The built daemon, driven over real sockets by the unmodified `baremetal` command, switches a machine through its
//! BMC. `crates/server/tests/clients.rs` tests more of the API, without a daemon.

#![expect(clippy::unwrap_used, reason = "in a test, what cannot be unwrapped has failed")]

mod bmc;
mod service;
#[path = "../e2e/site_certificate.rs"]
mod site_certificate;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use redfish::emulator::NextBoot;
use serde_json::json;

use bmc::Bmc;
use service::Service;
use site_certificate::SiteCertificate;

const MAC: &str = "52:54:00:aa:bb:01";
/// Timeout for operations of some seconds; test hosts can be slow.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn the_baremetal_command_takes_a_node_from_enrolment_to_available() {
    let mut bmc = Bmc::start();
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

#[test]
fn a_service_with_users_lets_in_whoever_knows_the_password_and_tells_others_so() {
    let mut service = Service::start_with_users();
    assert!(service.said("next: ").contains("OS_AUTH_TYPE=http_basic"));
    service.does(&["node", "create", "--driver", "redfish", "--name", "n1"]);
    let trace = service.ferroboot(&["trace", "n1"]);
    assert!(text(&trace.stdout).contains("has not been booted yet"), "{trace:?}");

    service.log_in_as(Some(("operator", "wrong")));
    let trace = service.ferroboot(&["trace", "n1"]);
    assert!(!trace.status.success());
    assert!(text(&trace.stderr).contains("Incorrect username or password"), "{trace:?}");
    service.said("a login from 127.0.0.1 is refused");
    service.log_in_as(None);
    let said = text(&service.ferroboot(&["trace", "n1"]).stderr);
    assert!(said.contains("set OS_AUTH_TYPE=http_basic"), "{said}");
}

#[test]
fn clients_reach_an_api_with_tls_by_the_services_ca_or_the_operators() {
    let operators = SiteCertificate { address: "127.0.0.1", ..SiteCertificate::for_lab() };
    let operators = operators.files("api").unwrap();
    for mut service in [Service::start_with_tls(""), Service::start_with_tls(&operators)] {
        service.does(&["node", "create", "--driver", "redfish", "--name", "n1"]);
        assert_eq!(service.openstacksdk("[node.name for node in api.nodes()]"), "['n1']");
        let trace = service.ferroboot(&["trace", "n1"]);
        assert!(text(&trace.stdout).contains("has not been booted yet"), "{trace:?}");

        service.trust(None);
        let refused = service.run(&["node", "list"]);
        assert!(text(&refused.stderr).to_lowercase().contains("certificate"), "{refused:?}");
        let trace = service.ferroboot(&["trace", "n1"]);
        assert!(text(&trace.stderr).contains("OS_CACERT"), "{trace:?}");
    }
}

#[test]
fn a_service_that_others_could_reach_without_a_login_does_not_start_unless_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("ferroboot.toml");
    fs::write(&config, "[api]\nlisten = \"0.0.0.0:16385\"\n").unwrap();

    let serve = Command::new(env!("CARGO_BIN_EXE_ferroboot"))
        .args(["serve", "--config"])
        .arg(&config)
        .arg("--state-dir")
        .arg(dir.path().join("state"))
        .output()
        .unwrap();

    let said = text(&serve.stderr);
    assert!(!serve.status.success(), "{said}");
    assert!(said.contains("users in [api]") && said.contains("noauth = true"), "{said}");
}

#[test]
fn signals_that_end_other_programs_are_answered_in_words() {
    let service = Service::start_with_users();

    service.signal(Signal::SIGHUP);
    assert!(service.said("SIGHUP").contains("the file of users is read again"));
    service.signal(Signal::SIGUSR1);
    assert!(service.said("SIGUSR1").contains("nodes: 0"));
    service.signal(Signal::SIGUSR2);
    service.said("SIGUSR2");

    assert_eq!(service.json(&["node", "list"]), json!([]));
}

#[test]
fn a_failed_verification_is_in_the_log_with_its_node_and_its_reason() {
    let service = Service::start();
    enroll(&service, "n1", "redfish-https", "127.0.0.1:9");

    service.run(&["node", "manage", "n1", "--wait", "60"]);

    let line = service.said("the BMC could not be verified");
    assert!(line.contains("WARN") && line.contains("node n1"), "{line}");
}

#[test]
fn a_host_that_cannot_boot_a_node_says_so_before_the_node_is_touched() {
    let bmc = Bmc::start();
    // No setting tells where machines reach the service, and there is no DHCP.
    let service = Service::start_with(|_, settings| {
        settings
            .lines()
            .filter(|line| !line.starts_with("url = "))
            .fold(String::new(), |text, line| text + line + "\n")
    });
    service.said("no machine can be booted yet");
    enroll(&service, "n1", "redfish-https", &bmc.address.to_string());
    service.does(&["node", "manage", "n1", "--wait", "60"]);

    let valid = service.json(&["node", "validate", "n1"]);
    let boot = valid.as_array().unwrap().iter().find(|row| row["Interface"] == "boot").unwrap();
    assert_eq!(boot["Result"], false, "{boot}");
    assert!(boot["Reason"].as_str().unwrap().contains("url in [boot]"), "{boot}");
    let steps = r#"[{"interface":"deploy","step":"erase_devices_metadata"}]"#;
    for verb in [&["node", "clean", "n1", "--clean-steps", steps][..], &["node", "provide", "n1"]] {
        let refused = service.run(verb);
        let said = text(&refused.stderr);
        assert!(!refused.status.success() && said.contains("cannot be booted"), "{said}");
        assert!(said.contains("url in [boot]"), "{said}");
    }
    let node = service.json(&["node", "show", "n1", "--fields", "provision_state", "maintenance"]);
    assert_eq!(node, json!({ "provision_state": "manageable", "maintenance": false }));
    service.does(&["node", "set", "n1", "--no-automated-clean"]);
    service.does(&["node", "provide", "n1", "--wait", "60"]);
}

#[test]
fn a_check_makes_nothing_and_knows_the_service_that_runs() {
    let service = Service::start();
    let config = service.folder().join("ferroboot.toml");
    let before = files(service.folder());
    let check = service.ferroboot(&["check", "--config", config.to_str().unwrap()]);
    let said = text(&check.stdout);

    let wrong: Vec<_> = said.lines().filter(|line| line.starts_with("WRONG")).collect();
    assert!(wrong.iter().all(|line| line.contains("boot set")), "{said}");
    for known in ["API", "agents", "boot listener"] {
        let line = said.lines().find(|line| line.contains(&format!("{known}: "))).unwrap();
        assert!(line.contains("where the service that runs listens"), "{line}");
    }
    assert!(said.contains("from which a service runs") && said.contains("database: opens"));
    assert_eq!(files(service.folder()), before);
    assert_eq!(service.json(&["node", "list"]), json!([]), "the service goes on");

    let fresh = tempfile::tempdir().unwrap();
    let state = fresh.path().join("state");
    let check = service.ferroboot(&["check", "--state-dir", state.to_str().unwrap()]);
    assert!(text(&check.stdout).contains("which the service will make"), "{check:?}");
    let config = config.to_str().unwrap();
    let check =
        service.ferroboot(&["check", "--config", config, "--state-dir", state.to_str().unwrap()]);
    for port in ["API", "agents", "boot listener"] {
        let said = text(&check.stdout);
        let line = said.lines().find(|line| line.contains(&format!("{port}: "))).unwrap();
        assert!(line.starts_with("WRONG") && line.contains("another ferroboot"), "{line}");
    }
    assert!(files(fresh.path()).is_empty(), "{:?}", files(fresh.path()));
}

/// All files and folders below a folder.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            all.extend(files(&entry.path()));
        }
        all.insert(entry.path());
    }
    all
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Creates a node whose BMC is at `address`; returns its UUID.
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

/// Polls, since the command waits only for states of its own choice.
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
