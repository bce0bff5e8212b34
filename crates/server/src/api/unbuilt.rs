//! Ironic's endpoints that this service does not support: empty lists, and refusals with an explanation.

use axum::extract::{MatchedPath, State};
use axum::http::{Method, StatusCode};
use axum::{Extension, Json};
use ironic::ClientView;
use serde_json::{Value, json};

use super::context::ApiContext;
use super::extract::PathParams;
use super::query::Query;
use crate::error::ApiError;

/// An empty list. Its name is the last segment of the path.
pub(super) async fn none(path: MatchedPath) -> Json<Value> {
    let (_, name) = path.as_str().rsplit_once('/').unwrap_or_default();
    Json(json!({ name: [] }))
}

/// [`none`] for a resource of a node.
pub(super) async fn none_of_node(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
    path: MatchedPath,
) -> Result<Json<Value>, ApiError> {
    api.find(&ident, view.version).await?;
    Ok(none(path).await)
}

/// Refuses an unsupported change of a machine.
pub(super) async fn not_ours(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
) -> Result<StatusCode, ApiError> {
    api.find(&ident, view.version).await?;
    Err(ApiError::bad_request(
        "This is not supported by this service: it is left as the operator set it.",
    ))
}

pub(super) async fn no_virtual_media(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
    method: Method,
) -> Result<StatusCode, ApiError> {
    let driver = api.find(&ident, view.version).await?.node.driver;
    let verb = match method {
        Method::GET => "get",
        Method::DELETE => "detach",
        _ => "attach",
    };
    Err(ApiError::bad_request(format!(
        "Driver {driver} does not support {verb}_virtual_media (disabled or not implemented)."
    )))
}

pub(super) async fn no_vendor_method(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
    mut query: Query,
) -> Result<StatusCode, ApiError> {
    api.find(&ident, view.version).await?;
    let name = query.take("method").unwrap_or_default();
    Err(ApiError::bad_request(format!("No handler for method {name}")))
}

pub(super) async fn vendor_methods(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
) -> Result<Json<Value>, ApiError> {
    api.find(&ident, view.version).await?;
    Ok(Json(json!({})))
}

pub(super) async fn console(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
) -> Result<Json<Value>, ApiError> {
    api.find(&ident, view.version).await?;
    Ok(Json(json!({ "console_enabled": false, "console_info": null })))
}

pub(super) async fn volume_of_node(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
) -> Result<Json<Value>, ApiError> {
    let uuid = api.find(&ident, view.version).await?.node.uuid;
    let links = |tail: &str| view.links(&format!("nodes/{uuid}/volume/{tail}"));
    Ok(Json(json!({
        "links": links(""),
        "connectors": links("connectors"),
        "targets": links("targets"),
    })))
}

pub(super) async fn volume(
    Extension(view): Extension<ClientView>,
) -> Result<Json<Value>, ApiError> {
    let links = |tail: &str| view.links(&format!("volume/{tail}"));
    Ok(Json(json!({
        "links": links(""),
        "connectors": links("connectors"),
        "targets": links("targets"),
    })))
}

pub(super) async fn inventory(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
) -> Result<Json<Value>, ApiError> {
    let uuid = api.find(&ident, view.version).await?.node.uuid;
    Err(ApiError::not_found(format!("Node inventory record for node {uuid} could not be found.")))
}

pub(super) async fn allocation(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
) -> Result<Json<Value>, ApiError> {
    let uuid = api.find(&ident, view.version).await?.node.uuid;
    Err(ApiError::not_found(format!("Allocation for node {uuid} was not found")))
}
