//! A node's states for operators: provision state, power, maintenance, validation.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use ironic::ClientView;
use ironic::field::Object;
use ironic::validate::Validation;
use provision::Node;
use serde_json::Value;
use store::PortFilter;
use tokio::task::spawn_blocking;

use super::context::ApiContext;
use super::extract::{JsonBody, PathParams};
use crate::bmcs::{self, BmcError, BootAdvice};
use crate::error::ApiError;

pub(super) async fn show(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
) -> Result<Json<Value>, ApiError> {
    let node = api.find(&ident, view.version).await?.node;
    Ok(Json(ironic::node::states(&node, &view)))
}

pub(super) async fn provision(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let node = api.find(&ident, view.version).await?.node;
    let asked = ironic::states::provision(&node, &body, view.version)?;
    if let Some(booting) = api.nodes.as_booting(&node, &asked) {
        api.can_boot(&booting).await?;
    }
    let event = |node: &Node| {
        ApiContext::still_called(node, &ident)?;
        Ok::<_, ApiError>(ironic::states::provision(node, &body, view.version)?)
    };
    if ironic::states::is_abort(&body) {
        api.nodes.interrupt(node.uuid, event).await?;
    } else {
        api.nodes.ask_for(node.uuid, event).await?;
    }
    Ok(accepted(&view, &node))
}

pub(super) async fn power(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let node = api.find(&ident, view.version).await?.node;
    let event = |node: &Node| {
        ApiContext::still_called(node, &ident)?;
        Ok::<_, ApiError>(ironic::states::power(node, &body, view.version)?)
    };
    api.nodes.ask_for(node.uuid, event).await?;
    Ok(accepted(&view, &node))
}

impl ApiContext {
    /// Refuses a boot that is certain to fail, before the node changes.
    async fn can_boot(&self, node: &Node) -> Result<(), ApiError> {
        self.has_means(node).await.map_err(|lacks| {
            ApiError::bad_request(format!("Node {} cannot be booted: {lacks}.", node.uuid))
        })
    }

    /// Checks that this host can boot a node.
    async fn has_means(&self, node: &Node) -> Result<(), String> {
        match self.check_means(node.clone()).await {
            // An operator may have changed the databases of Secure Boot because of this refusal.
            Err(_) if node.secure_boot_trust.is_some() => {
                self.check_means(self.with_trust_of_now(node).await).await
            }
            checked => checked,
        }
    }

    /// The node with what its firmware's databases of Secure Boot hold now, if its BMC shows it.
    async fn with_trust_of_now(&self, node: &Node) -> Node {
        let signer = self.settings.certificates.signer.as_ref();
        let read = self.ask_bmc(node, async |machine, view| {
            Ok::<_, BmcError>(machine.secure_boot_trust(view, signer).await)
        });
        let trust = read.await.ok().flatten().or(node.secure_boot_trust);
        Node { secure_boot_trust: trust, ..node.clone() }
    }

    async fn check_means(&self, node: Node) -> Result<(), String> {
        let Some(means) = self.settings.means.clone() else { return Ok(()) };
        let checked = spawn_blocking(move || means.check(&node)).await;
        checked.unwrap_or(Ok(())).map_err(|lacks| format!("{lacks:#}"))
    }
}

/// 202: the change is under way, and the states show its progress.
pub(super) fn accepted(view: &ClientView, node: &Node) -> Response {
    let location = view.url(&format!("nodes/{}/states", node.uuid));
    (StatusCode::ACCEPTED, [(header::LOCATION, location)]).into_response()
}

pub(super) async fn set_maintenance(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
    JsonBody(body): JsonBody,
) -> Result<StatusCode, ApiError> {
    let reason = maintenance_reason(&body)?;
    let uuid = api.find(&ident, view.version).await?.node.uuid;
    let decide = |node: &Node| {
        ApiContext::still_called(node, &ident)?;
        let maintenance_reason = reason.clone();
        Ok::<_, ApiError>(Node { maintenance: true, maintenance_reason, ..node.clone() })
    };
    api.nodes.set(uuid, decide).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Longest reason for maintenance, in characters, like a node's description.
const MAX_REASON: usize = 4_096;

fn maintenance_reason(body: &Value) -> Result<Option<String>, ApiError> {
    let nobody = Object::new();
    let fields = match body {
        Value::Null => &nobody,
        Value::Object(fields) => fields,
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err(ApiError::bad_request("Schema error for body: it is not of type 'object'"));
        }
    };
    if let Some(name) = fields.keys().find(|name| *name != "reason") {
        return Err(ApiError::bad_request(format!("Unexpected arguments: {name}")));
    }
    match fields.get("reason") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(reason)) if reason.chars().count() > MAX_REASON => {
            Err(ApiError::bad_request(format!("reason has more than {MAX_REASON} characters")))
        }
        Some(Value::String(reason)) => Ok(Some(reason.clone())),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(ApiError::bad_request("Expected string for reason"))
        }
    }
}

pub(super) async fn unset_maintenance(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
) -> Result<StatusCode, ApiError> {
    let uuid = api.find(&ident, view.version).await?.node.uuid;
    let decide = |node: &Node| {
        ApiContext::still_called(node, &ident)?;
        let node = node.clone();
        let node = Node { maintenance: false, maintenance_reason: None, fault: None, ..node };
        Ok::<_, ApiError>(node)
    };
    api.nodes.set(uuid, decide).await?;
    Ok(StatusCode::ACCEPTED)
}

pub(super) async fn validate(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
) -> Result<Json<Value>, ApiError> {
    let node = api.find(&ident, view.version).await?.node;
    let filter = PortFilter { nodes: vec![node.uuid], ..PortFilter::default() };
    let ports = api.nodes.store().ports(&filter).await?;
    let mut validation =
        Validation::of_settings(&node, &ports).with_host(api.has_means(&node).await);
    if validation.is_good() {
        let allows_pxe = api.settings.allows_pxe;
        let means = api.settings.means.as_ref();
        let base = means.and_then(|means| means.base_of(&node));
        let signer = api.settings.certificates.signer.as_ref();
        let advice = BootAdvice {
            support: bmcs::http_support(base.as_ref()),
            needs_ca: means.is_some_and(|means| means.enrols_ca(&node)),
            authority: api.settings.certificates.authority.as_ref(),
            signer: signer.filter(|_| means.is_none_or(|means| means.needs_signer(&node))),
        };
        let way = bmcs::validate(&api.bmcs, &node, &ports, &api.recorder, allows_pxe, advice).await;
        validation = validation.with_bmc(match way {
            Ok(way) => Ok(way.to_string()),
            Err(error) => Err(error.to_string()),
        });
    }
    Ok(Json(validation.show()))
}
