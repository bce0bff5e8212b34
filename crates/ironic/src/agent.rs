//! The protocol between Ironic and the agent in its ramdisk, as ironic-python-agent speaks it.
//!
//! Two directions: the agent calls lookup and heartbeat on Ironic's API, Ironic calls the command API that the
//! agent serves at the heartbeat's `callback_url`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// What stands in place of a token that the agent is expected to have already.
pub const MASKED: &str = "******";

/// A shorter token is ignored, by agents and by us.
pub const MIN_TOKEN_LEN: usize = 32;

/// The highest microversion the agent uses: heartbeats carry its certificate.
pub const VERIFY_CA_MINOR: u16 = 68;

/// The microversion of lookup: tokens are there.
pub const TOKEN_MINOR: u16 = 62;

/// Answer to `GET /v1/lookup`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lookup {
    /// The node that has one of the addresses.
    pub node: LookupNode,
    /// How the agent is to behave.
    pub config: LookupConfig,
}

/// A node as its agent sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LookupNode {
    /// The node.
    pub uuid: Uuid,
    /// As in the node.
    #[serde(default)]
    pub properties: Map<String, Value>,
    /// As in the node, secrets masked.
    #[serde(default)]
    pub instance_info: Map<String, Value>,
    /// As in the node, secrets masked.
    #[serde(default)]
    pub driver_internal_info: Map<String, Value>,
    /// Where the node is found in the API.
    #[serde(default)]
    pub links: Vec<Value>,
}

/// How an agent is to behave. Keys an older Ironic leaves out have a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LookupConfig {
    /// Seconds of silence after which the agent counts as lost.
    pub heartbeat_timeout: u32,
    /// The token for heartbeats and commands, or [`MASKED`]: it was handed out already.
    pub agent_token: Option<String>,
    /// Whether an agent without token must not go on.
    pub agent_token_required: bool,
    /// Whether the agent may leave out looking for its BMC's address.
    pub agent_skip_bmc_detect: bool,
    /// Whether MD5 is good enough for an image's checksum.
    pub agent_md5_checksum_enable: bool,
    /// Whether images are written without being looked into.
    pub disable_deep_image_inspection: bool,
    /// Formats an image may have.
    pub permitted_image_formats: Vec<String>,
    /// Lowest TLS version for the command API: `1.2` or `1.3`.
    pub tls_min_version: Option<String>,
    /// Everything else, as it came.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Default for LookupConfig {
    fn default() -> Self {
        Self {
            heartbeat_timeout: 300,
            agent_token: None,
            agent_token_required: true,
            agent_skip_bmc_detect: true,
            agent_md5_checksum_enable: false,
            disable_deep_image_inspection: false,
            permitted_image_formats: ["raw", "gpt", "qcow2", "iso"].map(str::to_owned).into(),
            tls_min_version: None,
            other: Map::new(),
        }
    }
}

/// Body of `POST /v1/heartbeat/{node}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Where the agent's command API is, `https://ADDRESS:PORT`.
    pub callback_url: String,
    /// The token from the kernel's command line or from the lookup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_token: Option<String>,
    /// The agent's own version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// PEM of the certificate that the command API shows (1.68).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_verify_ca: Option<String>,
    /// Status of a deployment that reports by heartbeat (1.72): `start`, `end` or `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_status: Option<String>,
    /// Words for the status (1.72).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_status_message: Option<String>,
}

/// Body of `POST /v1/commands/`: what the agent is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandRequest {
    /// Extension and command, like `clean.execute_clean_step`.
    pub name: String,
    /// The command's arguments by name.
    pub params: Map<String, Value>,
}

/// Answer to `GET /v1/commands/`: all commands since the agent started, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CommandList {
    /// The commands.
    pub commands: Vec<Command>,
}

/// A command that the agent was given, and how it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Names it in `GET /v1/commands/{id}`.
    pub id: String,
    /// Without the extension: `execute_clean_step`.
    pub command_name: String,
    /// The arguments it was given.
    #[serde(default)]
    pub command_params: Option<Map<String, Value>>,
    /// Where it stands.
    pub command_status: CommandStatus,
    /// Why it failed.
    #[serde(default)]
    pub command_error: Option<CommandError>,
    /// What came out.
    #[serde(default)]
    pub command_result: Option<Value>,
}

/// Where a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CommandStatus {
    /// The agent is another version than the one the clean steps came from (older agents).
    CleanVersionMismatch,
    /// It ended with an error.
    Failed,
    /// It has not ended.
    Running,
    /// It ended well.
    Succeeded,
    /// The agent is another version than the one the steps came from.
    VersionMismatch,
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandError {
    /// The kind of error, by ironic-python-agent's class names: `CleaningError`.
    #[serde(rename = "type")]
    pub kind: String,
    /// As an HTTP status.
    pub code: u16,
    /// What the kind means.
    pub message: String,
    /// What happened.
    pub details: String,
}

