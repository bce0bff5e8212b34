//! Complete cleans, from the operator's call to the node at rest.

use jiff::SignedDuration;
use provision::event::Silence;
use provision::state::PowerTarget;
use provision::steps::ProcedureStep;
use provision::{BootEventKind, Event, PowerState, ProvisionState as State, Refused, Verb, Work};

use crate::situations::{self, boots, cleaning, http_boot_step, running, waiting};
use crate::world::{World, clean, clean_step, step_failure, steps_reported};

#[test]
fn a_manual_clean_ends_where_it_began() {
    let mut world = cleaning(&["erase_devices_metadata"]);
    let attempt = world.attempt().id;
    assert_eq!(world.planned, Some(Work::Boot { attempt }));
    assert_eq!(world.node.target_provision_state, Some(State::Manageable));

    world.is_done(Event::Booting { attempt });
    assert_eq!(world.node.provision_state, State::CleanWait);
    world.happens(world.lookup());
    world.happens(world.heartbeat());
    assert_eq!(world.planned, Some(Work::AskSteps { attempt }));

    world.is_done(steps_reported(attempt));
    assert_eq!(world.planned, Some(Work::RunStep { attempt, index: 0 }));
    assert_eq!(world.node.current_step.as_ref().unwrap().step, "erase_devices_metadata");
    assert_eq!(world.node.provision_state, State::Cleaning);

    world.is_done(Event::StepStarted { attempt, command_id: "c".into() });
    assert_eq!((world.node.provision_state, &world.planned), (State::CleanWait, &None));
    world.happens(world.heartbeat());
    assert_eq!(world.planned, Some(Work::CheckStep { attempt, index: 0 }));
    world.is_done(Event::StepStillRuns { attempt });
    assert_eq!(world.planned, None);
    world.happens(world.heartbeat());

    world.is_done(Event::StepSucceeded { attempt, command_id: "c".into() });
    assert_eq!(world.planned, Some(Work::TearDown { attempt }));
    assert_eq!(world.node.current_step, None);
    world.is_done(Event::TornDown { attempt });

    assert_eq!(world.node.provision_state, State::Manageable);
    assert_eq!(world.node.target_provision_state, None);
    assert_eq!(world.node.power_state, Some(PowerState::Off));
    assert_eq!(world.node.live_attempt(), None);
    assert_eq!((world.node.last_error, world.planned), (None, None));
}

#[test]
fn provide_cleans_by_priority_and_ends_available() {
    let mut world = World::manageable();
    world.happens(Event::from(Verb::Provide));
    let attempt = world.attempt().id;
    let mut world = boots(world);
    world.happens(world.heartbeat());
    world.is_done(steps_reported(attempt));

    let chosen: Vec<_> = world.attempt().run.steps.iter().map(|step| &step.step).collect();
    assert_eq!(chosen, ["erase_devices_metadata", "update_firmware"]);

    for (index, command) in ["c0", "c1"].into_iter().enumerate() {
        assert_eq!(world.planned, Some(Work::RunStep { attempt, index }));
        world.is_done(Event::StepStarted { attempt, command_id: command.into() });
        world.happens(Event::StepSucceeded { attempt, command_id: command.into() });
    }
    // The last step requires a reboot, and the machine is switched off instead.
    world.is_done(Event::TornDown { attempt });
    assert_eq!(world.node.provision_state, State::Available);
}

