//! The main job: enroll → manageable → cleaned on every path → available.

use ferroboot::lab::disk;
use ferroboot::lab::machine::LabMachine;

use crate::story::{Fetched as _, Verbs as _, in_a_lab, with};

#[test]
fn a_node_is_cleaned_on_every_path_and_provided() {
    let plan = with([LabMachine::new(1), LabMachine::new(2)]);
    in_a_lab(plan, |lab| {
        let [machine, other] = [0, 1].map(|number| lab.machines()[number].clone());
        let disk_of_other = disk::digest(&lab.disk(&other))?;
        lab.enroll(&machine)?;
        lab.enroll(&other)?;
        lab.manage(&machine)?;

        for (boot_interface, known_as, first) in [
            ("redfish-http-url", "redfish-https", "boot.iso"),
            ("httpboot", "http", "bootx64.efi"),
            ("http-ipxe", "http-ipxe", "snponly.efi"),
        ] {
            disk::make_used(&lab.disk(&machine))?;
            lab.boot_by(&machine, boot_interface)?;
            lab.clean(&machine)?;

            assert_eq!(lab.node(&machine.name)?["boot_interface"], known_as);
            assert_eq!(lab.state(&machine)?, "manageable");
            let trace = lab.trace(&machine.name)?;
            assert_eq!(trace.fetched_by_firmware().as_deref(), Some(first), "{boot_interface}");
            assert_eq!(trace.diagnosis, None);
            let left = disk::signatures(&lab.disk(&machine))?;
            assert!(left.is_empty(), "{boot_interface} left {left:?} on the disk");
        }

        disk::make_used(&lab.disk(&machine))?;
        lab.provide(&machine)?;

        assert_eq!(lab.state(&machine)?, "available");
        assert!(disk::signatures(&lab.disk(&machine))?.is_empty());
        assert_eq!(disk::digest(&lab.disk(&other))?, disk_of_other, "another machine's disk");
        Ok(())
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn a_node_is_cleaned_from_the_virtual_cd_of_its_bmc() {
    let plan = with([LabMachine::new(1)]);
    in_a_lab(plan, |lab| {
        let machine = lab.machines()[0].clone();
        lab.enroll(&machine)?;
        lab.manage(&machine)?;
        disk::make_used(&lab.disk(&machine))?;
        lab.boot_by(&machine, "redfish-virtual-media")?;

        lab.clean(&machine)?;

        assert_eq!(lab.state(&machine)?, "manageable");
        let trace = lab.trace(&machine.name)?;
        assert_eq!(trace.fetched(), ["boot.iso"]);
        assert_eq!(trace.fetched_by_firmware(), None, "the BMC reads the image");
        assert_eq!(trace.diagnosis, None);
        let left = disk::signatures(&lab.disk(&machine))?;
        assert!(left.is_empty(), "left {left:?} on the disk");
        Ok(())
    });
}

#[test]
fn grub_fetches_its_configuration_and_the_ramdisk_over_http() {
    let mut plan = with([LabMachine::new(1)]);
    plan.settings = "[boot]\nhttp_loader = \"grub\"\n".to_owned();
    in_a_lab(plan, |lab| {
        let machine = lab.machines()[0].clone();
        lab.enroll(&machine)?;
        lab.manage(&machine)?;
        lab.boot_by(&machine, "http")?;

        lab.clean(&machine)?;

        let fetched = lab.trace(&machine.name)?.fetched();
        assert_eq!(fetched, ["bootx64.efi", "grub.cfg", "kernel", "initramfs"]);
        assert!(disk::signatures(&lab.disk(&machine))?.is_empty());
        Ok(())
    });
}
