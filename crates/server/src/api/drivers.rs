//! `/v1/drivers` and `/v1/conductors`: the one driver, and this daemon.

use axum::{Extension, Json};
use ironic::driver;
use serde_json::{Value, json};

use super::extract::{At, View};
use super::query::Query;
use crate::error::ApiError;

pub(super) async fn list(Extension(view): View, mut query: Query) -> Result<Json<Value>, ApiError> {
    let detail = query.take_boolean("detail")?.unwrap_or(false);
    // There are no classic drivers.
    let classic = query.take("type").is_some_and(|kind| kind != "dynamic");
    query.take("fields");
    query.end()?;
    let drivers = if classic { vec![] } else { vec![driver::show(&view, detail)] };
    Ok(Json(json!({ "drivers": drivers })))
}

pub(super) async fn show(
    Extension(view): View,
    At(name): At<String>,
) -> Result<Json<Value>, ApiError> {
    expect(&name)?;
    Ok(Json(driver::show(&view, true)))
}

pub(super) async fn properties(At(name): At<String>) -> Result<Json<Value>, ApiError> {
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

pub(super) async fn conductors(Extension(view): View) -> Json<Value> {
    Json(json!({ "conductors": [this(&view)] }))
}

pub(super) async fn conductor(
    Extension(view): View,
    At(host): At<String>,
) -> Result<Json<Value>, ApiError> {
    if host != view.host {
        return Err(ApiError::not_found(format!("Conductor {host} could not be found.")));
    }
    let mut this = this(&view);
    this["drivers"] = json!([driver::NAME]);
    Ok(Json(this))
}

/// Whoever reads this from us knows that we are alive.
fn this(view: &ironic::View) -> Value {
    json!({
        "hostname": view.host,
        "conductor_group": "",
        "alive": true,
        "links": view.links(&format!("conductors/{}", view.host)),
    })
}
