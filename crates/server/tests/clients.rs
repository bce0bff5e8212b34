//! The API for operators: Ironic's own clients, unmodified, over a real socket.
//!
//! `scripts/python-venv` installs them, in `target/venv` or `$FERROBOOT_VENV`.

#![expect(clippy::unwrap_used, reason = "in a test, what cannot be unwrapped has failed")]

#[expect(dead_code, reason = "only other tests hold answers and boot machines")]
mod bmc;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Output;
use std::{env, fs};

use hardware::ShownBootMode;
use jiff::SignedDuration;
use nodes::{NodeIndex, Nodes, Recorder};
use provision::steps::ProcedureStep;
use provision::{Event, Policy, PowerState, Work};
use redfish::emulator::{EmulatedFault, FaultRule, Platform};
use serde_json::{Value, json};
use server::api::guard::OperatorGuard;
use server::api::{ApiContext, ApiSettings, router};
use server::config;
use store::{Claimed, Clock, DaemonIdentity, NodeKey, Store};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::AbortHandle;
use uuid::Uuid;

const MAC: &str = "52:54:00:aa:bb:01";
/// No BMC listens there: every connection is refused at once.
const BMC: &str = "redfish_address=http://127.0.0.1:9";

#[tokio::test]
async fn the_baremetal_command_enrolls_lists_changes_and_deletes_nodes() {
    let service = Service::with_users().await;

    // The specification's names, which differ from Ironic's.
    let create = "node create --driver redfish --boot-interface httpboot --name";
    // Interfaces that other tools also set, and that have no effect yet.
    let unbuilt = "--deploy-interface direct --raid-interface redfish --inspect-interface agent";
    let node = service.json(&format!("{create} n1 --driver-info {BMC} {unbuilt}")).await;
    assert_eq!((&node["name"], &node["boot_interface"]), (&json!("n1"), &json!("http")));
    assert_eq!(node["raid_interface"], "redfish");
    assert_eq!(node["provision_state"], "enroll");
    let create = "node create --driver redfish --boot-interface redfish-http-url --name";
    let secret = "--driver-info redfish_password=hush";
    let node = service.json(&format!("{create} n2 --driver-info {BMC} {secret}")).await;
    assert_eq!(node["boot_interface"], "redfish-https");
    assert_eq!(node["driver_info"]["redfish_password"], "******");

    let uuid = service.json("node show n1 --fields uuid boot_interface").await;
    assert_eq!(uuid.as_object().unwrap().len(), 2);
    let uuid = uuid["uuid"].as_str().unwrap();
    let port = service.json(&format!("port create --node {uuid} {MAC}")).await;
    assert_eq!((&port["address"], &port["pxe_enabled"]), (&json!(MAC), &json!(true)));
    let ports = service.json("port list --node n1").await;
    assert_eq!(ports.as_array().unwrap().len(), 1);

    let change = "--driver-info redfish_system_id=/redfish/v1/Systems/1 --boot-interface http-ipxe";
    service.run(&format!("node set n1 --name n3 --extra rack=7 {change}")).await;
    let node = service.json("node show n3").await;
    assert_eq!(
        (&node["boot_interface"], &node["extra"]),
        (&json!("http-ipxe"), &json!({ "rack": 7 }))
    );
    service.run("node unset n3 --extra rack --driver-info redfish_system_id").await;
    let node = service.json("node show n3").await;
    assert_eq!(node["extra"], json!({}));
    assert!(node["driver_info"].get("redfish_system_id").is_none());

    service.run("node maintenance set n3 --reason moving").await;
    let listed = service.json("node list --maintenance --fields name maintenance_reason").await;
    assert_eq!(listed, json!([{ "name": "n3", "maintenance_reason": "moving" }]));
    service.run("node maintenance unset n3").await;

    service.run("node delete n3 n2").await;
    assert_eq!(service.json("node list").await, json!([]));
    assert_eq!(service.json("port list").await, json!([]), "its port went with it");
}

