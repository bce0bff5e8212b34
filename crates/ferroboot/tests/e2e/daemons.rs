//! Several daemons on one PostgreSQL, on real firmware: each continues the work of a killed one.
//!
//! Needs `FERROBOOT_TEST_POSTGRES` (`scripts/with-postgres`).

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use ferroboot::lab::machine::LabMachine;
use ferroboot::lab::process::{Process, READY};
use ferroboot::lab::{Lab, Plan};
use tempfile::TempDir;
use uuid::Uuid;

use crate::crashes::{behind_a_proxy, cleaned_once, is_heartbeat, is_whole_fetch};
use crate::instances::{InstanceImages, make_available, wait_for_hellos};
use crate::story::{Verbs as _, in_a_lab, with};

#[test]
fn killed_between_override_and_reset_another_daemon_goes_on_with_one_power_cycle() {
    let database = SharedDatabase::create().unwrap();
    let plan = Plan { settings: database.settings(), ..with([LabMachine::new(1)]) };
    in_a_lab(plan, |lab| {
        let (machine, bmc) = behind_a_proxy(lab)?;
        bmc.hold_answers_to("PATCH");
        lab.begin_to_clean(&machine)?;
        bmc.wait_for("PATCH")?;
        // Only the first daemon could claim the work, since it was alone until now.
        let second = DaemonBeside::new(lab, 1, &database.settings(), None)?.start()?;

        lab.kill_daemon()?;
        bmc.let_go();
        bmc.wait_for_reset("On")?;
        lab.start_daemon()?;

        lab.wait_for_state(&machine, "manageable")?;
        drop(second);
        cleaned_once(lab, &machine, &bmc)
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn three_daemons_killed_in_turn_clean_one_machine_and_boot_an_instance_on_another() {
    let images = InstanceImages::make().unwrap();
    let database = SharedDatabase::create().unwrap();
    let shared = database.settings();
    let machines = [LabMachine::new(1), LabMachine::new(2)];
    let plan = Plan { settings: shared.clone() + &images.settings(), ..with(machines) };
    in_a_lab(plan, |lab| {
        let (to_clean, bmc) = behind_a_proxy(lab)?;
        lab.boot_by(&to_clean, "http")?;
        let to_deploy = lab.machines()[1].clone();
        let iso = images.iso()?;
        make_available(lab, &to_deploy, "redfish-https", &[("boot_iso", &iso)])?;
        let beside = |number| DaemonBeside::new(lab, number, &shared, Some(&images));
        let beside = [beside(1)?, beside(2)?];
        let [mut second, mut third] = [beside[0].start()?, beside[1].start()?];

        lab.begin_to_clean(&to_clean)?;
        lab.baremetal(&["node", "deploy", &to_deploy.name])?;
        bmc.wait_for_reset("On")?;
        second.kill()?;
        second = beside[0].start()?;
        lab.wait_for_event(&to_clean, "fetch of its ramdisk", is_whole_fetch)?;
        third.kill()?;
        third = beside[1].start()?;
        lab.wait_for_event(&to_clean, "heartbeat", is_heartbeat)?;
        lab.kill_daemon()?;
        lab.start_daemon()?;

        lab.wait_for_state(&to_clean, "manageable")?;
        cleaned_once(lab, &to_clean, &bmc)?;
        lab.wait_for_state(&to_deploy, "active")?;
        // The machine restarts by itself, whichever daemon serves it.
        second.kill()?;
        wait_for_hellos(lab, &to_deploy, 2)?;
        third.kill()?;
        lab.baremetal(&["node", "undeploy", "--wait", "300", &to_deploy.name])?;
        let node = lab.node(&to_deploy.name)?;
        ensure!(node["provision_state"] == "available", "{node}");
        ensure!(node["reservation"].is_null(), "{node}");
        Ok(())
    });
}

/// A separate PostgreSQL database, and its key.
struct SharedDatabase {
    url: String,
    dir: TempDir,
}

impl SharedDatabase {
    fn create() -> Result<Self> {
        let server = env::var("FERROBOOT_TEST_POSTGRES")
            .context("FERROBOOT_TEST_POSTGRES is not set: run the test by scripts/with-postgres")?;
        let name = format!("e2e_{}", Uuid::new_v4().simple());
        let create = format!("CREATE DATABASE {name}");
        let output = Command::new("psql").args([&server, "--command", &create]).output();
        let output = output.context("psql")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (place, more) = server.split_once("/postgres?").context("a URL of with-postgres")?;
        let shared = Self { url: format!("{place}/{name}?{more}"), dir: tempfile::tempdir()? };
        let mut key =
            File::options().write(true).create_new(true).mode(0o600).open(shared.key())?;
        key.write_all("0123456789abcdef".repeat(4).as_bytes())?;
        Ok(shared)
    }

    fn key(&self) -> PathBuf {
        self.dir.path().join("ferroboot.key")
    }

    /// The settings for each daemon.
    fn settings(&self) -> String {
        format!("[database]\nurl = '{}'\nkey_file = '{}'\n", self.url, self.key().display())
    }
}

/// A daemon beside the lab's own: with separate ports, and without DHCP.
struct DaemonBeside {
    number: u16,
    dir: PathBuf,
    ramdisk: PathBuf,
}

impl DaemonBeside {
    /// `shared` are the settings that both daemons have, without `[boot]`.
    fn new(lab: &Lab, number: u16, shared: &str, images: Option<&InstanceImages>) -> Result<Self> {
        let dir = lab.dir().join(format!("daemon-{number}"));
        fs::create_dir(&dir)?;
        let [api, agent, boot] = [6385, 6386, 8080].map(|port| port + 10 * number);
        let image_dirs = images.map_or_else(String::new, InstanceImages::image_dirs);
        let own = format!(
            "host = 'daemon-{number}'\n{shared}[api]\nlisten = '127.0.0.1:{api}'\n\
             [agent]\nlisten = '[::]:{agent}'\nurl = 'http://10.77.0.1:{agent}'\n\
             [boot]\nlisten = '[::]:{boot}'\nurl = 'http://10.77.0.1:{boot}'\n{image_dirs}\
             # Another daemon answers DHCP.\n[dhcp]\nprovider = 'none'\n"
        );
        fs::write(dir.join("ferroboot.toml"), own)?;
        Ok(Self { number, dir, ramdisk: with([]).ramdisk })
    }

    fn start(&self) -> Result<Process> {
        let mut serve = Command::new(env!("CARGO_BIN_EXE_ferroboot"));
        serve.arg("serve").arg("--state-dir").arg(self.dir.join("state"));
        serve.arg("--ramdisk").arg(&self.ramdisk);
        serve.arg("--config").arg(self.dir.join("ferroboot.toml"));
        let started = Process::start(&mut serve, READY, &self.dir.join("serve.log"));
        started.with_context(|| format!("daemon {} does not start", self.number))
    }
}
