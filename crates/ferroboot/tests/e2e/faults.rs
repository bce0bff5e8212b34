//! Failing boots, and their traces.

use ferroboot::lab::BMC;
use ferroboot::lab::machine::LabMachine;

use crate::proxy::Proxy;
use crate::story::{Verbs as _, in_a_lab, with};

#[test]
fn a_url_that_answers_404_is_named() {
    let plan = with([LabMachine::new(1)]);
    in_a_lab(plan, |lab| {
        // A BMC that gives its firmware another URL than the requested one.
        let bmc = Proxy::before(BMC)?;
        bmc.rewrite("boot.iso", "boot.isx");
        let machine = lab.machines()[0].clone();
        for line in machine.enrolment_at(bmc.address) {
            lab.baremetal(&line)?;
        }
        lab.manage(&machine)?;

        lab.begin_to_clean(&machine)?;

        let said = lab.wait_for_diagnosis(&machine, "404")?;
        assert!(said.contains("boot.isx"), "{said}");
        Ok(())
    });
}

#[test]
fn a_wrong_mac_address_on_the_port_is_named_by_the_one_that_asks() {
    let plan = with([LabMachine::new(1)]);
    in_a_lab(plan, |lab| {
        let machine = lab.machines()[0].clone();
        let (mac, slip) = (machine.mac(), machine.mac().replace("fb", "f8"));
        for mut line in machine.enrolment() {
            line.iter_mut().filter(|word| **word == mac).for_each(|word| slip.clone_into(word));
            lab.baremetal(&line)?;
        }
        lab.boot_by(&machine, "http")?;
        lab.manage(&machine)?;

        lab.begin_to_clean(&machine)?;

        let said = lab.wait_for_diagnosis(&machine, "is that this machine?")?;
        let named = format!("{mac}, no port of any node but nearly {slip}, asked for ");
        assert!(said.contains(&named), "{said}");
        assert!(said.contains(" on lab0 "), "{said}");
        Ok(())
    });
}

#[test]
fn a_ramdisk_whose_agent_never_calls_is_told_from_one_that_was_never_fetched() {
    let plan = with([LabMachine::new(1)]);
    in_a_lab(plan, |lab| {
        let machine = lab.machines()[0].clone();
        lab.enroll(&machine)?;
        lab.set_driver_info(&machine, "kernel_append_params", "rdinit=/nothing console=ttyS0")?;
        lab.manage(&machine)?;

        lab.begin_to_clean(&machine)?;

        lab.wait_for_diagnosis(&machine, "the ramdisk was fetched but the agent never called")?;
        assert_eq!(lab.state(&machine)?, "clean wait", "long before the call-back time-out");
        assert!(lab.console(&machine)?.contains("Kernel panic"));
        Ok(())
    });
}

#[test]
fn a_bmc_that_refuses_the_override_is_quoted_and_its_machine_not_switched_on() {
    let plan = with([LabMachine::new(1).refusing_boot_overrides()]);
    in_a_lab(plan, |lab| {
        let machine = lab.machines()[0].clone();
        lab.enroll(&machine)?;
        lab.manage(&machine)?;

        lab.begin_to_clean(&machine)?;

        lab.wait_for_state(&machine, "clean failed")?;
        let said = lab.wait_for_diagnosis(&machine, "the BMC refused the boot override")?;
        assert!(said.contains("400"), "{said}");
        assert!(lab.console(&machine).is_err(), "the machine was switched on");
        Ok(())
    });
}
