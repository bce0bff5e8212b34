//! `/v1/ports`: list, create, show, change, delete.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use hardware::Mac;
use ironic::ClientView;
use ironic::port::{FIELDS, LISTED};
use ironic::query;
use ironic::version::since;
use ironic::{Fields, Version};
use provision::{Node, Port};
use serde_json::{Value, json};
use store::{Clock, NodeKey, PortChangeError, PortError, PortFilter, PortKey};
use uuid::Uuid;

use super::context::ApiContext;
use super::extract::{JsonBody, PathParams};
use super::query::{PageRequest, Query};
use crate::error::ApiError;

pub(super) async fn list(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    mut query: Query,
) -> Result<Json<Value>, ApiError> {
    let arguments =
        [query::PAGE, query::FIELDS, query::DETAIL, query::PORT_FILTERS, query::PORT_NODE];
    query.expect(&arguments, view.version)?;
    let page = PageRequest::take(&mut query)?;
    let fields = query.take_listed_fields(FIELDS, &LISTED, view.version)?;
    let node = node_of(&api, &view, &mut query).await?;
    show_page(&api, &view, query, &page, "ports", node, &fields).await
}

pub(super) async fn list_detail(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    mut query: Query,
) -> Result<Json<Value>, ApiError> {
    query.expect(&[query::PAGE, query::PORT_FILTERS, query::PORT_NODE], view.version)?;
    let page = PageRequest::take(&mut query)?;
    let node = node_of(&api, &view, &mut query).await?;
    show_page(&api, &view, query, &page, "ports/detail", node, &Fields::All).await
}

pub(super) async fn list_of_node(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
    mut query: Query,
) -> Result<Json<Value>, ApiError> {
    let arguments = [query::PAGE, query::FIELDS, query::DETAIL, query::PORT_FILTERS];
    query.expect(&arguments, view.version)?;
    let page = PageRequest::take(&mut query)?;
    let fields = query.take_listed_fields(FIELDS, &LISTED, view.version)?;
    let node = api.find(&ident, view.version).await?.node.uuid;
    let path = format!("nodes/{node}/ports");
    show_page(&api, &view, query, &page, &path, Some(node), &fields).await
}

pub(super) async fn list_detail_of_node(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
    mut query: Query,
) -> Result<Json<Value>, ApiError> {
    query.expect(&[query::PAGE, query::PORT_FILTERS], view.version)?;
    let page = PageRequest::take(&mut query)?;
    let node = api.find(&ident, view.version).await?.node.uuid;
    let path = format!("nodes/{node}/ports/detail");
    show_page(&api, &view, query, &page, &path, Some(node), &Fields::All).await
}

/// The node of `?node=` or `?node_uuid=`.
async fn node_of(
    api: &ApiContext,
    view: &ClientView,
    query: &mut Query,
) -> Result<Option<Uuid>, ApiError> {
    match (query.take("node"), query.take_uuid("node_uuid")?) {
        (Some(ident), _) => Ok(Some(api.find(&ident, view.version).await?.node.uuid)),
        (None, uuid) => Ok(uuid),
    }
}

async fn show_page(
    api: &ApiContext,
    view: &ClientView,
    mut query: Query,
    page: &PageRequest,
    path: &str,
    node: Option<Uuid>,
    fields: &Fields,
) -> Result<Json<Value>, ApiError> {
    let filter = PortFilter {
        nodes: node.into_iter().collect(),
        address: query.take("address").as_deref().map(address).transpose()?,
        sort_dir: query.take_direction()?,
        marker: page.marker,
        limit: Some(page.limit),
    };
    expect_creation_order(&mut query)?;
    let found = api.nodes.store().ports(&filter).await?;
    let shown = found.iter().map(|port| ironic::port::show(port, view, fields)).collect();
    Ok(Json(page.show(view, path, "ports", shown, found.last().map(|port| port.uuid))))
}

fn address(text: &str) -> Result<Mac, ApiError> {
    text.parse().map_err(|_| {
        ApiError::bad_request(format!("Expected valid MAC address for address: {text}"))
    })
}

