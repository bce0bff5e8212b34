//! `/v1/nodes/{}/management`: the boot device.

use axum::extract::State;
use axum::{Extension, Json};
use ironic::ClientView;
use serde_json::{Value, json};

use super::context::ApiContext;
use super::extract::PathParams;
use crate::error::ApiError;

/// The boot device. Each override is for one boot, so outside of an attempt there is none.
pub(super) async fn boot_device(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
) -> Result<Json<Value>, ApiError> {
    let node = api.find(&ident, view.version).await?.node;
    Ok(Json(match node.live_attempt() {
        Some(_) => json!({ "boot_device": "uefihttp", "persistent": false }),
        None => json!({ "boot_device": null, "persistent": null }),
    }))
}

pub(super) async fn supported_boot_devices(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
) -> Result<Json<Value>, ApiError> {
    api.find(&ident, view.version).await?;
    Ok(Json(json!({ "supported_boot_devices": ["uefihttp"] })))
}
