//! The `ferroboot` command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ferroboot::bmc::BmcCommand;
use ferroboot::ca::CaCommand;
use ferroboot::check::Check;
use ferroboot::explain::Explain;
use ferroboot::image::ImageCommand;
use ferroboot::lab;
use ferroboot::replay::Replay;
use ferroboot::serve::Serve;
use ferroboot::top::Top;
use ferroboot::trace::Trace;
use provision::text::{masked, printable_lines};

/// Boots bare metal from an HTTP or HTTPS URL, and proves it did.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Ferroboot {
    #[command(subcommand)]
    command: CliCommand,
}

/// The subcommands; each is implemented in the module of its name.
#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Run the service: Ironic's API, DHCP, the boot listener.
    Serve(Serve),
    /// Show the events of a node's boot, and its diagnosis.
    Trace(Trace),
    /// Show the boots under way: how many machines are at which stage, and the slowest ones.
    Top(Top),
    /// Show the current DHCP answers to a machine, with reasons.
    Explain(Explain),
    /// Show the answers to captured DHCP packets with the current settings.
    Replay(Replay),
    /// Check a configuration and its requirements on this host, without serving.
    Check(Check),
    /// Print the certificate of the service's own CA, which firmware must trust to boot over HTTPS.
    Ca(CaCommand),
    /// Build boot sets: kernel, ramdisk with the agent, boot loaders.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Run a Redfish BMC in front of virtual machines with real UEFI firmware.
    Bmc(BmcCommand),
    /// Boot virtual machines with real UEFI firmware, in a separate network.
    #[command(subcommand)]
    Lab(lab::LabCommand),
}

fn main() -> ExitCode {
    match run(Ferroboot::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a backtrace, whatever `RUST_BACKTRACE` is: it would hide the causes, which help an operator.
            eprint!("{}", printable_lines(&masked(&in_words(&error))));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, one per line.
fn in_words(error: &anyhow::Error) -> String {
    let mut before = error.to_string();
    let mut text = format!("Error: {before}\n");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Some third-party errors end with their cause and also return it as the source.
        if !before.ends_with(&cause) {
            text.push_str(&format!("  because: {cause}\n"));
        }
        before = cause;
    }
    text
}

fn run(command: CliCommand) -> anyhow::Result<()> {
    match command {
        CliCommand::Serve(serve) => serve.run(),
        CliCommand::Trace(trace) => trace.run(),
        CliCommand::Top(top) => top.run(),
        CliCommand::Explain(explain) => explain.run(),
        CliCommand::Replay(replay) => replay.run(),
        CliCommand::Check(check) => check.run(),
        CliCommand::Ca(ca) => ca.run(),
        CliCommand::Image(image) => image.run(),
        CliCommand::Bmc(bmc) => bmc.run(),
        CliCommand::Lab(action) => action.run(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_not_said_twice() {
        let error = anyhow::anyhow!("refused").context("cannot connect: refused").context("no");

        assert_eq!(in_words(&error), "Error: no\n  because: cannot connect: refused\n");
    }
}
