//! The smaller things of a node: its traits, and what upstream has and this service has none of.

use axum::extract::{MatchedPath, State};
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::{Extension, Json};
use ironic::traits::BadTraits;
use provision::Node;
use serde_json::{Value, json};

use super::Api;
use super::request::{At, Body, Query, View};
use crate::error::ApiError;

/// A list of things of which there are none. The last segment of the path is their name.
pub(super) async fn none(path: MatchedPath) -> Json<Value> {
    let (_, name) = path.as_str().rsplit_once('/').unwrap_or_default();
    Json(json!({ name: [] }))
}

/// [`none`], below a node.
pub(super) async fn none_of_node(
    State(api): State<Api>,
    Extension(view): View,
    At(ident): At<String>,
    path: MatchedPath,
) -> Result<Json<Value>, ApiError> {
    api.find(&ident, view.version).await?;
    Ok(none(path).await)
}

/// What would change a machine in a way that this service does not.
pub(super) async fn not_ours(
    State(api): State<Api>,
    Extension(view): View,
    At(ident): At<String>,
) -> Result<StatusCode, ApiError> {
    api.find(&ident, view.version).await?;
    Err(ApiError::bad_request(
        "This is not supported by this service: each boot sets boot device and boot mode itself, and the rest is left as \
         the operator set it.",
    ))
}

pub(super) async fn no_virtual_media(
    State(api): State<Api>,
    Extension(view): View,
    At(ident): At<String>,
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
    State(api): State<Api>,
    Extension(view): View,
    At(ident): At<String>,
    mut query: Query,
) -> Result<StatusCode, ApiError> {
    api.find(&ident, view.version).await?;
    let name = query.take("method").unwrap_or_default();
    Err(ApiError::bad_request(format!("No handler for method {name}")))
}

/// What the BMC is told is for one boot only, so that outside of an attempt there is nothing set.
pub(super) async fn boot_device(
    State(api): State<Api>,
    Extension(view): View,
    At(ident): At<String>,
) -> Result<Json<Value>, ApiError> {
    let node = api.find(&ident, view.version).await?.node;
    Ok(Json(match node.live_attempt() {
        Some(_) => json!({ "boot_device": "uefihttp", "persistent": false }),
        None => json!({ "boot_device": null, "persistent": null }),
    }))
}

pub(super) async fn supported_boot_devices(
    State(api): State<Api>,
    Extension(view): View,
    At(ident): At<String>,
) -> Result<Json<Value>, ApiError> {
    api.find(&ident, view.version).await?;
    Ok(Json(json!({ "supported_boot_devices": ["uefihttp"] })))
}

pub(super) async fn console(
    State(api): State<Api>,
    Extension(view): View,
    At(ident): At<String>,
) -> Result<Json<Value>, ApiError> {
    api.find(&ident, view.version).await?;
    Ok(Json(json!({ "console_enabled": false, "console_info": null })))
}

pub(super) async fn vendor_methods(
    State(api): State<Api>,
    Extension(view): View,
    At(ident): At<String>,
) -> Result<Json<Value>, ApiError> {
    api.find(&ident, view.version).await?;
    Ok(Json(json!({})))
}

pub(super) async fn volume_of_node(
    State(api): State<Api>,
    Extension(view): View,
    At(ident): At<String>,
) -> Result<Json<Value>, ApiError> {
    let uuid = api.find(&ident, view.version).await?.node.uuid;
    let links = |tail: &str| view.links(&format!("nodes/{uuid}/volume/{tail}"));
    Ok(Json(json!({
        "links": links(""),
        "connectors": links("connectors"),
        "targets": links("targets"),
    })))
}

pub(super) async fn volume(Extension(view): View) -> Result<Json<Value>, ApiError> {
    let links = |tail: &str| view.links(&format!("volume/{tail}"));
    Ok(Json(json!({
        "links": links(""),
        "connectors": links("connectors"),
        "targets": links("targets"),
    })))
}

