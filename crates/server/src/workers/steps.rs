//! Calls to the agent, as planned by a [`StepPlan`]: its list of steps, the next step, and its progress.

use agents::{AgentClient, AgentError};
use ironic::step_plan::{self, AgentReply, StepAction, StepPlan, StepWork};
use provision::trace::{AgentCall, AgentOutcome};
use provision::{BootEventKind, Event, StepSource};
use serde_json::{Map, Value, json};
use store::Claimed;
use tracing::info;
use uuid::Uuid;

use super::context::{WorkerContext, attempt_of};

pub(super) async fn run(
    context: &WorkerContext,
    claimed: &Claimed,
    id: Uuid,
    work: StepWork,
) -> Event {
    let Some(attempt) = attempt_of(&claimed.node, id) else { return step_plan::no_agent(id) };
    let Some(agent) = &attempt.agent else { return step_plan::no_agent(id) };
    let StepSource::Agent(extension) = attempt.procedure.row().steps else {
        return step_plan::no_agent(id);
    };
    let client = match AgentClient::new(&claimed.node, attempt, agent, &context.mailbox) {
        Ok(client) => client,
        Err(failure) => return Event::StepFailed { attempt: id, failure },
    };
    let agent = TracedAgent { context, claimed, client };
    agent.carry_out(StepPlan::new(work, extension, id, &attempt.run)).await
}

/// A node's agent, with each call to it in the trace.
struct TracedAgent<'a> {
    context: &'a WorkerContext,
    claimed: &'a Claimed,
    client: AgentClient<'a>,
}

impl TracedAgent<'_> {
    async fn carry_out(&self, plan: StepPlan<'_>) -> Event {
        let mut reply = AgentReply::Nothing;
        loop {
            reply = match plan.next(&reply) {
                StepAction::ListCommands => self.commands().await,
                StepAction::Send { call, command, params, wait } => {
                    self.send(call, &command, params, wait).await
                }
                StepAction::Done { event, trace } => {
                    trace.into_iter().for_each(|what| self.record(what));
                    return event;
                }
            };
        }
    }

    async fn commands(&self) -> AgentReply {
        match self.client.commands().await {
            Ok(commands) => AgentReply::Commands(commands),
            Err(error) => self.failed(AgentCall::ListCommands, error),
        }
    }

    async fn send(
        &self,
        call: AgentCall,
        command: &str,
        params: Map<String, Value>,
        wait: bool,
    ) -> AgentReply {
        info!("telling the agent: {call}");
        let params = self.about_node().into_iter().chain(params).collect();
        match self.client.run(command, params, wait).await {
            Ok(command) => {
                self.record(step_plan::traced_command(call, &command));
                AgentReply::Sent(command)
            }
            Err(error) => self.failed(call, error),
        }
    }

    fn failed(&self, call: AgentCall, error: AgentError) -> AgentReply {
        let outcome = AgentOutcome::Failed { error: error.to_string() };
        self.record(step_plan::traced(call, outcome));
        reply_of(error)
    }

    fn record(&self, what: BootEventKind) {
        self.context.recorder.record(&self.claimed.node, what);
    }

    /// The agent's view of the node, without data about the BMC.
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
}

fn reply_of(error: AgentError) -> AgentReply {
    match error {
        AgentError::Unreachable { .. } | AgentError::Busy(_) => {
            AgentReply::Silent(error.to_string())
        }
        AgentError::Refused(failure) => AgentReply::Refused(failure),
    }
}

#[cfg(test)]
mod tests {
    use provision::StepFailure;

    use super::*;

    #[test]
    fn an_agent_that_cannot_be_reached_or_is_busy_is_silent_and_has_not_refused() {
        let (at, why) = ("https://x".to_owned(), "timed out".to_owned());
        let failure = StepFailure::CallRefused { status: 400, words: "no".to_owned() };
        for (error, is_silent) in [
            (AgentError::Unreachable { at, why }, true),
            (AgentError::Busy("running".to_owned()), true),
            (AgentError::Refused(failure), false),
        ] {
            let words = error.to_string();

            let reply = reply_of(error);

            assert_eq!(matches!(reply, AgentReply::Silent(_)), is_silent, "{words}");
        }
    }
}
