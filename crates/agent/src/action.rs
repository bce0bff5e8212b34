//! The actions of commands, parsed before anything is done.

use ironic::agent::{CommandRequest, Fault};
use serde_json::{Map, Value};

use crate::clean::CleanStepRequest;

/// A supported command.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentAction {
    /// `log.collect_system_logs`
    CollectSystemLogs,
    /// `clean.execute_clean_step`
    ExecuteCleanStep(CleanStepRequest),
    /// `clean.get_clean_steps`
    GetCleanSteps,
    /// `deploy.get_deploy_steps`
    GetDeploySteps,
    /// `standby.power_off`
    PowerOff,
    /// `standby.sync`: written data is on the disks.
    Sync,
}

impl AgentAction {
    /// Parses a command.
    ///
    /// # Errors
    ///
    /// The fault of the answer, in ironic-python-agent's words: 404 for an unknown extension, 400 for an unknown
    /// command or wrong parameters.
    pub fn parse(request: &CommandRequest) -> Result<Self, (u16, String)> {
        let Some((extension, command)) = request.name.split_once('.') else {
            let why = "Command name must be of the form <extension>.<name>";
            return Err((400, format!("Invalid command: {why}")));
        };
        match (extension, command) {
            ("clean", "execute_clean_step") => Self::execute_clean_step(&request.params),
            ("clean", "get_clean_steps") => Ok(Self::GetCleanSteps),
            ("deploy", "get_deploy_steps") => Ok(Self::GetDeploySteps),
            ("log", "collect_system_logs") => Ok(Self::CollectSystemLogs),
            ("standby", "power_off") => Ok(Self::PowerOff),
            ("standby", "sync") => Ok(Self::Sync),
            ("clean" | "deploy" | "log" | "standby", unknown) => {
                Err((400, format!("Invalid command: Unknown command: {unknown}")))
            }
            (extension, _) => {
                Err((404, format!("Not found: Extension with id {extension} not found.")))
            }
        }
    }

    fn execute_clean_step(params: &Map<String, Value>) -> Result<Self, (u16, String)> {
        let Some(step) = params.get("step").and_then(Value::as_object) else {
            let why = "execute_clean_step needs a step";
            return Err((400, format!("Invalid command parameters: {why}")));
        };
        let node = params.get("node").and_then(Value::as_object);
        Ok(Self::ExecuteCleanStep(CleanStepRequest {
            step: step.clone(),
            node: node.cloned().unwrap_or_default(),
            version: params.get("clean_version").cloned(),
        }))
    }
}

/// Parses the body of `POST /v1/commands/`.
///
/// # Errors
///
/// The fault of the answer (400).
pub fn request(body: &[u8]) -> Result<CommandRequest, Fault> {
    serde_json::from_slice(body)
        .map_err(|_| Fault::new(400, "400 Bad Request: Missing or invalid name or params"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_of_ironic_is_understood() {
        let body = json!({"name": "clean.execute_clean_step", "params": {
            "step": {"step": "erase_devices_metadata", "priority": 10}, "node": {}, "ports": [],
            "clean_version": {"generic_hardware_manager": "1.2"}}});

        let action = AgentAction::parse(&request(body.to_string().as_bytes()).unwrap()).unwrap();

        let AgentAction::ExecuteCleanStep(order) = action else { panic!("{action:?}") };
        assert_eq!(order.step["step"], "erase_devices_metadata");
        assert_eq!(order.version.unwrap()["generic_hardware_manager"], "1.2");
    }

    #[test]
    fn what_this_agent_cannot_do_is_refused_as_the_python_agent_does() {
        let cases = [
            ("sync", 400, "Invalid command: Command name must be of the form <extension>.<name>"),
            ("standby.dance", 400, "Invalid command: Unknown command: dance"),
            ("coffee.make", 404, "Not found: Extension with id coffee not found."),
            (
                "clean.execute_clean_step",
                400,
                "Invalid command parameters: execute_clean_step needs a step",
            ),
        ];
        for (name, status, words) in cases {
            let request = CommandRequest { name: name.to_owned(), params: Map::new() };
            assert_eq!(AgentAction::parse(&request), Err((status, words.to_owned())), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_read_without_panic(body: Vec<u8>, name: String) {
            let _ = request(&body);
            let _ = AgentAction::parse(&CommandRequest { name, params: Map::new() });
        }
    }
}
