//! Every situation that a node can be in, as far as `step` tells them apart; each is reached by
//! events alone.

use provision::{Event, PowerState};

use crate::world::{World, clean_step, steps_reported};

/// All of them, in the order of a node's life.
pub(crate) fn all() -> Vec<(&'static str, World)> {
    vec![
        ("enroll", World::enrolled()),
        ("verifying", verifying()),
        ("manageable", World::manageable()),
        ("available", available()),
        ("cleaning (booting)", booting()),
        ("clean wait (for the agent)", waiting()),
        ("clean wait (steps asked for)", asking()),
        ("cleaning (sending a step)", sending(&["erase_devices_metadata"])),
        ("clean wait (last step)", running(&["erase_devices_metadata"])),
        ("clean wait (step, then reboot)", running(&["update_firmware", "erase_devices"])),
        ("cleaning (tearing down)", tearing_down()),
        ("clean failed (tearing down)", failed()),
        ("clean failed", failed_and_torn_down()),
        ("manageable (tearing down)", forgiven()),
    ]
}

pub(crate) fn verifying() -> World {
    let mut world = World::enrolled();
    world.happens(Event::Manage);
    world
}

pub(crate) fn available() -> World {
    let mut world = World::manageable();
    world.node.automated_clean = Some(false);
    world.happens(Event::Provide);
    world.node.automated_clean = None;
    world
}

pub(crate) fn booting() -> World {
    cleaning(&["erase_devices_metadata"])
}

pub(crate) fn cleaning(steps: &[&str]) -> World {
    let mut world = World::manageable();
    world.happens(Event::Clean(steps.iter().map(|name| clean_step(name, 0)).collect()));
    world
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
    world.happens(Event::Abort);
    world
}

pub(crate) fn failed_and_torn_down() -> World {
    let mut world = failed();
    let attempt = world.attempt().id;
    world.is_done(Event::TornDown { attempt });
    world
}

/// The operator was quicker than the tear-down.
pub(crate) fn forgiven() -> World {
    let mut world = failed();
    world.happens(Event::Manage);
    assert_eq!(world.node.power_state, Some(PowerState::On));
    world
}
