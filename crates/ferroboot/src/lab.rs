//! `ferroboot lab`: machines with real UEFI firmware behind a BMC, and a daemon, in a separate network.
//!
//! [`Lab`] is the basis of the subcommands and of the end-to-end tests: in a namespace, the BMC emulator and the
//! daemon as processes, and the `baremetal` command to drive them.

mod command;
mod daemon;
mod demo;
pub mod disk;
pub mod firmware;
pub mod machine;
pub mod namespace;
pub mod neighbour;
pub mod network;
pub mod process;
mod shell;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command as StdCommand, Output, Stdio};
use std::str;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ironic::trace::BootTrace;
use reqwest::Client;
use serde_json::Value;
use tokio::process::Command;
use tokio::runtime::Runtime;
use tokio::task::block_in_place;
use tokio::time::interval;

pub use self::command::LabCommand;
use self::daemon::{DaemonNetwork, daemon_network};
pub use self::machine::BMC;
use self::machine::LabMachine;
use self::neighbour::{Neighbour, NeighbourNamespace};
use self::network::LabNetwork;
use self::process::{Process, READY};
use crate::service::runtime;

/// The URL of the daemon's API.
pub const API: &str = "http://127.0.0.1:6385";

/// Polling interval.
const TICK: Duration = Duration::from_millis(300);

/// Timeout: longer than two boots on a busy host.
const PATIENCE: Duration = Duration::from_secs(420);

/// The parts of a lab.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `ferroboot` program.
    pub ferroboot: PathBuf,
    /// The boot set.
    pub ramdisk: PathBuf,
    /// The `baremetal` command.
    pub baremetal: PathBuf,
    /// The machines.
    pub machines: Vec<LabMachine>,
    /// The network.
    pub network: LabNetwork,
    /// The other host in the network, if any.
    pub neighbour: Option<Neighbour>,
    /// Whether the daemon is its DHCP server.
    pub own_dhcp: bool,
    /// Whether the machines and their BMC are those of `ferroboot bmc`.
    pub own_bmc: bool,
    /// Settings of the daemon, in TOML; may be empty.
    pub settings: String,
}

impl Plan {
    /// A plan with the programs that the checkout's `make` has built, below `root`.
    #[must_use]
    pub fn of_checkout(root: &Path, ferroboot: &Path, machines: Vec<LabMachine>) -> Self {
        Self {
            ferroboot: ferroboot.to_owned(),
            ramdisk: root.join("target/ramdisk"),
            baremetal: root.join("target/venv/bin/baremetal"),
            machines,
            network: LabNetwork::default(),
            neighbour: None,
            own_dhcp: true,
            own_bmc: true,
            settings: String::new(),
        }
    }

    fn check(&self) -> Result<()> {
        let manifest = self.ramdisk.join("manifest.json");
        ensure!(manifest.exists(), "{} is not there: run `make ramdisk`", manifest.display());
        let baremetal = self.baremetal.display();
        ensure!(self.baremetal.exists(), "{baremetal} is not there: run `scripts/python-venv`");
        self.machines.iter().try_for_each(|machine| firmware::check(&machine.firmware))
    }
}

/// A running lab: machines (switched off), their BMC, a daemon, and the folder of their state.
#[derive(Debug)]
pub struct Lab {
    plan: Plan,
    dir: PathBuf,
    daemon: Option<Process>,
    _bmc: Option<Process>,
    _neighbour: Option<neighbour::RunningNeighbour>,
    client: Client,
    runtime: Runtime,
}

