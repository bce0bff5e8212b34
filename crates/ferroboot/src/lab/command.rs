//! The subcommands of `ferroboot lab`.

use anyhow::Result;
use clap::Subcommand;

use super::{demo, namespace, shell};

/// The subcommands of `ferroboot lab`.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Boot a machine on every path, and show each step.
    Demo(demo::Demo),
    /// Start machines and a daemon, and a shell to play with them.
    Shell(shell::Shell),
}

impl LabCommand {
    /// Does what the command line asked, in namespaces of our own.
    ///
    /// # Errors
    /// Says what could not be had, or which step of it failed.
    pub fn run(self) -> Result<()> {
        namespace::enter()?;
        match self {
            Self::Demo(demo) => demo.run(),
            Self::Shell(shell) => shell.run(),
        }
    }
}
