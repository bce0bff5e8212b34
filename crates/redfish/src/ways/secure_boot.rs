//! Secure Boot, and what a BMC shows of it and of the boot mode.

use hardware::{BootMode, RedfishPurpose, ShownBootMode};
use serde_json::json;
use thiserror::Error;

use super::bios::mode_attribute;
use super::device::is_set;
use super::mode::{MODE, ModeEffect};
use super::reader::BootReader;
use crate::channel::BmcChannel;
use crate::failure::BmcFailure;
use crate::machine::RedfishSystem;
use crate::resource::RedfishResource;
use crate::service::TaskEnd;
use crate::system::SystemView;

const ENABLE: &str = "SecureBootEnable";

/// The reason why Secure Boot was not switched.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SecureBootNotSet {
    /// A request failed.
    #[error(transparent)]
    Failure(#[from] BmcFailure),
    /// The BMC does not show it.
    #[error(
        "the BMC shows no SecureBoot of the system with SecureBootEnable: set it in the setup of the firmware"
    )]
    NotShown,
    /// The machine boots in BIOS mode.
    #[error(
        "the machine boots in BIOS (legacy) mode, and Secure Boot is for UEFI only: set its boot mode to UEFI"
    )]
    BiosMode,
}

impl<C: BmcChannel> RedfishSystem<'_, C> {
    /// The boot mode and Secure Boot, as the BMC shows them.
    ///
    /// The boot mode is what `BootSourceOverrideMode` says; but `Legacy` is the mode of the override alone as long as
    /// none is set, and then a BIOS attribute decides. Secure Boot is `SecureBootEnable`, as in Ironic.
    ///
    /// # Errors
    /// [`BmcFailure`]
    pub async fn shown_boot_mode(&self, view: &SystemView) -> Result<ShownBootMode, BmcFailure> {
        let boot = view.boot();
        let boot_mode = match boot.text(MODE) {
            Some("UEFI") => Some(BootMode::Uefi),
            Some("Legacy") if is_set(boot) => Some(BootMode::Bios),
            Some(_) | None => {
                let mut reader = BootReader::new(self.service(), view, self.facts());
                mode_attribute(&reader.attributes().await?).map(|(_, _, mode)| mode)
            }
        };
        let secure_boot = match self.secure_boot(view).await {
            Ok(resource) => resource.and_then(|resource| resource.body[ENABLE].as_bool()),
            // Some BMCs want a licence for it.
            Err(BmcFailure::Refused { .. }) => None,
            Err(failure) => return Err(failure),
        };
        Ok(ShownBootMode { boot_mode, secure_boot, trust: None })
    }

    /// Switches Secure Boot on or off.
    ///
    /// # Errors
    /// [`SecureBootNotSet`]
    pub async fn set_secure_boot(
        &self,
        view: &SystemView,
        enable: bool,
    ) -> Result<ModeEffect, SecureBootNotSet> {
        let Some(resource) = self.secure_boot(view).await? else {
            return Err(SecureBootNotSet::NotShown);
        };
        match resource.body[ENABLE].as_bool() {
            None => return Err(SecureBootNotSet::NotShown),
            Some(enabled) if enabled == enable => return Ok(ModeEffect::Shown),
            Some(_) => {}
        }
        if self.shown_boot_mode(view).await?.boot_mode == Some(BootMode::Bios) {
            return Err(SecureBootNotSet::BiosMode);
        }
        let purpose = RedfishPurpose::SetSecureBoot;
        let body = json!({ ENABLE: enable });
        self.service().patch(purpose, &resource, body, TaskEnd::AtReset).await?;
        let shown = self.secure_boot(view).await?;
        let is_shown = shown.is_some_and(|shown| shown.body[ENABLE] == enable);
        Ok(if is_shown { ModeEffect::Shown } else { ModeEffect::AtReset })
    }

    pub(crate) async fn secure_boot(
        &self,
        view: &SystemView,
    ) -> Result<Option<RedfishResource>, BmcFailure> {
        let Some(path) = view.0.link("SecureBoot") else { return Ok(None) };
        self.service().find(RedfishPurpose::ReadSecureBoot, path).await
    }
}
