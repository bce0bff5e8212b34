//! A node with its ports and its boot attempt.

use std::fmt;

use hardware::{BootMode, CpuArch, Mac, NoSuchCpuArch, SecureBootTrust, ShownBootMode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;
use uuid::Uuid;

use crate::boot_interface::BootInterface;
use crate::machine_addresses::MachineAddresses;
use crate::procedure::{Boots, Procedure};
use crate::secrets::{is_secret, is_secret_of_instance, masked};
use crate::state::{PowerState, ProvisionState};
use crate::steps::{ProcedureStep, StepRun};

/// A managed machine, with the names of Ironic's API.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its UUID, which never changes.
    pub uuid: Uuid,
    /// A name unique among nodes.
    pub name: Option<String>,
    /// The hardware type; only `redfish` exists.
    pub driver: String,
    /// The time of enrollment.
    pub created_at: Timestamp,
    /// The time of the last change.
    pub updated_at: Option<Timestamp>,
    /// Its provision state.
    pub provision_state: ProvisionState,
    /// The state that the current procedure leads to.
    pub target_provision_state: Option<ProvisionState>,
    /// The time of the last change of `provision_state`.
    pub provision_updated_at: Option<Timestamp>,
    /// The BMC's last power state; `None` before the first call.
    pub power_state: Option<PowerState>,
    /// The requested power state, while a change is under way.
    pub target_power_state: Option<PowerState>,
    /// The boot mode that the BMC last showed; `None` if it shows none.
    #[serde(default)]
    pub boot_mode: Option<BootMode>,
    /// Whether the BMC last showed Secure Boot enabled; `None` if it does not show it.
    #[serde(default)]
    pub secure_boot: Option<bool>,
    /// What the firmware's `db` and `dbx` last held, while Secure Boot is on; `None` if they were not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure_boot_trust: Option<SecureBootTrust>,
    /// The boot interface.
    pub boot_interface: BootInterface,
    /// Set by an operator, or by a failure together with `fault`.
    pub maintenance: bool,
    /// The reason for maintenance.
    pub maintenance_reason: Option<String>,
    /// Ironic's word for the cause of the maintenance, such as `clean failure`.
    pub fault: Option<String>,
    /// The last error, in words.
    pub last_error: Option<String>,
    /// The current step. Versions before 0.2 had only steps of cleans.
    #[serde(alias = "clean_step")]
    pub current_step: Option<ProcedureStep>,
    /// Overrides the service's `automated_clean` for this node.
    pub automated_clean: Option<bool>,
    /// Data about access and boot: `redfish_*`, `deploy_*`, `kernel_append_params`, ….
    pub driver_info: Map<String, Value>,
    /// Data about the instance.
    pub instance_info: Map<String, Value>,
    /// Data about the hardware: `cpu_arch`, `capabilities`, ….
    pub properties: Map<String, Value>,
    /// Free-form data of the operator.
    pub extra: Map<String, Value>,
    /// API fields that are only stored and returned (`owner`, `resource_class`, `description`, unsupported
    /// interfaces, …). None of them has an effect, except those that [`Node::is_set`] checks: `protected`, `retired`
    /// and `disable_power_off` forbid operations.
    pub kept: Map<String, Value>,
    /// The current boot attempt, or the last one.
    pub attempt: Option<Attempt>,
}

impl Node {
    /// A node right after `POST /v1/nodes`.
    #[must_use]
    pub fn enrolled(uuid: Uuid, driver: &str, now: Timestamp) -> Self {
        Self {
            uuid,
            name: None,
            driver: driver.to_owned(),
            created_at: now,
            updated_at: None,
            provision_state: ProvisionState::Enroll,
            target_provision_state: None,
            provision_updated_at: None,
            power_state: None,
            target_power_state: None,
            boot_mode: None,
            secure_boot: None,
            secure_boot_trust: None,
            boot_interface: BootInterface::default(),
            maintenance: false,
            maintenance_reason: None,
            fault: None,
            last_error: None,
            current_step: None,
            automated_clean: None,
            driver_info: Map::new(),
            instance_info: Map::new(),
            properties: Map::new(),
            extra: Map::new(),
            kept: Map::new(),
            attempt: None,
        }
    }

    /// The attempt whose ticket and token are valid now.
    #[must_use]
    pub fn live_attempt(&self) -> Option<&Attempt> {
        self.attempt.as_ref().filter(|attempt| attempt.ended_at.is_none())
    }

    /// The boot mode and Secure Boot, as the BMC last showed them, without what the databases hold, which are seldom read.
    #[must_use]
    pub fn shown_boot_mode(&self) -> ShownBootMode {
        ShownBootMode { boot_mode: self.boot_mode, secure_boot: self.secure_boot, trust: None }
    }

    /// Whether a boolean field in [`Node::kept`] is true.
    #[must_use]
    pub fn is_set(&self, field: &str) -> bool {
        self.kept.get(field) == Some(&Value::Bool(true))
    }

    /// A text in [`Node::kept`].
    #[must_use]
    pub fn kept_text(&self, field: &str) -> Option<&str> {
        self.kept.get(field).and_then(Value::as_str)
    }

    /// The architecture to prepare for before the first request: `properties.cpu_arch`, or x86-64 if it is not set.
    ///
    /// # Errors
    /// [`NoSuchCpuArch`] if the property names an unsupported architecture.
    pub fn cpu_arch(&self) -> Result<CpuArch, NoSuchCpuArch> {
        match self.properties.get("cpu_arch").and_then(Value::as_str) {
            None | Some("") => Ok(CpuArch::X64),
            Some(name) => name.parse(),
        }
    }

