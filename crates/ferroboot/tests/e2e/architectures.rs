//! Machines that are not x86-64.

use ferroboot::lab::disk;
use ferroboot::lab::machine::LabMachine;

use crate::https::{SETTINGS, handshakes};
use crate::story::{Fetched as _, Verbs as _, in_a_lab, measured, with};

#[test]
#[ignore = "needs an arm64 boot set and QEMU for it: make test-lab"]
fn an_arm64_machine_boots_by_dhcp_and_by_its_bmc_from_a_boot_set_of_its_own() {
    let plan = with([LabMachine::new(1).for_arm64()]);
    in_a_lab(plan, |lab| {
        let machine = lab.machines()[0].clone();
        lab.enroll(&machine)?;
        lab.manage(&machine)?;

        for (boot_interface, image) in [("http", "bootaa64.efi"), ("redfish-https", "boot.iso")] {
            lab.boot_by(&machine, boot_interface)?;
            lab.clean(&machine)?;

            let trace = lab.trace(&machine.name)?;
            eprintln!("measured: {boot_interface}: {}", measured(&trace));
            assert_eq!(trace.fetched_by_firmware().as_deref(), Some(image));
            assert!(disk::signatures(&lab.disk(&machine))?.is_empty());
            disk::make_used(&lab.disk(&machine))?;
        }
        Ok(())
    });
}

#[test]
#[ignore = "needs an arm64 boot set and QEMU for it: make test-lab"]
fn an_arm64_machine_boots_over_https_by_dhcp_and_by_its_bmc() {
    let mut plan = with([LabMachine::new(1).for_arm64()]);
    plan.settings = format!("{SETTINGS}[tls]\nold_firmware = true\n");
    in_a_lab(plan, |lab| {
        let machine = lab.machines()[0].clone();
        lab.enroll(&machine)?;
        lab.manage(&machine)?;

        for (boot_interface, image) in [("http", "bootaa64.efi"), ("redfish-https", "boot.iso")] {
            lab.boot_by(&machine, boot_interface)?;
            lab.clean(&machine)?;

            let trace = lab.trace(&machine.name)?;
            eprintln!("measured: {boot_interface}: {}, {:?}", measured(&trace), handshakes(&trace));
            assert_eq!(trace.fetched_by_firmware().as_deref(), Some(image));
            assert!(!handshakes(&trace).is_empty(), "over TLS");
            assert!(disk::signatures(&lab.disk(&machine))?.is_empty());
            disk::make_used(&lab.disk(&machine))?;
        }
        Ok(())
    });
}
