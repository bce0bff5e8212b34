//! Hardware as racks have it.

use ferroboot::lab::disk;
use ferroboot::lab::machine::Machine;

use crate::story::{Fetched as _, Verbs as _, in_a_lab, with};

#[test]
fn an_intel_card_beside_one_that_leads_nowhere_and_a_disk_on_ahci_are_no_obstacle() {
    let plan = with([Machine::new(1).like_a_rack_server()]);
    in_a_lab(plan, |lab| {
        let machine = lab.machines()[0].clone();
        lab.enroll(&machine)?;
        lab.manage(&machine)?;

        for boot_interface in ["redfish-https", "http"] {
            disk::make_used(&lab.disk(&machine))?;
            lab.boot_by(&machine, boot_interface)?;
            lab.clean(&machine)?;

            let fetched = lab.trace(&machine.name)?.fetched_by_firmware();
            assert!(fetched.is_some(), "{boot_interface}: the firmware itself fetches the image");
            assert!(disk::signatures(&lab.disk(&machine))?.is_empty(), "{boot_interface}");
        }
        Ok(())
    });
}
