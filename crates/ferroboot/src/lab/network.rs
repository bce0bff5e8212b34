//! The network of the lab: a bridge, and a tap device for each machine.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::machine::LabMachine;

/// The bridge.
pub const BRIDGE: &str = "lab0";

/// The bridge of the machines, where a relay is between them and the daemon.
pub(super) const MACHINES: &str = "lab1";

/// Its addresses, which is where machines find the daemon.
const ADDRESS: &str = "10.77.0.1/24";
const ADDRESS6: &str = "fd77::1/64";

/// What the daemon gives out.
const POOL: &str = "10.77.0.100-10.77.0.199";
const POOL6: &str = "fd77::100-fd77::1ff";

/// Which protocols the network has.
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

    /// By the names that settings give them.
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

/// Builds it in the namespace we are in.
///
/// # Errors
/// What `ip` said.
pub(super) fn build(network: LabNetwork) -> Result<()> {
    let mut script = format!("link set lo up\nlink add {BRIDGE} type bridge\n");
    for address in network.addresses() {
        // An IPv6 address is of no use before it was looked for elsewhere, where there is nobody else.
        let unchecked = if address.contains(':') { " nodad" } else { "" };
        script += &format!("address add {address} dev {BRIDGE}{unchecked}\n");
    }
    ip(&format!("{script}link set {BRIDGE} up\n"))
}

/// Plugs the machines into a bridge.
///
/// # Errors
/// What `ip` said.
pub(super) fn plug_in(machines: &[LabMachine], bridge: &str) -> Result<()> {
    let tun = File::options().read(true).write(true).open("/dev/net/tun");
    tun.context("/dev/net/tun cannot be opened, and machines need it: run this as root, or let users open it")?;
    let mut script = String::new();
    for machine in machines {
        let tap = machine.tap();
        script += &format!("tuntap add {tap} mode tap\nlink set {tap} master {bridge} up\n");
    }
    ip(&script)
}

/// Runs the lines of a script by `ip`.
///
/// # Errors
/// What it said.
pub(super) fn ip(script: &str) -> Result<()> {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start ip (package iproute2)")?;
    // Taken, so that it is closed when all is written.
    let mut stdin = ip.stdin.take().context("ip has no standard input")?;
    stdin.write_all(script.as_bytes()).context("cannot write to ip")?;
    drop(stdin);
    let done = ip.wait_with_output().context("cannot wait for ip")?;
    let words = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "the network of the lab cannot be built: {}", words.trim());
    Ok(())
}
