//! The vocabulary of the tests: a lab, and verbs.

use std::any::type_name;
use std::env;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use bmc::config::Ip;
use ferroboot::lab::machine::LabMachine;
use ferroboot::lab::{Lab, Plan, namespace};
use ferroboot::trace::timeline;
use hardware::RedfishPurpose;
use ironic::trace::BootTrace;
use provision::BootEventKind;

/// The clean step of all tests: it removes partition tables and file-system signatures.
pub(crate) const ERASE_METADATA: &str =
    r#"{"interface": "deploy", "step": "erase_devices_metadata"}"#;

/// Timeout in seconds: longer than any boot on a busy host.
const PATIENCE: &str = "300";

/// Labs that run at the same time: each occupies a processor with emulated firmware, and memory with its machines.
static LABS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];

/// A lab with these machines, and the parts that `make` has built.
pub(crate) fn with(machines: impl IntoIterator<Item = LabMachine>) -> Plan {
    let ferroboot = Path::new(env!("CARGO_BIN_EXE_ferroboot"));
    Plan::of_checkout(&checkout(), ferroboot, machines.into_iter().collect())
}

/// A folder that `make` fills once: other tests, this one's process inside the lab, and later runs find it.
pub(crate) fn made_once(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = all.join(name);
    if !folder.exists() {
        let fresh = tempfile::tempdir_in(all)?;
        make(fresh.path())?;
        // Another test may have been faster.
        let renamed = fs::rename(fresh.path(), &folder);
        ensure!(folder.exists(), "cannot make {}: {renamed:?}", folder.display());
    }
    Ok(folder)
}

/// The folder of the checkout.
pub(crate) fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Changes the lab's network.
pub(crate) fn ip(line: &str) -> Result<()> {
    let status = Command::new("ip").args(line.split(' ')).status().context("ip")?;
    ensure!(status.success(), "ip {line}: {status}");
    Ok(())
}

/// Runs `story` in a separate lab. Must be called directly by the test, since it determines the test's name.
pub(crate) fn in_a_lab<F: FnOnce(&mut Lab) -> Result<()>>(plan: Plan, story: F) {
    let result = if namespace::is_inside().unwrap_or(false) {
        tell(plan, story)
    } else {
        again_inside(test_of::<F>())
    };
    if let Err(failed) = result {
        panic!("{failed:#}");
    }
}

fn tell(plan: Plan, story: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    let mut lab = Lab::set_up(plan)?;
    let result = story(&mut lab);
    if result.is_ok() {
        fs::remove_dir_all(lab.dir())?;
        return result;
    }
    for machine in lab.machines() {
        if let Ok(trace) = lab.trace(&machine.name) {
            eprintln!("{}", timeline(&trace));
        }
    }
    result.with_context(|| format!("logs and consoles are in {}", lab.dir().display()))
}

fn again_inside(name: &str) -> Result<()> {
    let [first, second] = &LABS;
    let _turn =
        first.try_lock().unwrap_or_else(|_| second.lock().unwrap_or_else(PoisonError::into_inner));
    let mut again = namespace::command(&env::current_exe()?)?;
    let output = again.args(["--exact", name, "--include-ignored", "--nocapture"]).output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    // A name without a test would also succeed.
    let passed = output.status.success() && told.contains(" 1 passed");
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(passed, "{told}{said}");
    // Measured values, for the test's output.
    eprint!("{said}");
    Ok(())
}

/// The path of the function that contains a closure, without the crate.
fn test_of<F>() -> &'static str {
    let path = type_name::<F>().trim_end_matches("::{{closure}}");
    path.split_once("::").map_or(path, |(_, rest)| rest)
}

/// The verbs of a story.
pub(crate) trait Verbs {
    /// Creates a node with a port, whose BMC is at the usual address.
    fn enroll(&self, machine: &LabMachine) -> Result<()>;
    /// `enroll` → `manageable`.
    fn manage(&self, machine: &LabMachine) -> Result<()>;
    /// Sets the boot interface for the next boots.
    fn boot_by(&self, machine: &LabMachine, boot_interface: &str) -> Result<()>;
    /// Sets one `driver_info` property.
    fn set_driver_info(&self, machine: &LabMachine, property: &str, value: &str) -> Result<()>;
    /// Starts a clean, and waits for its successful end.
    fn clean(&self, machine: &LabMachine) -> Result<()> {
        self.clean_by(machine, &[ERASE_METADATA])
    }
    /// The same by these steps, each as JSON.
    fn clean_by(&self, machine: &LabMachine, steps: &[&str]) -> Result<()>;
    /// Starts a clean.
    fn begin_to_clean(&self, machine: &LabMachine) -> Result<()>;
    /// `manageable` → `available`.
    fn provide(&self, machine: &LabMachine) -> Result<()>;
    /// Waits until the node is in this state.
    fn wait_for_state(&self, machine: &LabMachine, state: &str) -> Result<()>;
    /// Waits until its trace has a matching event.
    fn wait_for_event(
        &self,
        machine: &LabMachine,
        what: &str,
        fits: fn(&BootEventKind) -> bool,
    ) -> Result<()>;
    /// Waits until its trace has a diagnosis with these words; returns the whole text.
    fn wait_for_diagnosis(&self, machine: &LabMachine, words: &str) -> Result<String>;
    /// Its provision state.
    fn state(&self, machine: &LabMachine) -> Result<String>;
}

impl Verbs for Lab {
    fn enroll(&self, machine: &LabMachine) -> Result<()> {
        machine.enrolment().iter().try_for_each(|line| self.baremetal(line).map(drop))
    }

