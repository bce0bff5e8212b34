//! Hardware of rack servers.

use ferroboot::lab::disk;
use ferroboot::lab::machine::LabMachine;

use crate::story::{Fetched as _, Verbs as _, in_a_lab, with};

#[test]
fn an_intel_card_beside_one_that_leads_nowhere_and_a_disk_on_ahci_are_no_obstacle() {
    let plan = with([LabMachine::new(1).like_a_rack_server()]);
    in_a_lab(plan, |lab| {
        let machine = lab.machines()[0].clone();
        lab.enroll(&machine)?;
        lab.manage(&machine)?;

        lab.boot_by(&machine, "http")?;

        lab.clean(&machine)?;

        let fetched = lab.trace(&machine.name)?.fetched_by_firmware();
        assert_eq!(fetched.as_deref(), Some("bootx64.efi"));
        assert!(disk::signatures(&lab.disk(&machine))?.is_empty());
        Ok(())
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn the_bmc_wins_over_ipxe_in_the_rom_of_the_card() {
    let plan = with([LabMachine::new(1).like_a_rack_server()]);
    in_a_lab(plan, |lab| {
        let machine = lab.machines()[0].clone();
        lab.enroll(&machine)?;
        lab.manage(&machine)?;

        lab.clean(&machine)?;

        // OVMF has no driver for this card, and first starts the program in its ROM.
        let fetched = lab.trace(&machine.name)?.fetched_by_firmware();
        assert_eq!(fetched.as_deref(), Some("boot.iso"));
        assert!(disk::signatures(&lab.disk(&machine))?.is_empty());
        Ok(())
    });
}
