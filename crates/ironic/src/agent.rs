//! The protocol between Ironic and the agent in its ramdisk, as ironic-python-agent speaks it.
//!
//! Two directions: the agent calls lookup and heartbeat on Ironic's API, Ironic calls the command API that the
//! agent serves at the heartbeat's `callback_url`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use provision::{BootInterface, Node};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use thiserror::Error;
use url::Url;
use uuid::Uuid;

use crate::field::View;
use crate::node;

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

/// The answer to a lookup for `node` as it was before that lookup.
#[must_use]
pub fn lookup(node: &Node, view: &View, heartbeat_timeout: u32) -> Lookup {
    let map = |value: Value| value.as_object().cloned().unwrap_or_default();
    let links = view.links(&format!("nodes/{}", node.uuid));
    Lookup {
        node: LookupNode {
            uuid: node.uuid,
            properties: node.properties.clone(),
            instance_info: map(node::instance_info(node)),
            driver_internal_info: map(json!({ "agent_secret_token": MASKED })),
            links: links.as_array().cloned().unwrap_or_default(),
        },
        config: LookupConfig {
            heartbeat_timeout,
            agent_token: Some(token_to_give(node).to_owned()),
            tls_min_version: Some("1.3".to_owned()),
            other: map(upstreams_settings()),
            ..LookupConfig::default()
        },
    }
}

/// The token, if nobody has it yet: our images carry it on the kernel's command line, and only an
/// operator's own ISO image cannot. It is given once, to whoever asks first.
fn token_to_give(node: &Node) -> &str {
    let Some(attempt) = node.live_attempt() else { return MASKED };
    let as_it_is = attempt.boot_interface == BootInterface::RedfishHttps
        && node.driver_text("deploy_iso").is_some();
    if as_it_is && !attempt.token_given { &attempt.agent_token.0 } else { MASKED }
}

/// What ironic-python-agent reads besides, at upstream's defaults.
fn upstreams_settings() -> Value {
    json!({
        "metrics": {
            "backend": "noop",
            "prepend_host": false,
            "prepend_uuid": false,
            "prepend_host_reverse": true,
            "global_prefix": null,
        },
        "metrics_statsd": { "statsd_host": "localhost", "statsd_port": 8125 },
        "agent_containers": { "allow_arbitrary_containers": false, "allowed_containers": [] },
        "enable_bios_bootloader_install": false,
        "tls_cipher_suites": null,
    })
}

/// What an agent sent is no heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadHeartbeat {
    /// It is not of the form it should have.
    #[error("Schema error for heartbeat: {0}")]
    Schema(String),
    /// It has no token.
    #[error("Agent token is required for heartbeat processing.")]
    NoToken,
    /// Its command API cannot be called.
    #[error("Invalid callback_url {0:?}: it is no URL of a host")]
    BadUrl(String),
    /// Its command API would be called without encryption, with the token in the URL.
    #[error("Unacceptable protocol in the agent's callback_url {0:?}: TLS is required")]
    NotTls(String),
}

/// Reads the body of a heartbeat that came `now`.
///
/// # Errors
/// [`BadHeartbeat`]: 400.
pub fn heartbeat(
    body: &Value,
    require_tls: bool,
    now: Timestamp,
) -> Result<provision::event::Heartbeat, BadHeartbeat> {
    let body = Heartbeat::deserialize(body).map_err(|bad| BadHeartbeat::Schema(bad.to_string()))?;
    let agent_token = body.agent_token.ok_or(BadHeartbeat::NoToken)?;
    let callback_url = match Url::parse(&body.callback_url) {
        Ok(url) if url.has_host() && ["http", "https"].contains(&url.scheme()) => url,
        Ok(_) | Err(_) => return Err(BadHeartbeat::BadUrl(body.callback_url)),
    };
    if require_tls && callback_url.scheme() != "https" {
        return Err(BadHeartbeat::NotTls(body.callback_url));
    }
    Ok(provision::event::Heartbeat {
        agent_token,
        callback_url,
        agent_version: body.agent_version.unwrap_or_else(|| "unknown".to_owned()),
        agent_verify_ca: body.agent_verify_ca,
        at: now,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use provision::node::{Attempt, Clean, Secret};

    use super::*;
    use crate::Version;

    fn node_with(driver_info: Value, token_given: bool) -> Node {
        let mut node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
        node.driver_info = driver_info.as_object().unwrap().clone();
        node.attempt = Some(Attempt {
            id: Uuid::nil(),
            ticket: Secret("ticket".into()),
            agent_token: Secret("t".repeat(43)),
            token_given,
            boot_interface: BootInterface::RedfishHttps,
            started_at: Timestamp::UNIX_EPOCH,
            powered_on_at: None,
            ended_at: None,
            agent: None,
            clean: Clean::default(),
        });
        node
    }

    fn token(node: &Node) -> Option<String> {
        let view =
            View { version: Version::MAX, base_url: "http://a".into(), host: "ferroboot".into() };
        lookup(node, &view, 300).config.agent_token
    }

    #[test]
    fn the_token_on_the_command_line_is_not_told_to_whoever_knows_a_mac_address() {
        assert_eq!(token(&node_with(json!({}), false)).as_deref(), Some(MASKED));
    }

    #[test]
    fn the_agent_of_an_operators_own_iso_is_told_the_token_once() {
        let iso = json!({ "deploy_iso": "http://images/my.iso" });

        assert_eq!(token(&node_with(iso.clone(), false)), Some("t".repeat(43)));
        assert_eq!(token(&node_with(iso, true)).as_deref(), Some(MASKED));
    }

    #[test]
    fn a_heartbeat_needs_a_token_and_a_url_that_hides_it() {
        let read = |body: Value| {
            heartbeat(&body, true, Timestamp::UNIX_EPOCH).map_err(|bad| bad.to_string())
        };
        let url = "https://192.0.2.7:9999";

        read(json!({ "callback_url": url, "agent_token": "t", "agent_status": null })).unwrap();
        assert_eq!(
            read(json!({ "callback_url": url })).unwrap_err(),
            "Agent token is required for heartbeat processing."
        );
        let plain = json!({ "callback_url": "http://192.0.2.7:9999", "agent_token": "t" });
        assert!(read(plain).unwrap_err().contains("TLS is required"));
        let file = json!({ "callback_url": "file:///etc/passwd", "agent_token": "t" });
        assert!(read(file).unwrap_err().contains("no URL of a host"));
        assert!(read(json!([])).unwrap_err().starts_with("Schema error"));
    }

    proptest! {
        #[test]
        fn no_heartbeat_panics(url in ".{0,40}", token in any::<Option<String>>()) {
            let body = json!({ "callback_url": url, "agent_token": token });
            let _ = heartbeat(&body, false, Timestamp::UNIX_EPOCH);
        }
    }

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
