//! `/v1/nodes/{}/boot-trace`, an extension, and Ironic's `/history`, which is derived from the same events.

use axum::extract::State;
use axum::{Extension, Json};
use ironic::ClientView;
use ironic::Version;
use ironic::query;
use ironic::trace::{self, BootTrace, ShownAttempt};
use provision::Node;
use provision::boot::BootMethod;
use serde_json::{Value, json};
use store::Clock;

use super::context::ApiContext;
use super::extract::PathParams;
use super::query::Query;
use crate::error::ApiError;

pub(super) async fn show(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
    mut query: Query,
) -> Result<Json<BootTrace>, ApiError> {
    query.expect(&[query::BOOT_TRACE], view.version)?;
    let asked = query.take_uuid("attempt")?;
    // The endpoint is not Ironic's, so names of nodes work in every version.
    let node = api.find(&ident, Version::MAX).await?.node;
    let latest = node.attempt.as_ref();
    let attempt = match asked.or_else(|| latest.map(|latest| latest.id)) {
        None => return Ok(Json(BootTrace::new(&node, None, Vec::new(), None))),
        Some(id) => match latest.filter(|latest| latest.id == id) {
            Some(latest) => ShownAttempt::from(latest),
            None => ShownAttempt { id, latest: None },
        },
    };
    api.recorder.flush().await;
    let events = api.nodes.store().events(node.uuid, Some(attempt.id)).await?;
    if events.is_empty() && attempt.latest.is_none() {
        let text = format!("Boot attempt {} of node {ident} could not be found.", attempt.id);
        return Err(ApiError::not_found(text));
    }
    let latest = node.attempt.as_ref().filter(|latest| latest.id == attempt.id);
    let diagnosis = latest.and_then(|latest| {
        // An ended attempt is diagnosed at its end: later silence means nothing.
        let now = latest.ended_at.unwrap_or_else(|| Clock::process().now());
        let boot = BootMethod::of(latest, api.settings.loader);
        api.settings.strangers.diagnose(api.nodes.index(), node.uuid, boot, &events, now)
    });
    Ok(Json(BootTrace::new(&node, Some(attempt), events, diagnosis.map(Into::into))))
}

pub(super) async fn history(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
    mut query: Query,
) -> Result<Json<Value>, ApiError> {
    let detail = query.take_boolean("detail")?.unwrap_or(false);
    let node = api.find(&ident, view.version).await?.node;
    let entries = entries(&api, &view, &node).await?;
    let shown: Vec<_> = entries
        .into_iter()
        .map(|entry| if detail { entry } else { trace::brief(&entry) })
        .collect();
    Ok(Json(json!({ "history": shown })))
}

pub(super) async fn history_entry(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams((ident, event)): PathParams<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let node = api.find(&ident, view.version).await?.node;
    let entries = entries(&api, &view, &node).await?;
    let entry = entries.into_iter().find(|entry| entry["uuid"] == event.as_str());
    entry.map(Json).ok_or_else(|| {
        ApiError::not_found(format!("Node history record {event} could not be found."))
    })
}

async fn entries(api: &ApiContext, view: &ClientView, node: &Node) -> Result<Vec<Value>, ApiError> {
    api.recorder.flush().await;
    let events = api.nodes.store().events(node.uuid, None).await?;
    Ok(events.iter().filter_map(|event| trace::history_entry(node, event, view)).collect())
}
