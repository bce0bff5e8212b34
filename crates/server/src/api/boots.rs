//! `/boots`, an extension: the boots under way.

use axum::extract::State;
use axum::{Extension, Json};
use ironic::boots::{BootsUnderWay, SlowBoot};
use ironic::{ClientView, query};
use provision::BootEvent;
use provision::boot::BootMethod;
use store::Clock;

use super::context::ApiContext;
use super::query::Query;
use crate::boot_overview::BootOverview;
use crate::error::ApiError;

/// Number of listed boots by default.
const LIMIT: usize = 20;
/// Largest number of listed boots: each is diagnosed from its trace.
const MOST: usize = 100;

pub(super) async fn list(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    mut query: Query,
) -> Result<Json<BootsUnderWay>, ApiError> {
    query.expect(&[query::BOOTS], view.version)?;
    let limit = match query.take("limit") {
        None => LIMIT,
        Some(text) => text.parse().map_err(|_| {
            ApiError::bad_request(format!("Expected a number of boots for limit: {text}"))
        })?,
    };
    let overview = BootOverview {
        index: api.nodes.index().clone(),
        progress: api.recorder.progress().clone(),
        loader: api.settings.loader,
    };
    let mut boots = overview.boots(limit.min(MOST), Clock::process().now());
    let shown: Vec<_> = boots.slowest.iter().map(|boot| (boot.node_uuid, boot.attempt)).collect();
    if !shown.is_empty() {
        let mut traces = api.nodes.store().traces(&shown).await?;
        for boot in &mut boots.slowest {
            let events = traces.remove(&boot.attempt).unwrap_or_default();
            diagnose(&api, boot, &events);
        }
    }
    Ok(Json(boots))
}

fn diagnose(api: &ApiContext, boot: &mut SlowBoot, events: &[BootEvent]) {
    let Some((node, _)) = api.nodes.index().by_uuid(boot.node_uuid) else { return };
    let Some(attempt) = node.live_attempt().filter(|live| live.id == boot.attempt) else { return };
    let (index, method) = (api.nodes.index(), BootMethod::of(attempt, api.settings.loader));
    let now = Clock::process().now();
    let found = api.settings.strangers.diagnose(index, node.uuid, method, events, now);
    boot.diagnosis = found.map(Into::into);
}
