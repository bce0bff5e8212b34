//! `GET /v1/nodes/{}/boot-trace`: what happened in a boot, and what is wrong with it. Our extension.

use jiff::Timestamp;
use provision::{Attempt, BootEvent, BootInterface, Node, ProvisionState, Stage, What};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::field::{ClientView, time};

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootTrace {
    /// Which node.
    pub node_uuid: Uuid,
    /// Its name.
    pub node_name: Option<String>,
    /// The node's state now.
    pub provision_state: ProvisionState,
    /// What went wrong last with the node.
    pub last_error: Option<String>,
    /// The attempt that is shown; null before the first.
    pub attempt: Option<ShownAttempt>,
    /// What happened in it, oldest first.
    pub events: Vec<BootEvent>,
    /// What is wrong, or where it stands; null while all goes well.
    pub diagnosis: Option<ShownDiagnosis>,
}

/// An attempt, without its secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShownAttempt {
    /// Its identity, for `?attempt=`.
    pub id: Uuid,
    /// The rest is known of the node's latest attempt only.
    #[serde(flatten)]
    pub latest: Option<LatestAttempt>,
}

/// What is known of the latest attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatestAttempt {
    /// Which path it took.
    pub boot_interface: BootInterface,
    /// When it began.
    pub started_at: Timestamp,
    /// When the machine was switched on for it.
    pub powered_on_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// The diagnosis of a boot, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownDiagnosis {
    /// What is wrong, as one sentence.
    pub text: String,
    /// What an operator can do about it.
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

/// An entry of upstream's `history`: a change of state in a trace, with its reason.
#[must_use]
pub fn history_entry(node: &Node, event: &BootEvent, view: &ClientView) -> Option<Value> {
    let What::State { from, to, reason } = &event.what else { return None };
    let failed = to.stage() == Some(Stage::Failed) || *to == ProvisionState::Error;
    let procedure = to.procedure().or_else(|| from.procedure());
    // Events have no UUIDs of their own, and those of one attempt differ in their times.
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

/// The part of a [`history_entry`] that a list shows.
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
