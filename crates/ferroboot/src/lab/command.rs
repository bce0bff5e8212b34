//! The subcommands of `ferroboot lab`.

use anyhow::Result;
use clap::Subcommand;

use super::{demo, namespace, shell};

/// The subcommands of `ferroboot lab`.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Boot a machine on every path, and show each step.
    Demo(demo::Demo),
    /// Start machines and a daemon, and an interactive shell.
    Shell(shell::Shell),
}

impl LabCommand {
    /// Runs the subcommand in new namespaces.
    ///
    /// # Errors
    /// A resource is unavailable, or a step failed.
    pub fn run(self) -> Result<()> {
        namespace::enter()?;
        match self {
            Self::Demo(demo) => demo.run(),
            Self::Shell(shell) => shell.run(),
        }
    }
}
