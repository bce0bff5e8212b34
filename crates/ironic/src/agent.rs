//! The protocol between Ironic and the agent in its ramdisk, as implemented by ironic-python-agent.
//!
//! The agent calls lookup and heartbeat on Ironic's API; Ironic calls the command API that the agent serves at the
//! heartbeat's `callback_url`.

use std::collections::BTreeMap;

use hardware::Mac;
use jiff::Timestamp;
use provision::node::Secret;
use provision::{AgentExtension, Node};
use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use thiserror::Error;
use url::Url;
use uuid::Uuid;

use crate::field::{ClientView, MASKED};
use crate::node;

/// Least length of a token; agents and the daemon ignore shorter ones.
pub const MIN_TOKEN_LEN: usize = 32;

/// The highest microversion that the agent uses: heartbeats carry the certificate.
pub const VERIFY_CA_MINOR: u16 = 68;

/// The microversion of lookup with tokens.
pub const TOKEN_MINOR: u16 = 62;

/// Answer to `GET /v1/lookup`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lookup {
    /// The node with one of the MAC addresses.
    pub node: LookupNode,
    /// The agent's settings.
    pub config: LookupConfig,
}

/// A node in a lookup's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LookupNode {
    /// The node.
    pub uuid: Uuid,
    /// The node's properties.
    #[serde(default)]
    pub properties: Map<String, Value>,
    /// The node's `instance_info`, secrets masked.
    #[serde(default)]
    pub instance_info: Map<String, Value>,
    /// The node's `driver_internal_info`, secrets masked.
    #[serde(default)]
    pub driver_internal_info: Map<String, Value>,
    /// Links to the node in the API.
    #[serde(default)]
    pub links: Vec<Value>,
}

/// The settings of an agent. Keys that an older Ironic lacks have a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LookupConfig {
    /// Seconds of silence after which the agent is considered lost.
    pub heartbeat_timeout: u32,
    /// The token for heartbeats and commands, or [`MASKED`] if it was given out already.
    pub agent_token: Option<String>,
    /// Whether an agent without a token must stop.
    pub agent_token_required: bool,
    /// Whether the agent may skip the detection of its BMC's address.
    pub agent_skip_bmc_detect: bool,
    /// Whether MD5 is accepted as an image's checksum.
    pub agent_md5_checksum_enable: bool,
    /// Whether images are written without inspection.
    pub disable_deep_image_inspection: bool,
    /// Permitted image formats.
    pub permitted_image_formats: Vec<String>,
    /// Least TLS version of the command API: `1.2` or `1.3`.
    pub tls_min_version: Option<String>,
    /// Version of the [channel](crate::agent_channel) that the service offers; only in answers to agents that ask for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ferroboot_channel: Option<u32>,
    /// All other settings, unchanged.
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
            ferroboot_channel: None,
            other: Map::new(),
        }
    }
}

/// Body of `POST /v1/heartbeat/{node}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatBody {
    /// The URL of the agent's command API, `https://ADDRESS:PORT`.
    pub callback_url: String,
    /// The token from the kernel command line or from the lookup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_token: Option<String>,
    /// The agent's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// The certificate of the command API, in PEM (1.68).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_verify_ca: Option<String>,
    /// The status of a deployment that reports by heartbeat (1.72): `start`, `end` or `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_status: Option<String>,
    /// The message of the status (1.72).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_status_message: Option<String>,
    /// The key by which the agent fetches the calls to it; only to a service that [offers](crate::agent_channel) that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ferroboot_channel_key: Option<String>,
}

/// Body of `POST /v1/commands/`: a command for the agent.
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

/// A command of the agent, and its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Its ID in `GET /v1/commands/{id}`.
    pub id: String,
    /// Its name without the extension: `execute_clean_step`.
    pub command_name: String,
    /// Its arguments.
    #[serde(default)]
    pub command_params: Option<Map<String, Value>>,
    /// Its status.
    pub command_status: CommandStatus,
    /// The error, if it failed.
    #[serde(default)]
    pub command_error: Option<CommandError>,
    /// Its result.
    #[serde(default)]
    pub command_result: Option<Value>,
}

