//! The output of `ferroboot check network` on deliberately broken networks, and of `ferroboot check` beside a running
//! service. No machine starts here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use ferroboot::lab::machine::LabMachine;
use ferroboot::lab::neighbour::NeighbourNamespace;
use ferroboot::lab::network::{BRIDGE, LabNetwork};
use ferroboot::lab::process::Process;
use ferroboot::lab::{Lab, Plan};

use crate::story::{in_a_lab, ip, with};

/// The lab's daemon has the same setting.
const DHCP: &str = "lab0=10.77.0.100-10.77.0.199,fd77::100-fd77::1ff";
const MAC: &str = "52:54:00:12:34:56";

#[test]
fn a_network_is_sound_until_somebody_else_answers_on_it() {
    in_a_lab(dual(), |lab| {
        let house = NeighbourNamespace::build(lab.dir())?;
        house.connect("near", BRIDGE)?;
        house.number("near", "10.77.0.2/24")?;
        let sound = check(lab, &[])?;
        ensure!(wrong(&sound).is_empty(), "{sound}");
        ensure!(sound.contains("UDP port 67: this service has it already"), "{sound}");

        let host = format!("--dhcp-host={MAC},10.77.0.50");
        let picky = ["--port=0", "--dhcp-range=10.77.0.0,static", &host];
        let server = house.dnsmasq(&picky, lab.dir())?;
        let strangers = check(lab, &[])?;
        let known = check(lab, &["--mac", MAC])?;
        server.kill()?;
        let server =
            house.dnsmasq(&["--port=0", "--dhcp-range=10.77.0.210,10.77.0.220"], lab.dir())?;
        let giver = check(lab, &[])?;
        server.kill()?;

        ensure!(wrong(&strangers).is_empty(), "{strangers}");
        for said in [known, giver] {
            let [rival] = wrong(&said)[..] else { anyhow::bail!("{said}") };
            ensure!(
                rival.contains("lab0: other DHCP servers: 10.77.0.2 gives addresses"),
                "{said}"
            );
        }
        ensure!(wrong(&check(lab, &["--mac", MAC])?).is_empty());
        Ok(())
    });
}

#[test]
fn a_service_that_runs_is_no_fault_of_its_host_and_is_left_alone() {
    in_a_lab(dual(), |lab| {
        let house = NeighbourNamespace::build(lab.dir())?;
        house.connect("near", BRIDGE)?;
        // It waits for the addresses of the interface, which has a carrier from now on.
        check(lab, &[])?;
        let state = lab.dir().join("state");
        let before = files(&state)?;
        let mut check = Command::new(env!("CARGO_BIN_EXE_ferroboot"));
        check.args(["check", "--dhcp", DHCP, "--ramdisk"]);
        check.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/ramdisk"));
        let output = check.arg("--state-dir").arg(&state).output()?;
        let said = String::from_utf8(output.stdout)?;

        ensure!(output.status.success() && wrong(&said).is_empty(), "{said}");
        ensure!(
            said.contains("lab0: our address is 10.77.0.1, answered on by the service"),
            "{said}"
        );
        ensure!(said.matches("where the service that runs listens").count() == 3, "{said}");
        ensure!(files(&state)? == before, "the state directory is another than before");
        Ok(())
    });
}

#[test]
fn a_network_that_lacks_something_is_told_what_it_lacks() {
    in_a_lab(dual(), |lab| {
        lab.kill_daemon()?;
        let alone = check(lab, &[])?;
        ensure!(alone.contains("lab0: interface: it has no carrier"), "{alone}");
        let house = NeighbourNamespace::build(lab.dir())?;
        house.connect("near", BRIDGE)?;
        let free = check(lab, &[])?;
        ensure!(wrong(&free).is_empty(), "{free}");

        let unmanaged = lab.dir().join("beside.toml");
        let pools = "pool = \"10.77.0.100-10.77.0.199\"\npool6 = \"fd77::100-fd77::1ff\"";
        let text = format!("[[dhcp.network]]\ninterface = \"lab0\"\n{pools}\nadvertise = false\n");
        fs::write(&unmanaged, text)?;
        let unrouted = run(lab, &["--config", &unmanaged.display().to_string()])?;
        let [routers] = wrong(&unrouted)[..] else { anyhow::bail!("{unrouted}") };
        ensure!(routers.contains("lab0: router advertisements: "), "{unrouted}");

        let mut rival = Command::new("dnsmasq");
        rival.args(["--no-daemon", "--conf-file=/dev/null", "--user=root", "--port=0"]);
        rival.args(["--interface=lab0", "--dhcp-range=10.77.0.210,10.77.0.220"]);
        let rival = Process::start(&mut rival, "started, version", &lab.dir().join("rival.log"))?;
        let port = check(lab, &[])?;
        let holder = format!("UDP port 67: dnsmasq (process {}) has it on lab0", rival.id());
        rival.kill()?;
        ensure!(port.contains(&holder), "{port}");

        ip("address flush dev lab0")?;
        let bare = check(lab, &[])?;
        let addresses = wrong(&bare).into_iter().find(|line| line.contains("lab0: addresses: "));
        ensure!(addresses.is_some(), "{bare}");
        ip("link set lab0 down")?;
        let down = check(lab, &[])?;
        ensure!(down.contains("lab0: interface: it is down: `ip link set lab0 up`"), "{down}");
        Ok(())
    });
}

/// The files of a folder, by name and inode: a rewritten file has another inode.
fn files(folder: &Path) -> Result<BTreeMap<OsString, u64>> {
    let each = fs::read_dir(folder)?.map(|entry| -> Result<_> {
        let entry = entry?;
        Ok((entry.file_name(), entry.metadata()?.ino()))
    });
    each.collect()
}

fn dual() -> Plan {
    let mut plan = with([LabMachine::new(1)]);
    plan.network = LabNetwork::Dual;
    plan
}

fn check(lab: &Lab, more: &[&str]) -> Result<String> {
    run(lab, &[&["--dhcp", DHCP], more].concat())
}

/// Its whole output.
fn run(lab: &Lab, told: &[&str]) -> Result<String> {
    let mut check = Command::new(env!("CARGO_BIN_EXE_ferroboot"));
    check.args(["check", "network", "--state-dir"]).arg(lab.dir().join("state")).args(told);
    let output = check.output().context("cannot start ferroboot")?;
    let said = String::from_utf8(output.stdout)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("lab0: "), "{said}{errors}");
    ensure!(output.status.success() == wrong(&said).is_empty(), "{said}{errors}");
    Ok(said)
}

fn wrong(said: &str) -> Vec<&str> {
    said.lines().filter(|line| line.starts_with("WRONG")).collect()
}