pub(super) async fn children(
    State(api): State<Api>,
    Extension(view): View,
    At(ident): At<String>,
) -> Result<Json<Value>, ApiError> {
    let uuid = api.find(&ident, view.version).await?.node.uuid;
    // From memory: reading all nodes for it cost seconds of the database.
    let parent = json!(uuid);
    let mut children: Vec<_> = api.nodes.index().all();
    children.retain(|node| node.kept.get("parent_node") == Some(&parent));
    children.sort_by_key(|node| (node.created_at, node.uuid));
    let children: Vec<_> = children.iter().map(|node| node.uuid).collect();
    Ok(Json(json!({ "children": children })))
}

pub(super) async fn inventory(
    State(api): State<Api>,
    Extension(view): View,
    At(ident): At<String>,
) -> Result<Json<Value>, ApiError> {
    let uuid = api.find(&ident, view.version).await?.node.uuid;
    Err(ApiError::not_found(format!("Node inventory record for node {uuid} could not be found.")))
}

pub(super) async fn allocation(
    State(api): State<Api>,
    Extension(view): View,
    At(ident): At<String>,
) -> Result<Json<Value>, ApiError> {
    let uuid = api.find(&ident, view.version).await?.node.uuid;
    Err(ApiError::not_found(format!("Allocation for node {uuid} was not found")))
}

pub(super) async fn traits(
    State(api): State<Api>,
    Extension(view): View,
    At(ident): At<String>,
) -> Result<Json<Value>, ApiError> {
    let node = api.find(&ident, view.version).await?.node;
    Ok(Json(json!({ "traits": traits_of(&node) })))
}

pub(super) async fn set_traits(
    State(api): State<Api>,
    Extension(view): View,
    At(ident): At<String>,
    Body(body): Body,
) -> Result<StatusCode, ApiError> {
    let names = ironic::traits::list(&ident, &body)?;
    change_traits(&api, &view, &ident, |_| Ok(names.clone())).await
}

pub(super) async fn unset_traits(
    State(api): State<Api>,
    Extension(view): View,
    At(ident): At<String>,
) -> Result<StatusCode, ApiError> {
    change_traits(&api, &view, &ident, |_| Ok(Vec::new())).await
}

pub(super) async fn add_trait(
    State(api): State<Api>,
    Extension(view): View,
    At((ident, name)): At<(String, String)>,
    Body(body): Body,
) -> Result<(StatusCode, [(HeaderName, String); 1]), ApiError> {
    if !body.is_null() && body != json!({}) {
        return Err(BadTraits::Body.into());
    }
    let add = |names| Ok(ironic::traits::with(&ident, names, &name)?);
    let status = change_traits(&api, &view, &ident, add).await?;
    Ok((status, [(header::LOCATION, view.url(&format!("nodes/{ident}/traits/{name}")))]))
}

pub(super) async fn remove_trait(
    State(api): State<Api>,
    Extension(view): View,
    At((ident, name)): At<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let remove = |names| Ok(ironic::traits::without(&ident, names, &name)?);
    change_traits(&api, &view, &ident, remove).await
}

async fn change_traits(
    api: &Api,
    view: &ironic::View,
    ident: &str,
    change: impl Fn(Vec<String>) -> Result<Vec<String>, ApiError>,
) -> Result<StatusCode, ApiError> {
    let uuid = api.find(ident, view.version).await?.node.uuid;
    let decide = |node: &Node| {
        Api::still_called(node, ident)?;
        let mut node = node.clone();
        match change(traits_of(&node))? {
            names if names.is_empty() => node.kept.remove("traits"),
            names => node.kept.insert("traits".to_owned(), json!(names)),
        };
        Ok::<_, ApiError>(node)
    };
    api.nodes.set(uuid, decide).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn traits_of(node: &Node) -> Vec<String> {
    let names = node.kept.get("traits").and_then(Value::as_array);
    let text = |name: &Value| name.as_str().map(str::to_owned);
    names.map(|names| names.iter().filter_map(text).collect()).unwrap_or_default()
}
