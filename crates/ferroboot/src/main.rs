//! The `ferroboot` command.

use clap::{Parser, Subcommand};
use ferroboot::image::Image;

/// Boots bare metal from an HTTP URL.
#[derive(Debug, Parser)]
#[command(version)]
struct Ferroboot {
    #[command(subcommand)]
    command: Command,
}

/// One line per subcommand; each lives in the module of its name.
#[derive(Debug, Subcommand)]
enum Command {
    /// Make boot sets: kernel, ramdisk with the agent in it, boot loaders.
    #[command(subcommand)]
    Image(Image),
}

fn main() -> anyhow::Result<()> {
    match Ferroboot::parse().command {
        Command::Image(image) => image.run(),
    }
}