#[test]
fn a_step_of_the_daemon_comes_before_the_boot_of_the_ramdisk_which_nobody_can_fetch_meanwhile() {
    let mut world = situations::at_bmc_step();
    let attempt = world.attempt().id;
    assert_eq!(world.planned, Some(Work::RunBmcStep { attempt, index: 0 }));
    assert_eq!(world.node.current_step.as_ref().unwrap().name(), "bios.enable_http_boot");
    assert!(provision::boot::bootable(&world.node).is_none(), "the reset is not for the ramdisk");
    assert!(world.tries(&Event::Booting { attempt }).is_err());

    world.is_done(Event::BmcStepDone { attempt, index: 0, reset: true });
    assert_eq!(world.planned, Some(Work::Boot { attempt }));
    assert!(provision::boot::bootable(&world.node).is_some());
    let mut world = boots(world);
    world.happens(world.lookup());
    world.happens(world.heartbeat());
    world.is_done(steps_reported(attempt));

    assert_eq!(world.planned, Some(Work::RunStep { attempt, index: 1 }));
    assert_eq!(world.node.current_step.as_ref().unwrap().step, "erase_devices_metadata");
}

#[test]
fn steps_of_the_daemon_alone_need_no_ramdisk() {
    let mut world = World::manageable();
    world.happens(clean(vec![http_boot_step(), http_boot_step()]));
    let attempt = world.attempt().id;

    world.is_done(Event::BmcStepDone { attempt, index: 0, reset: true });
    assert_eq!(world.planned, Some(Work::RunBmcStep { attempt, index: 1 }));
    world.is_done(Event::BmcStepDone { attempt, index: 1, reset: false });
    assert_eq!(world.planned, Some(Work::TearDown { attempt }));
    assert!(provision::boot::bootable(&world.node).is_none());
    world.is_done(Event::TornDown { attempt });

    assert_eq!(world.node.provision_state, State::Manageable);
}

#[test]
fn a_step_of_bios_that_nobody_has_fails_the_clean_before_the_machine_is_booted() {
    let mut world = World::manageable();
    let unknown = ProcedureStep { step: "factory_reset".to_owned(), ..http_boot_step() };
    world.happens(clean(vec![clean_step("erase_devices_metadata", 0), unknown]));

    let attempt = world.attempt().id;
    assert_eq!(world.planned, Some(Work::TearDown { attempt }));
    assert_eq!(world.node.provision_state, State::CleanFailed);
    assert_eq!(
        world.node.last_error.as_deref(),
        Some(
            "the step bios.factory_reset failed: node does not support this clean step; bios has enable_http_boot and \
             apply_configuration"
        )
    );
}

#[test]
fn a_step_of_the_daemon_between_those_of_the_agent_boots_the_ramdisk_again_if_it_reset_the_machine()
{
    for (reset, boots_again) in [(true, true), (false, false)] {
        let mut world = World::manageable();
        let first = clean_step("erase_devices_metadata", 0);
        let last = clean_step("erase_devices", 0);
        world.happens(clean(vec![first, http_boot_step(), last]));
        let attempt = world.attempt().id;
        assert_eq!(world.planned, Some(Work::Boot { attempt }));
        let mut world = boots(world);
        world.happens(world.heartbeat());
        world.is_done(steps_reported(attempt));
        world.is_done(Event::StepStarted { attempt, command_id: "c".into() });

        world.happens(Event::StepSucceeded { attempt, command_id: "c".into() });
        assert_eq!(world.planned, Some(Work::RunBmcStep { attempt, index: 1 }));
        world.is_done(Event::BmcStepDone { attempt, index: 1, reset });

        let boot = Work::Boot { attempt };
        let next = if boots_again { boot } else { Work::RunStep { attempt, index: 2 } };
        assert_eq!(world.planned, Some(next), "reset: {reset}");
    }
}

#[test]
fn a_step_of_the_daemon_that_fails_ends_the_clean_with_its_reason() {
    let mut world = situations::at_bmc_step();
    let attempt = world.attempt().id;

    let reason = "IPv4HTTPSupport_00F5 is Disabled, not Enabled".to_owned();
    world.is_done(Event::BmcStepFailed { attempt, index: 0, reason });

    assert_eq!(world.node.provision_state, State::CleanFailed);
    assert_eq!(world.planned, Some(Work::TearDown { attempt }));
    assert_eq!(
        world.node.last_error.as_deref(),
        Some(
            "the step bios.enable_http_boot failed: IPv4HTTPSupport_00F5 is Disabled, not Enabled"
        )
    );
}

