//! `/v1/nodes/{}/management`: boot device and NMI; the boot mode and Secure Boot. The BMC is asked while the client waits.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::{Extension, Json};
use hardware::BootMode;
use ironic::{ClientView, management};
use provision::{Event, Node, ProvisionState};
use redfish::system::SystemView;
use redfish::ways::{BootDevice, DeviceNotSet, ModeEffect, OverrideEnabled, SecureBootNotSet};
use serde_json::{Value, json};
use store::{ChangeError, log_store_failure};
use tracing::{debug, info};

use super::context::ApiContext;
use super::extract::{JsonBody, PathParams};
use super::states::accepted;
use crate::bmcs::{API_PATIENCE, BmcClient, BmcMachine};
use crate::error::ApiError;

pub(super) async fn boot_device(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
) -> Result<Json<Value>, ApiError> {
    let node = api.find(&ident, view.version).await?.node;
    let shown = api.ask_bmc(&node, async |machine, view| machine.boot_device(view).await).await?;
    Ok(Json(json!({
        "boot_device": shown.device.map(BootDevice::name),
        "persistent": shown.persistent,
    })))
}

pub(super) async fn supported_boot_devices(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
) -> Result<Json<Value>, ApiError> {
    let node = api.find(&ident, view.version).await?.node;
    let devices =
        api.ask_bmc(&node, async |machine, view| machine.boot_devices(view).await).await?;
    let names: Vec<_> = devices.into_iter().map(BootDevice::name).collect();
    Ok(Json(json!({ "supported_boot_devices": names })))
}

pub(super) async fn set_boot_device(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
    JsonBody(body): JsonBody,
) -> Result<StatusCode, ApiError> {
    let node = api.find(&ident, view.version).await?.node;
    let wanted = management::boot_device(&body)?;
    let device = BootDevice::named(wanted.device).ok_or_else(|| {
        ApiError::bad_request(format!("Invalid boot device {} specified.", wanted.device))
    })?;
    let enabled =
        if wanted.persistent { OverrideEnabled::Continuous } else { OverrideEnabled::Once };
    let node = api.free(&node, &ident, may_change_boot).await?;
    api.ask_bmc(&node, async |machine, view| machine.set_boot_device(view, device, enabled).await)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Upstream answers 202 before it asks the BMC; here the BMC has shown the mode by then.
pub(super) async fn set_boot_mode(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let node = api.find(&ident, view.version).await?.node;
    let wanted = management::boot_mode(&body)?;
    let mode = BootMode::named(wanted).ok_or_else(|| {
        ApiError::bad_request(format!(
            "Invalid boot mode {wanted} requested for node. Allowed boot modes are: uefi, bios"
        ))
    })?;
    let node = api.free(&node, &ident, may_change_boot).await?;
    api.ask_bmc(&node, async |machine, view| {
        let effect = machine.set_boot_mode(view, mode).await?;
        api.note_boot_mode(&node, machine, "boot mode", effect).await;
        Ok::<_, DeviceNotSet>(())
    })
    .await?;
    Ok(accepted(&view, &node))
}

/// Upstream answers 202 before it asks the BMC, and resets the machine itself where the BMC needs that; here the
/// operator does.
pub(super) async fn set_secure_boot(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let node = api.find(&ident, view.version).await?.node;
    let enable = management::secure_boot(&body)?;
    let node = api.free(&node, &ident, may_change_secure_boot).await?;
    api.ask_bmc(&node, async |machine, view| {
        let effect = machine.set_secure_boot(view, enable).await?;
        api.note_boot_mode(&node, machine, "Secure Boot", effect).await;
        Ok::<_, SecureBootNotSet>(())
    })
    .await?;
    Ok(accepted(&view, &node))
}

/// An NMI may be what a boot that hangs needs, so it is also sent during one.
pub(super) async fn inject_nmi(
    State(api): State<ApiContext>,
    Extension(view): Extension<ClientView>,
    PathParams(ident): PathParams<String>,
) -> Result<StatusCode, ApiError> {
    let node = api.find(&ident, view.version).await?.node;
    let node = api.free(&node, &ident, |_| Ok(())).await?;
    api.ask_bmc(&node, async |machine, view| machine.interrupt(view).await).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A boot under way has its own override, which another one would replace.
fn may_change_boot(node: &Node) -> Result<(), ApiError> {
    is_settled(node)?;
    match node.live_attempt() {
        None => Ok(()),
        Some(_) => Err(ApiError::conflict(format!(
            "Node {} is in a boot of this service, which has set the boot device and boot mode itself: they can be set \
             when the boot is over.",
            node.uuid
        ))),
    }
}

/// The machine of an instance applies it when it is reset.
fn may_change_secure_boot(node: &Node) -> Result<(), ApiError> {
    is_settled(node)?;
    if node.provision_state == ProvisionState::Active { Ok(()) } else { may_change_boot(node) }
}

/// Ironic refuses both in its `UNSTABLE_STATES`.
fn is_settled(node: &Node) -> Result<(), ApiError> {
    let state = node.provision_state;
    if !state.is_under_way() || node.live_attempt().is_some() {
        return Ok(());
    }
    Err(ApiError::conflict(format!(
        "Node {} is in {state} state. Since node is transitioning, the boot mode will not be set. Try again later.",
        node.uuid
    )))
}

impl ApiContext {
    /// Saves the boot mode that the BMC shows after a change of it. If that fails, the next reading of the power does.
    async fn note_boot_mode(
        &self,
        node: &Node,
        machine: &BmcMachine<'_, '_>,
        what: &str,
        effect: ModeEffect,
    ) {
        if effect == ModeEffect::AtReset {
            info!(node.uuid = %node.uuid, "the {what} takes effect at the next reset of the machine");
        }
        let shown = async { machine.shown_boot_mode(&machine.look().await?).await };
        match shown.await {
            Ok(modes) => {
                match self.nodes.happen(node.uuid, None, &Event::BootModeSeen(modes)).await {
                    Ok(_) | Err(ChangeError::Locked { .. } | ChangeError::NoSuchNode(_)) => {}
                    Err(failed) => log_store_failure(&failed, "the boot mode could not be saved"),
                }
            }
            Err(error) => debug!(node.uuid = %node.uuid, %error, "the boot mode could not be read"),
        }
    }

    /// Asks the BMC of a node, whose system was just looked at, while the client waits.
    pub(super) async fn ask_bmc<T, E>(
        &self,
        node: &Node,
        ask: impl AsyncFnOnce(&BmcMachine<'_, '_>, &SystemView) -> Result<T, E>,
    ) -> Result<T, ApiError>
    where
        ApiError: From<E>,
    {
        let bmc = BmcClient::of(&self.bmcs, node, &self.recorder, API_PATIENCE).await?;
        let machine = bmc.machine().await?;
        let shown = machine.look().await?;
        Ok(ask(&machine, &shown).await?)
    }

    /// The node, after waiting shortly for a worker that holds it, if `check` allows the request. Work that begins later, while the BMC
    /// is asked, is not kept off: it sets and reads back its own boot.
    async fn free(
        &self,
        node: &Node,
        ident: &str,
        check: impl Fn(&Node) -> Result<(), ApiError>,
    ) -> Result<Node, ApiError> {
        let decide = |node: &Node| {
            Self::still_called(node, ident)?;
            check(node)?;
            Ok::<_, ApiError>(node.clone())
        };
        Ok(self.nodes.set(node.uuid, decide).await?)
    }
}