/// The status of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CommandStatus {
    /// The agent's version is not the one that reported the clean steps (older agents).
    CleanVersionMismatch,
    /// It ended with an error.
    Failed,
    /// It is still running.
    Running,
    /// It succeeded.
    Succeeded,
    /// The agent's version is not the one that reported the steps.
    VersionMismatch,
}

/// The error of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandError {
    /// The kind of error, by ironic-python-agent's class names: `CleaningError`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code, an HTTP status.
    pub code: u16,
    /// The meaning of the kind.
    pub message: String,
    /// The details of the error.
    pub details: String,
}

/// Result of `clean.get_clean_steps`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanSteps {
    /// Steps by hardware manager.
    pub clean_steps: BTreeMap<String, Vec<AgentStep>>,
    /// Returned with each step, so that an agent of another version can refuse.
    #[serde(default)]
    pub hardware_manager_version: BTreeMap<String, String>,
}

/// Result of `deploy.get_deploy_steps`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploySteps {
    /// Steps by hardware manager.
    pub deploy_steps: BTreeMap<String, Vec<AgentStep>>,
    /// Returned with each step, so that an agent of another version can refuse.
    #[serde(default)]
    pub hardware_manager_version: BTreeMap<String, String>,
}

/// Result of `clean.get_clean_steps`, `deploy.get_deploy_steps` or `service.get_service_steps`, as the daemon reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfferedSteps {
    /// The steps.
    pub steps: Vec<AgentStep>,
    /// Returned with each step, so that an agent of another version can refuse.
    pub hardware_manager_version: BTreeMap<String, String>,
}

impl OfferedSteps {
    /// Reads the steps from an extension's answer.
    ///
    /// # Errors
    /// The answer is not a list of steps.
    pub fn of(extension: AgentExtension, mut result: Value) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Answer {
            steps: BTreeMap<String, Vec<AgentStep>>,
            #[serde(default)]
            hardware_manager_version: BTreeMap<String, String>,
        }
        let name = format!("{extension}_steps");
        if let Some(answer) = result.as_object_mut() {
            let steps = answer.remove(&name);
            let missing = || serde_json::Error::custom(format!("missing field `{name}`"));
            answer.insert("steps".to_owned(), steps.ok_or_else(missing)?);
        }
        let Answer { steps, hardware_manager_version } = serde_json::from_value(result)?;
        Ok(Self { steps: steps.into_values().flatten().collect(), hardware_manager_version })
    }
}

/// A step that an agent offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStep {
    /// Its name.
    pub step: String,
    /// Priority in an automated clean, highest first; 0 excludes the step.
    pub priority: i32,
    /// Its interface: `deploy`.
    pub interface: String,
    /// Whether the node must reboot after it.
    #[serde(default)]
    pub reboot_requested: bool,
    /// Whether the step may be aborted.
    #[serde(default)]
    pub abortable: bool,
}

/// Result of `clean.execute_clean_step`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CleanResult {
    /// The step's return value.
    #[serde(default)]
    pub clean_result: Value,
    /// The requested step, which identifies the result.
    pub clean_step: Map<String, Value>,
}

/// Body of every error of the command API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// `Client` below status 500, `Server` from there.
    pub faultcode: String,
    /// The error message.
    pub faultstring: String,
}

impl Fault {
    /// The body for `status`.
    pub fn new(status: u16, faultstring: impl Into<String>) -> Self {
        let faultcode = if status < 500 { "Client" } else { "Server" };
        Self { faultcode: faultcode.to_owned(), faultstring: faultstring.into() }
    }
}

/// The parts of `GET /` that the agent uses: the microversions of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The current version of the API.
    pub default_version: RootVersion,
}

/// One version of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootVersion {
    /// Highest microversion, like `1.110`.
    pub version: String,
}

impl Root {
    /// The highest minor version of the API, if it is `1.N`.
    pub fn minor(&self) -> Option<u16> {
        self.default_version.version.strip_prefix("1.")?.parse().ok()
    }
}

/// Number of MAC addresses in one lookup: more than any machine has network cards.
pub const MOST_ADDRESSES: usize = 64;

/// The longest query of a lookup, in bytes: room for 64 addresses with each colon written as `%3A`.
pub const LONGEST_QUERY: usize = 4_096;

