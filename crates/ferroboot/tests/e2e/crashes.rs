//! The daemon is killed and started again: the result is the same, and nothing is done twice.

use anyhow::Result;
use ferroboot::lab::machine::LabMachine;
use ferroboot::lab::{BMC, Lab, disk};
use provision::BootEventKind;
use provision::trace::AgentCall;

use crate::proxy::Proxy;
use crate::story::{Verbs as _, in_a_lab, with};

/// The agent's console line after the step.
const DONE: &str = "clean step \"erase_devices_metadata\" is done";

#[test]
#[ignore = "one of the full matrix, and the same with another daemon is in daemons.rs: make test-lab"]
fn killed_between_override_and_reset_it_goes_on_with_one_power_cycle() {
    let plan = with([LabMachine::new(1)]);
    in_a_lab(plan, |lab| {
        let (machine, bmc) = behind_a_proxy(lab)?;
        bmc.hold_answers_to("PATCH");
        lab.begin_to_clean(&machine)?;
        bmc.wait_for("PATCH")?;

        lab.kill_daemon()?;
        bmc.let_go();
        lab.start_daemon()?;

        lab.wait_for_state(&machine, "manageable")?;
        cleaned_once(lab, &machine, &bmc)
    });
}

#[test]
#[ignore = "one of the full matrix: make test-lab"]
fn killed_while_it_waits_for_the_agent_it_leaves_the_machine_alone() {
    let plan = with([LabMachine::new(1)]);
    in_a_lab(plan, |lab| {
        let (machine, bmc) = behind_a_proxy(lab)?;
        lab.begin_to_clean(&machine)?;
        lab.wait_for_event(&machine, "fetch of its ramdisk", is_whole_fetch)?;
        assert_eq!(lab.state(&machine)?, "clean wait");

        lab.kill_daemon()?;
        lab.start_daemon()?;

        lab.wait_for_state(&machine, "manageable")?;
        cleaned_once(lab, &machine, &bmc)
    });
}

#[test]
#[ignore = "takes the minutes that a kernel is given to come up: make test-lab"]
fn killed_while_the_firmware_fetches_it_boots_the_machine_again() {
    let plan = with([LabMachine::new(1)]);
    in_a_lab(plan, |lab| {
        let (machine, bmc) = behind_a_proxy(lab)?;
        lab.begin_to_clean(&machine)?;
        // The machine requests the image's size, and then fetches it at once.
        lab.wait_for_event(&machine, "request", |what| matches!(what, BootEventKind::Http { .. }))?;

        lab.kill_daemon()?;
        lab.start_daemon()?;

        lab.wait_for_state(&machine, "manageable")?;
        assert_eq!(bmc.resets("On"), 2, "the first boot could not succeed");
        agent_ran_the_step_once(lab, &machine)
    });
}

#[test]
fn killed_after_the_agents_first_call_it_sends_no_step_a_second_time() {
    let plan = with([LabMachine::new(1)]);
    in_a_lab(plan, |lab| {
        let (machine, bmc) = behind_a_proxy(lab)?;
        lab.begin_to_clean(&machine)?;
        lab.wait_for_event(&machine, "heartbeat", is_heartbeat)?;

        lab.kill_daemon()?;
        lab.start_daemon()?;

        lab.wait_for_state(&machine, "manageable")?;
        cleaned_once(lab, &machine, &bmc)
    });
}

pub(crate) fn is_whole_fetch(what: &BootEventKind) -> bool {
    matches!(what, BootEventKind::Http { method, sent, length, .. } if method.as_str() == "GET" && sent == length)
}

pub(crate) fn is_heartbeat(what: &BootEventKind) -> bool {
    matches!(what, BootEventKind::Agent { call: AgentCall::Heartbeat, .. })
}

pub(crate) fn behind_a_proxy(lab: &Lab) -> Result<(LabMachine, Proxy)> {
    let bmc = Proxy::before(BMC)?;
    let machine = lab.machines()[0].clone();
    for line in machine.enrolment_at(bmc.address) {
        lab.baremetal(&line)?;
    }
    lab.manage(&machine)?;
    Ok((machine, bmc))
}

pub(crate) fn cleaned_once(lab: &Lab, machine: &LabMachine, bmc: &Proxy) -> Result<()> {
    let restarts = bmc.resets("ForceRestart") + bmc.resets("GracefulRestart");
    assert_eq!((bmc.resets("On"), restarts), (1, 0), "the machine is switched on once");
    agent_ran_the_step_once(lab, machine)
}

fn agent_ran_the_step_once(lab: &Lab, machine: &LabMachine) -> Result<()> {
    let ran = lab.console(machine)?.matches(DONE).count();
    assert_eq!(ran, 1, "the agent runs the step once");
    assert!(disk::signatures(&lab.disk(machine))?.is_empty());
    Ok(())
}