    fn manage(&self, machine: &LabMachine) -> Result<()> {
        self.baremetal(&["node", "manage", "--wait", PATIENCE, &machine.name]).map(drop)
    }

    fn boot_by(&self, machine: &LabMachine, boot_interface: &str) -> Result<()> {
        let set = ["node", "set", &machine.name, "--boot-interface", boot_interface];
        self.baremetal(&set).map(drop)
    }

    fn set_driver_info(&self, machine: &LabMachine, property: &str, value: &str) -> Result<()> {
        let setting = format!("{property}={value}");
        self.baremetal(&["node", "set", &machine.name, "--driver-info", &setting]).map(drop)
    }

    fn clean_by(&self, machine: &LabMachine, steps: &[&str]) -> Result<()> {
        let steps = format!("[{}]", steps.join(", "));
        let wait = ["node", "clean", "--wait", PATIENCE, "--clean-steps", &steps, &machine.name];
        self.baremetal(&wait).map(drop)
    }

    fn begin_to_clean(&self, machine: &LabMachine) -> Result<()> {
        let steps = format!("[{ERASE_METADATA}]");
        self.baremetal(&["node", "clean", "--clean-steps", &steps, &machine.name]).map(drop)
    }

    fn provide(&self, machine: &LabMachine) -> Result<()> {
        self.baremetal(&["node", "provide", "--wait", PATIENCE, &machine.name]).map(drop)
    }

    fn wait_for_state(&self, machine: &LabMachine, wanted: &str) -> Result<()> {
        let reached = self.wait_until(|| Ok((self.state(machine)? == wanted).then_some(())))?;
        reached.with_context(|| format!("{} is not {wanted}", machine.name))
    }

    fn wait_for_event(
        &self,
        machine: &LabMachine,
        what: &str,
        fits: fn(&BootEventKind) -> bool,
    ) -> Result<()> {
        let came = self.wait_until(|| {
            let trace = self.trace(&machine.name)?;
            Ok(trace.events.iter().any(|event| fits(&event.what)).then_some(()))
        })?;
        came.with_context(|| format!("{} shows no {what}", machine.name))
    }

    fn wait_for_diagnosis(&self, machine: &LabMachine, words: &str) -> Result<String> {
        let said = self.wait_until(|| {
            let diagnosis = self.trace(&machine.name)?.diagnosis.map(|diagnosis| diagnosis.text);
            Ok(diagnosis.filter(|text| text.contains(words)))
        })?;
        said.with_context(|| format!("the trace of {} does not say {words:?}", machine.name))
    }

    fn state(&self, machine: &LabMachine) -> Result<String> {
        let node = self.node(&machine.name)?;
        Ok(node["provision_state"].as_str().context("a node has a provision_state")?.to_owned())
    }
}

/// The fetches in a trace.
pub(crate) trait Fetched {
    /// The files that were fetched completely, in order, each once.
    fn fetched(&self) -> Vec<String>;
    /// The first file that the firmware itself fetched completely.
    fn fetched_by_firmware(&self) -> Option<String>;
    /// The IP version of that fetch.
    fn firmware_fetched_by(&self) -> Option<Ip>;
}

impl Fetched for BootTrace {
    fn fetched(&self) -> Vec<String> {
        let mut files: Vec<_> = fetches(self).map(|fetch| fetch.file).collect();
        files.dedup();
        files
    }

    fn fetched_by_firmware(&self) -> Option<String> {
        fetches(self).find(Fetch::is_by_firmware).map(|fetch| fetch.file)
    }

    fn firmware_fetched_by(&self) -> Option<Ip> {
        let fetch = fetches(self).find(Fetch::is_by_firmware)?;
        // A dual-stack socket shows IPv4 peers as IPv4-mapped addresses.
        Some(if fetch.remote?.to_canonical().is_ipv6() { Ip::Ipv6 } else { Ip::Ipv4 })
    }
}

/// A complete fetch of a file.
struct Fetch {
    file: String,
    user_agent: String,
    remote: Option<IpAddr>,
}

impl Fetch {
    fn is_by_firmware(&self) -> bool {
        self.user_agent.starts_with("UefiHttpBoot/")
    }
}

fn fetches(trace: &BootTrace) -> impl Iterator<Item = Fetch> {
    trace.events.iter().filter_map(|event| {
        let BootEventKind::Http {
            method,
            artifact: Some(artifact),
            user_agent,
            remote,
            sent,
            length,
            ..
        } = &event.what
        else {
            return None;
        };
        (method.as_str() == "GET" && sent == length).then(|| Fetch {
            file: artifact.file_name().to_owned(),
            user_agent: user_agent.clone().unwrap_or_default(),
            remote: *remote,
        })
    })
}

/// The seconds from power-on to the main events.
pub(crate) fn measured(trace: &BootTrace) -> String {
    let on = trace.events.iter().find(
        |event| matches!(&event.what, BootEventKind::Redfish { purpose, .. } if *purpose == RedfishPurpose::PowerOn),
    );
    let seconds = |fits: fn(&BootEventKind) -> bool| {
        let event = trace.events.iter().find(|event| fits(&event.what));
        let after = on.zip(event).map(|(on, event)| event.at.duration_since(on.at).as_secs_f64());
        after.map_or_else(|| "never".to_owned(), |seconds| format!("{seconds:.1} s"))
    };
    let asked = seconds(|what| matches!(what, BootEventKind::Dhcp { .. }));
    let fetched = seconds(|what| matches!(what, BootEventKind::Http { .. }));
    let called = seconds(|what| matches!(what, BootEventKind::Agent { .. }));
    format!("first DHCP {asked}, first fetch {fetched}, agent {called}")
}
