//! The network of the lab: a bridge, and a tap device for each machine.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::machine::LabMachine;

/// The bridge.
pub const BRIDGE: &str = "lab0";

/// The machines' bridge, if there is a relay between them and the daemon.
pub(super) const MACHINES: &str = "lab1";

/// The bridge's addresses, where machines find the daemon.
const ADDRESS: &str = "10.77.0.1/24";
const ADDRESS6: &str = "fd77::1/64";

/// The daemon's pools.
const POOL: &str = "10.77.0.100-10.77.0.199";
const POOL6: &str = "fd77::100-fd77::1ff";

/// The address families of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LabNetwork {
    /// IPv4 alone.
    #[default]
    Ipv4,
    /// IPv4 and IPv6.
    Dual,
    /// IPv6 alone.
    Ipv6,
}

impl LabNetwork {
    pub(super) fn has_ipv4(self) -> bool {
        self != Self::Ipv6
    }

    pub(super) fn has_ipv6(self) -> bool {
        self != Self::Ipv4
    }

    /// The pools, by the names of their settings.
    pub(super) fn pools(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Ipv4 => vec![("pool", POOL)],
            Self::Dual => vec![("pool", POOL), ("pool6", POOL6)],
            Self::Ipv6 => vec![("pool6", POOL6)],
        }
    }

    fn addresses(self) -> &'static [&'static str] {
        match self {
            Self::Ipv4 => &[ADDRESS],
            Self::Dual => &[ADDRESS, ADDRESS6],
            Self::Ipv6 => &[ADDRESS6],
        }
    }
}

/// Creates the network in the current namespace.
///
/// # Errors
/// The error output of `ip`.
pub(super) fn build(network: LabNetwork) -> Result<()> {
    let mut script = format!("link set lo up\nlink add {BRIDGE} type bridge\n");
    for address in network.addresses() {
        // Duplicate address detection would only delay the IPv6 address; no other host has it.
        let unchecked = if address.contains(':') { " nodad" } else { "" };
        script += &format!("address add {address} dev {BRIDGE}{unchecked}\n");
    }
    ip(&format!("{script}link set {BRIDGE} up\n"))
}

/// Connects the machines to a bridge, which may be in a site's namespace.
///
/// # Errors
/// The error output of `ip`.
pub(super) fn plug_in(machines: &[LabMachine], bridge: &str, ip: Command) -> Result<()> {
    let tun = File::options().read(true).write(true).open("/dev/net/tun");
    tun.context("/dev/net/tun cannot be opened, and machines need it: run this as root, or let users open it")?;
    let mut script = String::new();
    for machine in machines {
        let tap = machine.tap();
        script += &format!("tuntap add {tap} mode tap\nlink set {tap} master {bridge} up\n");
    }
    run_ip(ip, &script)
}

/// Runs the lines of a script with `ip`.
///
/// # Errors
/// Its error output.
pub(super) fn ip(script: &str) -> Result<()> {
    run_ip(Command::new("ip"), script)
}

fn run_ip(mut ip: Command, script: &str) -> Result<()> {
    let mut ip = ip
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start ip (package iproute2)")?;
    // Taken, so that it is closed after the write.
    let mut stdin = ip.stdin.take().context("ip has no standard input")?;
    stdin.write_all(script.as_bytes()).context("cannot write to ip")?;
    drop(stdin);
    let done = ip.wait_with_output().context("cannot wait for ip")?;
    let words = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "the network of the lab cannot be built: {}", words.trim());
    Ok(())
}
