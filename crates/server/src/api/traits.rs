//! `/v1/nodes/{}/traits`: list, set, add, remove.

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::{Extension, Json};
use ironic::ClientView;
use ironic::traits::BadTraits;
use provision::Node;
use serde_json::{Value, json};

use super::context::ApiContext;
use super::extract::{JsonBody, PathParams};
use crate::error::ApiError;

pub(super) async fn traits(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
) -> Result<Json<Value>, ApiError> {
    let node = api.find(&ident, view.version).await?.node;
    Ok(Json(json!({ "traits": traits_of(&node) })))
}

pub(super) async fn set_traits(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
    JsonBody(body): JsonBody,
) -> Result<StatusCode, ApiError> {
    let names = ironic::traits::list(&ident, &body)?;
    change_traits(&api, &view, &ident, |_| Ok(names.clone())).await
}

pub(super) async fn unset_traits(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
) -> Result<StatusCode, ApiError> {
    change_traits(&api, &view, &ident, |_| Ok(Vec::new())).await
}

pub(super) async fn add_trait(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams((ident, name)): PathParams<(String, String)>,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, [(HeaderName, String); 1]), ApiError> {
    if !body.is_null() && body != json!({}) {
        return Err(BadTraits::Body.into());
    }
    let add = |names| Ok(ironic::traits::with(&ident, names, &name)?);
    let status = change_traits(&api, &view, &ident, add).await?;
    Ok((status, [(header::LOCATION, view.url(&format!("nodes/{ident}/traits/{name}")))]))
}

pub(super) async fn remove_trait(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams((ident, name)): PathParams<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let remove = |names| Ok(ironic::traits::without(&ident, names, &name)?);
    change_traits(&api, &view, &ident, remove).await
}

async fn change_traits(
    api: &ApiContext,
    view: &ClientView,
    ident: &str,
    change: impl Fn(Vec<String>) -> Result<Vec<String>, ApiError>,
) -> Result<StatusCode, ApiError> {
    let uuid = api.find(ident, view.version).await?.node.uuid;
    let decide = |node: &Node| {
        ApiContext::still_called(node, ident)?;
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
