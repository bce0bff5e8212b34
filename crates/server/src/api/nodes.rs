//! `/v1/nodes`: list, create, show, change, delete.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use ironic::ClientView;
use ironic::Fields;
use ironic::Version;
use ironic::field::boolean;
use ironic::node::{FIELDS, LISTED};
use ironic::query;
use provision::{Node, ProvisionState};
use serde_json::{Value, json};
use store::{Clock, NodeFilter, NodeSort};
use tracing::{info, warn};
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
    let arguments = [query::PAGE, query::FIELDS, query::DETAIL, query::NODE_FILTERS];
    query.expect(&arguments, view.version)?;
    let page = PageRequest::take(&mut query)?;
    let fields = query.take_listed_fields(FIELDS, &LISTED, view.version)?;
    show_page(&api, &view, query, &page, "nodes", &fields).await
}

pub(super) async fn list_detail(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    mut query: Query,
) -> Result<Json<Value>, ApiError> {
    query.expect(&[query::PAGE, query::NODE_FILTERS], view.version)?;
    let page = PageRequest::take(&mut query)?;
    show_page(&api, &view, query, &page, "nodes/detail", &Fields::All).await
}

async fn show_page(
    api: &ApiContext,
    view: &ClientView,
    mut query: Query,
    page: &PageRequest,
    path: &str,
    fields: &Fields,
) -> Result<Json<Value>, ApiError> {
    let filter = filter(&mut query, view, page)?;
    let found = api.nodes.store().nodes(&filter).await?;
    let shown = found
        .iter()
        .map(|found| ironic::node::show(&found.node, view, fields, found.reservation.as_deref()))
        .collect();
    let last = found.last().map(|found| found.node.uuid);
    Ok(Json(page.show(view, path, "nodes", shown, last)))
}

fn filter(
    query: &mut Query,
    view: &ClientView,
    page: &PageRequest,
) -> Result<NodeFilter, ApiError> {
    // `include_children` has no effect: children are listed like all other nodes.
    let shards = query.take("shard");
    Ok(NodeFilter {
        provision_state: query.take("provision_state").map(provision_state).transpose()?,
        driver: query.take("driver"),
        maintenance: query.take_boolean("maintenance")?,
        fault: query.take("fault"),
        instance_uuid: query.take("instance_uuid"),
        associated: query.take_boolean("associated")?,
        resource_class: query.take("resource_class"),
        owner: query.take("owner"),
        lessee: query.take("lessee"),
        conductor_group: conductor_group(query, view),
        shard: shards.iter().flat_map(|list| list.split(',')).map(str::to_owned).collect(),
        sharded: query.take_boolean("sharded")?,
        retired: query.take_boolean("retired")?,
        description_contains: query.take("description_contains"),
        sort_key: sort_key(query)?,
        sort_dir: query.take_direction()?,
        marker: page.marker,
        limit: Some(page.limit),
    })
}

/// The conductor group to filter by. All nodes have the group `""` and this conductor, so another conductor is mapped
/// to a group without nodes.
fn conductor_group(query: &mut Query, view: &ClientView) -> Option<String> {
    let elsewhere = query.take("conductor").filter(|conductor| *conductor != view.host);
    query.take("conductor_group").filter(|group| !group.is_empty()).or(elsewhere)
}

/// Accepts every state of Ironic's, including unused ones: monitoring queries all of them.
fn provision_state(name: String) -> Result<String, ApiError> {
    let ours = name.parse::<ProvisionState>().is_ok();
    if ours || ironic::states::OTHER_STATES.contains(&name.as_str()) {
        return Ok(name);
    }
    Err(ApiError::bad_request(format!("Provision state \"{name}\" is not valid")))
}

fn sort_key(query: &mut Query) -> Result<NodeSort, ApiError> {
    match query.take("sort_key").as_deref() {
        // Ironic's `id` numbers nodes in the order of their creation.
        None | Some("id") => Ok(NodeSort::CreatedAt),
        Some(name) => NodeSort::of_name(name).ok_or_else(|| {
            ApiError::bad_request(format!(
                "The sort_key value \"{name}\" is an invalid field for sorting"
            ))
        }),
    }
}