impl Lab {
    /// Starts the lab in the current namespace. The folder stays when the lab ends.
    ///
    /// # Errors
    /// A part is missing, or a program did not start.
    pub fn set_up(plan: Plan) -> Result<Self> {
        plan.check()?;
        ensure!(namespace::is_inside()?, "a lab needs a network namespace of its own");
        network::build(plan.network)?;
        let dir = tempfile::Builder::new().prefix("ferroboot-lab.").tempdir();
        let dir = dir.context("cannot make a folder for the lab")?.keep();
        let neighbour = plan.neighbour.map(|neighbour| neighbour.start(plan.network, &dir));
        let neighbour = neighbour.transpose()?;
        let bridge = plan.neighbour.map_or(network::BRIDGE, Neighbour::bridge_of_machines);
        let site = neighbour.as_ref().and_then(|neighbour| neighbour.site.as_ref());
        let ip = site.map_or_else(|| StdCommand::new("ip"), |site| site.inside("ip"));
        network::plug_in(&plan.machines, bridge, ip)?;
        for machine in &plan.machines {
            disk::make_used(&machine.disk(&dir))?;
        }
        // Installs the TLS provider, which every client needs.
        let runtime = runtime()?;
        let bmc = plan.own_bmc.then(|| start_bmc(&plan, &dir, site)).transpose();
        let bmc = bmc.context("the BMC emulator does not start")?;
        let mut lab = Self {
            plan,
            dir,
            daemon: None,
            _bmc: bmc,
            _neighbour: neighbour,
            client: Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?,
            runtime,
        };
        lab.start_daemon()?;
        Ok(lab)
    }

    /// Starts the daemon with its existing state.
    ///
    /// # Errors
    /// Its last log lines, if it does not become ready.
    pub fn start_daemon(&mut self) -> Result<()> {
        let path = self.dir.join("ferroboot.toml");
        let mut serve = std::process::Command::new(&self.plan.ferroboot);
        serve.arg("serve").arg("--state-dir").arg(self.dir.join("state"));
        serve.arg("--ramdisk").arg(&self.plan.ramdisk);
        let mut settings = self.plan.settings.clone();
        if self.plan.own_dhcp {
            match daemon_network(self.plan.network, self.plan.neighbour, &self.dir) {
                DaemonNetwork::Argument(dhcp) => _ = serve.arg("--dhcp").arg(dhcp),
                DaemonNetwork::Settings(dhcp) => settings += &dhcp,
            }
        }
        if !settings.is_empty() {
            fs::write(&path, &settings)
                .with_context(|| format!("cannot write {}", path.display()))?;
            serve.arg("--config").arg(&path);
        }
        let log = self.dir.join("serve.log");
        self.daemon =
            Some(Process::start(&mut serve, READY, &log).context("the daemon does not start")?);
        Ok(())
    }

    /// Kills the daemon, like a power failure.
    ///
    /// # Errors
    /// It had ended before by itself.
    pub fn kill_daemon(&mut self) -> Result<()> {
        self.daemon.take().context("the daemon does not run")?.kill().context("the daemon")
    }

    /// The daemon's current and highest memory, in MiB.
    ///
    /// # Errors
    /// It is not running.
    pub fn daemon_memory(&self) -> Result<(u64, u64)> {
        self.daemon.as_ref().context("the daemon does not run")?.memory()
    }

    /// Runs `baremetal` and returns its output.
    ///
    /// # Errors
    /// Its error output, if it fails.
    pub fn baremetal<S: AsRef<str>>(&self, arguments: &[S]) -> Result<String> {
        self.baremetal_while(arguments, || ())
    }

    /// Runs `baremetal` and calls `meanwhile` a few times a second until it ends.
    ///
    /// # Errors
    /// Its error output, if it fails.
    pub fn baremetal_while<S: AsRef<str>>(
        &self,
        arguments: &[S],
        mut meanwhile: impl FnMut(),
    ) -> Result<String> {
        let arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
        let mut command = Command::new(&self.plan.baremetal);
        command.args(&arguments).stdin(Stdio::null()).kill_on_drop(true);
        for (name, value) in self.environment() {
            command.env(name, value);
        }
        let ended = self.runtime.block_on(async {
            let mut tick = interval(TICK);
            let run = command.output();
            tokio::pin!(run);
            loop {
                tokio::select! {
                    ended = &mut run => break ended,
                    _ = tick.tick() => block_in_place(&mut meanwhile),
                }
            }
        });
        said(&ended.context("cannot start baremetal")?)
            .with_context(|| format!("baremetal {}", arguments.join(" ")))
    }

