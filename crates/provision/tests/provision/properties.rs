//! Invariants under all events in any order.

use std::collections::{HashMap, HashSet};

use hardware::ShownBootMode;
use proptest::prelude::*;
use proptest::sample::select;
use provision::position::Position;
use provision::state::PowerTarget;
use provision::{Boots, Event, PowerState, ProvisionState as State, Stage, Verb, Work};
use uuid::Uuid;

use crate::situations::http_boot_step;
use crate::world::{World, clean, clean_step, heartbeat, step_failure, steps_reported};

proptest! {
    #[test]
    fn no_sequence_of_events_breaks_the_rules(happenings in sequence(happening())) {
        let mut world = World::enrolled();
        for happening in happenings {
            world.passes(happening.seconds);
            let before = world.node.clone();
            let event = happening.event(&world);
            let Ok(outcome) = world.tries(&event) else { continue };

            let live = world.node.live_attempt();
            let state = world.node.provision_state;
            let under_way = state.is_under_way() && state != State::Verifying;
            prop_assert!(live.is_some() || !under_way, "a procedure without an attempt: {event:?}");
            if let Some(attempt) = outcome.work.as_ref().and_then(Work::attempt) {
                prop_assert_eq!(Some(attempt), live.map(|live| live.id), "{:?}", event);
            }
            if let Some(Work::RunStep { index, .. }) = outcome.work {
                let clean = &world.attempt().run;
                prop_assert_eq!(index, clean.done);
                prop_assert!(index < clean.steps.len());
                prop_assert_eq!(&clean.command_id, &None, "it runs already: {:?}", event);
            }
            if let (Some(was), Some(is)) = (&before.attempt, &world.node.attempt)
                && was.id == is.id
            {
                prop_assert!(is.run.done >= was.run.done);
                prop_assert!(is.run.done <= was.run.done + 1);
                prop_assert!(was.ended_at.is_none() || is.ended_at == was.ended_at);
            }
            let has_target = state.position() != Position::Rest;
            prop_assert_eq!(world.node.target_provision_state.is_some(), has_target);
            if let Some(live) = world.node.live_attempt()
                && live.boots() == Boots::Instance
            {
                prop_assert_eq!(&live.agent, &None, "an instance has no agent");
                let fetched = live.image_fetched_at.is_some();
                prop_assert!(fetched || state != State::Active || before.provision_state == state,
                    "active, and not all of its image was fetched: {event:?}");
            }
        }
    }

    /// As above, with workers that do the planned work, and an agent that remembers its commands.
    #[test]
    fn no_procedure_runs_a_step_twice_or_gets_lost(turns in sequence(turn())) {
        let mut world = World::manageable();
        let mut agent = AgentModel::default();
        for turn in turns {
            match turn {
                Turn::Noise(happening) => {
                    world.passes(happening.seconds);
                    // Results of work come only from its claimer, so here only late ones occur.
                    let _ = world.tries(&happening.without_results().event(&world));
                }
                Turn::Work(fate) => work(&mut world, &mut agent, fate),
            }
            let state = world.node.provision_state;
            if state.stage() == Some(Stage::AtWork) {
                prop_assert!(world.planned.is_some(), "nobody will go on with this {state}");
            }
            if let Some(live) = world.node.live_attempt()
                && state != State::Active
                && (state == State::Deleting || !state.is_under_way())
            {
                let attempt = live.id;
                prop_assert_eq!(&world.planned, &Some(Work::TearDown { attempt }));
            }
        }
        for ((attempt, index), runs) in agent.runs {
            prop_assert_eq!(runs, 1, "step {} of attempt {}", index, attempt);
        }
    }
}

fn sequence<T: std::fmt::Debug>(one: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    proptest::collection::vec(one, 0..120)
}

/// A random event, after some time.
#[derive(Clone, Debug)]
struct Happening {
    seconds: i64,
    kind: Kind,
    /// Whether it belongs to the latest attempt, or to an ended one.
    fresh: bool,
    command: u8,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Manage,
    Provide,
    Clean,
    CleanReboot,
    CleanAtBmc,
    Abort,
    Deploy,
    Rebuild,
    Undeploy,
    ImageFetched,
    InstanceBoots,
    PowerAsked,
    PowerSeen,
    PowerFailed,
    Verified,
    VerifyFailed,
    Booting,
    BootFailed,
    BootMissed,
    LooksUp,
    Alive,
    SecondAgent,
    StepsReported,
    StepStarted,
    StepSucceeded,
    StepFailed,
    BmcStepDone,
    BmcStepFailed,
    StepStillRuns,
    AgentSilent,
    TornDown,
    TearDownFailed,
    Tick,
}