pub(super) async fn create(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let node = ironic::node::create(&body, view.version, Uuid::new_v4(), Clock::process().now())?;
    expect_parents(&api, node.kept_text("parent_node"), view.version).await?;
    api.nodes.create(&node).await?;
    info!(node.uuid = %node.uuid, "node {} is enrolled", node.uuid);
    let location = view.url(&format!("nodes/{}", node.uuid));
    let body = ironic::node::show(&node, &view, &Fields::All, None);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(body)).into_response())
}

pub(super) async fn show(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
    mut query: Query,
) -> Result<Json<Value>, ApiError> {
    query.expect(&[query::FIELDS], view.version)?;
    let fields = query.take_fields(FIELDS, view.version)?;
    let found = api.find(&ident, view.version).await?;
    let shown = ironic::node::show(&found.node, &view, &fields, found.reservation.as_deref());
    Ok(Json(shown))
}

pub(super) async fn patch(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
    mut query: Query,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    query.expect(&[query::NODE_PATCH], view.version)?;
    let reset = query.take("reset_interfaces");
    // There is only one driver, so a change of it keeps the interfaces, and nothing is reset.
    if reset.as_deref().is_some_and(|text| boolean(text) == Some(true)) && !names_driver(&body) {
        return Err(ApiError::bad_request(
            "The reset_interfaces parameter can only be used when changing the node's driver.",
        ));
    }
    expect_parents(&api, parents_in_patch(&body), view.version).await?;
    let uuid = api.find(&ident, view.version).await?.node.uuid;
    let decide = |node: &Node| {
        ApiContext::still_called(node, &ident)?;
        Ok::<_, ApiError>(ironic::node::patched(node, &body, view.version)?)
    };
    let node = api.nodes.set(uuid, decide).await?;
    Ok(Json(ironic::node::show(&node, &view, &Fields::All, None)))
}

fn names_driver(patch: &Value) -> bool {
    patch.as_array().is_some_and(|all| all.iter().any(|operation| operation["path"] == "/driver"))
}

fn parents_in_patch(patch: &Value) -> impl Iterator<Item = &str> {
    let operations = patch.as_array().into_iter().flatten();
    let named = operations.filter(|operation| operation["path"] == "/parent_node");
    named.filter_map(|operation| operation["value"].as_str())
}

/// Checks that the parents of a node exist.
async fn expect_parents<'a>(
    api: &ApiContext,
    parents: impl IntoIterator<Item = &'a str>,
    version: Version,
) -> Result<(), ApiError> {
    for parent in parents {
        if Uuid::try_parse(parent).is_err() || api.find(parent, version).await.is_err() {
            return Err(ApiError::bad_request(format!(
                "Unable to apply the requested parent_node '{parent}'. Requested value was invalid."
            )));
        }
    }
    Ok(())
}

pub(super) async fn delete(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
) -> Result<StatusCode, ApiError> {
    let node = api.find(&ident, view.version).await?.node;
    let check = |node: &Node| {
        ApiContext::still_called(node, &ident)?;
        Ok::<_, ApiError>(ironic::guards::check_deletion(node)?)
    };
    let left = api.nodes.delete(node.uuid, check).await?;
    info!(node.uuid = %node.uuid, "node {} is deleted", node.uuid);
    for change in left {
        warn!(node.uuid = %node.uuid, "the BMC of the deleted node {} keeps {change}", node.uuid);
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn children(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
) -> Result<Json<Value>, ApiError> {
    let uuid = api.find(&ident, view.version).await?.node.uuid;
    // From memory: reading all nodes from the database takes seconds.
    let parent = json!(uuid);
    let mut children: Vec<_> = api.nodes.index().all();
    children.retain(|node| node.kept.get("parent_node") == Some(&parent));
    children.sort_by_key(|node| (node.created_at, node.uuid));
    let children: Vec<_> = children.iter().map(|node| node.uuid).collect();
    Ok(Json(json!({ "children": children })))
}
