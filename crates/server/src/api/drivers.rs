//! `/v1/drivers` and `/v1/conductors`: the only driver, and the daemons.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::{Extension, Json};
use ironic::{ClientView, driver, query};
use serde_json::{Value, json};
use store::Clock;

use super::context::ApiContext;
use super::extract::PathParams;
use super::query::Query;
use crate::error::ApiError;

pub(super) async fn list(
    Extension(view): Extension<ClientView>,
    mut query: Query,
) -> Result<Json<Value>, ApiError> {
    query.expect(&[query::DRIVERS], view.version)?;
    let detail = query.take_boolean("detail")?.unwrap_or(false);
    // There are no classic drivers.
    let classic = query.take("type").is_some_and(|kind| kind != "dynamic");
    let drivers = if classic { vec![] } else { vec![driver::show(&view, detail)] };
    Ok(Json(json!({ "drivers": drivers })))
}

pub(super) async fn show(
    Extension(view): Extension<ClientView>,
    PathParams(name): PathParams<String>,
) -> Result<Json<Value>, ApiError> {
    expect(&name)?;
    Ok(Json(driver::show(&view, true)))
}

pub(super) async fn properties(
    PathParams(name): PathParams<String>,
) -> Result<Json<Value>, ApiError> {
    expect(&name)?;
    Ok(Json(driver::properties()))
}

fn expect(name: &str) -> Result<(), ApiError> {
    if name == driver::NAME {
        return Ok(());
    }
    let text = format!("Could not find the following driver(s) or hardware type(s): {name}.");
    Err(ApiError::not_found(text))
}

pub(super) async fn conductors(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
) -> Result<Json<Value>, ApiError> {
    let daemons = daemons(&api, &view).await?;
    let conductors: Vec<_> =
        daemons.iter().map(|(host, is_alive)| conductor_of(&view, host, *is_alive)).collect();
    Ok(Json(json!({ "conductors": conductors })))
}

pub(super) async fn conductor(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(host): PathParams<String>,
) -> Result<Json<Value>, ApiError> {
    let daemons = daemons(&api, &view).await?;
    let Some(is_alive) = daemons.get(&host) else {
        return Err(ApiError::not_found(format!("Conductor {host} could not be found.")));
    };
    let mut conductor = conductor_of(&view, &host, *is_alive);
    conductor["drivers"] = json!([driver::NAME]);
    Ok(Json(conductor))
}

/// The daemons that share the database, by name, with their liveness. This daemon is alive in any case.
async fn daemons(api: &ApiContext, view: &ClientView) -> Result<BTreeMap<String, bool>, ApiError> {
    let known = api.nodes.store().daemons(Clock::process().now()).await?;
    let mut daemons: BTreeMap<_, _> =
        known.into_iter().map(|known| (known.host, known.is_alive)).collect();
    daemons.insert(view.host.clone(), true);
    Ok(daemons)
}

fn conductor_of(view: &ClientView, host: &str, is_alive: bool) -> Value {
    json!({
        "hostname": host,
        "conductor_group": "",
        "alive": is_alive,
        "links": view.links(&format!("conductors/{host}")),
    })
}
