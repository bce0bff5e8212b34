//! A scripted agent: it sends lookups and heartbeats, and runs clean steps that only take time.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use ironic::agent::{
    AgentStep, CleanSteps, Command, CommandList, CommandRequest, CommandStatus, Fault,
    HeartbeatBody, Lookup,
};
use ironic::field::MASKED;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use crate::links::AGENT_RELAY;
use crate::machine::{ScriptedMachine, StepRun};

/// The port of the command API.
pub(crate) const PORT: u16 = 9999;
/// The steps that agents offer; an operator's clean requests all of them.
pub(crate) const STEPS: [&str; 3] = ["erase_devices_metadata", "erase_devices", "burnin_memory"];
const VERSION_HEADER: &str = "x-openstack-ironic-api-version";

/// The agent of one start of a machine.
#[derive(Clone)]
pub(crate) struct ScriptedAgent {
    machine: Arc<ScriptedMachine>,
    boot: usize,
    token: Arc<Mutex<Option<String>>>,
    commands: Arc<Mutex<Vec<(Command, Instant)>>>,
}

impl ScriptedAgent {
    /// With the parameters of the kernel command line in the image.
    pub(crate) fn new(machine: Arc<ScriptedMachine>, boot: usize, image: &[u8]) -> Self {
        let token = argument(image, "ipa-agent-token=");
        machine.note(boot, |boot| boot.token.clone_from(&token));
        let token = Arc::new(Mutex::new(token));
        Self { machine, boot, token, commands: Arc::default() }
    }

    /// Runs until the machine is switched off.
    pub(crate) async fn live(self) {
        let node = self.look_up().await;
        let mut parts = JoinSet::new();
        parts.spawn(self.clone().serve());
        parts.spawn(self.clone().heartbeats(node));
        // Neither task ends.
        while parts.join_next().await.is_some() {}
    }

    /// An agent without a token ends, and its init starts another one.
    async fn look_up(&self) -> Uuid {
        loop {
            match self.try_look_up().await {
                Ok(lookup) => {
                    let given = lookup.config.agent_token.filter(|token| token != MASKED);
                    let mut own = lock(&self.token);
                    if own.is_none() {
                        own.clone_from(&given);
                    }
                    let (token, node) = (own.clone(), lookup.node.uuid);
                    drop(own);
                    if token.is_some() {
                        self.machine.note(self.boot, |boot| boot.token = token);
                        return node;
                    }
                    self.machine.report.count("agents that got no token");
                    self.machine.note(self.boot, |boot| boot.token_lost = true);
                }
                Err(_) => self.machine.report.count("lookups that failed"),
            }
            sleep(self.machine.millis(300..1_500)).await;
        }
    }

    async fn try_look_up(&self) -> reqwest::Result<Lookup> {
        let request = self
            .machine
            .http
            .get(format!("http://{AGENT_RELAY}/v1/lookup"))
            .header(VERSION_HEADER, "1.62")
            .query(&[("addresses", &self.machine.mac)]);
        request.send().await?.error_for_status()?.json().await
    }

    async fn heartbeats(self, node: Uuid) {
        loop {
            let pause = match self.heartbeat(node).await {
                Ok(status) if status.is_success() => {
                    self.machine.report.count("heartbeats taken");
                    self.machine.note(self.boot, |boot| boot.is_heard = true);
                    self.machine.millis(800..1_600)
                }
                Ok(StatusCode::CONFLICT) => {
                    self.machine.report.count("heartbeats that came while the node was locked");
                    self.machine.millis(300..900)
                }
                Ok(_) | Err(_) => {
                    self.machine.report.count("heartbeats that failed");
                    self.machine.millis(500..1_000)
                }
            };
            let ends = lock(&self.commands).last().map(|(_, ends)| *ends);
            let step = ends.map(|ends| ends.saturating_duration_since(Instant::now()));
            // The end of a step is reported at once, as by a real agent.
            let pause = step.filter(|left| !left.is_zero()).map_or(pause, |left| left.min(pause));
            sleep(pause.max(Duration::from_millis(20))).await;
        }
    }

    async fn heartbeat(&self, node: Uuid) -> reqwest::Result<StatusCode> {
        let heartbeat = HeartbeatBody {
            callback_url: format!("https://{}", self.machine.callback),
            agent_token: lock(&self.token).clone(),
            agent_version: Some("soak".to_owned()),
            agent_verify_ca: Some(self.machine.certificate.pem.clone()),
            ..HeartbeatBody::default()
        };
        let request = self
            .machine
            .http
            .post(format!("http://{AGENT_RELAY}/v1/heartbeat/{node}"))
            .header(VERSION_HEADER, "1.68")
            .json(&heartbeat);
        Ok(request.send().await?.status())
    }

