//! The plan of a worker's calls to an agent, and the meaning of the replies. No step is sent that the agent may
//! already have.
//!
//! Nothing is stored between two calls: the agent's list of commands shows what was sent.

use provision::steps::{ProcedureStep, StepRun};
use provision::trace::{AgentCall, AgentOutcome};
use provision::{AgentExtension, BootEventKind, CommandFailure, Event, StepFailure};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::agent::{AgentStep, Command, CommandStatus, OfferedSteps};

/// The plan of one piece of work with an agent.
#[derive(Clone, Copy, Debug)]
pub struct StepPlan<'a> {
    work: StepWork,
    extension: AgentExtension,
    attempt: Uuid,
    run: &'a StepRun,
}

/// The kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepWork {
    /// Request the agent's steps.
    Ask,
    /// Send the step at this index.
    Run {
        /// The index in the run's steps.
        index: usize,
    },
    /// Read the progress of the current step.
    Check,
}

/// The result of the last action.
#[derive(Debug)]
pub enum AgentReply {
    /// There was no action yet.
    Nothing,
    /// All commands since the agent started.
    Commands(Vec<Command>),
    /// The sent command.
    Sent(Command),
    /// No answer, with the reason: the agent is unreachable or busy.
    Silent(String),
    /// A refusal by the agent, or an impossible call.
    Refused(StepFailure),
}

/// The next action.
#[derive(Clone, Debug, PartialEq)]
pub enum StepAction {
    /// Request the list of commands.
    ListCommands,
    /// Send a command; the caller adds the node's data.
    Send {
        /// The call, for the trace.
        call: AgentCall,
        /// Extension and command.
        command: String,
        /// Its arguments, without the node.
        params: Map<String, Value>,
        /// Whether to wait for its end.
        wait: bool,
    },
    /// No action: the result of the work.
    Done {
        /// The event.
        event: Event,
        /// The event for the trace.
        trace: Option<BootEventKind>,
    },
}

impl<'a> StepPlan<'a> {
    /// The plan for `work` in an attempt. `extension` has the steps of its procedure.
    #[must_use]
    pub fn new(work: StepWork, extension: AgentExtension, attempt: Uuid, run: &'a StepRun) -> Self {
        Self { work, extension, attempt, run }
    }

    /// The action after a reply.
    #[must_use]
    pub fn next(&self, reply: &AgentReply) -> StepAction {
        match (self.work, reply) {
            // A silent agent calls again, and the work continues then.
            (_, AgentReply::Silent(reason)) => {
                done(Event::AgentSilent { attempt: self.attempt, reason: reason.clone() })
            }
            (_, AgentReply::Refused(failure)) => self.failed(failure.clone()),
            (StepWork::Ask, AgentReply::Sent(command)) => self.steps_reported(command),
            (StepWork::Ask, AgentReply::Nothing | AgentReply::Commands(_)) => {
                let call = AgentCall::GetSteps { extension: self.extension };
                let command = self.extension.get_steps();
                StepAction::Send { call, command, params: Map::new(), wait: true }
            }
            (StepWork::Run { .. }, AgentReply::Sent(command)) => self.started(command),
            (StepWork::Run { index }, AgentReply::Commands(commands)) => {
                self.send_once(index, commands)
            }
            (StepWork::Check, AgentReply::Commands(commands)) => self.checked(commands),
            (StepWork::Run { .. }, AgentReply::Nothing)
            | (StepWork::Check, AgentReply::Nothing | AgentReply::Sent(_)) => {
                StepAction::ListCommands
            }
        }
    }

