//! `GET /v1/nodes/{}/boot-trace`: the events of a boot, and its diagnosis. An extension of Ironic's API.

use jiff::Timestamp;
use provision::{Attempt, BootEvent, BootEventKind, BootInterface, Node, ProvisionState, Stage};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::field::{ClientView, time};

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootTrace {
    /// The node.
    pub node_uuid: Uuid,
    /// Its name.
    pub node_name: Option<String>,
    /// The node's state now.
    pub provision_state: ProvisionState,
    /// The node's last error.
    pub last_error: Option<String>,
    /// The attempt; null before the first.
    pub attempt: Option<ShownAttempt>,
    /// Its events, oldest first.
    pub events: Vec<BootEvent>,
    /// The diagnosis; null while all goes well.
    pub diagnosis: Option<ShownDiagnosis>,
}

/// An attempt, without its secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShownAttempt {
    /// Its UUID, for `?attempt=`.
    pub id: Uuid,
    /// Further data, only for the node's latest attempt.
    #[serde(flatten)]
    pub latest: Option<LatestAttempt>,
}

/// Data of the latest attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatestAttempt {
    /// Its boot interface.
    pub boot_interface: BootInterface,
    /// The start time.
    pub started_at: Timestamp,
    /// The time of the power-on.
    pub powered_on_at: Option<Timestamp>,
    /// The end time.
    pub ended_at: Option<Timestamp>,
}

/// The diagnosis of a boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownDiagnosis {
    /// The fault, in one sentence.
    pub text: String,
    /// The operator's remedy.
    pub hint: Option<String>,
}

impl From<&Attempt> for ShownAttempt {
    fn from(attempt: &Attempt) -> Self {
        let latest = LatestAttempt {
            boot_interface: attempt.boot_interface,
            started_at: attempt.started_at,
            powered_on_at: attempt.powered_on_at,
            ended_at: attempt.ended_at,
        };
        Self { id: attempt.id, latest: Some(latest) }
    }
}

impl From<provision::diagnosis::Diagnosis> for ShownDiagnosis {
    fn from(diagnosis: provision::diagnosis::Diagnosis) -> Self {
        Self { text: diagnosis.text, hint: diagnosis.hint }
    }
}

impl BootTrace {
    /// The answer for one attempt of `node`.
    #[must_use]
    pub fn new(
        node: &Node,
        attempt: Option<ShownAttempt>,
        events: Vec<BootEvent>,
        diagnosis: Option<ShownDiagnosis>,
    ) -> Self {
        Self {
            node_uuid: node.uuid,
            node_name: node.name.clone(),
            provision_state: node.provision_state,
            last_error: node.last_error.clone(),
            attempt,
            events,
            diagnosis,
        }
    }
}

/// An entry of Ironic's `history`: a change of state in a trace, with its reason.
#[must_use]
pub fn history_entry(node: &Node, event: &BootEvent, view: &ClientView) -> Option<Value> {
    let BootEventKind::State { from, to, reason } = &event.what else { return None };
    let failed = to.stage() == Some(Stage::Failed) || *to == ProvisionState::Error;
    let procedure = to.procedure().or_else(|| from.procedure());
    // Events have no UUIDs, but their times are unique within an attempt.
    let uuid = event.attempt.as_u128() ^ u128::from(event.at.as_microsecond().unsigned_abs());
    let uuid = Uuid::from_u128(uuid);
    let mut text = format!("state {from} -> {to}");
    if let Some(reason) = reason {
        text.push_str(": ");
        text.push_str(&reason.to_string());
    }
    Some(json!({
        "uuid": uuid,
        "created_at": time(event.at),
        "severity": if failed { "ERROR" } else { "INFO" },
        "event": text,
        "event_type": procedure.map(|procedure| procedure.row().gerund),
        "conductor": view.host,
        "user": null,
        "node_uuid": node.uuid,
        "links": view.links(&format!("nodes/{}/history/{uuid}", node.uuid)),
    }))
}

/// The part of a [`history_entry`] for lists.
#[must_use]
pub fn brief(entry: &Value) -> Value {
    let shown = ["uuid", "created_at", "severity", "event", "links"];
    shown.iter().map(|key| ((*key).to_owned(), entry[*key].clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_reads_back_as_it_was_written() {
        let node = Node::enrolled(Uuid::nil(), "redfish", Timestamp::UNIX_EPOCH);
        let latest = LatestAttempt {
            boot_interface: BootInterface::Http,
            started_at: Timestamp::UNIX_EPOCH,
            powered_on_at: None,
            ended_at: None,
        };
        for attempt in [
            None,
            Some(ShownAttempt { id: Uuid::nil(), latest: None }),
            Some(ShownAttempt { id: Uuid::nil(), latest: Some(latest) }),
        ] {
            let trace = BootTrace::new(&node, attempt, Vec::new(), None);
            let text = serde_json::to_string(&trace).unwrap();
            assert_eq!(serde_json::from_str::<BootTrace>(&text).unwrap(), trace);
        }
    }
}
