//! The table of `step` on one page.

use std::fmt::Write;

use hardware::{BootMode, ShownBootMode};
use jiff::SignedDuration;
use provision::procedure::{ROWS, Stage};
use provision::state::PowerTarget;
use provision::{Event, Outcome, PowerState, Refused, Verb, Work};
use uuid::Uuid;

use crate::situations;
use crate::world::{MACHINE, World, clean, clean_step, step_failure, steps_reported};

#[test]
fn every_situation_and_event_has_the_outcome_on_this_page() {
    let mut page = procedures();
    for (name, event) in events() {
        let mut outcomes: Vec<(String, Vec<&str>)> = Vec::new();
        for (situation, mut world) in situations::all() {
            let outcome = outcome(&mut world, name, &event);
            match outcomes.iter_mut().find(|(known, _)| *known == outcome) {
                Some((_, from)) => from.push(situation),
                None => outcomes.push((outcome, vec![situation])),
            }
        }
        write(&mut page, name, outcomes);
    }
    insta::with_settings!(
        { snapshot_path => "../snapshots", prepend_module_to_snapshot => false },
        { insta::assert_snapshot!("transitions", page) }
    );
}

/// The table of procedures, in words.
fn procedures() -> String {
    let mut page = String::new();
    for row in &ROWS {
        let procedure = row.procedure;
        let built = if row.is_built { "" } else { ", not built" };
        writeln!(page, "{procedure:?}{built}").unwrap();
        let stage = |stage| procedure.state(stage).map(|state| format!("{stage:?}: {state}"));
        let stages: Vec<_> = Stage::ALL.into_iter().filter_map(stage).collect();
        writeln!(page, "    {}", stages.join(" | ")).unwrap();
        for ask in row.asks {
            let from: Vec<_> = ask.from.iter().map(|state| state.name()).collect();
            writeln!(page, "    {} from {}: to {}", ask.verb.name(), from.join(" | "), ask.to)
                .unwrap();
        }
        let then = row.then.map(|then| format!(", then {then:?}")).unwrap_or_default();
        let fault = row.fails.fault.map(|fault| format!(" in maintenance ({fault})"));
        writeln!(
            page,
            "    boots {:?}, steps of {:?}{then}; fails to {}{}",
            row.boots,
            row.steps,
            row.fails.to,
            fault.unwrap_or_default(),
        )
        .unwrap();
    }
    page.push('\n');
    page
}

type Make = Box<dyn Fn(&World, Uuid) -> Event>;

/// Each event, fitted to the world and its latest attempt.
fn events() -> Vec<(&'static str, Make)> {
    fn make(f: impl Fn(&World, Uuid) -> Event + 'static) -> Make {
        Box::new(f)
    }
    fn verb(verb: Verb) -> Make {
        make(move |_, _| verb.into())
    }
    let reason = || "reason".to_owned();
    let command_id = || "command-0".to_owned();
    vec![
        ("manage", make(|_, _| Event::from(Verb::Manage))),
        ("provide", make(|_, _| Event::from(Verb::Provide))),
        ("clean", make(|_, _| clean(vec![clean_step("erase_devices", 0)]))),
        ("clean without steps", make(|_, _| clean(vec![]))),
        ("abort", make(|_, _| Event::from(Verb::Abort))),
        ("active", verb(Verb::Deploy)),
        ("rebuild", verb(Verb::Rebuild)),
        ("deleted", verb(Verb::Undeploy)),
        ("inspect", verb(Verb::Inspect)),
        ("rescue", verb(Verb::Rescue)),
        ("unrescue", verb(Verb::Unrescue)),
        ("service", verb(Verb::Service)),
        ("adopt", verb(Verb::Adopt)),
        ("unhold", verb(Verb::Unhold)),
        ("power asked", make(|_, _| Event::PowerAsked(PowerTarget::On))),
        ("power seen", make(|_, _| Event::PowerSeen(PowerState::On))),
        (
            "boot mode seen",
            make(|_, _| {
                let (boot_mode, secure_boot) = (Some(BootMode::Uefi), Some(true));
                Event::BootModeSeen(ShownBootMode { boot_mode, secure_boot, trust: None })
            }),
        ),
        ("power failed", make(move |_, _| Event::PowerFailed(reason()))),
        ("verified", make(|_, _| Event::Verified(Some(PowerState::On), ShownBootMode::default()))),
        ("verify failed", make(move |_, _| Event::VerifyFailed(reason()))),
        ("booting", make(|_, attempt| Event::Booting { attempt })),
        ("boot failed", make(move |_, attempt| Event::BootFailed { attempt, reason: reason() })),
        ("boot missed", make(|_, attempt| Event::BootMissed { attempt })),
        ("image fetched", make(|_, attempt| Event::ImageFetched { attempt })),
        (
            "instance boots",
            make(|_, attempt| Event::InstanceBoots { attempt, next: Uuid::from_u128(0xB007) }),
        ),
        ("agent looks up", make(|world, _| world.lookup())),
        (
            "addresses seen",
            make(|_, attempt| {
                let fetched = vec![MACHINE];
                Event::AddressesSeen { attempt, fetched, leased: Vec::new() }
            }),
        ),
        ("agent alive", make(|world, _| world.heartbeat())),
        ("steps reported", make(|_, attempt| steps_reported(attempt))),
        (
            "step started",
            make(move |_, attempt| Event::StepStarted { attempt, command_id: command_id() }),
        ),
        (
            "step succeeded",
            make(move |_, attempt| Event::StepSucceeded { attempt, command_id: command_id() }),
        ),
        (
            "step failed",
            make(move |_, attempt| Event::StepFailed { attempt, failure: step_failure("why") }),
        ),
        ("step still runs", make(|_, attempt| Event::StepStillRuns { attempt })),
        ("agent silent", make(move |_, attempt| Event::AgentSilent { attempt, reason: reason() })),
        ("BMC step done", make(|_, attempt| Event::BmcStepDone { attempt, index: 0, reset: true })),
        (
            "BMC step failed",
            make(move |_, attempt| Event::BmcStepFailed { attempt, index: 0, reason: reason() }),
        ),
        ("torn down", make(|_, attempt| Event::TornDown { attempt })),
        (
            "tear down failed",
            make(move |_, attempt| Event::TearDownFailed { attempt, reason: reason() }),
        ),
        ("tick", make(|world, _| Event::Tick { silence: world.silence(), why: None })),
        ("tick, too late", make(|world, _| Event::Tick { silence: world.silence(), why: None })),
    ]
}

