//! The agent's commands since its start: running, finished, or refused meanwhile.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ironic::agent::{Command, CommandError, CommandStatus, Fault};
use serde_json::{Map, Value};
use tokio::sync::watch;

/// Commands, oldest first. One runs at a time.
#[derive(Debug, Clone, Default)]
pub struct Commands {
    list: Arc<Mutex<Vec<CommandEntry>>>,
}

#[derive(Debug)]
struct CommandEntry {
    command: Command,
    done: watch::Sender<bool>,
}

/// The handle of a running command, held by its executor.
///
/// If it is dropped without a result, the command counts as failed, so that Ironic does not wait for a dead thread.
#[derive(Debug)]
#[must_use = "a command that is not finished blocks all others"]
pub struct RunningCommand {
    commands: Commands,
    id: String,
    finished: bool,
}

impl Commands {
    /// Adds a running command.
    ///
    /// # Errors
    ///
    /// The fault of the answer (409) while another command runs.
    pub fn start(
        &self,
        id: String,
        name: &str,
        params: Map<String, Value>,
    ) -> Result<RunningCommand, Fault> {
        let mut list = self.lock();
        let running =
            |entry: &&CommandEntry| entry.command.command_status == CommandStatus::Running;
        if let Some(entry) = list.iter().find(running) {
            let name = &entry.command.command_name;
            return Err(Fault::new(409, format!("Agent is busy: executing command {name}")));
        }
        let command = Command {
            id: id.clone(),
            command_name: name.to_owned(),
            command_params: Some(params),
            command_status: CommandStatus::Running,
            command_error: None,
            command_result: None,
        };
        list.push(CommandEntry { command, done: watch::Sender::new(false) });
        Ok(RunningCommand { commands: self.clone(), id, finished: false })
    }

    /// All commands, oldest first.
    pub fn list(&self) -> Vec<Command> {
        self.lock().iter().map(|entry| entry.command.clone()).collect()
    }

    /// The current state of a command.
    pub fn find(&self, id: &str) -> Option<Command> {
        self.lock().iter().find(|entry| entry.command.id == id).map(|entry| entry.command.clone())
    }

    /// The command after its end.
    pub async fn wait(&self, id: &str) -> Option<Command> {
        let mut done = {
            let list = self.lock();
            list.iter().find(|entry| entry.command.id == id)?.done.subscribe()
        };
        // The sender lives as long as the list, so it outlives the command.
        let _ = done.wait_for(|done| *done).await;
        self.find(id)
    }

    fn finish(&self, id: &str, outcome: Result<Value, CommandError>) {
        let mut list = self.lock();
        let Some(entry) = list.iter_mut().find(|entry| entry.command.id == id) else { return };
        match outcome {
            Ok(result) => {
                entry.command.command_status = CommandStatus::Succeeded;
                entry.command.command_result = (!result.is_null()).then_some(result);
            }
            Err(error) => {
                entry.command.command_status = match error.kind.as_str() {
                    "VersionMismatch" => CommandStatus::VersionMismatch,
                    _ => CommandStatus::Failed,
                };
                entry.command.command_error = Some(error);
            }
        }
        entry.done.send_replace(true);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<CommandEntry>> {
        // Each change is one assignment or push: the list is consistent even after a panic.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunningCommand {
    /// Ends the command.
    pub fn finish(mut self, outcome: Result<Value, CommandError>) {
        self.finished = true;
        self.commands.finish(&self.id, outcome);
    }
}

impl Drop for RunningCommand {
    fn drop(&mut self) {
        if !self.finished {
            let error = CommandError {
                kind: "CommandExecutionError".to_owned(),
                code: 500,
                message: "Command execution failed".to_owned(),
                details: "the thread that carried it out ended without a result".to_owned(),
            };
            self.commands.finish(&self.id, Err(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_command_is_refused_while_the_first_runs() {
        let commands = Commands::default();
        let running = commands.start("1".into(), "execute_clean_step", Map::new()).unwrap();

        let refused = commands.start("2".into(), "sync", Map::new()).unwrap_err();
        running.finish(Ok(Value::Null));

        assert_eq!(refused.faultstring, "Agent is busy: executing command execute_clean_step");
        assert!(commands.start("3".into(), "sync", Map::new()).is_ok());
    }

    #[test]
    fn a_command_whose_thread_is_gone_has_failed() {
        let commands = Commands::default();

        drop(commands.start("1".into(), "sync", Map::new()).unwrap());

        assert_eq!(commands.find("1").unwrap().command_status, CommandStatus::Failed);
    }

    #[tokio::test]
    async fn whoever_waits_sees_the_end() {
        let commands = Commands::default();
        let running = commands.start("1".into(), "sync", Map::new()).unwrap();
        let waiting = tokio::spawn({
            let commands = commands.clone();
            async move { commands.wait("1").await }
        });

        running.finish(Ok(Value::from("done")));

        let command = waiting.await.unwrap().unwrap();
        assert_eq!(command.command_status, CommandStatus::Succeeded);
        assert_eq!(command.command_result, Some(Value::from("done")));
        assert!(commands.wait("2").await.is_none());
    }
}