    /// A text in `driver_info`.
    #[must_use]
    pub fn driver_text(&self, key: &str) -> Option<&str> {
        self.driver_info.get(key).and_then(Value::as_str)
    }

    /// A text in `instance_info`.
    #[must_use]
    pub fn instance_text(&self, key: &str) -> Option<&str> {
        self.instance_info.get(key).and_then(Value::as_str)
    }
}

impl fmt::Debug for Node {
    /// Leaves out secrets: a value that contains a node may be logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("uuid", &self.uuid)
            .field("name", &self.name)
            .field("provision_state", &self.provision_state)
            .field("target_provision_state", &self.target_provision_state)
            .field("power_state", &self.power_state)
            .field("boot_interface", &self.boot_interface)
            .field("maintenance", &self.maintenance)
            .field("last_error", &self.last_error)
            .field("current_step", &self.current_step)
            .field("driver_info", &masked(&self.driver_info, is_secret))
            .field("instance_info", &masked(&self.instance_info, is_secret_of_instance))
            .field("properties", &self.properties)
            .field("extra", &self.extra)
            .field("kept", &self.kept)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// A network port of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its node.
    pub node_uuid: Uuid,
    /// Its MAC address, unique among ports.
    pub address: Mac,
    /// Whether the node may boot from the port.
    pub pxe_enabled: bool,
    /// The time of creation.
    pub created_at: Timestamp,
    /// The time of the last change.
    pub updated_at: Option<Timestamp>,
    /// Free-form data of the operator.
    pub extra: Map<String, Value>,
    /// API fields that are only stored and returned (`local_link_connection`, `name`, …).
    pub kept: Map<String, Value>,
}

/// An attempt: one boot of one node, from the decision to boot to the end of the boot's purpose.
///
/// Its ticket and token are valid only for this node and this attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its UUID, which all its events carry.
    pub id: Uuid,
    /// The attempt of the node before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<Uuid>,
    /// The part of the path that permits the machine to fetch its images.
    pub ticket: Secret,
    /// The agent's proof that this boot started it.
    pub agent_token: Secret,
    /// Whether the machine's agent was heard of: it has the token, or looked its node up from an address of the
    /// machine. Such a machine is not switched off for a missed boot.
    pub token_given: bool,
    /// Addresses of the machine in this attempt, and the token's holder.
    #[serde(default, skip_serializing_if = "MachineAddresses::is_none")]
    pub addresses: MachineAddresses,
    /// The boot interface of this attempt, whatever the node is set to later.
    pub boot_interface: BootInterface,
    /// The start time.
    pub started_at: Timestamp,
    /// The time of the last known power-on for this attempt.
    pub powered_on_at: Option<Timestamp>,
    /// The end time; nothing of the attempt is accepted after it.
    pub ended_at: Option<Timestamp>,
    /// The agent that owns the token, after its first call.
    pub agent: Option<Agent>,
    /// The time of the complete fetch of the instance's own image, if the attempt boots one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_fetched_at: Option<Timestamp>,
    /// The procedure of this boot. Versions before 0.2 had only cleans.
    #[serde(default)]
    pub procedure: Procedure,
    /// The progress of its steps.
    #[serde(alias = "clean")]
    pub run: StepRun,
}

/// The random values of a new [`Attempt`].
#[derive(Clone, Debug, PartialEq)]
pub struct FreshAttempt {
    /// Its UUID.
    pub attempt: Uuid,
    /// Its ticket: 22 characters of base64url.
    pub ticket: Secret,
    /// Its agent token: at least 32 characters, or IPA ignores it.
    pub agent_token: Secret,
}

impl Attempt {
    /// A new attempt.
    #[must_use]
    pub fn begun(
        fresh: FreshAttempt,
        procedure: Procedure,
        boot_interface: BootInterface,
        now: Timestamp,
    ) -> Self {
        Self {
            id: fresh.attempt,
            follows: None,
            ticket: fresh.ticket,
            agent_token: fresh.agent_token,
            token_given: false,
            addresses: MachineAddresses::default(),
            boot_interface,
            started_at: now,
            powered_on_at: None,
            ended_at: None,
            agent: None,
            image_fetched_at: None,
            procedure,
            run: StepRun::default(),
        }
    }

    /// The kind of image.
    #[must_use]
    pub fn boots(&self) -> Boots {
        self.procedure.row().boots
    }
}

/// An agent that has called home.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// The URL of its command API.
    pub callback_url: Url,
    /// Its version.
    pub version: String,
    /// The certificate of its command API, in PEM.
    pub verify_ca: Option<String>,
    /// The key by which it fetches the calls to it; `None` if its command API is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_key: Option<Secret>,
    /// The time of its last call.
    pub last_heartbeat: Timestamp,
}

/// A ticket or token: stored and sent, never logged.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_x64_unless_its_properties_say_otherwise() {
        let of = |cpu_arch| {
            let mut node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
            node.properties.insert("cpu_arch".to_owned(), cpu_arch);
            node.cpu_arch()
        };
        let unsaid = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);

        assert_eq!(unsaid.cpu_arch(), Ok(CpuArch::X64));
        assert_eq!(of(json!(null)), Ok(CpuArch::X64));
        assert_eq!(of(json!("x86_64")), Ok(CpuArch::X64));
        assert_eq!(of(json!("aarch64")), Ok(CpuArch::Arm64));
        assert_eq!(of(json!("riscv64")), Ok(CpuArch::Riscv64));
        assert_eq!(of(json!("ppc64le")), Err(NoSuchCpuArch("ppc64le".to_owned())));
    }
}