/// Result of `clean.get_clean_steps`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanSteps {
    /// Steps by the hardware manager that offers them.
    pub clean_steps: BTreeMap<String, Vec<AgentStep>>,
    /// Handed back with each step, so that an agent of another version can refuse.
    #[serde(default)]
    pub hardware_manager_version: BTreeMap<String, String>,
}

/// Result of `deploy.get_deploy_steps`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploySteps {
    /// Steps by the hardware manager that offers them.
    pub deploy_steps: BTreeMap<String, Vec<AgentStep>>,
    /// Handed back with each step, so that an agent of another version can refuse.
    #[serde(default)]
    pub hardware_manager_version: BTreeMap<String, String>,
}

/// A step an agent offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStep {
    /// Its name.
    pub step: String,
    /// Place in an automated clean, highest first; 0 leaves it out.
    pub priority: i32,
    /// The interface it belongs to: `deploy`.
    pub interface: String,
    /// Whether the node is rebooted after it.
    #[serde(default)]
    pub reboot_requested: bool,
    /// Whether it may be interrupted.
    #[serde(default)]
    pub abortable: bool,
}

/// Result of `clean.execute_clean_step`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CleanResult {
    /// What the step returned.
    #[serde(default)]
    pub clean_result: Value,
    /// The step as it was asked for, by which the result is matched to it.
    pub clean_step: Map<String, Value>,
}

/// Body of every error that the command API answers with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// `Client` below status 500, `Server` from there.
    pub faultcode: String,
    /// What is wrong.
    pub faultstring: String,
}

impl Fault {
    /// The body that goes with `status`.
    pub fn new(status: u16, faultstring: impl Into<String>) -> Self {
        let faultcode = if status < 500 { "Client" } else { "Server" };
        Self { faultcode: faultcode.to_owned(), faultstring: faultstring.into() }
    }
}

/// What the agent reads of `GET /`: the microversions the API speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The version of the API that is in use.
    pub default_version: RootVersion,
}

/// One version of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootVersion {
    /// Highest microversion, like `1.110`.
    pub version: String,
}

impl Root {
    /// The highest minor version the API speaks, if it is `1.N`.
    pub fn minor(&self) -> Option<u16> {
        self.default_version.version.strip_prefix("1.")?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_clean_step_of_the_python_agent_is_understood() {
        let json = r#"{"commands": [{"id": "590e0837d7cfc88d", "command_name": "execute_clean_step",
            "command_status": "SUCCEEDED", "command_error": null, "command_params": null,
            "command_result": {"clean_result": null, "clean_step":
                {"interface": "deploy", "step": "erase_devices_metadata", "priority": 10}}}]}"#;

        let list: CommandList = serde_json::from_str(json).unwrap();

        let [command] = &list.commands[..] else { panic!("one command expected") };
        assert_eq!(command.command_status, CommandStatus::Succeeded);
        let result: CleanResult =
            serde_json::from_value(command.command_result.clone().unwrap()).unwrap();
        assert_eq!(result.clean_step["step"], "erase_devices_metadata");
    }

    #[test]
    fn a_lookup_answer_of_upstream_is_understood() {
        let json = r#"{"node": {"uuid": "9cf95fae-f174-426c-93c1-a9505315cc44",
            "properties": {"cpu_arch": "x86_64"}, "instance_info": {}, "driver_internal_info": {}, "links": []},
            "config": {"metrics": {"backend": "noop"}, "heartbeat_timeout": 120, "agent_token": "******",
            "agent_token_required": true}}"#;

        let lookup: Lookup = serde_json::from_str(json).unwrap();

        assert_eq!(lookup.config.heartbeat_timeout, 120);
        assert_eq!(lookup.config.agent_token.as_deref(), Some(MASKED));
        assert!(lookup.config.other.contains_key("metrics"));
    }

    #[test]
    fn errors_are_told_apart_by_whose_fault_they_are() {
        assert_eq!(Fault::new(401, "Token invalid.").faultcode, "Client");
        assert_eq!(Fault::new(500, "").faultcode, "Server");
    }

    #[test]
    fn a_microversion_is_read_from_the_root() {
        let root =
            |version: &str| Root { default_version: RootVersion { version: version.to_owned() } };

        assert_eq!(root("1.110").minor(), Some(110));
        assert_eq!(root("2.0").minor(), None);
        assert_eq!(root("").minor(), None);
    }
}
