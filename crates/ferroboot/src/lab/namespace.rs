//! Namespaces of the lab: its DHCP is invisible outside, and all its processes end with it.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Uid;

/// The variable with the outer network namespace.
const LEFT: &str = "FERROBOOT_LAB_LEFT";

/// Starts this program again inside new namespaces, with the same arguments; returns only inside.
///
/// # Errors
/// The host does not permit namespaces.
pub fn enter() -> Result<()> {
    if is_inside()? {
        return Ok(());
    }
    let own = env::current_exe().context("cannot find this program")?;
    let failed = command(&own)?.args(env::args_os().skip(1)).exec();
    Err(failed).context("cannot start unshare (package util-linux)")
}

/// Whether this process was started by [`enter`] or [`command`].
///
/// # Errors
/// There is no /proc.
pub fn is_inside() -> Result<bool> {
    Ok(env::var(LEFT).is_ok_and(|left| !left.is_empty()) && env::var(LEFT)? != current()?)
}

/// A command that starts `program` inside; its remaining processes are killed when it ends.
///
/// # Errors
/// The host does not permit namespaces.
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

/// Removes the lab's variable from the environment of an unrelated program.
pub fn forget(command: &mut Command) {
    command.env_remove(LEFT);
}

fn unshare() -> Command {
    let mut unshare = Command::new("unshare");
    // The end of a PID namespace's first process kills all others in it.
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