#[test]
fn an_automated_clean_begins_with_http_boot_if_the_settings_give_it_a_priority() {
    let mut world = World::manageable();
    world.policy.enable_http_boot_priority = 5;
    world.happens(Event::from(Verb::Provide));
    let attempt = world.attempt().id;
    assert_eq!(world.planned, Some(Work::RunBmcStep { attempt, index: 0 }));

    world.is_done(Event::BmcStepDone { attempt, index: 0, reset: false });
    let mut world = boots(world);
    world.happens(world.heartbeat());
    world.is_done(steps_reported(attempt));

    assert_eq!(world.planned, Some(Work::RunStep { attempt, index: 1 }));
    let steps = &world.attempt().run.steps;
    assert_eq!(steps[0].name(), "bios.enable_http_boot");
    assert_eq!(steps.len(), 3, "{steps:?}");
}

#[test]
fn provide_without_a_clean_is_available_at_once() {
    let world = situations::available();
    assert_eq!((world.node.provision_state, world.planned), (State::Available, None));

    let mut world = World::manageable();
    world.policy.automated_clean = false;
    world.happens(Event::from(Verb::Provide));
    assert_eq!(world.node.provision_state, State::Available);
}

#[test]
fn a_ramdisk_that_offers_nothing_to_do_ends_an_automated_clean() {
    let mut world = World::manageable();
    world.happens(Event::from(Verb::Provide));
    let attempt = world.attempt().id;
    let mut world = boots(world);
    world.happens(world.heartbeat());

    let hardware_manager_version = "1".into();
    world.is_done(Event::StepsReported { attempt, steps: vec![], hardware_manager_version });

    assert_eq!(world.planned, Some(Work::TearDown { attempt }));
}

#[test]
fn a_step_that_asks_for_a_reboot_boots_again_within_the_attempt() {
    let mut world = running(&["update_firmware", "erase_devices"]);
    let attempt = world.attempt().clone();
    assert!(attempt.token_given && attempt.powered_on_at.is_some());
    let id = attempt.id;

    world.happens(Event::StepSucceeded { attempt: id, command_id: "command-0".into() });
    assert_eq!(world.planned, Some(Work::Boot { attempt: id }));
    let again = world.attempt();
    assert_eq!(again.ticket, attempt.ticket);
    // The next boot's agent starts numbering its commands anew, and sends a new lookup.
    assert_eq!(again.run.settled_commands, [""; 0]);
    assert!(!again.token_given && again.powered_on_at.is_none());
    assert!(provision::boot::bootable(&world.node).is_some(), "its images can be fetched again");
    let late = world.tries(&world.heartbeat());
    assert!(late.is_err(), "the agent that is about to be cut off does not own the next boot");
    assert!(provision::boot::bootable(&world.node).is_some());

    let mut world = boots(world);
    world.happens(world.heartbeat());
    // The agent's steps are known, so the second step is sent at once.
    assert_eq!(world.planned, Some(Work::RunStep { attempt: id, index: 1 }));
    world.is_done(Event::StepStarted { attempt: id, command_id: "command-0".into() });
    world.happens(Event::StepSucceeded { attempt: id, command_id: "command-0".into() });
    assert_eq!(world.planned, Some(Work::TearDown { attempt: id }));
}

#[test]
fn a_step_that_is_done_makes_way_for_the_next_of_the_same_boot() {
    let mut world = running(&["erase_devices_metadata", "erase_devices"]);
    let attempt = world.attempt().id;
    world.happens(Event::StepSucceeded { attempt, command_id: "command-0".into() });

    assert_eq!(world.planned, Some(Work::RunStep { attempt, index: 1 }));
    assert_eq!(world.node.current_step.as_ref().unwrap().step, "erase_devices");
    assert_eq!(world.attempt().run.settled_commands, ["command-0"]);
    assert_eq!(world.attempt().run.command_id, None);
}

