//! The network configuration of a lab's daemon.

use std::fmt::Write as _;
use std::path::Path;

use super::neighbour::{Neighbour, dnsmasq_folders};
use super::network::{BRIDGE, LabNetwork};

/// The place of a network in the daemon's configuration.
pub(super) enum DaemonNetwork {
    /// On the command line.
    Argument(String),
    /// In the settings.
    Settings(String),
}

/// The configuration of this network for the daemon of the lab in `dir`.
pub(super) fn daemon_network(
    network: LabNetwork,
    neighbour: Option<Neighbour>,
    dir: &Path,
) -> DaemonNetwork {
    match neighbour {
        Some(Neighbour::Nat) => {
            let [hosts, options] = dnsmasq_folders(dir);
            DaemonNetwork::Settings(format!(
                "[dhcp]\nprovider = \"dnsmasq\"\n[dhcp.dnsmasq]\ndhcp_hostsdir = {hosts:?}\n\
                 dhcp_optsdir = {options:?}\n"
            ))
        }
        None => {
            let pools: Vec<_> = network.pools().into_iter().map(|(_, pool)| pool).collect();
            DaemonNetwork::Argument(format!("{BRIDGE}={}", pools.join(",")))
        }
        Some(Neighbour::DhcpServer) => DaemonNetwork::Argument(format!("{BRIDGE}=proxy")),
        Some(Neighbour::NameServer) => DaemonNetwork::Settings(settings(network) + &dns(network)),
        Some(Neighbour::Router) => {
            DaemonNetwork::Settings(settings(network) + "advertise = false\n")
        }
        Some(Neighbour::Relay) => DaemonNetwork::Settings(settings(network) + &relayed(network)),
    }
}

fn settings(network: LabNetwork) -> String {
    let mut text = format!("[[dhcp.network]]\ninterface = \"{BRIDGE}\"\n");
    for (name, pool) in network.pools() {
        let _ = writeln!(text, "{name} = \"{pool}\"");
    }
    text
}

fn dns(network: LabNetwork) -> String {
    let servers: &[&str] = match network {
        LabNetwork::Ipv4 => &["10.77.0.2"],
        LabNetwork::Dual => &["10.77.0.2", "fd77::2"],
        LabNetwork::Ipv6 => &["fd77::2"],
    };
    format!("dns = {servers:?}\n")
}

fn relayed(network: LabNetwork) -> String {
    let v4 = "[[dhcp.network.relayed]]\nsubnet = \"10.78.0.0/24\"\n\
              pool = \"10.78.0.100-10.78.0.199\"\nrouter = \"10.78.0.1\"\n";
    let v6 = "[[dhcp.network.relayed]]\nsubnet = \"fd78::/64\"\n\
              pool = \"fd78::100-fd78::1ff\"\n";
    match network {
        LabNetwork::Ipv4 => v4.to_owned(),
        LabNetwork::Dual => [v4, v6].concat(),
        LabNetwork::Ipv6 => v6.to_owned(),
    }
}
