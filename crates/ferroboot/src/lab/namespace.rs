//! Namespaces of our own: nobody outside hears our DHCP, and nothing in them outlives us.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Uid;

/// Holds the network namespace that was left.
const LEFT: &str = "FERROBOOT_LAB_LEFT";

/// Starts this program anew inside, with the same arguments; returns inside only.
///
/// # Errors
/// Says what the machine does not allow.
pub fn enter() -> Result<()> {
    if is_inside()? {
        return Ok(());
    }
    let own = env::current_exe().context("cannot find this program")?;
    let failed = command(&own)?.args(env::args_os().skip(1)).exec();
    Err(failed).context("cannot start unshare (package util-linux)")
}

/// Whether [`enter`] or [`command`] has brought us here.
///
/// # Errors
/// When there is no /proc.
pub fn is_inside() -> Result<bool> {
    Ok(env::var(LEFT).is_ok_and(|left| !left.is_empty()) && env::var(LEFT)? != current()?)
}

/// A command that starts `program` inside; what it leaves running is killed when it ends.
///
/// # Errors
/// Says what the machine does not allow.
pub fn command(program: &Path) -> Result<Command> {
    let try_it = unshare().arg("true").stderr(Stdio::piped()).output();
    let tried = try_it.context("cannot start unshare (package util-linux)")?;
    ensure!(
        tried.status.success(),
        "a network namespace cannot be made here ({}): run this as root, or let users make \
         namespaces (sysctl kernel.unprivileged_userns_clone=1)",
        String::from_utf8_lossy(&tried.stderr).trim()
    );
    let mut command = unshare();
    command.env(LEFT, current()?).arg(program);
    Ok(command)
}

/// For what is started inside and is no part of the lab.
pub fn forget(command: &mut Command) {
    command.env_remove(LEFT);
}

fn unshare() -> Command {
    let mut unshare = Command::new("unshare");
    // The first process of a PID namespace takes all others with it.
    unshare.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    if !Uid::effective().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare
}

fn current() -> Result<String> {
    let link = fs::read_link("/proc/self/ns/net").context("cannot read /proc/self/ns/net")?;
    Ok(link.to_string_lossy().into_owned())
}
