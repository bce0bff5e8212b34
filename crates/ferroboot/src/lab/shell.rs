//! `ferroboot lab shell`: an interactive lab.

use std::env;
use std::io::{Write as _, stdout};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;

use super::machine::{BMC, LabMachine, PASSWORD, USERNAME};
use super::{Lab, Plan, namespace};

/// Starts machines, a daemon, and an interactive shell; all end with the shell.
#[derive(Debug, Args)]
pub struct Shell {
    /// Number of machines; the last one has a rack server's hardware.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=20))]
    machines: u8,
}

impl Shell {
    pub(super) fn run(self) -> Result<()> {
        let own = env::current_exe().context("cannot find this program")?;
        let mut machines: Vec<_> = (1..self.machines).map(LabMachine::new).collect();
        machines.push(LabMachine::new(self.machines).like_a_rack_server());
        let lab = Lab::set_up(Plan::of_checkout(
            &env::current_dir().unwrap_or_default(),
            &own,
            machines,
        ))?;
        for machine in lab.machines() {
            for line in machine.enrolment() {
                lab.baremetal(&line)?;
            }
        }
        writeln!(stdout(), "{}", welcome(&lab)).context("cannot print")?;

        let shell = env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
        let mut command = Command::new(shell);
        namespace::forget(&mut command);
        command.envs(lab.environment()).env("PATH", path(&lab)?);
        // The exit status of the shell's last command does not matter.
        command.status().context("cannot start a shell")?;
        writeln!(stdout(), "The state of the lab stays in {}.", lab.dir().display())
            .context("cannot print")
    }
}

fn welcome(lab: &Lab) -> String {
    let first = lab.machines().first().map(|machine| machine.name.as_str()).unwrap_or_default();
    format!(
        "A network namespace with {} machines, off, and enrolled as nodes. Try:\n\
         \n    baremetal node list\
         \n    baremetal node manage {first} --wait\
         \n    baremetal node clean {first} --wait --clean-steps \
         '[{{\"interface\": \"deploy\", \"step\": \"erase_devices_metadata\"}}]'\
         \n    ferroboot trace {first}\
         \n    curl -u {USERNAME}:{PASSWORD} http://{BMC}/redfish/v1/Systems/{first}\n\
         \nLogs, consoles and disks are in {}. Leave with `exit`.",
        lab.machines().len(),
        lab.dir().display(),
    )
}

/// PATH with `baremetal` and this program first.
fn path(lab: &Lab) -> Result<std::ffi::OsString> {
    let programs = [&lab.plan.baremetal, &lab.plan.ferroboot];
    let mut folders: Vec<_> =
        programs.iter().filter_map(|program| program.parent()).map(Into::into).collect();
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    env::join_paths(folders).context("PATH cannot be set")
}
