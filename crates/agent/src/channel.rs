//! The calls to this agent, fetched over its own connections: for machines that nobody can call, as behind NAT.
//!
//! Each call is carried out once. The answer is sent until the service has it; a call that is fetched again meanwhile
//! gets the same answer.

use std::convert::Infallible;
use std::time::Duration;

use ironic::agent::{CommandRequest, Fault};
use ironic::agent_channel::{AgentCallAnswer, CommandApiCall, FetchedAgentCall};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tracing::{debug, info};
use uuid::Uuid;

use crate::api::{CallError, IronicClient, NextCall};
use crate::effects::{CommandEffects, Refusal};

/// The longest wait for the end of a command: the service waits for an answer no longer.
const END: Duration = Duration::from_secs(60);

/// The pause after a failed request. The next ones are longer, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The channel of an agent to the service.
#[derive(Debug)]
pub struct CommandChannel {
    api: IronicClient,
    node: Uuid,
    key: String,
    effects: CommandEffects,
}

impl CommandChannel {
    /// The channel of the agent of this node. `key` is in its heartbeats.
    pub fn new(api: IronicClient, node: Uuid, key: String, effects: CommandEffects) -> Self {
        Self { api, node, key, effects }
    }

    /// Fetches calls for the agent's lifetime, from its first accepted heartbeat on.
    pub async fn run(self) -> Infallible {
        let mut last: Option<AgentCallAnswer> = None;
        let mut is_sent = true;
        let mut pause = FIRST_PAUSE;
        loop {
            let to_send = last.as_ref().filter(|_| !is_sent);
            match self.api.next_call(self.node, &self.key, to_send).await {
                Ok(NextCall::Nothing { ask_after }) => {
                    (is_sent, pause) = (true, FIRST_PAUSE);
                    sleep(ask_after).await;
                }
                Ok(NextCall::Call(call)) => {
                    pause = FIRST_PAUSE;
                    is_sent = false;
                    if last.as_ref().is_none_or(|answered| answered.id != call.id) {
                        last = Some(self.answer(call).await);
                    }
                }
                Err(error) => {
                    self.log(error, pause);
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn answer(&self, FetchedAgentCall { id, call }: FetchedAgentCall) -> AgentCallAnswer {
        let answered = match call {
            CommandApiCall::List => Ok(json!(self.effects.list())),
            CommandApiCall::Run { command, wait } => self.run_command(command, wait).await,
        };
        let (status, body) = match answered {
            Ok(body) => (200, body),
            Err(Refusal(status, words)) => (status, json!(Fault::new(status, words))),
        };
        AgentCallAnswer { id, status, body }
    }

    async fn run_command(&self, command: CommandRequest, wait: bool) -> Result<Value, Refusal> {
        let started = self.effects.start(command)?;
        if !wait {
            return Ok(json!(started));
        }
        let busy = || Refusal(409, "the command has not ended yet".to_owned());
        let ended = timeout(END, self.effects.commands.wait(&started.id)).await;
        ended.ok().flatten().map(|command| json!(command)).ok_or_else(busy)
    }

    fn log(&self, error: CallError, pause: Duration) {
        let again = pause.as_secs_f32();
        let error = anyhow::Error::new(error);
        if pause < LONGEST_PAUSE {
            debug!("no call fetched: {error:#}; again in {again} s");
        } else {
            info!("no call fetched: {error:#}; again in {again} s");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::extract::State;
    use axum::http::{HeaderMap, StatusCode};
    use axum::response::{IntoResponse as _, Response};
    use axum::routing::post;
    use axum::{Json, Router};
    use ironic::agent_channel::KEY_HEADER;
    use serde_json::Map;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::clean::CleaningTarget;
    use crate::cmdline::AgentOptions;
    use crate::disks::DiskSource;
    use crate::effects::AgentHost;
    use crate::system_logs::RecentLog;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    /// A service that answers each request with the next of these.
    #[derive(Clone)]
    struct ScriptedService {
        answers: Arc<Mutex<Vec<Option<FetchedAgentCall>>>>,
        received: mpsc::UnboundedSender<Value>,
    }

    async fn next(
        State(service): State<ScriptedService>,
        headers: HeaderMap,
        body: String,
    ) -> Response {
        assert_eq!(headers[KEY_HEADER], KEY);
        let body = serde_json::from_str(&body).unwrap_or(Value::Null);
        let answer = service.answers.lock().unwrap().pop();
        let _ = service.received.send(body);
        match answer {
            Some(Some(call)) => Json(call).into_response(),
            Some(None) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            None => StatusCode::NO_CONTENT.into_response(),
        }
    }

    /// The effects of an agent whose service answers so, and the first bodies that the service received.
    async fn run(
        mut answers: Vec<Option<FetchedAgentCall>>,
        requests: usize,
    ) -> (CommandEffects, Vec<Value>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let machine = CleaningTarget { disks: DiskSource::Named(vec![]), guards_clustered: true };
        let effects = CommandEffects::new(machine, AgentHost::Process, RecentLog::default());
        let (received, mut bodies) = mpsc::unbounded_channel();
        answers.reverse();
        let service = ScriptedService { answers: Arc::new(Mutex::new(answers)), received };
        let routes =
            Router::new().route("/v1/heartbeat/{node}/calls", post(next)).with_state(service);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let api = IronicClient::new(&url, &AgentOptions::default(), &[]).unwrap();
        let channel = CommandChannel::new(api, Uuid::nil(), KEY.to_owned(), effects.clone());
        let running = tokio::spawn(channel.run());
        let mut seen = Vec::new();
        while seen.len() < requests {
            seen.push(bodies.recv().await.unwrap());
        }
        running.abort();
        (effects, seen)
    }

    fn call(id: u128, call: CommandApiCall) -> Option<FetchedAgentCall> {
        Some(FetchedAgentCall { id: Uuid::from_u128(id), call })
    }

    fn command(name: &str) -> CommandApiCall {
        let command = CommandRequest { name: name.to_owned(), params: Map::new() };
        CommandApiCall::Run { command, wait: true }
    }

    #[tokio::test]
    async fn a_call_gets_the_answer_of_the_command_api_in_the_next_request() {
        let steps = call(1, command("clean.get_clean_steps"));

        let (_, bodies) = run(vec![steps, call(2, CommandApiCall::List)], 4).await;

        assert_eq!(bodies[0], Value::Null);
        assert_eq!(
            (&bodies[1]["id"], &bodies[1]["status"]),
            (&json!(Uuid::from_u128(1)), &json!(200))
        );
        assert_eq!(bodies[1]["body"]["command_status"], "SUCCEEDED");
        assert_eq!(bodies[2]["body"]["commands"][0]["command_name"], "get_clean_steps");
        assert_eq!(bodies[3], Value::Null, "the answer has arrived");
    }

    #[tokio::test]
    async fn a_call_that_is_fetched_again_is_carried_out_once() {
        let again = || call(1, command("standby.sync"));

        let (effects, bodies) = run(vec![again(), None, again(), again()], 5).await;

        assert_eq!(effects.list().commands.len(), 1);
        // The failed request, and each one until the service has the answer.
        assert!(bodies[1..5].iter().all(|body| *body == bodies[1]), "{bodies:?}");
    }

    #[tokio::test]
    async fn a_command_that_this_agent_cannot_do_is_refused_as_by_the_command_api() {
        let (_, bodies) = run(vec![call(1, command("standby.dance"))], 2).await;

        assert_eq!(bodies[1]["status"], 400);
        assert_eq!(bodies[1]["body"]["faultstring"], "Invalid command: Unknown command: dance");
    }
}