#[tokio::test]
async fn the_verbs_of_the_baremetal_command_become_work() {
    let service = Service::start().await;
    service.run(&format!("node create --driver redfish --name n1 --driver-info {BMC}")).await;

    service.run("node manage n1").await;
    let claimed = service.claim().await.unwrap();
    assert_eq!(claimed.work, Work::Verify);
    service
        .finish(&claimed, &Event::Verified(Some(PowerState::Off), ShownBootMode::default()))
        .await;

    service.run("node power on n1").await;
    let claimed = service.claim().await.unwrap();
    let Work::SetPower { target } = claimed.work else { panic!("{:?}", claimed.work) };
    service.finish(&claimed, &Event::PowerSeen(target.leads_to())).await;
    let node = service.json("node show n1 --fields provision_state power_state").await;
    assert_eq!(node, json!({ "provision_state": "manageable", "power_state": "power on" }));

    let steps = json!([{ "interface": "deploy", "step": "erase_devices", "args": { "x": [1] } }]);
    service.run(&format!("node clean n1 --clean-steps {steps}")).await;
    let claimed = service.claim().await.unwrap();
    let attempt = claimed.node.attempt.as_ref().unwrap();
    assert_eq!(claimed.work, Work::Boot { attempt: attempt.id });
    service.finish(&claimed, &Event::Booting { attempt: attempt.id }).await;
    let node = service.nodes.store().node(&NodeKey::from("n1")).await.unwrap().unwrap().node;
    let asked = node.attempt.unwrap().run.steps;
    assert_eq!(asked.iter().map(ProcedureStep::name).collect::<Vec<_>>(), ["deploy.erase_devices"]);
    assert_eq!(asked[0].args["x"], json!([1]));

    service.run("node abort n1").await;
    let node = service.json("node show n1 --fields provision_state").await;
    assert_eq!(node["provision_state"], "clean failed");
}

#[tokio::test]
async fn what_is_refused_is_a_sentence_at_the_operators_terminal() {
    let service = Service::start().await;
    service.run(&format!("node create --driver redfish --name n1 --driver-info {BMC}")).await;

    for (command, words) in [
        ("node show n9", "Node n9 could not be found."),
        ("node create --driver ipmi", "No valid host was found. Reason: No conductor service"),
        ("node create --driver redfish --boot-interface pxe", "Valid interfaces are ['http', "),
        ("node set n1 --name a/b", "Cannot change name to invalid name 'a/b'"),
        ("node set n1 --name detail", "The word \"detail\" is reserved"),
        ("node set n1 --protected", "can only be made protected in provision states"),
        ("node add trait n1 GPU", "does not match '^CUSTOM_"),
        ("node provide n1", "can not be performed on node"),
        ("node inspect n1", "\"inspect\" is not supported by this service. It has \"manage\", "),
        ("node deploy n1", "\"active\" can not be performed on node"),
        ("node clean n1 --clean-steps []", "clean_steps"),
        ("node boot device set n1 pxe", "No usable answer from the BMC to the list of systems"),
        ("node boot device set n1 safe", "Invalid boot device safe specified."),
        (
            "port create --node 8f259d3d-81a7-49cf-a5c3-8f0ec4d9c39f 52:54:00:00:00:01",
            "Node 8f259d3d",
        ),
    ] {
        let output = service.baremetal(command).await;

        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "`baremetal {command}` went well");
        assert!(said.contains(words), "`baremetal {command}` said: {said}");
        assert!(!said.contains("Traceback"), "`baremetal {command}` said: {said}");
    }

    let report = service.json("node validate n1").await;
    let of = |name: &str| report.as_array().unwrap().iter().find(|one| one["Interface"] == name);
    let boot = of("boot").unwrap();
    assert_eq!(boot["Result"], false);
    assert!(boot["Reason"].as_str().unwrap().contains("Connection refused"), "{boot}");
}

#[tokio::test]
async fn the_baremetal_command_sets_the_boot_device_and_mode_and_sends_an_nmi() {
    let service = Service::start().await;
    let bmc = bmc::Bmc::start(bmc::NO_FAULTS).await;
    let login = format!(
        "--driver-info redfish_username={} --driver-info redfish_password={}",
        bmc::USERNAME,
        bmc::PASSWORD
    );
    let address = format!("--driver-info redfish_address={}", bmc.url());
    service.run(&format!("node create --driver redfish --name n1 {address} {login}")).await;

    service.run("node boot device set n1 disk --persistent").await;
    service.run("node boot mode set n1 uefi").await;
    bmc.switch_on();
    service.run("node inject nmi n1").await;

    let shown = service.json("node boot device show n1").await;
    assert_eq!(shown, json!({ "boot_device": "disk", "persistent": true }));
    let supported = service.json("node boot device show n1 --supported").await;
    assert_eq!(supported["supported_boot_devices"], "pxe, disk, cdrom, bios, uefihttp");
    assert_eq!(bmc.changes(), ["PATCH Continuous UEFI Hdd", "POST Nmi"]);
    let refused = service.baremetal("node boot mode set n1 bios").await;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("it allows BootSourceOverrideMode as UEFI only"), "{said}");
}