    fn steps_reported(&self, command: &Command) -> StepAction {
        let extension = self.extension;
        let result = match command.command_status {
            CommandStatus::Succeeded => command.command_result.clone().unwrap_or_default(),
            CommandStatus::Failed
            | CommandStatus::Running
            | CommandStatus::VersionMismatch
            | CommandStatus::CleanVersionMismatch => {
                let command = failure_of(command);
                return self.failed(StepFailure::NotReported { extension, command });
            }
        };
        match OfferedSteps::of(extension, result) {
            Ok(offered) => done(Event::StepsReported {
                attempt: self.attempt,
                steps: offered.steps.into_iter().map(step_of).collect(),
                hardware_manager_version: json!(offered.hardware_manager_version),
            }),
            Err(error) => self.failed(StepFailure::BadList { extension, error: error.to_string() }),
        }
    }

    /// The agent may have the step already, if a daemon died after sending it or an answer was lost.
    fn send_once(&self, index: usize, commands: &[Command]) -> StepAction {
        let Some(step) = self.run.steps.get(index) else { return done(no_agent(self.attempt)) };
        if let Some(sent) = commands.iter().find(|command| self.is_sent(command, step)) {
            return self.started(sent);
        }
        let version = self.run.hardware_manager_version.clone().unwrap_or_default();
        let extension = self.extension;
        let params = [("step".to_owned(), json!(step)), (format!("{extension}_version"), version)];
        let (command, step) = (extension.execute_step(), step.step.clone());
        let call = AgentCall::ExecuteStep { extension, step };
        StepAction::Send { call, command, params: params.into_iter().collect(), wait: false }
    }

    /// Whether a command is this step: all earlier steps are settled, and the agent runs one at a time.
    /// ironic-python-agent lists commands without their parameters.
    fn is_sent(&self, command: &Command, step: &ProcedureStep) -> bool {
        let sent = command.command_params.as_ref().and_then(|params| params.get("step"));
        let same = sent.and_then(|sent| sent.get("step")).is_none_or(|name| *name == step.step);
        let settled = self.run.settled_commands.contains(&command.id);
        // A command's name in lists is without its extension.
        let is_execution = self
            .extension
            .execute_step()
            .split_once('.')
            .is_some_and(|(_, name)| command.command_name == name);
        is_execution && same && !settled
    }

    fn started(&self, command: &Command) -> StepAction {
        done(Event::StepStarted { attempt: self.attempt, command_id: command.id.clone() })
    }

    fn checked(&self, commands: &[Command]) -> StepAction {
        let Some(command_id) = &self.run.command_id else { return done(no_agent(self.attempt)) };
        let Some(command) = commands.iter().find(|command| command.id == *command_id) else {
            return self.failed(StepFailure::Forgotten);
        };
        let name =
            self.run.current().map_or_else(|| self.extension.execute_step(), ProcedureStep::name);
        match command.command_status {
            CommandStatus::Running => done(Event::StepStillRuns { attempt: self.attempt }),
            CommandStatus::Succeeded => {
                let (attempt, command_id) = (self.attempt, command_id.clone());
                StepAction::Done {
                    event: Event::StepSucceeded { attempt, command_id },
                    trace: Some(traced(AgentCall::StepEnded { step: name }, AgentOutcome::Done)),
                }
            }
            CommandStatus::Failed => {
                let (attempt, extension) = (self.attempt, self.extension);
                let command = failure_of(command);
                let call = AgentCall::StepEnded { step: name.clone() };
                let trace = traced(call, AgentOutcome::Failed { error: command.to_string() });
                let failure = StepFailure::Ended { extension, step: name, command };
                let event = Event::StepFailed { attempt, failure };
                StepAction::Done { event, trace: Some(trace) }
            }
            CommandStatus::VersionMismatch | CommandStatus::CleanVersionMismatch => {
                self.failed(StepFailure::OtherVersion { step: name })
            }
        }
    }

    fn failed(&self, failure: StepFailure) -> StepAction {
        done(Event::StepFailed { attempt: self.attempt, failure })
    }
}

/// The result without an agent: the next agent's call resumes the work.
#[must_use]
pub fn no_agent(attempt: Uuid) -> Event {
    Event::AgentSilent { attempt, reason: "no agent has called".to_owned() }
}

