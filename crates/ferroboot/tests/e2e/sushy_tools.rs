//! Cleans on sushy-tools' emulator, whose libvirt driver keeps one permanent boot device: real firmware of a machine of
//! libvirt.

mod emulator;

use anyhow::{Context as _, Result};
use ferroboot::lab::machine::LabMachine;
use ferroboot::lab::{Lab, Plan, disk};
use hardware::{BootWayKind, RedfishPurpose};
use provision::BootEventKind;

use self::emulator::{CardRom, SushyEmulator};
use crate::story::{Fetched as _, Verbs as _, in_a_lab, measured, with};

fn machines(count: u8) -> Plan {
    let mut plan = with((1..=count).map(LabMachine::new));
    plan.own_bmc = false;
    plan
}

/// Creates the machine's node, which boots by `interface`.
fn register(lab: &Lab, machine: &LabMachine, interface: &str) -> Result<()> {
    lab.enroll(machine)?;
    // Its name would do, but is redirected with each request.
    let system = format!("/redfish/v1/Systems/{}", machine.uuid());
    lab.set_driver_info(machine, "redfish_system_id", &system)?;
    lab.manage(machine)?;
    lab.boot_by(machine, interface)
}

/// What is seen after a clean: the disk is wiped, the way was the expected one, and the machine boots from its disk.
fn has_been_cleaned(
    lab: &Lab,
    emulator: &SushyEmulator,
    machine: &LabMachine,
    expected: BootWayKind,
) -> Result<()> {
    assert_eq!(lab.state(machine)?, "manageable");
    assert!(disk::signatures(&lab.disk(machine))?.is_empty());
    let trace = lab.trace(&machine.name)?;
    assert_eq!(trace.diagnosis, None);
    let ways = trace.events.iter().filter_map(|event| {
        let BootEventKind::BootWay { way, .. } = &event.what else { return None };
        Some(*way)
    });
    assert_eq!(ways.collect::<Vec<_>>(), [expected]);
    let show =
        ["node", "boot", "device", "show", &machine.name, "-f", "value", "-c", "boot_device"];
    assert_eq!(lab.baremetal(&show)?, "disk");
    let definition = emulator.definition(machine)?;
    assert!(!definition.contains("cdrom"), "{definition}");
    Ok(())
}

/// Cleans the only machine by `interface`. Returns the files that were fetched.
fn is_cleaned(
    lab: &Lab,
    rom: CardRom,
    interface: &str,
    expected: BootWayKind,
) -> Result<Vec<String>> {
    let emulator = SushyEmulator::start(lab, rom)?;
    let machine = &lab.machines()[0];
    register(lab, machine, interface)?;
    let before = emulator.requests()?;

    lab.clean(machine)?;

    let requests = emulator.requests()? - before;
    has_been_cleaned(lab, &emulator, machine, expected)?;
    let trace = lab.trace(&machine.name)?;
    let (first, last) = trace.events.first().zip(trace.events.last()).context("an empty trace")?;
    let seconds = last.at.duration_since(first.at).as_secs_f64();
    eprintln!(
        "measured: {}; {seconds:.1} s and {requests} requests to the BMC in all",
        measured(&trace)
    );
    Ok(trace.fetched())
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn http_boots_ipxe_in_the_rom_of_the_card() {
    in_a_lab(machines(1), |lab| {
        let fetched = is_cleaned(lab, CardRom::Ipxe, "http", BootWayKind::UefiHttp)?;
        assert_eq!(fetched, ["boot.ipxe", "kernel", "initramfs"]);
        Ok(())
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn http_boots_by_the_firmware_after_pxe_where_the_card_has_no_rom() {
    in_a_lab(machines(1), |lab| {
        let fetched = is_cleaned(lab, CardRom::Absent, "http", BootWayKind::UefiHttp)?;
        assert_eq!(fetched, ["bootx64.efi"]);
        Ok(())
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn redfish_virtual_media_boots_the_virtual_cd() {
    in_a_lab(machines(1), |lab| {
        let way = BootWayKind::VirtualMedia;
        let fetched = is_cleaned(lab, CardRom::Ipxe, "redfish-virtual-media", way)?;
        assert_eq!(fetched, ["boot.iso"]);
        Ok(())
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn redfish_https_boots_what_the_bmc_has_fetched() {
    in_a_lab(machines(1), |lab| {
        let fetched = is_cleaned(lab, CardRom::Ipxe, "redfish-https", BootWayKind::HttpBootUri)?;
        assert_eq!(fetched, ["boot.iso"]);
        Ok(())
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn two_machines_are_cleaned_at_once_though_the_emulator_has_one_http_boot_uri() {
    in_a_lab(machines(2), |lab| {
        let emulator = SushyEmulator::start(lab, CardRom::Ipxe)?;
        for machine in lab.machines() {
            register(lab, machine, "redfish-https")?;
        }

        for machine in lab.machines() {
            lab.begin_to_clean(machine)?;
        }

        for machine in lab.machines() {
            lab.wait_for_state(machine, "manageable")?;
            has_been_cleaned(lab, &emulator, machine, BootWayKind::HttpBootUri)?;
        }
        Ok(())
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn nothing_is_left_of_a_clean_that_is_aborted() {
    in_a_lab(machines(1), |lab| {
        let emulator = SushyEmulator::start(lab, CardRom::Ipxe)?;
        let machine = &lab.machines()[0];
        register(lab, machine, "redfish-https")?;
        lab.begin_to_clean(machine)?;
        lab.wait_for_event(machine, "power-on", |what| {
            matches!(what, BootEventKind::Redfish { purpose: RedfishPurpose::PowerOn, .. })
        })?;
        lab.wait_for_state(machine, "clean wait")?;
        assert!(emulator.definition(machine)?.contains("cdrom"));

        lab.baremetal(&["node", "abort", &machine.name])?;

        lab.wait_for_state(machine, "clean failed")?;
        let empty = lab.wait_until(|| {
            let definition = emulator.definition(machine)?;
            Ok((!definition.contains("cdrom")).then_some(()))
        })?;
        empty.context("the image is still in the drive")
    });
}
