//! All situations of a node that `step` distinguishes; each is reached by events alone.

use provision::steps::ProcedureStep;
use provision::{BmcStep, Event, PowerState, Verb};
use uuid::Uuid;

use crate::world::{World, clean, clean_step, steps_reported};

/// All situations, in the order of a node's life.
pub(crate) fn all() -> Vec<(&'static str, World)> {
    vec![
        ("enroll", World::enrolled()),
        ("verifying", verifying()),
        ("manageable", World::manageable()),
        ("available", available()),
        ("cleaning (booting)", booting()),
        ("cleaning (at the BMC)", at_bmc_step()),
        ("clean wait (for the agent)", waiting()),
        ("clean wait (steps asked for)", asking()),
        ("cleaning (sending a step)", sending(&["erase_devices_metadata"])),
        ("clean wait (last step)", running(&["erase_devices_metadata"])),
        ("clean wait (step, then reboot)", running(&["update_firmware", "erase_devices"])),
        ("cleaning (tearing down)", tearing_down()),
        ("clean failed (tearing down)", failed()),
        ("clean failed", failed_and_torn_down()),
        ("manageable (tearing down)", forgiven()),
        ("deploying (booting)", deploying()),
        ("deploying (image fetched)", deploying_fetched()),
        ("wait call-back", deploy_waiting()),
        ("deploy failed (tearing down)", deploy_failed()),
        ("deploy failed", deploy_failed_and_torn_down()),
        ("active", active()),
        ("active (booting again)", active_again()),
        ("deleting", deleting()),
        ("error", undeploy_failed()),
    ]
}

pub(crate) fn verifying() -> World {
    let mut world = World::enrolled();
    world.happens(Event::from(Verb::Manage));
    world
}

pub(crate) fn available() -> World {
    let mut world = World::manageable();
    world.node.automated_clean = Some(false);
    world.happens(Event::from(Verb::Provide));
    world.node.automated_clean = None;
    world
}

pub(crate) fn booting() -> World {
    cleaning(&["erase_devices_metadata"])
}

pub(crate) fn cleaning(steps: &[&str]) -> World {
    let mut world = World::manageable();
    world.happens(clean(steps.iter().map(|name| clean_step(name, 0)).collect()));
    world
}

/// A step of the daemon's own, before the ramdisk boots for the next.
pub(crate) fn at_bmc_step() -> World {
    let mut world = World::manageable();
    world.happens(clean(vec![http_boot_step(), clean_step("erase_devices_metadata", 0)]));
    world
}

/// `bios.enable_http_boot`
pub(crate) fn http_boot_step() -> ProcedureStep {
    ProcedureStep { priority: 0, ..BmcStep::automated_http_boot(0) }
}

pub(crate) fn waiting() -> World {
    boots(booting())
}

pub(crate) fn boots(mut world: World) -> World {
    let attempt = world.attempt().id;
    world.is_done(Event::Booting { attempt });
    world
}

pub(crate) fn asking() -> World {
    let mut world = waiting();
    world.happens(world.heartbeat());
    world
}

/// The first of these steps is about to be sent.
pub(crate) fn sending(steps: &[&str]) -> World {
    let mut world = boots(cleaning(steps));
    world.happens(world.heartbeat());
    let attempt = world.attempt().id;
    world.is_done(steps_reported(attempt));
    world
}

/// The first of these steps runs as the agent's command `command-0`.
pub(crate) fn running(steps: &[&str]) -> World {
    let mut world = sending(steps);
    let attempt = world.attempt().id;
    world.is_done(Event::StepStarted { attempt, command_id: "command-0".to_owned() });
    world
}

pub(crate) fn tearing_down() -> World {
    let mut world = running(&["erase_devices_metadata"]);
    let attempt = world.attempt().id;
    world.happens(Event::StepSucceeded { attempt, command_id: "command-0".to_owned() });
    world
}

pub(crate) fn failed() -> World {
    let mut world = waiting();
    world.happens(Event::from(Verb::Abort));
    world
}

pub(crate) fn failed_and_torn_down() -> World {
    let mut world = failed();
    let attempt = world.attempt().id;
    world.is_done(Event::TornDown { attempt });
    world
}

pub(crate) fn deploying() -> World {
    let mut world = available();
    world.happens(Verb::Deploy);
    world
}

fn deploying_fetched() -> World {
    let mut world = deploying();
    let attempt = world.attempt().id;
    world.happens(Event::ImageFetched { attempt });
    world
}

pub(crate) fn deploy_waiting() -> World {
    boots(deploying())
}

fn deploy_failed() -> World {
    let mut world = deploy_waiting();
    world.happens(Verb::Abort);
    world
}

pub(crate) fn deploy_failed_and_torn_down() -> World {
    let mut world = deploy_failed();
    let attempt = world.attempt().id;
    world.is_done(Event::TornDown { attempt });
    world
}

pub(crate) fn active() -> World {
    let mut world = deploy_waiting();
    let attempt = world.attempt().id;
    world.happens(Event::ImageFetched { attempt });
    world
}

/// The machine has rebooted by itself.
pub(crate) fn active_again() -> World {
    let mut world = active();
    let attempt = world.attempt().id;
    world.happens(Event::InstanceBoots { attempt, next: Uuid::from_u128(0xB007) });
    world
}

pub(crate) fn deleting() -> World {
    let mut world = active();
    world.happens(Verb::Undeploy);
    world
}

fn undeploy_failed() -> World {
    let mut world = deleting();
    let attempt = world.attempt().id;
    world.is_done(Event::TearDownFailed { attempt, reason: "the BMC is away".into() });
    world
}

/// The operator was faster than the tear-down.
pub(crate) fn forgiven() -> World {
    let mut world = failed();
    world.happens(Event::from(Verb::Manage));
    assert_eq!(world.node.power_state, Some(PowerState::On));
    world
}
