//! Clean steps, asked of the agent and run by it. None is sent that it may already have.

use std::collections::BTreeMap;

use ironic::agent::{CleanSteps, Command, CommandStatus};
use provision::clean::CleanStep;
use provision::{Attempt, Event, What};
use serde_json::{Map, Value, json};
use store::Claimed;
use tracing::info;
use uuid::Uuid;

use super::{Workers, attempt_of};
use crate::agents::{AgentClient, AgentError};

const ASK: &str = "clean.get_clean_steps";
const RUN: &str = "clean.execute_clean_step";
/// A command's name in lists is without its extension.
const RUN_IN_LISTS: &str = "execute_clean_step";

/// Why nothing more can come of a clean, or of this call.
enum Trouble {
    Over,
    Agent(AgentError),
    Failed(String),
}

impl From<AgentError> for Trouble {
    fn from(error: AgentError) -> Self {
        Self::Agent(error)
    }
}

pub(super) async fn ask(workers: &Workers, claimed: &Claimed, attempt: Uuid) -> Event {
    event(attempt, try_ask(workers, claimed, attempt).await)
}

pub(super) async fn run(
    workers: &Workers,
    claimed: &Claimed,
    attempt: Uuid,
    index: usize,
) -> Event {
    event(attempt, try_run(workers, claimed, attempt, index).await)
}

pub(super) async fn check(workers: &Workers, claimed: &Claimed, attempt: Uuid) -> Event {
    event(attempt, try_check(workers, claimed, attempt).await)
}

fn event(attempt: Uuid, result: Result<Event, Trouble>) -> Event {
    match result {
        Ok(event) => event,
        Err(Trouble::Failed(reason)) => Event::StepFailed { attempt, reason },
        Err(Trouble::Over) => {
            Event::AgentSilent { attempt, reason: "no agent has called".to_owned() }
        }
        Err(Trouble::Agent(error @ (AgentError::Unreachable { .. } | AgentError::Busy(_)))) => {
            Event::AgentSilent { attempt, reason: error.to_string() }
        }
        Err(Trouble::Agent(error @ (AgentError::Certificate(_) | AgentError::Refused { .. }))) => {
            Event::StepFailed { attempt, reason: error.to_string() }
        }
    }
}

async fn try_ask(workers: &Workers, claimed: &Claimed, id: Uuid) -> Result<Event, Trouble> {
    let call = Call::new(workers, claimed, id)?;
    let command = call.run(ASK, call.about_node(), true).await?;
    let result = match command.command_status {
        CommandStatus::Succeeded => command.command_result.unwrap_or_default(),
        CommandStatus::Failed
        | CommandStatus::Running
        | CommandStatus::VersionMismatch
        | CommandStatus::CleanVersionMismatch => {
            return Err(Trouble::Failed(format!(
                "the agent could not say which clean steps it has: {}",
                why(&command)
            )));
        }
    };
    let offered: CleanSteps = serde_json::from_value(result).map_err(|error| {
        Trouble::Failed(format!("the agent's list of clean steps is not one: {error}"))
    })?;
    Ok(Event::StepsReported {
        attempt: id,
        steps: steps_of(offered.clean_steps),
        hardware_manager_version: json!(offered.hardware_manager_version),
    })
}

fn steps_of(offered: BTreeMap<String, Vec<ironic::agent::AgentStep>>) -> Vec<CleanStep> {
    let steps = offered.into_values().flatten();
    let step = |step: ironic::agent::AgentStep| CleanStep {
        interface: step.interface,
        step: step.step,
        args: Map::new(),
        priority: step.priority.into(),
        reboot_requested: step.reboot_requested,
        abortable: step.abortable,
    };
    steps.map(step).collect()
}

async fn try_run(
    workers: &Workers,
    claimed: &Claimed,
    id: Uuid,
    index: usize,
) -> Result<Event, Trouble> {
    let call = Call::new(workers, claimed, id)?;
    let clean = &call.attempt.clean;
    let step = clean.steps.get(index).ok_or(Trouble::Over)?;
    // A daemon that died after sending it, or an answer that got lost, leaves it there.
    if let Some(sent) = call.commands().await?.iter().find(|command| is_sent(command, clean, step))
    {
        info!(command = sent.id, "the agent has {} already", step.name());
        return Ok(Event::StepStarted { attempt: id, command_id: sent.id.clone() });
    }
    let mut params = call.about_node();
    params.insert("step".to_owned(), json!(step));
    let version = clean.hardware_manager_version.clone();
    params.insert("clean_version".to_owned(), version.unwrap_or_default());
    info!("running {}", step.name());
    let command = call.run(RUN, params, false).await?;
    Ok(Event::StepStarted { attempt: id, command_id: command.id })
}