/// The reason for rejecting a lookup.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadLookup {
    /// It has too many MAC addresses.
    #[error("A lookup may name {MOST_ADDRESSES} addresses at most, and this one names {0}.")]
    TooMany(usize),
    /// Its query is too long.
    #[error("The query of a lookup may have {LONGEST_QUERY} bytes at most, and this one has {0}.")]
    TooLong(usize),
}

/// The MAC addresses of a lookup, each once. Other values are ignored, since machines also have network cards without
/// MAC addresses.
///
/// # Errors
/// [`BadLookup`]: 400.
pub fn lookup_addresses(query: &str, addresses: Option<&str>) -> Result<Vec<Mac>, BadLookup> {
    if query.len() > LONGEST_QUERY {
        return Err(BadLookup::TooLong(query.len()));
    }
    let named: Vec<_> = addresses.map(|list| list.split(',').collect()).unwrap_or_default();
    if named.len() > MOST_ADDRESSES {
        return Err(BadLookup::TooMany(named.len()));
    }
    let mut macs: Vec<Mac> = named.iter().filter_map(|text| text.trim().parse().ok()).collect();
    macs.sort();
    macs.dedup();
    Ok(macs)
}

/// The answer to a lookup for `node`; with its token, if this lookup may have it, and with the version of
/// the [channel](crate::agent_channel) that is offered to it.
#[must_use]
pub fn lookup(
    node: &Node,
    token: Option<&Secret>,
    view: &ClientView,
    heartbeat_timeout: u32,
    channel: Option<u32>,
) -> Lookup {
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
            agent_token: Some(token.map_or(MASKED, |token| &token.0).to_owned()),
            tls_min_version: Some("1.3".to_owned()),
            ferroboot_channel: channel,
            other: map(upstreams_settings()),
            ..LookupConfig::default()
        },
    }
}

/// Further settings that ironic-python-agent reads, with Ironic's defaults.
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

/// Longest URL of a command API, in bytes.
const LONGEST_URL: usize = 1_024;
/// Longest version of an agent, in bytes. ironic-python-agent's have some 20.
const LONGEST_VERSION: usize = 128;
/// Longest certificate, in bytes of PEM: room for a chain of RSA keys.
const LONGEST_CERTIFICATE: usize = 16 * 1024;
/// Longest token, in bytes. Ours have 43.
const LONGEST_TOKEN: usize = 512;
/// Least length of a channel's key, in bytes. Ours have 43.
const LEAST_CHANNEL_KEY: usize = 32;
/// Longest status, in bytes.
const LONGEST_STATUS: usize = 64;
/// Longest message of a status, in bytes.
const LONGEST_MESSAGE: usize = 16 * 1024;
/// Number of characters of a wrong value that are quoted in an error.
const SHOWN: usize = 200;

/// The reason for rejecting a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadHeartbeat {
    /// Its form is wrong.
    #[error("Schema error for heartbeat: {0}")]
    Schema(String),
    /// A text is too long.
    #[error("Schema error for heartbeat: {field} may have {longest} bytes at most, and has {len}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// The limit in bytes.
        longest: usize,
        /// The length in bytes.
        len: usize,
    },
    /// Its version has control characters.
    #[error("Schema error for heartbeat: agent_version has control characters")]
    ControlCharacters,
    /// The key of its channel is short enough to be guessed.
    #[error(
        "Schema error for heartbeat: ferroboot_channel_key must have {LEAST_CHANNEL_KEY} bytes at least"
    )]
    ShortChannelKey,
    /// It has no token.
    #[error("Agent token is required for heartbeat processing.")]
    NoToken,
    /// Its `callback_url` is not usable.
    #[error("Invalid callback_url {0:?}: it is not the URL of a host")]
    BadUrl(String),
    /// Its `callback_url` has a user name or password.
    #[error("Invalid callback_url: it holds a user's name or password")]
    Userinfo,
    /// Its `callback_url` is not encrypted, although commands carry the token.
    #[error("Unacceptable protocol in the agent's callback_url {0:?}: TLS is required")]
    NotTls(String),
}

