//! Other hosts in the lab's network: third-party programs, in a separate network namespace.

use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::network::{self, BRIDGE, LabNetwork, MACHINES};
use super::process::Process;

/// The daemon's host name, if there is a name server.
pub const NAME: &str = "boot.lab.example";

/// The BMC of machines behind NAT, as the daemon reaches it.
pub const BMC_BEHIND_NAT: SocketAddr = SocketAddr::new(OUTSIDE, 8000);

/// The address that all machines behind NAT share outside of their site.
pub const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));

/// The router's rules: the site's connections get its outer address, and the BMC's port is forwarded.
const NAT: &str = "\
table ip nat {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        iifname near tcp dport 8000 dnat to 10.78.0.2:8000
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname near masquerade
    }
}
";

/// A third-party program in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// dnsmasq relays DHCP from the machines' segment to the daemon's, and routes between them; for IPv6, radvd sends
    /// advertisements to the machines.
    Relay,
    /// dnsmasq leases IPv4 addresses, and the daemon is a ProxyDHCP server.
    DhcpServer,
    /// dnsmasq answers DNS, with the daemon as [`NAME`].
    NameServer,
    /// radvd sends the IPv6 advertisements instead of the daemon.
    Router,
    /// A router with NAT, and behind it a site with the machines and their BMC: from the daemon there is no way into the
    /// site but the forwarded port of the BMC, at [`BMC_BEHIND_NAT`]. dnsmasq leases the site's addresses; the daemon
    /// configures it.
    Nat,
}

/// The processes of a neighbour.
#[derive(Debug)]
pub(super) struct RunningNeighbour {
    _programs: Vec<Process>,
    /// The namespace of the machines and their BMC, if it is not the daemon's.
    pub(super) site: Option<NeighbourNamespace>,
}

impl Neighbour {
    /// The bridge of the machines.
    pub(super) fn bridge_of_machines(self) -> &'static str {
        match self {
            Self::Relay | Self::Nat => MACHINES,
            Self::DhcpServer | Self::NameServer | Self::Router => BRIDGE,
        }
    }

    /// Starts it; its log is in `dir`.
    pub(super) fn start(self, network: LabNetwork, dir: &Path) -> Result<RunningNeighbour> {
        let house = NeighbourNamespace::build(dir)?;
        let site = (self == Self::Nat).then(|| NeighbourNamespace::build(dir)).transpose()?;
        let programs = match self {
            Self::Relay => relay(&house, network, dir)?,
            Self::DhcpServer => vec![dhcp_server(&house, dir)?],
            Self::NameServer => vec![name_server(&house, network, dir)?],
            Self::Router => vec![router(&house, dir)?],
            Self::Nat => vec![nat(&house, site.as_ref().context("NAT has a site")?, dir)?],
        };
        let programs = programs.into_iter().chain([house.holder]).collect();
        Ok(RunningNeighbour { _programs: programs, site })
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

fn nat(house: &NeighbourNamespace, site: &NeighbourNamespace, dir: &Path) -> Result<Process> {
    house.connect("near", BRIDGE)?;
    house.number("near", "10.77.0.2/24")?;
    let (house_id, site_id) = (house.holder.id(), site.holder.id());
    network::ip(&format!(
        "link add far netns {house_id} type veth peer name to-far netns {site_id}\n"
    ))?;
    house.number("far", "10.78.0.1/24")?;
    house.run("ip", &["link", "set", "far", "up"])?;
    site.run("ip", &["link", "add", MACHINES, "type", "bridge"])?;
    site.run("ip", &["link", "set", "to-far", "master", MACHINES, "up"])?;
    site.number(MACHINES, "10.78.0.2/24")?;
    site.run("ip", &["link", "set", MACHINES, "up"])?;
    site.run("ip", &["route", "add", "default", "via", "10.78.0.1"])?;
    house.forward()?;
    let rules = dir.join("nat.nft");
    fs::write(&rules, NAT).with_context(|| format!("cannot write {}", rules.display()))?;
    let rules = rules.to_str().context("the lab's folder has an odd name")?;
    house.run("nft", &["-f", rules]).context("the router's rules (package nftables)")?;
    let folders = dnsmasq_folders(dir);
    for folder in &folders {
        fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let [hosts, options] = folders.map(|folder| folder.display().to_string());
    // As described in the book.
    house.dnsmasq(
        &[
            "--port=0",
            "--interface=far",
            "--no-ping",
            "--dhcp-range=10.78.0.100,10.78.0.199,1h",
            &format!("--dhcp-hostsdir={hosts}"),
            &format!("--dhcp-optsdir={options}"),
            "--dhcp-vendorclass=set:ferroboot-http,HTTPClient",
            "--dhcp-match=set:ferroboot-x64,option:client-arch,16",
            "--dhcp-match=set:ipxe,175",
            "--dhcp-userclass=set:ipxe,iPXE",
            "--dhcp-ignore=tag:ironic,tag:ferroboot-http,tag:!ferroboot-boot",
        ],
        dir,
    )
}

/// The folders by which the daemon configures dnsmasq: of hosts and of options.
pub(super) fn dnsmasq_folders(dir: &Path) -> [PathBuf; 2] {
    ["dhcp-hosts", "dhcp-options"].map(|name| dir.join(name))
}

/// A network namespace, which exists as long as a process in it.
#[derive(Debug)]
pub struct NeighbourNamespace {
    holder: Process,
}

impl NeighbourNamespace {
    /// Creates an empty namespace; the logs of its programs are in `dir`.
    ///
    /// # Errors
    /// This host has no network namespaces.
    pub fn build(dir: &Path) -> Result<Self> {
        let mut hold = Command::new("unshare");
        hold.args(["--net", "--", "sh", "-c", "echo ready >&2; exec sleep infinity"]);
        let holder = Process::start(&mut hold, "ready", &dir.join("neighbour.log"))?;
        let house = Self { holder };
        house.run("ip", &["link", "set", "lo", "up"])?;
        Ok(house)
    }

    /// Adds a network card that is connected to this bridge outside.
    ///
    /// # Errors
    /// The error output of `ip`.
    pub fn connect(&self, card: &str, bridge: &str) -> Result<()> {
        let outside = format!("to-{card}");
        network::ip(&format!(
            "link add {outside} type veth peer name {card} netns {}\n\
             link set {outside} master {bridge} up\n",
            self.holder.id()
        ))?;
        self.run("ip", &["link", "set", card, "up"])
    }

    /// Adds an address with its prefix length to a card.
    ///
    /// # Errors
    /// The error output of `ip`.
    pub fn number(&self, card: &str, address: &str) -> Result<()> {
        let mut words = vec!["address", "add", address, "dev", card];
        if address.contains(':') {
            words.push("nodad");
        }
        self.run("ip", &words)
    }

    /// Enables routing.
    fn forward(&self) -> Result<()> {
        let settings = "/proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding";
        self.run("sh", &["-c", &format!("echo 1 | tee {settings}")])
    }

    /// Starts dnsmasq inside, with only these arguments.
    ///
    /// # Errors
    /// Its last log lines, if it does not start.
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

    /// A command that runs `program` inside.
    pub(super) fn inside(&self, program: impl AsRef<OsStr>) -> Command {
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).arg("--").arg(program);
        inside
    }
}
