//! The agent in its ramdisk: drivers, network, clock, then Ironic's commands.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tracing::{debug, info, warn};

use crate::agent::{HardwareAddresses, RamdiskAgent};
use crate::clean::CleaningTarget;
use crate::clock;
use crate::cmdline::AgentOptions;
use crate::console::Consoles;
use crate::disks::DiskSource;
use crate::effects::{AgentHost, CommandEffects};
use crate::hotplug::{self, ModuleLoader};
use crate::identity::Keeper;
use crate::init;
use crate::network;
use crate::system_logs::RecentLog;

/// The file of `ferroboot image build --ca`: CA certificates for Ironic's API.
pub const AUTHORITIES: &str = "/etc/ferroboot/ca.pem";

/// The CA certificate of Ironic's API that Ironic (`[agent] api_ca_file`) or Ferroboot adds to the ramdisk.
const COMPOSED_AUTHORITY: &str = "/etc/ironic-python-agent/ironic.crt";

/// The folder for the token and the certificate: in memory.
const STATE: &str = "/run/ferroboot-agent";

/// Runs as the agent of this machine.
///
/// # Errors
///
/// Any failure that makes it useless; init then starts another agent.
pub fn run() -> Result<Infallible> {
    let command_line = fs::read_to_string("/proc/cmdline").context("reading /proc/cmdline")?;
    let (options, ignored) = AgentOptions::parse(&command_line);
    let log = Consoles::open().log(options.debug);
    init::report_panics(AgentHost::Process);
    for ignored in ignored {
        warn!("on the command line, ignored: {ignored}");
    }
    debug!("{options:?}");
    crate::start(serve(options, log))
}

async fn serve(options: AgentOptions, log: RecentLog) -> Result<Infallible> {
    info!("loading drivers");
    let activity = hotplug::watch(Arc::new(ModuleLoader::new()?))?;
    let network = network::up(&options.wanted(), options.api()?).await?;
    // Not awaited: a silent server would delay every boot by seconds.
    let named = options.ntp_server.clone();
    if let Some(server) = named.or_else(|| network.ntp.first().map(ToString::to_string)) {
        tokio::spawn(set_clock(server));
    }

    let machine = CleaningTarget {
        disks: DiskSource::Machine(activity),
        guards_clustered: options.guards_clustered,
    };
    let agent = RamdiskAgent {
        options,
        addresses: HardwareAddresses::Cards,
        keeper: Keeper::new(Path::new(STATE))?,
        authorities: authorities()?,
        effects: CommandEffects::new(machine, AgentHost::Machine, log),
        sets_clock: true,
    };
    agent.run_on(network).await
}

fn authorities() -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for file in [AUTHORITIES, COMPOSED_AUTHORITY] {
        match fs::read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            read => all.extend(read.with_context(|| format!("reading {file}"))?),
        }
    }
    Ok(all)
}

/// Sets the clock by NTP. Ironic's API provides the time later, too.
async fn set_clock(server: String) {
    match clock::ask(&server).await {
        Ok(now) => clock::set_if_far_off(now, &server),
        Err(error) => warn!("no time from {server}: {error:#}"),
    }
}

/// Loads a module on the kernel's request, in place of `modprobe`.
///
/// # Errors
///
/// This ramdisk was made for another kernel.
pub fn modprobe(names: impl Iterator<Item = String>) -> Result<()> {
    let loader = ModuleLoader::new()?;
    for name in names.filter(|name| !name.starts_with('-')) {
        loader.load(&name);
    }
    Ok(())
}
