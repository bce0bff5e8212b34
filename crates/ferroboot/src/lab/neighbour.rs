//! Who else is in the lab's network: programs of others, in a network namespace of their own.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::network::{self, BRIDGE, LabNetwork, MACHINES};
use super::process::Process;

/// The daemon's name, where there is a name server.
pub const NAME: &str = "boot.lab.example";

/// A program beside the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// dnsmasq relays DHCP from a segment with the machines to that with the daemon, and routes between them;
    /// where there is IPv6, radvd advertises it to the machines.
    Relay,
    /// dnsmasq gives IPv4 addresses, and the daemon is a ProxyDHCP.
    DhcpServer,
    /// dnsmasq answers DNS, and knows the daemon as [`NAME`].
    NameServer,
    /// radvd advertises the IPv6 network, and the daemon does not.
    Router,
}

/// What keeps a neighbour running.
#[derive(Debug)]
pub(super) struct RunningNeighbour {
    _programs: Vec<Process>,
}

impl Neighbour {
    /// The bridge that machines are on.
    pub(super) fn bridge_of_machines(self) -> &'static str {
        match self {
            Self::Relay => MACHINES,
            Self::DhcpServer | Self::NameServer | Self::Router => BRIDGE,
        }
    }

    /// Starts it; what it says is kept in `dir`.
    pub(super) fn start(self, network: LabNetwork, dir: &Path) -> Result<RunningNeighbour> {
        let house = NeighbourNamespace::build(dir)?;
        let programs = match self {
            Self::Relay => relay(&house, network, dir)?,
            Self::DhcpServer => vec![dhcp_server(&house, dir)?],
            Self::NameServer => vec![name_server(&house, network, dir)?],
            Self::Router => vec![router(&house, dir)?],
        };
        Ok(RunningNeighbour { _programs: programs.into_iter().chain([house.holder]).collect() })
    }
}

fn relay(house: &NeighbourNamespace, network: LabNetwork, dir: &Path) -> Result<Vec<Process>> {
    network::ip(&format!("link add {MACHINES} type bridge\nlink set {MACHINES} up\n"))?;
    house.connect("near", BRIDGE)?;
    house.connect("far", MACHINES)?;
    // No DNS.
    let mut relays = vec!["--port=0"];
    if network.has_ipv4() {
        house.number("near", "10.77.0.2/24")?;
        house.number("far", "10.78.0.1/24")?;
        network::ip("route add 10.78.0.0/24 via 10.77.0.2\n")?;
        relays.push("--dhcp-relay=10.78.0.1,10.77.0.1");
    }
    let mut programs = Vec::new();
    if network.has_ipv6() {
        house.number("near", "fd77::2/64")?;
        house.number("far", "fd78::1/64")?;
        network::ip("route add fd78::/64 via fd77::2\n")?;
        relays.push("--dhcp-relay=fd78::1,fd77::1");
        programs.push(house.radvd("far", "fd78::/64", dir)?);
    }
    house.forward()?;
    programs.push(house.dnsmasq(&relays, dir)?);
    Ok(programs)
}

fn dhcp_server(house: &NeighbourNamespace, dir: &Path) -> Result<Process> {
    house.connect("near", BRIDGE)?;
    house.number("near", "10.77.0.2/24")?;
    house.dnsmasq(
        &["--port=0", "--dhcp-range=10.77.0.100,10.77.0.199,1h", "--dhcp-authoritative"],
        dir,
    )
}

fn name_server(house: &NeighbourNamespace, network: LabNetwork, dir: &Path) -> Result<Process> {
    house.connect("near", BRIDGE)?;
    if network.has_ipv4() {
        house.number("near", "10.77.0.2/24")?;
    }
    if network.has_ipv6() {
        house.number("near", "fd77::2/64")?;
    }
    let record = format!("--host-record={NAME},10.77.0.1,fd77::1");
    house.dnsmasq(&["--port=53", "--no-resolv", "--no-hosts", &record], dir)
}