fn outcome(world: &mut World, name: &str, event: &Make) -> String {
    if name == "tick, too late" {
        world.now += world.policy.clean_callback_timeout + SignedDuration::from_secs(1);
    }
    let attempt = world.node.attempt.as_ref().map_or(Uuid::nil(), |attempt| attempt.id);
    match world.asks(&event(world, attempt)) {
        Ok(outcome) => accepted(world, &outcome),
        Err(refused) => format!("refused: {}", why(&refused)),
    }
}

fn accepted(world: &World, outcome: &Outcome) -> String {
    let mut text = if outcome.node.provision_state == world.node.provision_state {
        "stays".to_owned()
    } else {
        format!("→ {}", outcome.node.provision_state)
    };
    if let Some(target) = outcome.node.target_provision_state
        && Some(target) != world.node.target_provision_state
    {
        write!(text, " (target {target})").unwrap();
    }
    if let Some(work) = &outcome.work {
        write!(text, ", then {}", in_words(work)).unwrap();
    }
    text
}

fn in_words(work: &Work) -> String {
    match work {
        Work::RunStep { index, .. }
        | Work::RunBmcStep { index, .. }
        | Work::CheckStep { index, .. } => {
            format!("{} {index}", work.name())
        }
        Work::Verify
        | Work::Boot { .. }
        | Work::AskSteps { .. }
        | Work::TearDown { .. }
        | Work::SetPower { .. } => work.name().to_owned(),
    }
}

fn why(refused: &Refused) -> &'static str {
    match refused {
        Refused::InvalidState { .. } => "invalid state",
        Refused::Busy { .. } => "busy",
        Refused::InMaintenance { .. } => "in maintenance",
        Refused::Retired { .. } => "retired",
        Refused::StaysOn(_) | Refused::PowersOff { .. } => "stays on",
        Refused::NotBuilt(_) => "not built",
        Refused::Protected { .. } => "protected",
        Refused::NoInstanceImage { .. } => "no image",
        Refused::NoSteps => "no steps",
        Refused::Stale => "stale",
        Refused::NoAgentExpected { .. } => "no agent expected",
        Refused::LookupTooEarly(_) | Refused::HeartbeatTooEarly(_) => "too early",
        Refused::ForeignLookup(_) => "foreign lookup",
        Refused::TokenTaken { .. } | Refused::TokenJustGiven { .. } => "token given",
        Refused::WrongToken(_) => "wrong token",
        Refused::SecondAgent { .. } => "second agent",
    }
}

/// Refusals in most situations are listed once, at the end.
fn write(page: &mut String, event: &str, mut outcomes: Vec<(String, Vec<&str>)>) {
    writeln!(page, "{event}").unwrap();
    let refused = outcomes
        .iter()
        .enumerate()
        .filter(|(_, (outcome, from))| outcome.starts_with("refused") && from.len() > 3)
        .max_by_key(|(_, (_, from))| from.len())
        .map(|(i, _)| i);
    let rest = refused.map(|i| outcomes.remove(i).0);
    for (outcome, from) in outcomes {
        let from = if from.len() == situations::all().len() {
            "always".to_owned()
        } else {
            from.join(" | ")
        };
        writeln!(page, "    {from}: {outcome}").unwrap();
    }
    if let Some(rest) = rest {
        writeln!(page, "    else {rest}").unwrap();
    }
}
