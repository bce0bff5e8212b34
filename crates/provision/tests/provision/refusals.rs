//! Refused events, and the words of the refusals.

use provision::event::Heartbeat;
use provision::node::Secret;
use provision::state::PowerTarget;
use provision::{Event, Refused, Verb};
use serde_json::json;
use uuid::Uuid;

use crate::situations::{self, asking, boots, running, waiting};
use crate::world::{World, clean, clean_step, heartbeat, step_failure, steps_reported};

#[test]
fn a_second_agent_with_the_same_token_is_refused() {
    let mut world = asking();
    let token = world.attempt().agent_token.0.clone();

    let copy = heartbeat(&token, "https://192.0.2.66:9999", world.now);
    let refused = world.tries(&copy).unwrap_err();

    assert!(matches!(refused, Refused::SecondAgent { .. }));
    let text = refused.to_string();
    assert!(text.contains("192.0.2.7") && text.contains("192.0.2.66"), "{text}");
    world.happens(world.heartbeat());
}

#[test]
fn an_agent_without_the_first_ones_key_is_refused_at_the_same_address_too() {
    let with_key = |world: &World, key: Option<&str>| {
        let Event::AgentAlive(alive) = world.heartbeat() else { panic!("a heartbeat") };
        let channel_key = key.map(|key| Secret(key.to_owned()));
        Event::AgentAlive(Heartbeat { channel_key, ..alive })
    };
    let mut world = waiting();
    world.happens(with_key(&world, Some("first")));

    for other in [None, Some("second")] {
        let refused = world.tries(&with_key(&world, other)).unwrap_err();
        assert!(matches!(refused, Refused::SecondAgent { .. }), "{refused}");
    }

    world.happens(with_key(&world, Some("first")));
}

#[test]
fn a_wrong_token_is_refused() {
    let mut world = waiting();
    for token in ["", "x", &world.attempt().agent_token.0.replace('1', "2")] {
        let wrong = heartbeat(token, "https://192.0.2.7:9999", world.now);
        let refused = world.tries(&wrong).unwrap_err();
        assert_eq!(refused, Refused::WrongToken(world.node.uuid));
    }
    assert_eq!(world.attempt().agent, None);
}

#[test]
fn the_token_of_an_older_attempt_is_refused() {
    let mut world = situations::failed_and_torn_down();
    let old = world.heartbeat();
    assert!(matches!(world.tries(&old), Err(Refused::NoAgentExpected { .. })));

    world.happens(Event::from(Verb::Manage));
    world.happens(clean(vec![clean_step("erase_devices", 0)]));
    let mut world = boots(world);

    assert_eq!(world.tries(&old), Err(Refused::WrongToken(world.node.uuid)));
}

#[test]
fn nothing_of_an_older_attempt_is_accepted() {
    let old = Uuid::from_u128(0x01D);
    let reason = || "reason".to_owned();
    let command_id = || "command-0".to_owned();
    for (situation, world) in situations::all() {
        for event in [
            Event::Booting { attempt: old },
            Event::BootFailed { attempt: old, reason: reason() },
            steps_reported(old),
            Event::StepStarted { attempt: old, command_id: command_id() },
            Event::StepSucceeded { attempt: old, command_id: command_id() },
            Event::StepFailed { attempt: old, failure: step_failure("") },
            Event::StepStillRuns { attempt: old },
            Event::BootMissed { attempt: old },
            Event::AgentSilent { attempt: old, reason: reason() },
            Event::TornDown { attempt: old },
            Event::TearDownFailed { attempt: old, reason: reason() },
        ] {
            assert!(world.asks(&event).is_err(), "{situation}: {event:?}");
        }
    }
}

#[test]
fn the_result_of_another_command_is_not_taken_for_that_of_the_step() {
    let mut world = running(&["erase_devices_metadata"]);
    let attempt = world.attempt().id;
    let other = Event::StepSucceeded { attempt, command_id: "command-x".into() };
    assert_eq!(world.tries(&other), Err(Refused::Stale));
}