/// Whether a command is the current step: all before it are settled, and it runs one step at a time.
/// ironic-python-agent lists commands without their parameters.
fn is_sent(command: &Command, clean: &provision::node::Clean, step: &CleanStep) -> bool {
    let sent = command.command_params.as_ref().and_then(|params| params.get("step"));
    let same = sent.and_then(|sent| sent.get("step")).is_none_or(|name| *name == step.step);
    let settled = clean.settled_commands.contains(&command.id);
    command.command_name == RUN_IN_LISTS && same && !settled
}

async fn try_check(workers: &Workers, claimed: &Claimed, id: Uuid) -> Result<Event, Trouble> {
    let call = Call::new(workers, claimed, id)?;
    let command_id = call.attempt.clean.command_id.as_ref().ok_or(Trouble::Over)?;
    let commands = call.commands().await?;
    let Some(command) = commands.iter().find(|command| command.id == *command_id) else {
        return Err(Trouble::Failed(
            "the agent does not know the step it was running: its machine was started anew".into(),
        ));
    };
    let name = call.attempt.clean.current().map_or_else(|| RUN.to_owned(), CleanStep::name);
    match command.command_status {
        CommandStatus::Running => Ok(Event::StepStillRuns { attempt: id }),
        CommandStatus::Succeeded => {
            call.record(&name, "done", true);
            Ok(Event::StepSucceeded { attempt: id, command_id: command_id.clone() })
        }
        CommandStatus::Failed => {
            let reason = why(command);
            call.record(&name, &reason, false);
            Err(Trouble::Failed(format!("the clean step {name} failed: {reason}")))
        }
        CommandStatus::VersionMismatch | CommandStatus::CleanVersionMismatch => {
            Err(Trouble::Failed(format!(
                "the agent is not the one that reported its steps; it refused {name}"
            )))
        }
    }
}

fn why(command: &Command) -> String {
    match &command.command_error {
        Some(error) if error.details.is_empty() => error.message.clone(),
        Some(error) => error.details.clone(),
        None => format!("it is {:?}, and gave no reason", command.command_status),
    }
}

/// A node's agent, with each call to it in the trace.
struct Call<'a> {
    workers: &'a Workers,
    claimed: &'a Claimed,
    attempt: &'a Attempt,
    client: AgentClient<'a>,
}

impl<'a> Call<'a> {
    fn new(workers: &'a Workers, claimed: &'a Claimed, attempt: Uuid) -> Result<Self, Trouble> {
        let attempt = attempt_of(&claimed.node, attempt).ok_or(Trouble::Over)?;
        let agent = attempt.agent.as_ref().ok_or(Trouble::Over)?;
        let client = AgentClient::new(attempt, agent)?;
        Ok(Self { workers, claimed, attempt, client })
    }

    async fn commands(&self) -> Result<Vec<Command>, AgentError> {
        let listed = self.client.commands().await;
        if let Err(error) = &listed {
            self.record("list of commands", &error.to_string(), false);
        }
        listed
    }

    async fn run(
        &self,
        name: &str,
        params: Map<String, Value>,
        wait: bool,
    ) -> Result<Command, AgentError> {
        let step = params.get("step").and_then(|step| step["step"].as_str());
        let call = step.map_or_else(|| name.to_owned(), |step| format!("{name} {step}"));
        let answer = self.client.run(name, params, wait).await;
        match &answer {
            Ok(command) => {
                let went_well = match command.command_status {
                    CommandStatus::Running | CommandStatus::Succeeded => true,
                    CommandStatus::Failed
                    | CommandStatus::VersionMismatch
                    | CommandStatus::CleanVersionMismatch => false,
                };
                let result = if went_well { "taken on".to_owned() } else { why(command) };
                self.record(&call, &result, went_well);
            }
            Err(error) => self.record(&call, &error.to_string(), false),
        }
        answer
    }

    /// The node as its agent may see it: nothing of the BMC.
    fn about_node(&self) -> Map<String, Value> {
        let Claimed { node, ports, .. } = self.claimed;
        let ports: Vec<_> = ports
            .iter()
            .map(|port| json!({ "uuid": port.uuid, "address": port.address }))
            .collect();
        let about = json!({
            "node": {
                "uuid": node.uuid,
                "name": node.name,
                "provision_state": node.provision_state,
                "properties": node.properties,
                "extra": node.extra,
                "instance_info": {},
                "driver_info": {},
                "driver_internal_info": {},
            },
            "ports": ports,
        });
        about.as_object().cloned().unwrap_or_default()
    }

    fn record(&self, call: &str, result: &str, ok: bool) {
        let what =
            What::Agent { call: call.to_owned(), result: result.to_owned(), ok, caller: None };
        self.workers.recorder.record(&self.claimed.node, what);
    }
}