    async fn serve(self) {
        let at = SocketAddr::from((self.machine.address, PORT));
        let listener = loop {
            match TcpListener::bind(at).await {
                Ok(listener) => break listener,
                // The previous start's agent may still have the port.
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        };
        let tls = TlsAcceptor::from(self.machine.certificate.tls().unwrap());
        let routes =
            Router::new().route("/v1/commands/", get(list).post(run)).with_state(self.clone());
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (tls, routes) = (tls.clone(), routes.clone());
            connections.spawn(async move {
                let Ok(Ok(stream)) = timeout(Duration::from_secs(10), tls.accept(stream)).await
                else {
                    return;
                };
                let service = TowerToHyperService::new(routes);
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
            while connections.try_join_next().is_some() {}
        }
    }

    fn list(&self) -> Vec<Command> {
        let now = Instant::now();
        let commands = lock(&self.commands);
        let shown = commands.iter().map(|(command, ends)| {
            let mut command = command.clone();
            if *ends <= now {
                command.command_status = CommandStatus::Succeeded;
                let step = command.command_params.as_ref().and_then(|params| params.get("step"));
                if command.command_result.is_none() {
                    command.command_result =
                        Some(json!({ "clean_result": null, "clean_step": step }));
                }
            }
            command
        });
        shown.collect()
    }

    fn run(&self, request: CommandRequest) -> Result<Command, (u16, String)> {
        let busy =
            self.list().iter().any(|command| command.command_status == CommandStatus::Running);
        if busy {
            return Err((409, "Agent is busy".to_owned()));
        }
        let step = request.params.get("step").and_then(|step| step["step"].as_str());
        let (name, result, lasts) = match (request.name.as_str(), step) {
            ("clean.get_clean_steps", _) => ("get_clean_steps", Some(offered()), Duration::ZERO),
            ("clean.execute_clean_step", Some(step)) => {
                let lasts = self.machine.millis(50..1_500);
                self.runs(step, lasts);
                ("execute_clean_step", None, lasts)
            }
            (other, _) => return Err((404, format!("there is no command {other}"))),
        };
        let command = Command {
            id: Uuid::new_v4().to_string(),
            command_name: name.to_owned(),
            command_params: Some(request.params),
            command_status: if lasts.is_zero() {
                CommandStatus::Succeeded
            } else {
                CommandStatus::Running
            },
            command_error: None,
            command_result: result,
        };
        lock(&self.commands).push((command.clone(), Instant::now() + lasts));
        Ok(command)
    }

    fn runs(&self, step: &str, lasts: Duration) {
        let (machine, token) = (&self.machine, lock(&self.token).clone().unwrap_or_default());
        machine.report.count("clean steps run");
        if machine.has_run(&token, step) {
            machine.report.count("clean steps run TWICE in an attempt");
            machine.report.broke(format!("machine {}: {step} was run twice", machine.number));
        }
        let run = StepRun { step: step.to_owned(), ends: Instant::now() + lasts };
        machine.note(self.boot, |boot| boot.steps.push(run));
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CommandQuery {
    agent_token: String,
}

type AgentAnswer<T> = Result<Json<T>, (StatusCode, Json<Fault>)>;

async fn list(
    State(agent): State<ScriptedAgent>,
    Query(query): Query<CommandQuery>,
) -> AgentAnswer<CommandList> {
    agent.authorize(&query)?;
    Ok(Json(CommandList { commands: agent.list() }))
}

async fn run(
    State(agent): State<ScriptedAgent>,
    Query(query): Query<CommandQuery>,
    Json(request): Json<CommandRequest>,
) -> AgentAnswer<Command> {
    agent.authorize(&query)?;
    agent.run(request).map(Json).map_err(|(status, words)| fault(status, words))
}

impl ScriptedAgent {
    fn authorize(&self, query: &CommandQuery) -> Result<(), (StatusCode, Json<Fault>)> {
        if lock(&self.token).as_deref() == Some(query.agent_token.as_str()) {
            return Ok(());
        }
        self.machine
            .report
            .broke(format!("machine {}: a command with another token", self.machine.number));
        Err(fault(401, "Token invalid.".to_owned()))
    }
}

fn fault(status: u16, words: String) -> (StatusCode, Json<Fault>) {
    (StatusCode::from_u16(status).unwrap(), Json(Fault::new(status, words)))
}

fn offered() -> Value {
    let step = |name: &str| AgentStep {
        step: name.to_owned(),
        priority: 10,
        interface: "deploy".to_owned(),
        reboot_requested: false,
        abortable: true,
    };
    let steps = STEPS.map(step).to_vec();
    json!(CleanSteps {
        clean_steps: [("soak".to_owned(), steps)].into(),
        hardware_manager_version: [("soak".to_owned(), "1".to_owned())].into(),
    })
}

/// The value of an argument on a kernel command line within an image.
fn argument(image: &[u8], name: &str) -> Option<String> {
    let at = image.windows(name.len()).position(|window| window == name.as_bytes())?;
    let value = image[at + name.len()..].iter().take_while(|byte| byte.is_ascii_graphic());
    Some(value.map(|byte| char::from(*byte)).collect())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
