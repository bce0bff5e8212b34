//! The init of the ramdisk, and the agent it starts.

use std::convert::Infallible;
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{self, ExitCode};

use agent::agent::{Addresses, Agent};
use agent::clean::Machine;
use agent::cmdline::Options;
use agent::disks::Source;
use agent::hands::{Hands, Host};
use agent::identity::Keeper;
use agent::mac::Mac;
use agent::{init, ramdisk};
use anyhow::{Context, Result};
use clap::Parser;
use url::Url;

/// Serves a node as ironic-python-agent does. As init of a ramdisk it takes no arguments.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Run as an ordinary process: no modules, no network set-up, nothing switched off.
    #[arg(long, required = true)]
    not_init: bool,

    /// Where Ironic's API is.
    #[arg(long, value_name = "URL")]
    api_url: Url,

    /// The hardware addresses to look the node up by.
    #[arg(long = "address", value_name = "MAC", required = true)]
    addresses: Vec<Mac>,

    /// Files or devices that count as the machine's disks.
    #[arg(long = "disks", value_name = "FILE")]
    disks: Vec<PathBuf>,

    /// Certificates (PEM) of authorities that vouch for Ironic's API, beside the public ones.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// Where the token and the certificate are kept.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,

    /// Further settings, as they would stand on the kernel's command line.
    #[arg(long, value_name = "TEXT", default_value = "")]
    command_line: String,
}

fn main() -> ExitCode {
    let mut words = std::env::args();
    let own_name = words.next().unwrap_or_default();
    // The kernel starts init with whatever of its command line it does not know itself.
    let ended = if process::id() == 1 {
        init::run()
    } else if own_name.ends_with("modprobe") {
        ramdisk::modprobe(words).map(|()| ExitCode::SUCCESS)
    } else if words.next().as_deref() == Some(init::AGENT) {
        ramdisk::run().map(|never| match never {})
    } else {
        tracing_subscriber::fmt().with_writer(std::io::stderr).init();
        run(Arguments::parse()).map(|never| match never {})
    };
    ended.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::FAILURE
    })
}

fn run(arguments: Arguments) -> Result<Infallible> {
    let (mut options, ignored) = Options::parse(&arguments.command_line);
    for ignored in ignored {
        tracing::warn!("ignored: {ignored}");
    }
    let authorities = match &arguments.ca {
        Some(file) => fs::read(file).with_context(|| format!("reading {}", file.display()))?,
        None => Vec::new(),
    };
    let address = address_towards(&arguments.api_url)?;
    options.api_url = Some(arguments.api_url);
    let machine = Machine {
        disks: Source::Named(arguments.disks),
        guards_clustered: options.guards_clustered,
    };
    let agent = Agent {
        options,
        addresses: Addresses::Named(arguments.addresses),
        keeper: Keeper::new(&arguments.state)?,
        authorities,
        hands: Hands::new(machine, Host::Process),
        sets_clock: false,
    };
    agent::start(agent.run(address))
}

/// Our own address on the way to the API. Nothing is sent: connecting a UDP socket only picks a route.
fn address_towards(url: &Url) -> Result<IpAddr> {
    let to = url.socket_addrs(|| None).with_context(|| format!("finding the host of {url}"))?;
    let socket = UdpSocket::bind("0.0.0.0:0").context("opening a socket")?;
    socket.connect(&to[..]).with_context(|| format!("there is no way to {url}"))?;
    Ok(socket.local_addr().context("asking for our address")?.ip())
}