fn happening() -> impl Strategy<Value = Happening> {
    use Kind::*;
    let kind = select(vec![
        Manage,
        Provide,
        Clean,
        CleanReboot,
        CleanAtBmc,
        Abort,
        Deploy,
        Rebuild,
        Undeploy,
        ImageFetched,
        InstanceBoots,
        PowerAsked,
        PowerSeen,
        PowerFailed,
        Verified,
        VerifyFailed,
        Booting,
        BootFailed,
        BootMissed,
        LooksUp,
        Alive,
        SecondAgent,
        StepsReported,
        StepStarted,
        StepSucceeded,
        StepFailed,
        BmcStepDone,
        BmcStepFailed,
        StepStillRuns,
        AgentSilent,
        TornDown,
        TearDownFailed,
        Tick,
        // Events that advance a clean are more frequent, so that sequences get far.
        Verified,
        Booting,
        Alive,
        Alive,
        Provide,
        Deploy,
        ImageFetched,
        StepsReported,
        StepStarted,
        StepSucceeded,
        TornDown,
    ]);
    (select(vec![0, 1, 60, 2_000]), kind, prop::bool::weighted(0.9), 0..2_u8)
        .prop_map(|(seconds, kind, fresh, command)| Happening { seconds, kind, fresh, command })
}

impl Happening {
    fn without_results(self) -> Self {
        match self.kind {
            Kind::Manage
            | Kind::Provide
            | Kind::Clean
            | Kind::CleanReboot
            | Kind::CleanAtBmc
            | Kind::Abort
            | Kind::Deploy
            | Kind::Rebuild
            | Kind::Undeploy
            | Kind::ImageFetched
            | Kind::InstanceBoots
            | Kind::PowerAsked
            | Kind::LooksUp
            | Kind::Alive
            | Kind::SecondAgent
            | Kind::Tick => self,
            Kind::PowerSeen
            | Kind::PowerFailed
            | Kind::Verified
            | Kind::VerifyFailed
            | Kind::Booting
            | Kind::BootFailed
            | Kind::BootMissed
            | Kind::StepsReported
            | Kind::StepStarted
            | Kind::StepSucceeded
            | Kind::StepFailed
            | Kind::BmcStepDone
            | Kind::BmcStepFailed
            | Kind::StepStillRuns
            | Kind::AgentSilent
            | Kind::TornDown
            | Kind::TearDownFailed => Self { fresh: false, ..self },
        }
    }

    fn event(&self, world: &World) -> Event {
        let latest = world.node.attempt.as_ref().map(|attempt| attempt.id);
        let attempt = latest.filter(|_| self.fresh).unwrap_or(Uuid::from_u128(u128::MAX));
        let command_id = format!("command-{}", self.command);
        let reason = "reason".to_owned();
        match self.kind {
            Kind::Manage => Event::from(Verb::Manage),
            Kind::Provide => Event::from(Verb::Provide),
            Kind::Clean => {
                clean(vec![clean_step("erase_devices_metadata", 0), clean_step("erase_devices", 0)])
            }
            Kind::CleanReboot => {
                clean(vec![clean_step("update_firmware", 0), clean_step("erase_devices", 0)])
            }
            Kind::CleanAtBmc => {
                clean(vec![http_boot_step(), clean_step("erase_devices", 0), http_boot_step()])
            }
            Kind::BmcStepDone => {
                let run = world.node.attempt.as_ref().map(|attempt| attempt.run.done);
                let (index, reset) = (run.unwrap_or_default(), self.command == 0);
                Event::BmcStepDone { attempt, index, reset }
            }
            Kind::BmcStepFailed => Event::BmcStepFailed { attempt, index: 0, reason },
            Kind::Abort => Event::from(Verb::Abort),
            Kind::Deploy => Event::from(Verb::Deploy),
            Kind::Rebuild => Event::from(Verb::Rebuild),
            Kind::Undeploy => Event::from(Verb::Undeploy),
            Kind::ImageFetched => Event::ImageFetched { attempt },
            Kind::InstanceBoots => Event::InstanceBoots {
                attempt,
                next: Uuid::from_u128(attempt.as_u128().wrapping_add(0x1000)),
            },
            Kind::PowerAsked => Event::PowerAsked(PowerTarget::Reboot),
            Kind::PowerSeen => Event::PowerSeen(PowerState::Off),
            Kind::PowerFailed => Event::PowerFailed(reason),
            Kind::Verified if self.fresh => {
                Event::Verified(Some(PowerState::On), ShownBootMode::default())
            }
            Kind::Verified => Event::PowerSeen(PowerState::On),
            Kind::VerifyFailed if self.fresh => Event::VerifyFailed(reason),
            Kind::VerifyFailed => Event::PowerSeen(PowerState::On),
            Kind::Booting => Event::Booting { attempt },
            Kind::BootFailed => Event::BootFailed { attempt, reason },
            Kind::BootMissed => Event::BootMissed { attempt },
            Kind::LooksUp => world.lookup(),
            Kind::Alive if self.fresh => world.heartbeat(),
            Kind::Alive => heartbeat("wrong", "https://192.0.2.7:9999", world.now),
            Kind::SecondAgent => {
                let token = world.node.attempt.as_ref().map(|it| it.agent_token.0.clone());
                heartbeat(&token.unwrap_or_default(), "https://192.0.2.66:9999", world.now)
            }
            Kind::StepsReported => steps_reported(attempt),
            Kind::StepStarted => Event::StepStarted { attempt, command_id },
            Kind::StepSucceeded => Event::StepSucceeded { attempt, command_id },
            Kind::StepFailed => Event::StepFailed { attempt, failure: step_failure(&reason) },
            Kind::StepStillRuns => Event::StepStillRuns { attempt },
            Kind::AgentSilent => Event::AgentSilent { attempt, reason },
            Kind::TornDown => Event::TornDown { attempt },
            Kind::TearDownFailed => Event::TearDownFailed { attempt, reason },
            Kind::Tick => Event::Tick { silence: world.silence(), why: None },
        }
    }
}