/// Refuses every sort key except the order of creation.
fn expect_creation_order(query: &mut Query) -> Result<(), ApiError> {
    match query.take("sort_key").as_deref() {
        None | Some("id" | "created_at") => Ok(()),
        Some(other) => Err(ApiError::bad_request(format!(
            "The sort_key value \"{other}\" is an invalid field for sorting"
        ))),
    }
}

pub(super) async fn create(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let body = with_node_uuid(&api, view.version, body).await?;
    let port = ironic::port::create(&body, view.version, Uuid::new_v4(), Clock::process().now())?;
    api.nodes.create_port(&port).await?;
    let location = view.url(&format!("ports/{}", port.uuid));
    let body = ironic::port::show(&port, &view, &Fields::All);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(body)).into_response())
}

/// The body with `node_uuid` instead of `node_ident`.
async fn with_node_uuid(
    api: &ApiContext,
    version: Version,
    body: Value,
) -> Result<Value, ApiError> {
    let Some(ident) = body.get("node_ident") else { return Ok(body) };
    if !version.has(since::NODE_IDENT) {
        return Err(ApiError::not_acceptable());
    }
    let (Some(ident), None) = (ident.as_str(), body.get("node_uuid")) else {
        return Err(ApiError::bad_request(
            "Schema error for port: it must have either node_ident or node_uuid, a text",
        ));
    };
    let missing = || ApiError::bad_request(format!("Node {ident} could not be found."));
    let found = api.nodes.store().node(&NodeKey::from(ident)).await?.ok_or_else(missing)?;
    let mut named = body.clone();
    if let Some(fields) = named.as_object_mut() {
        fields.remove("node_ident");
        fields.insert("node_uuid".to_owned(), json!(found.node.uuid));
    }
    Ok(named)
}

pub(super) async fn show(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
    mut query: Query,
) -> Result<Json<Value>, ApiError> {
    query.expect(&[query::FIELDS], view.version)?;
    let fields = query.take_fields(FIELDS, view.version)?;
    Ok(Json(ironic::port::show(&find(&api, &ident).await?, &view, &fields)))
}

pub(super) async fn patch(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let uuid = find(&api, &ident).await?.uuid;
    let decide = |port: &Port, node: &Node| {
        still_called(port, &ident)?;
        let after = ironic::port::patched(port, &body, view.version)?;
        ironic::guards::check_port_change(node, port, &after)?;
        Ok::<_, ApiError>(after)
    };
    let port = api.nodes.change_port(uuid, decide).await.map_err(|failed| match failed {
        PortChangeError::Port(PortError::NoSuchNode(node)) => ApiError::bad_request(format!(
            "Unable to apply the requested node_uuid '{node}'. Requested value was invalid."
        )),
        PortChangeError::Port(_) | PortChangeError::Refused(_) => failed.into(),
    })?;
    Ok(Json(ironic::port::show(&port, &view, &Fields::All)))
}

pub(super) async fn delete(
    State(api): State<ApiContext>,
    PathParams(ident): PathParams<String>,
) -> Result<StatusCode, ApiError> {
    let uuid = find(&api, &ident).await?.uuid;
    api.nodes.delete_port(uuid, |port| still_called(port, &ident)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A port, by its UUID or its MAC address, as in Ironic.
async fn find(api: &ApiContext, ident: &str) -> Result<Port, ApiError> {
    let key = key(ident).ok_or_else(|| no_such_port(ident))?;
    api.nodes.store().port(key).await?.ok_or_else(|| no_such_port(ident))
}

fn key(ident: &str) -> Option<PortKey> {
    match (Uuid::try_parse(ident), ident.parse::<Mac>()) {
        (Ok(uuid), _) => Some(PortKey::Uuid(uuid)),
        (Err(_), Ok(mac)) => Some(PortKey::Address(mac)),
        (Err(_), Err(_)) => None,
    }
}

/// Checks that `ident` still identifies the port.
fn still_called(port: &Port, ident: &str) -> Result<(), ApiError> {
    match key(ident) {
        Some(PortKey::Address(mac)) if mac != port.address => Err(no_such_port(ident)),
        Some(PortKey::Address(_) | PortKey::Uuid(_)) | None => Ok(()),
    }
}

fn no_such_port(ident: &str) -> ApiError {
    ApiError::not_found(format!("Port {ident} could not be found."))
}