#[tokio::test]
async fn the_baremetal_command_switches_secure_boot_and_shows_what_the_bmc_shows() {
    let service = Service::start().await;
    for (name, platform, secure_boot) in [
        ("n1", Platform::HpeIlo5, "True"),
        // The next reset applies it.
        ("n2", Platform::DellIdrac9, "False"),
    ] {
        let bmc = bmc::Bmc::of(platform, bmc::NO_FAULTS).await;
        let login = format!(
            "--driver-info redfish_username={} --driver-info redfish_password={}",
            bmc::USERNAME,
            bmc::PASSWORD
        );
        let address = format!("--driver-info redfish_address={}", bmc.url());
        service.run(&format!("node create --driver redfish --name {name} {address} {login}")).await;

        service.run(&format!("node secure boot on {name}")).await;

        // iLO's ETag is weak, and refused when it comes back.
        assert_eq!(bmc.changes().pop().as_deref(), Some("PATCH SecureBoot true"), "{name}");
        let shown = service.json(&format!("node show {name} --fields boot_mode secure_boot")).await;
        let is_on = secure_boot == "True";
        assert_eq!(shown, json!({ "boot_mode": "uefi", "secure_boot": is_on }), "{name}");
        service.run(&format!("node boot mode set {name} bios")).await;
        let last = bmc.changes().pop().unwrap();
        assert!(last.contains("BootMode="), "{last}");
    }

    let hidden = FaultRule::always(EmulatedFault::Merge(json!({ "SecureBoot": null })));
    let generic = bmc::Bmc::start(vec![hidden]).await;
    let address = format!("--driver-info redfish_address={}", generic.url());
    let login = format!("--driver-info redfish_username={}", bmc::USERNAME);
    let password = format!("--driver-info redfish_password={}", bmc::PASSWORD);
    service
        .run(&format!("node create --driver redfish --name n3 {address} {login} {password}"))
        .await;
    let refused = service.baremetal("node secure boot on n3").await;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("shows no SecureBoot of the system"), "{said}");
}

#[tokio::test]
async fn the_baremetal_command_asks_for_a_step_at_the_bmc() {
    let service = Service::start().await;
    service.run(&format!("node create --driver redfish --name n1 --driver-info {BMC}")).await;
    service.run("node manage n1").await;
    let claimed = service.claim().await.unwrap();
    let verified = Event::Verified(Some(PowerState::Off), ShownBootMode::default());
    service.finish(&claimed, &verified).await;

    let steps =
        json!([{ "interface": "bios", "step": "enable_http_boot", "args": { "ip_version": 6 } }]);
    service.run(&format!("node clean n1 --disable-ramdisk --clean-steps {steps}")).await;

    let claimed = service.claim().await.unwrap();
    let attempt = claimed.node.attempt.as_ref().unwrap().id;
    assert_eq!(claimed.work, Work::RunBmcStep { attempt, index: 0 });
    let step = service.json("node show n1 --fields clean_step").await;
    assert_eq!(step["clean_step"]["step"], "enable_http_boot");
    let done = Event::BmcStepDone { attempt, index: 0, reset: true };
    service.finish(&claimed, &done).await;
    assert_eq!(service.claim().await.unwrap().work, Work::TearDown { attempt });
}

