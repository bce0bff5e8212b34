//! A node and what belongs to it: its ports, and the boot attempt it is in.

use std::fmt;

use hardware::{CpuArch, Mac, NoSuchCpuArch};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;
use uuid::Uuid;

use crate::addresses::MachineAddresses;
use crate::boot::BootInterface;
use crate::procedure::{Boots, Procedure};
use crate::secrets::{is_secret, is_secret_of_instance, masked};
use crate::state::{PowerState, ProvisionState};
use crate::steps::ProcedureStep;

/// A machine under management, with the names of Ironic's API.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its identity for good.
    pub uuid: Uuid,
    /// A name unique among nodes.
    pub name: Option<String>,
    /// The hardware type; `redfish` is the one there is.
    pub driver: String,
    /// When it was enrolled.
    pub created_at: Timestamp,
    /// When anything about it last changed.
    pub updated_at: Option<Timestamp>,
    /// Where it stands.
    pub provision_state: ProvisionState,
    /// Where it is going, while on the way.
    pub target_provision_state: Option<ProvisionState>,
    /// When `provision_state` last changed.
    pub provision_updated_at: Option<Timestamp>,
    /// What the BMC last said; unknown before the first talk.
    pub power_state: Option<PowerState>,
    /// What was asked for, while on the way.
    pub target_power_state: Option<PowerState>,
    /// Which of the boot paths it takes.
    pub boot_interface: BootInterface,
    /// Set by an operator, or by a failure together with `fault`.
    pub maintenance: bool,
    /// Why.
    pub maintenance_reason: Option<String>,
    /// Ironic's word for what put it into maintenance, as `clean failure`.
    pub fault: Option<String>,
    /// What went wrong last, in words.
    pub last_error: Option<String>,
    /// The step under way. Versions before 0.2 knew steps of cleans alone.
    #[serde(alias = "clean_step")]
    pub current_step: Option<ProcedureStep>,
    /// Overrides the service's `automated_clean` for this node.
    pub automated_clean: Option<bool>,
    /// How to reach and boot it: `redfish_*`, `deploy_*`, `kernel_append_params`, ….
    pub driver_info: Map<String, Value>,
    /// About the instance on it.
    pub instance_info: Map<String, Value>,
    /// About the hardware: `cpu_arch`, `capabilities`, ….
    pub properties: Map<String, Value>,
    /// The operator's own.
    pub extra: Map<String, Value>,
    /// Fields of the API that are kept and given back (`owner`, `resource_class`, `description`,
    /// interfaces that are not built yet, …). They decide nothing here, but for what
    /// [`Node::is_set`] is asked for: `protected`, `retired` and `disable_power_off` forbid.
    pub kept: Map<String, Value>,
    /// The boot attempt under way, or the last one.
    pub attempt: Option<Attempt>,
}

impl Node {
    /// A node as it is right after `POST /v1/nodes`.
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

    /// The attempt whose ticket and token are good now.
    #[must_use]
    pub fn live_attempt(&self) -> Option<&Attempt> {
        self.attempt.as_ref().filter(|attempt| attempt.ended_at.is_none())
    }

    /// Whether a yes-or-no field among [`Node::kept`] says yes.
    #[must_use]
    pub fn is_set(&self, field: &str) -> bool {
        self.kept.get(field) == Some(&Value::Bool(true))
    }

    /// A text among [`Node::kept`].
    #[must_use]
    pub fn kept_text(&self, field: &str) -> Option<&str> {
        self.kept.get(field).and_then(Value::as_str)
    }

    /// The architecture to prepare for before the machine asks: `properties.cpu_arch`, or x86-64 where that is not set.
    ///
    /// # Errors
    /// [`NoSuchCpuArch`] where the property names an architecture that cannot be booted.
    pub fn cpu_arch(&self) -> Result<CpuArch, NoSuchCpuArch> {
        match self.properties.get("cpu_arch").and_then(Value::as_str) {
            None | Some("") => Ok(CpuArch::X64),
            Some(name) => name.parse(),
        }
    }

    /// A text of `driver_info`.
    #[must_use]
    pub fn driver_text(&self, key: &str) -> Option<&str> {
        self.driver_info.get(key).and_then(Value::as_str)
    }

