//! Executes commands, one at a time.

use std::process;
use std::sync::Arc;
use std::time::Duration;

use ironic::agent::{Command, CommandError, CommandList, CommandRequest};
use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tracing::{error, info};
use uuid::Uuid;

use crate::action::AgentAction;
use crate::clean::{self, CleaningTarget};
use crate::commands::{Commands, RunningCommand};
use crate::system_logs::{self, RecentLog};

/// The target of a power-off by this agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentHost {
    /// The machine: the agent is a child of its init.
    Machine,
    /// The agent's own process only: an ordinary process.
    Process,
}

impl AgentHost {
    /// Switches off, after all data is written to the disks.
    pub fn power_off(self) {
        match self {
            Self::Machine => {
                info!("switching this machine off");
                unistd::sync();
                let Err(error) = reboot(RebootMode::RB_POWER_OFF);
                error!("the machine does not switch off: {error}");
            }
            Self::Process => {
                info!("ending, in place of switching the machine off");
                process::exit(0);
            }
        }
    }
}

/// A refused command: the HTTP status, and the reason.
#[derive(Debug)]
pub struct Refusal(pub u16, pub String);

/// Executes the actions of commands.
#[derive(Debug, Clone)]
pub struct CommandEffects {
    /// The commands so far.
    pub commands: Commands,
    /// Notified at the end of a command, for an early heartbeat to Ironic.
    pub ended: Arc<Notify>,
    machine: CleaningTarget,
    host: AgentHost,
    log: RecentLog,
}

impl CommandEffects {
    /// Effects that erase the disks of `machine` only. `log` is sent to Ironic on request.
    pub fn new(machine: CleaningTarget, host: AgentHost, log: RecentLog) -> Self {
        Self { commands: Commands::default(), ended: Arc::default(), machine, host, log }
    }

    /// All commands, oldest first: `GET /v1/commands/`.
    pub fn list(&self) -> CommandList {
        CommandList { commands: self.commands.list() }
    }

    /// Starts a command: `POST /v1/commands/`.
    ///
    /// # Errors
    ///
    /// It is unknown or malformed, or another command runs.
    pub fn start(&self, request: CommandRequest) -> Result<Command, Refusal> {
        let action =
            AgentAction::parse(&request).map_err(|(status, words)| Refusal(status, words))?;
        let id = Uuid::new_v4().to_string();
        let name = request.name.split_once('.').map_or("", |(_, command)| command);
        let running = self
            .commands
            .start(id.clone(), name, request.params)
            .map_err(|fault| Refusal(409, fault.faultstring))?;
        info!("Ironic requests {}", request.name);
        self.carry_out(action, running);
        self.commands.find(&id).ok_or_else(|| Refusal(500, "the command is gone".to_owned()))
    }

    /// Starts `action`. Long work continues after the return.
    fn carry_out(&self, action: AgentAction, running: RunningCommand) {
        match action {
            AgentAction::CollectSystemLogs => {
                let log = self.log.clone();
                self.aside(running, move || Ok(system_logs::collect(&log)));
            }
            AgentAction::GetCleanSteps => running.finish(Ok(json!(clean::steps()))),
            AgentAction::GetDeploySteps => running.finish(Ok(json!(clean::deploy_steps()))),
            AgentAction::ExecuteCleanStep(order) => {
                let machine = self.machine.clone();
                self.aside(running, move || machine.execute(&order));
            }
            AgentAction::Sync => self.aside(running, || {
                unistd::sync();
                Ok(Value::Null)
            }),
            AgentAction::PowerOff => {
                running.finish(Ok(Value::Null));
                self.power_off_soon();
            }
        }
    }

    fn aside(
        &self,
        running: RunningCommand,
        work: impl FnOnce() -> Result<Value, CommandError> + Send + 'static,
    ) {
        let ended = Arc::clone(&self.ended);
        tokio::task::spawn_blocking(move || {
            running.finish(work());
            ended.notify_one();
        });
    }

    /// Delayed: the response to the command must be sent before the network goes down.
    fn power_off_soon(&self) {
        const ANSWER: Duration = Duration::from_secs(1);
        let host = self.host;
        tokio::spawn(async move {
            tokio::time::sleep(ANSWER).await;
            host.power_off();
        });
    }
}
