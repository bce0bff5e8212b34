//! The init of the ramdisk, and the agent that it starts.

use std::convert::Infallible;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{self, ExitCode};

use agent::agent::{HardwareAddresses, RamdiskAgent};
use agent::clean::CleaningTarget;
use agent::cmdline::AgentOptions;
use agent::disks::DiskSource;
use agent::effects::{AgentHost, CommandEffects};
use agent::identity::Keeper;
use agent::system_logs::RecentLog;
use agent::{clock, init, network, ramdisk};
use anyhow::{Context, Result};
use clap::Parser;
use hardware::Mac;
use url::Url;

/// Serves a node as ironic-python-agent does. As init of a ramdisk it takes no arguments.
#[derive(Debug, Parser)]
#[command(version)]
struct AgentArguments {
    /// Run as an ordinary process: load no modules, switch nothing off, and set up no network unless requested
    #[arg(long, required = true)]
    not_init: bool,

    /// URL of Ironic's API
    #[arg(long, value_name = "URL")]
    api_url: Url,

    /// MAC addresses for the lookup of the node
    #[arg(long = "address", value_name = "MAC", required_unless_present = "network")]
    addresses: Vec<Mac>,

    /// Set up the network as in a ramdisk; for a network namespace with its own /etc/resolv.conf
    #[arg(long)]
    network: bool,

    /// Files or devices that serve as the machine's disks
    #[arg(long = "disks", value_name = "FILE")]
    disks: Vec<PathBuf>,

    /// CA certificates (PEM) for Ironic's API, besides the public ones
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// Folder for the token and the certificate
    #[arg(long, value_name = "DIR")]
    state: PathBuf,

    /// Further settings, in the form of the kernel command line
    #[arg(long, value_name = "TEXT", default_value = "")]
    command_line: String,
}

fn main() -> ExitCode {
    let mut words = std::env::args();
    let own_name = words.next().unwrap_or_default();
    // The kernel passes to init the parts of its command line that it does not use itself.
    let ended = if process::id() == 1 {
        init::run()
    } else if own_name.ends_with("modprobe") {
        ramdisk::modprobe(words).map(|()| ExitCode::SUCCESS)
    } else if words.next().as_deref() == Some(init::AGENT) {
        ramdisk::run().map(|never| match never {})
    } else {
        let lines = tracing_subscriber::fmt().with_writer(std::io::stderr);
        lines.fmt_fields(agent::lines::printable_fields()).init();
        run(AgentArguments::parse()).map(|never| match never {})
    };
    ended.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::FAILURE
    })
}

fn run(arguments: AgentArguments) -> Result<Infallible> {
    let (mut options, ignored) = AgentOptions::parse(&arguments.command_line);
    for ignored in ignored {
        tracing::warn!("ignored: {ignored}");
    }
    let authorities = match &arguments.ca {
        Some(file) => fs::read(file).with_context(|| format!("reading {}", file.display()))?,
        None => Vec::new(),
    };
    let url = arguments.api_url.clone();
    options.api_url = Some(arguments.api_url);
    let wanted = options.wanted();
    let addresses = match &arguments.addresses[..] {
        [] => HardwareAddresses::Cards,
        named => HardwareAddresses::Named(named.to_vec()),
    };
    let machine = CleaningTarget {
        disks: DiskSource::Named(arguments.disks),
        guards_clustered: options.guards_clustered,
    };
    let agent = RamdiskAgent {
        options,
        addresses,
        keeper: Keeper::new(&arguments.state)?,
        authorities,
        effects: CommandEffects::new(machine, AgentHost::Process, RecentLog::default()),
        sets_clock: false,
    };
    agent::start(async move {
        match arguments.network {
            true => agent.run_on(network::up(&wanted, &url).await?).await,
            false => agent.run(address_towards(&url)?).await,
        }
    })
}

/// The local address on the route to the API. Nothing is sent: connecting a UDP socket only selects a route.
fn address_towards(url: &Url) -> Result<IpAddr> {
    let all = url.socket_addrs(|| None).with_context(|| format!("finding the host of {url}"))?;
    let towards = |to: &SocketAddr| {
        let socket = UdpSocket::bind(clock::own(*to)).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    all.iter().find_map(towards).with_context(|| format!("there is no route to {url}"))
}