/// Parses the body of a heartbeat that arrived at `at`.
///
/// # Errors
/// [`BadHeartbeat`]: 400.
pub fn heartbeat(
    body: &Value,
    require_tls: bool,
    at: Timestamp,
) -> Result<provision::event::Heartbeat, BadHeartbeat> {
    let body = HeartbeatBody::deserialize(body)
        .map_err(|bad| BadHeartbeat::Schema(shown(&bad.to_string())))?;
    expect_short(&body)?;
    let agent_token = body.agent_token.ok_or(BadHeartbeat::NoToken)?;
    let callback_url = match Url::parse(&body.callback_url) {
        Ok(url) if url.has_host() && ["http", "https"].contains(&url.scheme()) => url,
        Ok(_) | Err(_) => return Err(BadHeartbeat::BadUrl(shown(&body.callback_url))),
    };
    if !callback_url.username().is_empty() || callback_url.password().is_some() {
        return Err(BadHeartbeat::Userinfo);
    }
    if require_tls && callback_url.scheme() != "https" {
        return Err(BadHeartbeat::NotTls(shown(&body.callback_url)));
    }
    Ok(provision::event::Heartbeat {
        agent_token,
        callback_url,
        agent_version: body.agent_version.unwrap_or_else(|| "unknown".to_owned()),
        agent_verify_ca: body.agent_verify_ca,
        channel_key: body.ferroboot_channel_key.map(Secret),
        at,
    })
}

/// Checks the length of every text; a text that is too long is not quoted.
fn expect_short(body: &HeartbeatBody) -> Result<(), BadHeartbeat> {
    let texts = [
        ("callback_url", Some(&body.callback_url), LONGEST_URL),
        ("agent_token", body.agent_token.as_ref(), LONGEST_TOKEN),
        ("agent_version", body.agent_version.as_ref(), LONGEST_VERSION),
        ("agent_verify_ca", body.agent_verify_ca.as_ref(), LONGEST_CERTIFICATE),
        ("agent_status", body.agent_status.as_ref(), LONGEST_STATUS),
        ("agent_status_message", body.agent_status_message.as_ref(), LONGEST_MESSAGE),
        ("ferroboot_channel_key", body.ferroboot_channel_key.as_ref(), LONGEST_TOKEN),
    ];
    for (field, text, longest) in texts {
        if let Some(len) = text.map(String::len).filter(|len| *len > longest) {
            return Err(BadHeartbeat::TooLong { field, longest, len });
        }
    }
    if body.agent_version.as_ref().is_some_and(|version| version.contains(char::is_control)) {
        return Err(BadHeartbeat::ControlCharacters);
    }
    if body.ferroboot_channel_key.as_ref().is_some_and(|key| key.len() < LEAST_CHANNEL_KEY) {
        return Err(BadHeartbeat::ShortChannelKey);
    }
    Ok(())
}