#[test]
fn a_step_that_the_ramdisk_lacks_fails_the_clean_with_its_name() {
    let mut world = boots(cleaning(&["polish"]));
    let attempt = world.attempt().id;
    world.happens(world.heartbeat());

    world.is_done(steps_reported(attempt));

    assert_eq!(world.node.provision_state, State::CleanFailed);
    let error = world.node.last_error.unwrap();
    assert!(error.contains("node does not support this clean step: deploy.polish"), "{error}");
    assert_eq!(world.planned, Some(Work::TearDown { attempt }));
}

#[test]
fn a_failed_clean_is_switched_off_and_waits_in_maintenance_for_an_operator() {
    let mut world = running(&["erase_devices_metadata"]);
    let attempt = world.attempt().id;
    world.happens(world.heartbeat());
    world.is_done(Event::StepFailed { attempt, failure: step_failure("disk sda is read-only") });

    assert_eq!(world.node.provision_state, State::CleanFailed);
    assert!(world.node.maintenance);
    assert_eq!(world.node.fault.as_deref(), Some("clean failure"));
    let error = "the clean step deploy.erase_devices failed: disk sda is read-only";
    assert_eq!(world.node.last_error.as_deref(), Some(error));
    world.is_done(Event::TornDown { attempt });
    assert_eq!(world.node.power_state, Some(PowerState::Off));
    assert_eq!(world.node.live_attempt(), None);

    world.happens(Event::from(Verb::Manage));
    assert_eq!(world.node.provision_state, State::Manageable);
    assert!(!world.node.maintenance);
    assert_eq!(world.node.fault, None);
}

#[test]
fn maintenance_that_an_operator_set_outlives_a_failed_clean() {
    let mut world = situations::failed_and_torn_down();
    world.node.fault = None;
    world.happens(Event::from(Verb::Manage));
    assert!(world.node.maintenance);
}

#[test]
fn an_abort_says_so() {
    let world = situations::failed();
    // Metal3 searches for this word.
    assert!(world.node.last_error.unwrap().contains("aborted"));
}

#[test]
fn a_machine_that_cannot_be_booted_fails_the_clean_with_the_bmcs_words() {
    let mut world = situations::booting();
    let attempt = world.attempt().id;
    world.is_done(Event::BootFailed { attempt, reason: "status 400: no UefiHttp".into() });
    assert_eq!(world.node.provision_state, State::CleanFailed);
    assert_eq!(
        world.node.last_error.as_deref(),
        Some("the machine could not be booted: status 400: no UefiHttp")
    );
    assert_eq!(world.planned, Some(Work::TearDown { attempt }));
}

#[test]
fn what_a_bmc_says_reaches_no_terminal_unescaped_and_is_cut() {
    let mut world = situations::booting();
    let attempt = world.attempt().id;
    let reason = format!("\x1b]0;evil\x07\n\u{202e}{}", "x".repeat(100_000));
    world.is_done(Event::BootFailed { attempt, reason });
    for said in [world.node.last_error, world.node.maintenance_reason] {
        let said = said.unwrap();
        assert!(said.contains(r"\u{1b}]0;evil\u{7}\n\u{202e}xxx"), "{}", &said[..200]);
        assert!(!said.contains(provision::text::is_unprintable));
        assert!(said.chars().count() < 5_000);
    }
}

#[test]
fn an_abort_of_a_boot_tears_the_machine_down() {
    for mut world in [situations::booting(), situations::tearing_down()] {
        let attempt = world.attempt().id;
        world.happens(Event::from(Verb::Abort));
        assert_eq!(world.node.provision_state, State::CleanFailed);
        assert_eq!(world.planned, Some(Work::TearDown { attempt }));
    }
}