#[test]
fn steps_that_are_reported_twice_do_not_start_the_clean_again() {
    let mut world = running(&["erase_devices_metadata"]);
    let attempt = world.attempt().id;
    assert_eq!(world.tries(&steps_reported(attempt)), Err(Refused::Stale));
}

#[test]
fn an_agent_cannot_disturb_a_boot_or_a_tear_down() {
    for world in [situations::booting(), situations::tearing_down()] {
        let attempt = world.attempt().id;
        for event in [
            Event::StepFailed { attempt, failure: step_failure("late") },
            Event::AgentSilent { attempt, reason: "late".into() },
            Event::StepStarted { attempt, command_id: "late".into() },
        ] {
            assert_eq!(world.asks(&event), Err(Refused::Stale), "{event:?}");
        }
    }
}

#[test]
fn a_manual_clean_needs_steps() {
    let mut world = World::manageable();
    assert_eq!(world.tries(&clean(vec![])), Err(Refused::NoSteps));
}

#[test]
fn a_retired_node_is_not_provided_but_cleaned() {
    let mut world = World::manageable();
    world.node.kept.insert("retired".into(), json!(true));

    let refused = world.tries(&Event::from(Verb::Provide)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the providing operation can't be performed on node \
         00000000-0000-0000-0000-00000000a0de because it is retired"
    );
    world.happens(clean(vec![clean_step("erase_devices", 0)]));
}

#[test]
fn a_node_in_maintenance_is_provided_but_not_cleaned_by_hand() {
    let mut world = World::manageable();
    world.node.maintenance = true;

    let refused = world.tries(&clean(vec![clean_step("erase_devices", 0)])).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the cleaning operation can't be performed on node 00000000-0000-0000-0000-00000000a0de \
         because it's in maintenance mode"
    );
    world.happens(Event::from(Verb::Provide));
}

#[test]
fn a_machine_whose_power_must_stay_on_is_neither_switched_off_nor_cleaned() {
    let mut world = World::manageable();
    world.node.kept.insert("disable_power_off".into(), json!(true));

    let off =
        [PowerTarget::Off, PowerTarget::Reboot, PowerTarget::SoftOff, PowerTarget::SoftReboot];
    for target in off {
        assert_eq!(world.tries(&Event::PowerAsked(target)), Err(Refused::StaysOn(target)));
    }
    let uuid = world.node.uuid;
    for clean in [Event::from(Verb::Provide), clean(vec![clean_step("erase_devices", 0)])] {
        assert_eq!(
            world.tries(&clean),
            Err(Refused::PowersOff { operation: "cleaning", node: uuid })
        );
    }
    world.node.automated_clean = Some(false);
    world.happens(Event::from(Verb::Provide));
    world.happens(Event::PowerAsked(PowerTarget::On));
}

#[test]
fn what_went_wrong_before_is_forgotten_when_a_node_is_provided() {
    for automated_clean in [true, false] {
        let mut world = World::manageable();
        world.node.last_error = Some("the BMC was away".into());
        world.node.automated_clean = Some(automated_clean);

        world.happens(Event::from(Verb::Provide));

        assert_eq!(world.node.last_error, None);
    }
}

#[test]
fn the_power_of_a_machine_that_is_cleaned_is_left_alone_in_ironics_words() {
    let mut world = waiting();
    let refused = world.tries(&Event::PowerAsked(PowerTarget::Off)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the requested action \"power off\" can not be performed on node \
         \"00000000-0000-0000-0000-00000000a0de\" while it is in state \"clean wait\""
    );
}

#[test]
fn a_verb_out_of_place_is_refused_in_ironics_words() {
    let mut world = World::enrolled();
    let refused = world.tries(&Event::from(Verb::Provide)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the requested action \"provide\" can not be performed on node \
         \"00000000-0000-0000-0000-00000000a0de\" while it is in state \"enroll\""
    );
}