/// The beginning of a text.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Version;

    #[test]
    fn a_lookup_holds_the_token_only_where_it_is_given() {
        let node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
        let view = ClientView {
            version: Version::MAX,
            base_url: "http://a".into(),
            host: "ferroboot".into(),
        };
        let token =
            |token: Option<&Secret>| lookup(&node, token, &view, 300, None).config.agent_token;

        assert_eq!(token(None).as_deref(), Some(MASKED));
        assert_eq!(token(Some(&Secret("t".repeat(43)))), Some("t".repeat(43)));
    }

    #[test]
    fn a_channel_is_in_the_answer_only_if_it_is_offered() {
        let node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
        let view = ClientView {
            version: Version::MAX,
            base_url: "http://a".into(),
            host: "ferroboot".into(),
        };
        let config = |channel| json!(lookup(&node, None, &view, 300, channel))["config"].clone();

        assert_eq!(config(Some(1))["ferroboot_channel"], json!(1));
        assert_eq!(config(None).get("ferroboot_channel"), None);
    }

    #[test]
    fn a_key_of_a_channel_that_could_be_guessed_is_refused() {
        let read = |key: &str| {
            let body = json!({
                "callback_url": "https://192.0.2.7:9999", "agent_token": "t", "ferroboot_channel_key": key,
            });
            heartbeat(&body, true, Timestamp::UNIX_EPOCH).map(|heartbeat| heartbeat.channel_key)
        };

        assert_eq!(read(&"k".repeat(43)), Ok(Some(Secret("k".repeat(43)))));
        assert_eq!(read("k"), Err(BadHeartbeat::ShortChannelKey));
        assert!(matches!(read(&"k".repeat(600)), Err(BadHeartbeat::TooLong { .. })));
    }

    #[test]
    fn a_lookup_names_64_addresses_at_most_and_each_counts_once() {
        let list = |many: usize| vec!["52:54:00:00:00:01"; many].join(",");
        let read = |list: &str| lookup_addresses(list, Some(list));

        assert_eq!(read(&list(64)).unwrap().len(), 1);
        assert_eq!(read(&list(65)), Err(BadLookup::TooMany(65)));
        assert_eq!(read("nonsense,52:54:00:00:00:01, 52:54:00:00:00:02").unwrap().len(), 2);
        assert_eq!(read(&"x".repeat(5_000)), Err(BadLookup::TooLong(5_000)));
        assert_eq!(lookup_addresses("", None).unwrap(), []);
    }

    #[test]
    fn no_text_of_a_heartbeat_is_longer_than_it_may_be_and_none_is_repeated() {
        let long = "x".repeat(60_000);
        for field in [
            "agent_token",
            "agent_version",
            "agent_verify_ca",
            "agent_status",
            "agent_status_message",
            "callback_url",
        ] {
            let mut body = json!({ "callback_url": "https://192.0.2.7:9999", "agent_token": "t" });
            body[field] = json!(long);
            let bad = heartbeat(&body, true, Timestamp::UNIX_EPOCH).unwrap_err().to_string();
            assert!(bad.contains(field) && bad.len() < 200, "{bad}");
        }
        for url in [format!("ftp://{}", "x".repeat(900)), format!("http://{}", "x".repeat(900))] {
            let body = json!({ "callback_url": url, "agent_token": "t" });
            let bad = heartbeat(&body, true, Timestamp::UNIX_EPOCH).unwrap_err().to_string();
            assert!(bad.len() < 400, "{bad}");
        }
        let body = json!({ "callback_url": [long], "agent_token": "t" });
        let bad = heartbeat(&body, true, Timestamp::UNIX_EPOCH).unwrap_err().to_string();
        assert!(bad.len() < 800, "{bad}");
    }

    #[test]
    fn an_agents_url_holds_no_password_and_its_version_no_escapes() {
        let read = |url: &str, version: &str| {
            let body = json!({ "callback_url": url, "agent_token": "t", "agent_version": version });
            heartbeat(&body, true, Timestamp::UNIX_EPOCH).map(drop)
        };

        assert_eq!(read("https://a:b@192.0.2.7:9999", "1"), Err(BadHeartbeat::Userinfo));
        assert_eq!(read("https://192.0.2.7", "\u{1b}[2J"), Err(BadHeartbeat::ControlCharacters));
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
        assert!(read(file).unwrap_err().contains("not the URL of a host"));
        let secret = json!({ "callback_url": "https://me:geheim@192.0.2.7", "agent_token": "t" });
        let refused = read(secret).unwrap_err();
        assert!(!refused.contains("geheim"), "{refused}");
        assert!(read(json!([])).unwrap_err().starts_with("Schema error"));
    }

    proptest! {
        #[test]
        fn no_heartbeat_panics(
            url in ".{0,40}", token in any::<Option<String>>(), version in ".{0,200}", len in 0..40_000_usize,
        ) {
            let body = json!({
                "callback_url": url, "agent_token": token, "agent_version": version,
                "agent_verify_ca": "x".repeat(len),
            });
            if let Err(bad) = heartbeat(&body, false, Timestamp::UNIX_EPOCH) {
                prop_assert!(bad.to_string().len() < 2_000);
            }
        }

        #[test]
        fn no_lookup_panics_or_asks_for_more_than_it_may(list in "[0-9a-f:, x]{0,300}|(,){0,100}|.{0,60}") {
            if let Ok(macs) = lookup_addresses(&list, Some(&list)) {
                prop_assert!(macs.len() <= MOST_ADDRESSES);
            }
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