#[test]
fn a_tear_down_that_fails_leaves_the_cleans_own_failure_first() {
    let mut world = situations::failed();
    let attempt = world.attempt().id;
    world.is_done(Event::TearDownFailed { attempt, reason: "no answer".into() });
    let error = world.node.last_error.as_deref().unwrap();
    assert!(error.starts_with("the clean was aborted"), "{error}");
    assert!(error.ends_with("could not be switched off: no answer"), "{error}");
    assert_eq!(world.node.live_attempt(), None);
}

#[test]
fn a_tear_down_that_fails_after_a_good_clean_fails_it() {
    let mut world = situations::tearing_down();
    let attempt = world.attempt().id;
    world.is_done(Event::TearDownFailed { attempt, reason: "no answer".into() });
    assert_eq!(world.node.provision_state, State::CleanFailed);
    assert!(world.node.last_error.unwrap().ends_with("no answer"));
    assert_eq!(world.node.attempt.unwrap().ended_at, Some(world.now));
}

#[test]
fn an_operator_who_is_quicker_than_the_tear_down_does_not_lose_it() {
    let mut world = situations::forgiven();
    let attempt = world.attempt().id;
    assert_eq!(world.planned, Some(Work::TearDown { attempt }));
    assert!(world.tries(&Event::PowerAsked(PowerTarget::On)).is_err());

    world.is_done(Event::TornDown { attempt });

    assert_eq!(world.node.provision_state, State::Manageable);
    assert_eq!(world.node.power_state, Some(PowerState::Off));
    assert_eq!(world.node.live_attempt(), None);
    world.happens(Event::PowerAsked(PowerTarget::On));
}

#[test]
fn an_agent_that_could_not_be_asked_is_asked_again_at_its_next_heartbeat() {
    let mut world = situations::sending(&["erase_devices_metadata"]);
    let attempt = world.attempt().id;
    world.is_done(Event::AgentSilent { attempt, reason: "connection refused".into() });
    assert_eq!((world.node.provision_state, &world.planned), (State::CleanWait, &None));

    world.happens(world.heartbeat());

    assert_eq!(world.planned, Some(Work::RunStep { attempt, index: 0 }));
}

#[test]
fn a_machine_that_booted_while_the_daemon_was_away_is_booted_again_once() {
    let mut world = waiting();
    let attempt = world.attempt().id;
    world.passes(10);
    let serving_since = world.now;
    world.passes(180);
    let missed = |world: &World| world.is_missed(serving_since);
    assert!(!missed(&world), "its kernel may still start");
    world.passes(1);
    assert!(missed(&world));

    world.happens(Event::BootMissed { attempt });

    assert_eq!(world.planned, Some(Work::Boot { attempt }));
    world.is_done(Event::Booting { attempt });
    world.passes(600);
    assert!(!missed(&world), "this time the daemon was there");
}

#[test]
fn the_power_of_an_agent_that_has_called_is_not_cut_for_a_missed_boot() {
    let mut world = waiting();
    let (attempt, serving_since) = (world.attempt().id, world.now + SignedDuration::from_secs(1));
    world.passes(600);
    world.happens(world.lookup());

    assert!(!world.is_missed(serving_since));
    assert_eq!(world.tries(&Event::BootMissed { attempt }), Err(Refused::Stale));
}

#[test]
fn silence_fails_a_clean_with_what_the_trace_says_of_it() {
    let mut world = waiting();
    let why = |world: &World| Event::Tick {
        silence: world.silence(),
        why: Some("the firmware asked for PXE, not HTTP".into()),
    };
    world.passes(1_800);
    world.happens(why(&world));
    assert_eq!(world.node.provision_state, State::CleanWait, "not before the time is over");

    world.passes(1);
    world.happens(why(&world));

    assert_eq!(world.node.provision_state, State::CleanFailed);
    assert_eq!(
        world.node.last_error.as_deref(),
        Some("nothing was heard from the ramdisk for 1800 s: the firmware asked for PXE, not HTTP")
    );
}