fn router(house: &NeighbourNamespace, dir: &Path) -> Result<Process> {
    house.connect("near", BRIDGE)?;
    house.number("near", "fd77::2/64")?;
    house.forward()?;
    house.radvd("near", "fd77::/64", dir)
}

/// A network namespace, as long as a process in it lives.
#[derive(Debug)]
pub struct NeighbourNamespace {
    holder: Process,
}

impl NeighbourNamespace {
    /// Builds it, with nothing in it; what its programs say is kept in `dir`.
    ///
    /// # Errors
    /// This machine has no network namespaces.
    pub fn build(dir: &Path) -> Result<Self> {
        let mut hold = Command::new("unshare");
        hold.args(["--net", "--", "sh", "-c", "echo ready >&2; exec sleep infinity"]);
        let holder = Process::start(&mut hold, "ready", &dir.join("neighbour.log"))?;
        let house = Self { holder };
        house.run("ip", &["link", "set", "lo", "up"])?;
        Ok(house)
    }

    /// Puts a network card into it that is on this bridge outside.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn connect(&self, card: &str, bridge: &str) -> Result<()> {
        let outside = format!("to-{card}");
        network::ip(&format!(
            "link add {outside} type veth peer name {card} netns {}\n\
             link set {outside} master {bridge} up\n",
            self.holder.id()
        ))?;
        self.run("ip", &["link", "set", card, "up"])
    }

    /// Gives a card of it an address, with the length of its network.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn number(&self, card: &str, address: &str) -> Result<()> {
        let mut words = vec!["address", "add", address, "dev", card];
        if address.contains(':') {
            words.push("nodad");
        }
        self.run("ip", &words)
    }

    /// Makes it a router.
    fn forward(&self) -> Result<()> {
        let settings = "/proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding";
        self.run("sh", &["-c", &format!("echo 1 | tee {settings}")])
    }

    /// dnsmasq inside of it, with nothing but these arguments.
    ///
    /// # Errors
    /// Its last words, if it does not start.
    pub fn dnsmasq(&self, what: &[&str], dir: &Path) -> Result<Process> {
        let mut dnsmasq = self.inside("dnsmasq");
        dnsmasq.args(["--no-daemon", "--conf-file=/dev/null", "--user=root", "--log-dhcp"]);
        let leases = dir.join("dnsmasq.leases");
        dnsmasq.arg(format!("--dhcp-leasefile={}", leases.display())).args(what);
        Process::start(&mut dnsmasq, "started, version", &dir.join("dnsmasq.log"))
            .context("dnsmasq (package dnsmasq-base) does not start")
    }

    fn radvd(&self, card: &str, prefix: &str, dir: &Path) -> Result<Process> {
        let configuration = dir.join("radvd.conf");
        let text = format!(
            "interface {card} {{\n    AdvSendAdvert on;\n    AdvManagedFlag on;\n    \
             prefix {prefix} {{ AdvAutonomous off; }};\n}};\n"
        );
        fs::write(&configuration, text)
            .with_context(|| format!("cannot write {}", configuration.display()))?;
        let mut radvd = self.inside("radvd");
        radvd.args(["--nodaemon", "--logmethod", "stderr", "--config"]).arg(&configuration);
        radvd.arg("--pidfile").arg(dir.join("radvd.pid"));
        Process::start(&mut radvd, "started", &dir.join("radvd.log"))
            .context("radvd (package radvd) does not start")
    }

    fn run(&self, program: &str, words: &[&str]) -> Result<()> {
        let output = self.inside(program).args(words).stdin(Stdio::null()).output();
        let output = output.context("cannot start nsenter (package util-linux)")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {}: {}", words.join(" "), said.trim());
        Ok(())
    }

    fn inside(&self, program: &str) -> Command {
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).arg("--").arg(program);
        inside
    }
}
