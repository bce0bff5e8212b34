//! A site behind a router with NAT: nobody can call its machines, and they share one address.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use ferroboot::lab::firmware::OvmfBuild;
use ferroboot::lab::machine::LabMachine;
use ferroboot::lab::neighbour::{BMC_BEHIND_NAT, Neighbour, OUTSIDE};
use ferroboot::lab::{Lab, Plan};
use provision::BootEventKind;
use provision::trace::AgentOutcome;

use crate::story::{Fetched as _, Verbs as _, checkout, in_a_lab, with};

const PLAIN: &str = "[boot]\nurl = \"http://10.77.0.1:8080\"\n";
const HTTPS: &str = "[boot]\nurl = \"https://10.77.0.1:8443\"\nlisten = \"https://[::]:8443\"\n\
                     [agent]\nlisten = \"https://[::]:6386\"\n";

fn behind_nat(machines: impl IntoIterator<Item = LabMachine>, settings: &str) -> Plan {
    let settings = settings.to_owned();
    Plan { neighbour: Some(Neighbour::Nat), settings, ..with(machines) }
}

#[test]
fn a_machine_behind_nat_boots_by_the_dhcp_server_of_its_site() {
    in_a_lab(behind_nat([LabMachine::new(1)], PLAIN), |lab| {
        is_cleaned_through_nat(lab, "http", "bootx64.efi")
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn a_machine_behind_nat_boots_by_its_bmc() {
    in_a_lab(behind_nat([LabMachine::new(1)], PLAIN), |lab| {
        is_cleaned_through_nat(lab, "redfish-https", "boot.iso")
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn a_machine_behind_nat_boots_over_https_and_its_agent_fetches_its_commands_over_tls() {
    let firmware = OvmfBuild::V2026_08.firmware(&checkout());
    let machine = LabMachine::new(1).with_firmware(firmware);
    in_a_lab(behind_nat([machine], HTTPS), |lab| {
        is_cleaned_through_nat(lab, "http", "bootx64.efi")
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn machines_behind_one_address_are_cleaned_at_once_by_dhcp_and_by_their_bmc() {
    in_a_lab(behind_nat([1, 2, 3].map(LabMachine::new), PLAIN), |lab| {
        enrol(lab, "http")?;
        let machines = lab.machines();
        lab.boot_by(&machines[2], "redfish-https")?;

        for machine in machines {
            lab.begin_to_clean(machine)?;
        }

        for machine in machines {
            lab.wait_for_event(machine, "accepted heartbeat", |what| alive(what).is_some())?;
            lab.wait_for_state(machine, "manageable")?;
        }
        for (machine, first) in machines.iter().zip(["bootx64.efi", "bootx64.efi", "boot.iso"]) {
            came_through_nat(lab, machine, first)?;
        }
        Ok(())
    });
}

/// Enrolls all machines with their BMC's forwarded port.
fn enrol(lab: &Lab, boot_interface: &str) -> Result<()> {
    for machine in lab.machines() {
        for line in machine.enrolment_at(BMC_BEHIND_NAT) {
            lab.baremetal(&line)?;
        }
        lab.manage(machine)?;
        lab.boot_by(machine, boot_interface)?;
    }
    Ok(())
}

/// Cleans the only machine, whose firmware fetches `first`.
fn is_cleaned_through_nat(lab: &Lab, boot_interface: &str, first: &str) -> Result<()> {
    enrol(lab, boot_interface)?;
    let machine = &lab.machines()[0];
    lab.clean(machine)?;
    came_through_nat(lab, machine, first)
}

/// Checks that the firmware fetched `first`, that all fetches came from the router, and that the agent, whose address
/// leads nowhere here, fetched its commands.
fn came_through_nat(lab: &Lab, machine: &LabMachine, first: &str) -> Result<()> {
    let trace = lab.trace(&machine.name)?;
    assert_eq!(trace.fetched_by_firmware().as_deref(), Some(first));
    let remotes = trace.events.iter().filter_map(|event| fetched_from(&event.what));
    assert_eq!(remotes.collect::<BTreeSet<_>>(), BTreeSet::from([OUTSIDE]));
    let alive = trace.events.iter().find_map(|event| alive(&event.what));
    let (callback_url, fetches_calls) = alive.context("no heartbeat was accepted")?;
    ensure!(callback_url.contains("//10.78.0."), "the agent is at {callback_url}");
    ensure!(fetches_calls, "the agent was called");
    assert_eq!(trace.diagnosis, None);
    Ok(())
}

fn fetched_from(what: &BootEventKind) -> Option<IpAddr> {
    if let BootEventKind::Http { remote, .. } = what {
        return remote.map(|remote| remote.to_canonical());
    }
    None
}

fn alive(what: &BootEventKind) -> Option<(&str, bool)> {
    if let BootEventKind::Agent {
        outcome: AgentOutcome::Alive { callback_url, fetches_calls, .. },
        ..
    } = what
    {
        return Some((callback_url, *fetches_calls));
    }
    None
}