/// A call to an agent and its outcome, for the trace.
#[must_use]
pub fn traced(call: AgentCall, outcome: AgentOutcome) -> BootEventKind {
    BootEventKind::Agent { call, outcome, caller: None }
}

/// A sent command and its outcome, for the trace.
#[must_use]
pub fn traced_command(call: AgentCall, command: &Command) -> BootEventKind {
    let outcome = match command.command_status {
        CommandStatus::Running | CommandStatus::Succeeded => AgentOutcome::Accepted,
        CommandStatus::Failed
        | CommandStatus::VersionMismatch
        | CommandStatus::CleanVersionMismatch => {
            AgentOutcome::Failed { error: failure_of(command).to_string() }
        }
    };
    traced(call, outcome)
}

fn done(event: Event) -> StepAction {
    StepAction::Done { event, trace: None }
}

fn step_of(offered: AgentStep) -> ProcedureStep {
    ProcedureStep {
        interface: offered.interface,
        step: offered.step,
        args: Map::new(),
        priority: offered.priority.into(),
        reboot_requested: offered.reboot_requested,
        abortable: offered.abortable,
    }
}

/// The result of a command that did not succeed.
fn failure_of(command: &Command) -> CommandFailure {
    match (&command.command_error, command.command_status) {
        (Some(error), _) => {
            let has_details = !error.details.is_empty();
            let words = if has_details { &error.details } else { &error.message };
            CommandFailure::Error { words: words.clone() }
        }
        (None, CommandStatus::Running) => CommandFailure::StillRuns,
        (None, CommandStatus::VersionMismatch | CommandStatus::CleanVersionMismatch) => {
            CommandFailure::OtherVersion
        }
        (None, CommandStatus::Failed | CommandStatus::Succeeded) => CommandFailure::NoReason,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::agent::CommandError;

    const STEPS: [&str; 3] = ["erase_devices_metadata", "erase_devices", "erase_devices"];

    fn step(name: &str) -> ProcedureStep {
        let step = json!({ "interface": "deploy", "step": name });
        serde_json::from_value(step).unwrap()
    }

    /// A run with `done` finished steps, whose commands have their numbers as IDs.
    fn run_of(done: usize) -> StepRun {
        StepRun {
            steps: STEPS.map(step).into(),
            hardware_manager_version: Some(json!({ "generic": "1" })),
            done,
            settled_commands: (0..done).map(|id| id.to_string()).collect(),
            ..StepRun::default()
        }
    }

    fn command(id: usize, status: CommandStatus) -> Command {
        Command {
            id: id.to_string(),
            command_name: "execute_clean_step".to_owned(),
            command_params: None,
            command_status: status,
            command_error: None,
            command_result: None,
        }
    }

    /// A command in an agent's list, with its parameters.
    fn command_with(id: usize, step: &ProcedureStep) -> Command {
        let params = Map::from_iter([("step".to_owned(), json!(step))]);
        Command { command_params: Some(params), ..command(id, CommandStatus::Running) }
    }

    fn next(work: StepWork, run: &StepRun, reply: &AgentReply) -> StepAction {
        StepPlan::new(work, AgentExtension::Clean, Uuid::nil(), run).next(reply)
    }

    fn step_failure(action: StepAction) -> StepFailure {
        let StepAction::Done { event: Event::StepFailed { failure, .. }, .. } = action else {
            panic!("{action:?}");
        };
        failure
    }

    #[test]
    fn an_agent_is_asked_for_its_steps_once() {
        let run = StepRun::default();

        let asked = next(StepWork::Ask, &run, &AgentReply::Nothing);

        let params = Map::new();
        assert_eq!(
            asked,
            StepAction::Send {
                call: AgentCall::GetSteps { extension: AgentExtension::Clean },
                command: "clean.get_clean_steps".to_owned(),
                params,
                wait: true
            }
        );
        let offered = json!({
            "clean_steps": { "generic": [
                { "interface": "deploy", "step": STEPS[0], "priority": 99, "abortable": true },
            ]},
            "hardware_manager_version": { "generic": "1" },
        });
        let answer =
            Command { command_result: Some(offered), ..command(0, CommandStatus::Succeeded) };
        let reported = next(StepWork::Ask, &run, &AgentReply::Sent(answer));
        let steps = vec![ProcedureStep { priority: 99, abortable: true, ..step(STEPS[0]) }];
        let hardware_manager_version = json!({ "generic": "1" });
        let attempt = Uuid::nil();
        let event = Event::StepsReported { attempt, steps, hardware_manager_version };
        assert_eq!(reported, done(event));
    }

    #[test]
    fn the_steps_of_another_procedure_are_asked_of_its_own_extension() {
        let run = run_of(0);
        let plan = |work| StepPlan::new(work, AgentExtension::Service, Uuid::nil(), &run);
        let named = |action| match action {
            StepAction::Send { call, command, params, .. } => (call.to_string(), command, params),
            StepAction::ListCommands | StepAction::Done { .. } => panic!("{action:?}"),
        };

        let (call, name, _) = named(plan(StepWork::Ask).next(&AgentReply::Nothing));
        assert_eq!((&*call, &*name), ("service.get_service_steps", "service.get_service_steps"));
        let offered = json!({ "service_steps": { "generic": [
            { "interface": "deploy", "step": STEPS[0], "priority": 0 },
        ]}});
        let answer =
            Command { command_result: Some(offered), ..command(0, CommandStatus::Succeeded) };
        let reported = plan(StepWork::Ask).next(&AgentReply::Sent(answer));
        assert!(matches!(
            reported,
            StepAction::Done { event: Event::StepsReported { steps, .. }, .. } if steps.len() == 1
        ));
        let none = AgentReply::Commands(Vec::new());
        let (call, name, params) = named(plan(StepWork::Run { index: 0 }).next(&none));
        assert_eq!(name, "service.execute_service_step");
        assert_eq!(call, format!("{name} {}", STEPS[0]));
        assert_eq!(params["service_version"], json!({ "generic": "1" }));
    }

    #[test]
    fn an_agent_that_reports_no_steps_has_failed_with_the_result_of_its_command() {
        for (status, result) in [
            (CommandStatus::Failed, CommandFailure::NoReason),
            (CommandStatus::Running, CommandFailure::StillRuns),
            (CommandStatus::VersionMismatch, CommandFailure::OtherVersion),
            (CommandStatus::CleanVersionMismatch, CommandFailure::OtherVersion),
        ] {
            let answer = AgentReply::Sent(command(0, status));

            let failed = next(StepWork::Ask, &StepRun::default(), &answer);

            let extension = AgentExtension::Clean;
            let failure = StepFailure::NotReported { extension, command: result };
            assert_eq!(step_failure(failed), failure);
        }
    }

    #[test]
    fn an_answer_that_is_no_list_of_steps_fails_with_the_parsers_error() {
        for result in [None, Some(json!("?"))] {
            let answer = Command { command_result: result, ..command(0, CommandStatus::Succeeded) };

            let failed = next(StepWork::Ask, &StepRun::default(), &AgentReply::Sent(answer));

            let StepFailure::BadList { error, .. } = step_failure(failed) else { panic!() };
            assert!(error.starts_with("invalid type"), "{error}");
        }
    }

    #[test]
    fn a_step_is_sent_after_a_look_at_what_the_agent_has() {
        let (work, run) = (StepWork::Run { index: 1 }, run_of(1));

        assert_eq!(next(work, &run, &AgentReply::Nothing), StepAction::ListCommands);
        let before = AgentReply::Commands(vec![command(0, CommandStatus::Succeeded)]);
        let StepAction::Send { command: name, params, wait, .. } = next(work, &run, &before) else {
            panic!("it is to be sent");
        };
        assert_eq!((&*name, wait), ("clean.execute_clean_step", false));
        assert_eq!(params["step"]["step"], STEPS[1]);
        assert_eq!(params["clean_version"], json!({ "generic": "1" }));
        let sent = AgentReply::Sent(command(7, CommandStatus::Running));
        let event = Event::StepStarted { attempt: Uuid::nil(), command_id: "7".to_owned() };
        assert_eq!(next(work, &run, &sent), done(event));
    }

    #[test]
    fn a_step_that_the_agent_has_already_is_not_sent_again() {
        let (work, run) = (StepWork::Run { index: 1 }, run_of(1));
        let (other, same) = (step("burnin_cpu"), step(STEPS[1]));
        let get_steps = Command {
            command_name: "get_clean_steps".to_owned(),
            ..command(7, CommandStatus::Succeeded)
        };
        for (listed, is_sent) in [
            (vec![], false),
            (vec![command(0, CommandStatus::Succeeded)], false),
            (vec![get_steps], false),
            (vec![command_with(7, &other)], false),
            (vec![command_with(7, &same)], true),
            (vec![command(7, CommandStatus::Running)], true),
            (vec![command(7, CommandStatus::Succeeded)], true),
            (vec![command(7, CommandStatus::Failed)], true),
            (vec![command(0, CommandStatus::Succeeded), command(7, CommandStatus::Running)], true),
        ] {
            let action = next(work, &run, &AgentReply::Commands(listed.clone()));

            let event = Event::StepStarted { attempt: Uuid::nil(), command_id: "7".to_owned() };
            assert_eq!(action == done(event), is_sent, "{listed:?}: {action:?}");
            assert_eq!(matches!(action, StepAction::Send { .. }), !is_sent, "{listed:?}");
        }
    }

    #[test]
    fn what_became_of_a_step_is_read_off_its_command() {
        let run = StepRun { command_id: Some("7".to_owned()), ..run_of(1) };
        let attempt = Uuid::nil();
        let check = |status| {
            let error = CommandError {
                kind: "CleaningError".to_owned(),
                code: 500,
                message: "it failed".to_owned(),
                details: "no such disk".to_owned(),
            };
            let command = Command { command_error: Some(error), ..command(7, status) };
            next(StepWork::Check, &run, &AgentReply::Commands(vec![command]))
        };
        let name = "deploy.erase_devices";

        assert_eq!(check(CommandStatus::Running), done(Event::StepStillRuns { attempt }));
        let event = Event::StepSucceeded { attempt, command_id: "7".to_owned() };
        let call = || AgentCall::StepEnded { step: name.to_owned() };
        let trace = Some(traced(call(), AgentOutcome::Done));
        assert_eq!(check(CommandStatus::Succeeded), StepAction::Done { event, trace });
        let error = "no such disk".to_owned();
        let failure = StepFailure::Ended {
            extension: AgentExtension::Clean,
            step: name.to_owned(),
            command: CommandFailure::Error { words: error.clone() },
        };
        let event = Event::StepFailed { attempt, failure };
        let trace = Some(traced(call(), AgentOutcome::Failed { error }));
        assert_eq!(check(CommandStatus::Failed), StepAction::Done { event, trace });
        for mismatch in [CommandStatus::VersionMismatch, CommandStatus::CleanVersionMismatch] {
            let failure = StepFailure::OtherVersion { step: name.to_owned() };
            assert_eq!(step_failure(check(mismatch)), failure);
        }
    }

    #[test]
    fn a_step_that_the_agent_does_not_know_any_more_has_failed() {
        let run = StepRun { command_id: Some("7".to_owned()), ..run_of(1) };
        assert_eq!(next(StepWork::Check, &run, &AgentReply::Nothing), StepAction::ListCommands);

        let failed = next(StepWork::Check, &run, &AgentReply::Commands(vec![]));

        assert_eq!(step_failure(failed), StepFailure::Forgotten);
    }

    #[test]
    fn a_silent_agent_is_waited_for_and_one_that_refuses_is_not() {
        let (attempt, reason) = (Uuid::nil(), "no".to_owned());
        let failure = StepFailure::CallRefused { status: 400, words: reason.clone() };
        for work in [StepWork::Ask, StepWork::Run { index: 0 }, StepWork::Check] {
            let silent = next(work, &run_of(0), &AgentReply::Silent(reason.clone()));
            let refused = next(work, &run_of(0), &AgentReply::Refused(failure.clone()));

            let event = Event::AgentSilent { attempt, reason: reason.clone() };
            assert_eq!(silent, done(event));
            let event = Event::StepFailed { attempt, failure: failure.clone() };
            assert_eq!(refused, done(event));
        }
    }

    /// The fate of a call to the agent, and of the daemon.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum CallFate {
        Answered,
        AnswerLost,
        DaemonDies,
        DaemonDiesAfter,
    }

    /// An agent that runs each step sent to it.
    #[derive(Debug, Default)]
    struct AgentModel {
        commands: Vec<Command>,
        shows_params: bool,
    }

    impl AgentModel {
        fn answer(&mut self, action: &StepAction) -> AgentReply {
            match action {
                StepAction::ListCommands => AgentReply::Commands(self.commands.clone()),
                StepAction::Send { params, .. } => {
                    let mut command = command(self.commands.len(), CommandStatus::Running);
                    command.command_params = self.shows_params.then(|| params.clone());
                    self.commands.push(command.clone());
                    AgentReply::Sent(command)
                }
                StepAction::Done { .. } => AgentReply::Nothing,
            }
        }

        /// One life of a daemon: the result of its work, unless it died.
        fn live(
            &mut self,
            plan: &StepPlan<'_>,
            fates: &mut impl Iterator<Item = CallFate>,
        ) -> Option<Event> {
            let mut reply = AgentReply::Nothing;
            for _ in 0..3 {
                let action = plan.next(&reply);
                if let StepAction::Done { event, .. } = action {
                    return Some(event);
                }
                let fate = fates.next().unwrap_or(CallFate::Answered);
                if fate == CallFate::DaemonDies {
                    return None;
                }
                reply = self.answer(&action);
                match fate {
                    CallFate::Answered | CallFate::DaemonDies => {}
                    CallFate::DaemonDiesAfter => return None,
                    CallFate::AnswerLost => reply = AgentReply::Silent("timed out".to_owned()),
                }
            }
            panic!("it does not end");
        }
    }

    proptest! {
        #[test]
        fn no_step_is_sent_twice_whatever_dies_or_gets_lost(
            shows_params in any::<bool>(),
            fates in prop::collection::vec(
                prop::sample::select(vec![
                    CallFate::Answered,
                    CallFate::AnswerLost,
                    CallFate::DaemonDies,
                    CallFate::DaemonDiesAfter,
                ]),
                0..40,
            ),
        ) {
            let mut fates = fates.into_iter();
            let mut agent = AgentModel { shows_params, ..AgentModel::default() };
            for index in 0..STEPS.len() {
                let run = run_of(index);
                let plan = StepPlan::new(StepWork::Run { index }, AgentExtension::Clean, Uuid::nil(), &run);
                let started = loop {
                    match agent.live(&plan, &mut fates) {
                        // The agent calls again, or the work is claimed again.
                        Some(Event::AgentSilent { .. }) | None => {}
                        Some(event) => break event,
                    }
                };
                let command_id = index.to_string();
                prop_assert_eq!(started, Event::StepStarted { attempt: Uuid::nil(), command_id });
                prop_assert_eq!(agent.commands.len(), index + 1);
                agent.commands[index].command_status = CommandStatus::Succeeded;
            }
        }
    }
}