#[tokio::test]
async fn a_program_that_uses_openstacksdk_drives_a_node_through_its_life() {
    let service = Service::with_users().await;
    let worker = service.willing_worker();

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/sdk.py");
    let output = service.command("python").arg(script).output().await.unwrap();

    worker.abort();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn clients_without_a_login_or_with_a_wrong_one_are_told_so() {
    let mut service = Service::with_users().await;
    for (login, words) in [
        (None, "Authorization required"),
        (Some(("operator", "s3")), "Incorrect username or password"),
        (Some(("nobody", "s3:crét")), "Incorrect username or password"),
    ] {
        service.login = login;
        let output = service.baremetal("node list").await;

        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{login:?}: {said}");
    }
}

/// The API on a socket, with its own store.
struct Service {
    nodes: Nodes,
    endpoint: String,
    server: AbortHandle,
    folder: TempDir,
    /// The clients' user and password, if the API has users.
    login: Option<(&'static str, &'static str)>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Service {
    /// An API without users.
    async fn start() -> Self {
        Self::open(tempfile::tempdir().expect("a folder can be made"), None).await
    }

    /// An API with users, and clients that log in.
    async fn with_users() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let hash = bcrypt::hash("s3:crét", 4).expect("it can be hashed");
        let file = folder.path().join("htpasswd");
        fs::write(file, format!("# ours\noperator:{hash}\n")).expect("a file can be written");
        Self::open(folder, Some(("operator", "s3:crét"))).await
    }

    async fn open(folder: TempDir, login: Option<(&'static str, &'static str)>) -> Self {
        let url = format!("sqlite://{}/test.db", folder.path().display());
        let key = folder.path().join("ferroboot.key");
        let store = Store::open(&url, &key).await.expect("the store opens");
        let nodes = Nodes::new(store, NodeIndex::default(), Policy::default());
        // As the daemon does at its start.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (recorder, _) = Recorder::new();
        let api = ApiContext::new(nodes.clone(), recorder, ApiSettings::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let endpoint = format!("http://{}", listener.local_addr().expect("it has an address"));
        let users = login.map(|_| folder.path().join("htpasswd"));
        let guard =
            OperatorGuard::open(&config::ApiConfig { users, ..config::ApiConfig::default() });
        let routes = guard.expect("the users are good").guard(router(api));
        let routes = routes.into_make_service_with_connect_info::<SocketAddr>();
        let server = tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { nodes, endpoint, server: server.abort_handle(), folder, login }
    }

    /// A program in the Python environment, with only the endpoint set.
    fn command(&self, name: &str) -> Command {
        let venv = env::var_os("FERROBOOT_VENV").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/venv")),
            PathBuf::from,
        );
        let program = venv.join("bin").join(name);
        assert!(
            venv.join("bin/baremetal").exists(),
            "Ironic's clients are not in {}: run scripts/python-venv first",
            venv.display()
        );
        let mut command = Command::new(program);
        command.env_clear().env("OS_ENDPOINT", &self.endpoint);
        match self.login {
            None => command.env("OS_AUTH_TYPE", "none"),
            Some((user, password)) => command
                .env("OS_AUTH_TYPE", "http_basic")
                .env("OS_USERNAME", user)
                .env("OS_PASSWORD", password),
        };
        command.env("HOME", self.folder.path()).env("LANG", "C.UTF-8").kill_on_drop(true);
        command
    }

    /// Runs the `baremetal` command; arguments contain no spaces.
    async fn baremetal(&self, arguments: &str) -> Output {
        let arguments = arguments.split(' ');
        self.command("baremetal").args(arguments).output().await.expect("it runs")
    }

    async fn run(&self, arguments: &str) -> Vec<u8> {
        let output = self.baremetal(arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`baremetal {arguments}` said: {said}");
        output.stdout
    }

    async fn json(&self, arguments: &str) -> Value {
        let output = self.run(&format!("{arguments} --format json")).await;
        serde_json::from_slice(&output).expect("it prints JSON")
    }

    async fn claim(&self) -> Option<Claimed> {
        claim(&self.nodes).await
    }

    async fn finish(&self, claimed: &Claimed, event: &Event) {
        finish(&self.nodes, claimed, event).await;
    }

    /// Does the planned work, as if every BMC succeeded.
    fn willing_worker(&self) -> AbortHandle {
        let nodes = self.nodes.clone();
        let work = async move {
            loop {
                let Some(claimed) = claim(&nodes).await else {
                    nodes.store().work_added().await;
                    continue;
                };
                let event = match claimed.work {
                    Work::Verify => {
                        Event::Verified(Some(PowerState::Off), ShownBootMode::default())
                    }
                    Work::SetPower { target } => Event::PowerSeen(target.leads_to()),
                    Work::Boot { .. }
                    | Work::AskSteps { .. }
                    | Work::RunStep { .. }
                    | Work::RunBmcStep { .. }
                    | Work::CheckStep { .. }
                    | Work::TearDown { .. } => panic!("nothing here boots: {:?}", claimed.work),
                };
                finish(&nodes, &claimed, &event).await;
            }
        };
        tokio::spawn(work).abort_handle()
    }
}

async fn claim(nodes: &Nodes) -> Option<Claimed> {
    let lease = SignedDuration::from_mins(1);
    let worker = DaemonIdentity::new(Uuid::nil(), "worker".to_owned());
    nodes.store().claim_work(&worker, Clock::process().now(), lease).await.expect("the store works")
}

async fn finish(nodes: &Nodes, claimed: &Claimed, event: &Event) {
    nodes
        .happen(claimed.node.uuid, Some(&claimed.claim), event)
        .await
        .expect("the event is expected");
}
