//! `/v1/lookup` and `/v1/heartbeat`: what the agent in a ramdisk asks and says.
//!
//! Whatever comes here is refused unless [`provision::step()`] expects it, and both what was taken
//! and what was refused is in the trace of the node's boot.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use ironic::agent::{self, Lookup};
use ironic::version::since;
use jiff::Timestamp;
use provision::{Event, Mac, Node, What};
use store::{NodeKey, PortKey};
use tracing::{info, warn};
use uuid::Uuid;

use super::Api;
use super::request::{At, Body, Query, View, exists_since};
use crate::error::ApiError;

pub(super) async fn lookup(
    State(api): State<Api>,
    Extension(view): View,
    mut query: Query,
) -> Result<Json<Lookup>, ApiError> {
    exists_since(view.version, since::RAMDISK)?;
    let macs: Vec<Mac> = query
        .take("addresses")
        .iter()
        .flat_map(|list| list.split(','))
        .filter_map(|text| text.trim().parse().ok())
        .collect();
    let uuid = query.take("node_uuid").and_then(|text| Uuid::try_parse(&text).ok());
    let Some(before) = find(&api, &macs, uuid).await? else {
        // Not what was missing: whoever guesses learns nothing.
        return Err(ApiError::nothing_here());
    };
    match api.nodes.ask(before.uuid, &Event::AgentLooksUp).await {
        Ok(_) => {}
        Err(failed) => {
            let refused = ApiError::from(failed);
            record(&api, &before, "lookup", refused.text(), false);
            return Err(refused);
        }
    }
    record(&api, &before, "lookup", &format!("found by {}", by(&macs)), true);
    info!(node.uuid = %before.uuid, "the agent on node {} looked itself up", before.uuid);
    let timeout = api.settings.heartbeat_timeout_secs;
    Ok(Json(agent::lookup(&before, &view, timeout)))
}

/// The node with this UUID, or with ports of these addresses; none if they are of several.
async fn find(api: &Api, macs: &[Mac], uuid: Option<Uuid>) -> Result<Option<Node>, ApiError> {
    let mut found = uuid;
    if found.is_none() {
        for mac in macs {
            let Some(port) = api.nodes.store().port(PortKey::Address(*mac)).await? else {
                continue;
            };
            if found.is_some_and(|node| node != port.node_uuid) {
                return Ok(None);
            }
            found = Some(port.node_uuid);
        }
    }
    match found {
        Some(uuid) => {
            Ok(api.nodes.store().node(&NodeKey::Uuid(uuid)).await?.map(|found| found.node))
        }
        None => Ok(None),
    }
}

fn by(macs: &[Mac]) -> String {
    if macs.is_empty() {
        return "its UUID".to_owned();
    }
    macs.iter().map(Mac::to_string).collect::<Vec<_>>().join(", ")
}

pub(super) async fn heartbeat(
    State(api): State<Api>,
    Extension(view): View,
    At(ident): At<String>,
    Body(body): Body,
) -> Result<StatusCode, ApiError> {
    exists_since(view.version, since::RAMDISK)?;
    let settings = &api.settings;
    let heartbeat = agent::heartbeat(&body, settings.agent_require_tls, Timestamp::now())
        .map_err(|bad| ApiError::bad_request(bad.to_string()))?;
    let key = NodeKey::from(ident.as_str());
    let Some(node) = api.nodes.store().node(&key).await? else {
        return Err(ApiError::nothing_here());
    };
    let (node, from) = (node.node, heartbeat.callback_url.clone());
    let version = heartbeat.agent_version.clone();
    match api.nodes.ask(node.uuid, &Event::AgentAlive(heartbeat)).await {
        Ok(_) => {
            record(&api, &node, "heartbeat", &format!("from {from}, version {version}"), true);
            Ok(StatusCode::ACCEPTED)
        }
        Err(failed) => {
            let refused = ApiError::from(failed);
            record(&api, &node, "heartbeat", refused.text(), false);
            Err(refused)
        }
    }
}

fn record(api: &Api, node: &Node, call: &str, result: &str, ok: bool) {
    if !ok {
        warn!(node.uuid = %node.uuid, "the {call} of an agent for node {} is refused: {result}", node.uuid);
    }
    // What comes when nobody is expected is no part of a boot.
    if node.live_attempt().is_some() {
        let what = What::Agent { call: call.to_owned(), result: result.to_owned(), ok };
        api.recorder.record(node, what);
    }
}
