//! The network of the lab: a bridge, and a tap device for each machine.

use std::fs::File;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::machine::Machine;

/// The bridge.
pub(super) const BRIDGE: &str = "lab0";

/// Its address, which is where machines find the daemon.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// What the daemon gives out.
pub(super) const POOL: &str = "10.77.0.100-10.77.0.199";

/// Builds it in the namespace we are in.
///
/// # Errors
/// What `ip` said.
pub(super) fn build(machines: &[Machine]) -> Result<()> {
    let tun = File::options().read(true).write(true).open("/dev/net/tun");
    tun.context("/dev/net/tun cannot be opened, and machines need it: run this as root, or let users open it")?;
    let mut script = format!(
        "link set lo up\nlink add {BRIDGE} type bridge\naddress add {ADDRESS}/24 dev {BRIDGE}\n\
         link set {BRIDGE} up\n"
    );
    for machine in machines {
        let tap = machine.tap();
        script += &format!("tuntap add {tap} mode tap\nlink set {tap} master {BRIDGE} up\n");
    }
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