#[test]
fn a_clock_that_jumps_ends_no_clean() {
    let mut world = waiting();
    let silence = world.silence().unwrap();
    // By the stored times the silence lasted hours; the measured silence is a minute.
    world.passes(9 * 3_600);
    let lasts = SignedDuration::from_mins(1);

    world.happens(Event::Tick { silence: Some(Silence { lasts, ..silence }), why: None });

    assert_eq!(world.node.provision_state, State::CleanWait);
}

#[test]
fn a_heartbeat_while_silence_is_measured_ends_it() {
    let mut world = running(&["erase_devices_metadata"]);
    world.passes(1_801);
    let silence = world.silence();
    world.happens(world.heartbeat());

    world.happens(Event::Tick { silence, why: None });

    assert_ne!(world.node.provision_state, State::CleanFailed);
}

#[test]
fn each_heartbeat_puts_the_time_out_off() {
    let mut world = running(&["erase_devices_metadata"]);
    for _ in 0..10 {
        world.passes(1_000);
        world.happens(world.heartbeat());
        world.happens(Event::Tick { silence: world.silence(), why: None });
        assert_eq!(world.node.provision_state, State::CleanWait);
    }
}

#[test]
fn a_bmc_that_fails_the_first_talk_sends_the_node_back_to_enroll() {
    let mut world = situations::verifying();
    world.is_done(Event::VerifyFailed("wrong password".into()));
    assert_eq!(world.node.provision_state, State::Enroll);
    assert!(world.node.last_error.as_ref().unwrap().contains("wrong password"));
    world.happens(Event::from(Verb::Manage));
    assert_eq!(world.node.last_error, None);
}

#[test]
fn power_that_was_asked_for_is_a_target_until_it_is_seen() {
    let mut world = World::manageable();
    world.happens(Event::PowerAsked(PowerTarget::Reboot));
    assert_eq!(world.planned, Some(Work::SetPower { target: PowerTarget::Reboot }));
    assert_eq!(world.node.target_power_state, Some(PowerState::On));

    let mut failed = World::manageable();
    failed.happens(Event::PowerAsked(PowerTarget::On));
    failed.is_done(Event::PowerFailed("no answer".into()));
    assert_eq!(failed.node.target_power_state, None);
    assert_eq!(failed.node.last_error.as_deref(), Some("changing the power failed: no answer"));

    world.is_done(Event::PowerSeen(PowerState::On));
    assert_eq!(world.node.target_power_state, None);
    assert_eq!(world.node.power_state, Some(PowerState::On));
}

#[test]
fn a_second_clean_has_a_ticket_and_token_of_its_own() {
    let mut world = situations::failed_and_torn_down();
    let first = world.attempt().clone();
    world.happens(Event::from(Verb::Manage));
    world.happens(clean(vec![clean_step("erase_devices", 0)]));

    let second = world.attempt();
    assert_ne!(first.id, second.id);
    assert_ne!(first.ticket, second.ticket);
    assert_ne!(first.agent_token, second.agent_token);
}

#[test]
fn an_attempt_keeps_the_boot_interface_that_it_began_with() {
    let mut world = situations::booting();
    let first = world.attempt().boot_interface;
    world.node.boot_interface = provision::BootInterface::HttpIpxe;
    assert_eq!(world.attempt().boot_interface, first);
    let world = boots(world);
    assert_eq!(world.attempt().boot_interface, first);
}

#[test]
fn every_change_of_state_is_in_the_trace() {
    let mut world = situations::booting();
    let attempt = world.attempt().id;
    let outcome = world.is_done(Event::Booting { attempt });
    let (from, to) = (State::Cleaning, State::CleanWait);
    assert_eq!(outcome.trace, [BootEventKind::State { from, to, reason: None }]);
    assert_eq!(outcome.node.provision_updated_at, Some(world.now));
    assert_eq!(outcome.node.updated_at, Some(world.now));
}