    /// A text of `instance_info`.
    #[must_use]
    pub fn instance_text(&self, key: &str) -> Option<&str> {
        self.instance_info.get(key).and_then(Value::as_str)
    }
}

impl fmt::Debug for Node {
    /// Without secrets: a node may come into a log with the value that it is a part of.
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
    /// Its identity.
    pub uuid: Uuid,
    /// The node it is on.
    pub node_uuid: Uuid,
    /// Its MAC address, unique among ports.
    pub address: Mac,
    /// Whether the node may boot from it.
    pub pxe_enabled: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Option<Timestamp>,
    /// The operator's own.
    pub extra: Map<String, Value>,
    /// Fields of the API that are kept and given back (`local_link_connection`, `name`, …).
    pub kept: Map<String, Value>,
}

/// One boot of one node, from the decision to boot to the end of what it was for.
///
/// Its ticket and token are good for this node and this attempt only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its identity; everything that happens in it carries this.
    pub id: Uuid,
    /// The attempt of the node before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<Uuid>,
    /// The path part that lets the machine fetch its images.
    pub ticket: Secret,
    /// What the agent shows to prove that it was started by us.
    pub agent_token: Secret,
    /// Whether the machine's agent was heard of: it has the token, or looked its node up from an
    /// address that is the machine's. The power of such a machine is not cut for a boot that was missed.
    pub token_given: bool,
    /// Addresses of the machine that were seen in this attempt, and which of them was told the token.
    #[serde(default, skip_serializing_if = "MachineAddresses::is_none")]
    pub addresses: MachineAddresses,
    /// Which path this attempt takes, whatever the node is set to later.
    pub boot_interface: BootInterface,
    /// When it began.
    pub started_at: Timestamp,
    /// When the machine was last known to have been switched on for it.
    pub powered_on_at: Option<Timestamp>,
    /// When it ended; from then on nothing of it is accepted.
    pub ended_at: Option<Timestamp>,
    /// The agent that owns the token, once it has called.
    pub agent: Option<Agent>,
    /// When the instance's own image was fetched whole in this boot, where it boots one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_fetched_at: Option<Timestamp>,
    /// The procedure that this boot is for. Versions before 0.2 knew cleans alone.
    #[serde(default)]
    pub procedure: Procedure,
    /// How far its steps have come.
    #[serde(alias = "clean")]
    pub run: StepRun,
}

/// What a new [`Attempt`] needs of chance.
#[derive(Clone, Debug, PartialEq)]
pub struct FreshAttempt {
    /// Its identity.
    pub attempt: Uuid,
    /// Its ticket: 22 characters of base64url.
    pub ticket: Secret,
    /// Its agent token: at least 32 characters, or IPA ignores it.
    pub agent_token: Secret,
}

impl Attempt {
    /// One in which nothing has happened yet.
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

    /// What the machine is booted with.
    #[must_use]
    pub fn boots(&self) -> Boots {
        self.procedure.row().boots
    }
}

/// An agent that has called home.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Where its command API is.
    pub callback_url: Url,
    /// Its version, as it says.
    pub version: String,
    /// The certificate its command API shows, in PEM.
    pub verify_ca: Option<String>,
    /// When it last called.
    pub last_heartbeat: Timestamp,
}

/// How far the steps of a procedure have come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRun {
    /// Whether the steps are chosen by priority (`provide`, `deleted`), not by the operator.
    pub automated: bool,
    /// What the operator asked for (manual), or what was chosen from the agent's list.
    pub steps: Vec<ProcedureStep>,
    /// What the agent says about its hardware managers; set once it has reported its steps.
    pub hardware_manager_version: Option<Value>,
    /// How many of `steps` are done.
    pub done: usize,
    /// The agent's id of the command that runs step `done`.
    pub command_id: Option<String>,
    /// Commands of this boot that are dealt with, so that none is taken for another.
    pub settled_commands: Vec<String>,
}

impl StepRun {
    /// The step that runs or is next.
    #[must_use]
    pub fn current(&self) -> Option<&ProcedureStep> {
        self.steps.get(self.done)
    }
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