    /// The environment in which `baremetal` and `ferroboot trace` find the daemon.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 3] {
        [
            ("OS_AUTH_TYPE", "none".to_owned()),
            ("OS_ENDPOINT", API.to_owned()),
            // Proxies outside of the namespace are unreachable.
            ("no_proxy", "*".to_owned()),
        ]
    }

    /// A node, as returned by the API.
    ///
    /// # Errors
    /// The API does not answer, or not with a node.
    pub fn node(&self, name: &str) -> Result<Value> {
        self.fetch(&format!("v1/nodes/{name}"))
    }

    /// The trace of a node's latest boot.
    ///
    /// # Errors
    /// The API does not answer, or not with a trace.
    pub fn trace(&self, name: &str) -> Result<BootTrace> {
        let trace = self.fetch(&format!("v1/nodes/{name}/boot-trace"))?;
        serde_json::from_value(trace).context("the API's answer is not a trace")
    }

    /// Posts to the lab's BMC as its user; returns the status.
    ///
    /// # Errors
    /// The BMC does not answer.
    pub fn post_to_bmc(&self, path: &str, body: &Value) -> Result<u16> {
        let request = self.client.post(format!("http://{BMC}{path}"));
        let request = request.basic_auth(machine::USERNAME, Some(machine::PASSWORD)).json(body);
        let answer = self.runtime.block_on(async { request.send().await });
        let answer = answer.context("the BMC does not answer")?;
        Ok(answer.status().as_u16())
    }

    /// Polls a few times a second until there is an answer; `None` after the timeout.
    ///
    /// # Errors
    /// The errors of `ask`.
    pub fn wait_until<T>(&self, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
        let began = Instant::now();
        self.runtime.block_on(async {
            let mut tick = interval(TICK);
            while began.elapsed() < PATIENCE {
                tick.tick().await;
                if let Some(answer) = block_in_place(&mut ask)? {
                    return Ok(Some(answer));
                }
            }
            Ok(None)
        })
    }

    fn fetch(&self, path: &str) -> Result<Value> {
        let request = self.client.get(format!("{API}/{path}"));
        let request = request.header("X-OpenStack-Ironic-API-Version", "latest");
        let answer = async { request.send().await?.error_for_status()?.json().await };
        block_in_place(|| self.runtime.block_on(answer)).with_context(|| path.to_owned())
    }

    /// The machines, in the order of the plan.
    #[must_use]
    pub fn machines(&self) -> &[LabMachine] {
        &self.plan.machines
    }

    /// The folder of the lab: logs, consoles, disks, the daemon's state.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The disk of a machine.
    #[must_use]
    pub fn disk(&self, machine: &LabMachine) -> PathBuf {
        machine.disk(&self.dir)
    }

    /// The output of a machine's serial console.
    ///
    /// # Errors
    /// The machine was never switched on.
    pub fn console(&self, machine: &LabMachine) -> Result<String> {
        let path = self.dir.join("bmc").join(&machine.name).join("console.log");
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn start_bmc(plan: &Plan, dir: &Path, site: Option<&NeighbourNamespace>) -> Result<Process> {
    let path = dir.join("bmc.toml");
    // In a site, the router forwards a port to the BMC.
    let listen = site.map_or(BMC, |_| SocketAddr::from((Ipv4Addr::UNSPECIFIED, BMC.port())));
    fs::write(&path, machine::bmc_configuration(&plan.machines, listen, dir))
        .with_context(|| format!("cannot write {}", path.display()))?;
    let here = || std::process::Command::new(&plan.ferroboot);
    let mut bmc = site.map_or_else(here, |site| site.inside(&plan.ferroboot));
    bmc.arg("bmc").arg("--config").arg(&path);
    Process::start(&mut bmc, READY, &dir.join("bmc.log"))
}

fn said(output: &Output) -> Result<String> {
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", words.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
