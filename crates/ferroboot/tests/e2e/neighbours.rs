//! Networks with other hosts beside the daemon.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use bmc::config::{FirmwareConfig, Ip};
use ferroboot::lab::firmware::OvmfBuild;
use ferroboot::lab::machine::LabMachine;
use ferroboot::lab::neighbour::{NAME, Neighbour};
use ferroboot::lab::network::LabNetwork;
use ferroboot::lab::{Lab, Plan};
use hardware::ClientKind;
use provision::BootEventKind;
use provision::trace::DhcpAnswer;

use crate::story::{Verbs as _, in_a_lab, with};

#[test]
fn firmware_behind_a_relay_gets_an_address_of_its_own_segment_and_boots() {
    in_a_lab(beside(Neighbour::Relay, LabNetwork::Ipv4), |lab| {
        boot(lab, "http")?;

        let address = address_of_firmware(lab)?;
        ensure!(address.to_string().starts_with("10.78.0."), "the firmware got {address}");
        Ok(())
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn ipxe_behind_a_relay_boots() {
    in_a_lab(beside(Neighbour::Relay, LabNetwork::Ipv4), |lab| boot(lab, "http-ipxe"));
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn firmware_behind_a_relay_boots_over_ipv6_alone() {
    in_a_lab(beside(Neighbour::Relay, LabNetwork::Ipv6), |lab| {
        boot(lab, "http")?;

        let address = address_of_firmware(lab)?;
        ensure!(address.to_string().starts_with("fd78::"), "the firmware got {address}");
        Ok(())
    });
}

#[test]
fn firmware_beside_another_dhcp_server_has_its_address_and_our_url() {
    in_a_lab(beside(Neighbour::DhcpServer, LabNetwork::Ipv4), |lab| {
        boot(lab, "http")?;

        let answers = answers_to_firmware(lab)?;
        let beside = answers.iter().any(|answer| matches!(answer, DhcpAnswer::Beside { .. }));
        ensure!(beside, "the firmware was told {answers:?}");
        let leases = fs::read_to_string(lab.dir().join("dnsmasq.leases"))?;
        let mac = lab.machines()[0].mac();
        ensure!(leases.contains(&mac), "the other server gave it no address: {leases:?}");
        Ok(())
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn ipxe_beside_another_dhcp_server_boots() {
    in_a_lab(beside(Neighbour::DhcpServer, LabNetwork::Ipv4), |lab| boot(lab, "http-ipxe"));
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn firmware_boots_over_ipv6_beside_the_router_of_the_network() {
    in_a_lab(beside(Neighbour::Router, LabNetwork::Ipv6), |lab| boot(lab, "http"));
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn firmware_boots_from_a_url_with_a_name_over_ipv4() {
    in_a_lab(by_name(LabNetwork::Ipv4), |lab| boot(lab, "http"));
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn firmware_boots_from_a_url_with_a_name_over_ipv6_alone() {
    in_a_lab(by_name(LabNetwork::Ipv6), |lab| boot(lab, "http"));
}

fn by_name(network: LabNetwork) -> Plan {
    let mut plan = beside(Neighbour::NameServer, network);
    plan.settings = format!("[boot]\nurl = \"http://{NAME}:8080\"\n");
    plan
}

fn beside(neighbour: Neighbour, network: LabNetwork) -> Plan {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let firmware = match network {
        LabNetwork::Ipv4 | LabNetwork::Dual => FirmwareConfig::default(),
        LabNetwork::Ipv6 => {
            FirmwareConfig { ip: vec![Ip::Ipv6], ..OvmfBuild::V2026_08.firmware(&root) }
        }
    };
    let mut plan = with([LabMachine::new(1).with_firmware(firmware)]);
    plan.network = network;
    plan.neighbour = Some(neighbour);
    plan
}

fn boot(lab: &Lab, boot_interface: &str) -> Result<()> {
    let machine = &lab.machines()[0];
    lab.enroll(machine)?;
    lab.manage(machine)?;
    lab.boot_by(machine, boot_interface)?;
    lab.clean(machine)
}

/// The address that the daemon leased to the firmware.
fn address_of_firmware(lab: &Lab) -> Result<IpAddr> {
    let answers = answers_to_firmware(lab)?;
    let given = answers.iter().find_map(|answer| match answer {
        DhcpAnswer::Ack { address, .. } => Some(*address),
        DhcpAnswer::Offer { .. }
        | DhcpAnswer::Beside { .. }
        | DhcpAnswer::Nak { .. }
        | DhcpAnswer::NoBoot { .. }
        | DhcpAnswer::Ignored { .. } => None,
    });
    given.context("the firmware was given no address")
}

fn answers_to_firmware(lab: &Lab) -> Result<Vec<DhcpAnswer>> {
    let trace = lab.trace(&lab.machines()[0].name)?;
    let answers = trace.events.into_iter().filter_map(|event| {
        let BootEventKind::Dhcp { client: ClientKind::HttpClient, answer, .. } = event.what else {
            return None;
        };
        Some(answer)
    });
    Ok(answers.collect())
}