#[derive(Clone, Debug)]
enum Turn {
    Noise(Happening),
    Work(Fate),
}

/// The outcome of a piece of work.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Well,
    Badly,
    /// The agent got the command, and its answer was lost.
    AnswerLost,
    /// The agent was unreachable.
    Unreached,
}

fn turn() -> impl Strategy<Value = Turn> {
    let fate = select(vec![
        Fate::Well,
        Fate::Well,
        Fate::Well,
        Fate::Well,
        Fate::Badly,
        Fate::AnswerLost,
        Fate::Unreached,
    ]);
    prop_oneof![happening().prop_map(Turn::Noise), fate.prop_map(Turn::Work)]
}

/// An agent that runs all its commands.
#[derive(Default)]
struct AgentModel {
    /// Number of runs of each step of each attempt.
    runs: HashMap<(Uuid, usize), u32>,
    /// The commands of this boot, for a worker that requests them.
    commands: HashSet<(Uuid, usize)>,
}

/// A worker does the planned work.
fn work(world: &mut World, agent: &mut AgentModel, fate: Fate) {
    let Some(planned) = world.planned.clone() else { return };
    let well = !matches!(fate, Fate::Badly);
    let reason = "reason".to_owned();
    let event = match planned {
        Work::Verify if well => Event::Verified(Some(PowerState::Off), ShownBootMode::default()),
        Work::Verify => Event::VerifyFailed(reason),
        Work::SetPower { target } if well => Event::PowerSeen(target.leads_to()),
        Work::SetPower { .. } => Event::PowerFailed(reason),
        Work::Boot { attempt } if well => {
            agent.commands.clear();
            Event::Booting { attempt }
        }
        Work::Boot { attempt } => Event::BootFailed { attempt, reason },
        Work::RunBmcStep { attempt, index } if well => {
            agent.commands.clear();
            Event::BmcStepDone { attempt, index, reset: true }
        }
        Work::RunBmcStep { attempt, index } => Event::BmcStepFailed { attempt, index, reason },
        Work::TearDown { attempt } if well => Event::TornDown { attempt },
        Work::TearDown { attempt } => Event::TearDownFailed { attempt, reason },
        Work::AskSteps { attempt } => match fate {
            Fate::Well => steps_reported(attempt),
            Fate::Badly => Event::StepFailed { attempt, failure: step_failure(&reason) },
            Fate::AnswerLost | Fate::Unreached => Event::AgentSilent { attempt, reason },
        },
        Work::RunStep { attempt, index } => match fate {
            Fate::Unreached => Event::AgentSilent { attempt, reason },
            Fate::Well | Fate::Badly | Fate::AnswerLost => {
                // The worker requests the agent's commands before it sends any.
                if agent.commands.insert((attempt, index)) {
                    *agent.runs.entry((attempt, index)).or_default() += 1;
                }
                match fate {
                    Fate::AnswerLost => Event::AgentSilent { attempt, reason },
                    Fate::Well | Fate::Badly | Fate::Unreached => {
                        Event::StepStarted { attempt, command_id: format!("{attempt}-{index}") }
                    }
                }
            }
        },
        Work::CheckStep { attempt, index } => match fate {
            Fate::Well => {
                assert!(agent.commands.contains(&(attempt, index)), "it was never sent");
                Event::StepSucceeded { attempt, command_id: format!("{attempt}-{index}") }
            }
            Fate::Badly => Event::StepFailed { attempt, failure: step_failure(&reason) },
            Fate::AnswerLost => Event::StepStillRuns { attempt },
            Fate::Unreached => Event::AgentSilent { attempt, reason },
        },
    };
    world.is_done(event);
}
