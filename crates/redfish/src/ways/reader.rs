//! The resources that a way depends on, each read at most once, and only when it is needed.

use hardware::RedfishPurpose;
use http::StatusCode;
use serde_json::{Map, Value};

use crate::channel::BmcChannel;
use crate::facts::BmcFacts;
use crate::failure::BmcFailure;
use crate::platform::BmcPlatform;
use crate::quirks;
use crate::resource::RedfishResource;
use crate::service::RedfishService;
use crate::system::{BootObject, SystemView};

/// Number limit of boot options that are read: a machine with many cards has sixty.
const MOST_OPTIONS: usize = 128;

/// The reader of a system's surroundings.
pub(super) struct BootReader<'r, 'c, C> {
    pub(super) service: RedfishService<'c, C>,
    pub(super) system: &'r RedfishResource,
    facts: &'r BmcFacts,
    settings: Option<Option<RedfishResource>>,
    bios: Option<Option<RedfishResource>>,
}

/// A boot option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BootOptionView {
    /// `BootOptionReference`, which boot orders contain.
    pub(super) reference: String,
    /// `UefiDevicePath`.
    pub(super) device_path: String,
}

impl<'r, 'c, C: BmcChannel> BootReader<'r, 'c, C> {
    pub(super) fn new(
        service: RedfishService<'c, C>,
        view: &'r SystemView,
        facts: &'r BmcFacts,
    ) -> Self {
        Self { service, system: &view.0, facts, settings: None, bios: None }
    }

    /// The platform. The service root is read if the system alone does not say it.
    pub(super) async fn platform(&mut self) -> Result<BmcPlatform, BmcFailure> {
        let by_system = BmcPlatform::of(self.facts.root(), self.system);
        if by_system.is_certain() || self.facts.root().is_some() {
            return Ok(by_system);
        }
        let root = self.service.find(RedfishPurpose::ReadServiceRoot, "/redfish/v1/").await;
        let root = unless_refused(root)?;
        if let Some(root) = root {
            self.facts.note_root(root);
        }
        Ok(BmcPlatform::of(self.facts.root(), self.system))
    }

    /// The platform as far as it is known without a request.
    pub(super) fn platform_by_system(&self) -> BmcPlatform {
        BmcPlatform::of(self.facts.root(), self.system)
    }

    /// The settings resource of the system.
    pub(super) async fn settings(&mut self) -> Result<Option<&RedfishResource>, BmcFailure> {
        if self.settings.is_none() {
            let found = match self.system.settings() {
                Some(path) => {
                    let found = self.service.find(RedfishPurpose::ReadSettings, path).await;
                    unless_refused(found)?
                }
                None => None,
            };
            self.settings = Some(found);
        }
        Ok(self.settings.as_ref().and_then(Option::as_ref))
    }

    /// The BIOS resource.
    pub(super) async fn bios(&mut self) -> Result<Option<&RedfishResource>, BmcFailure> {
        if self.bios.is_none() {
            // Cisco's and AMI's have no link on some systems.
            let path = self.system.link("Bios").map(str::to_owned);
            let path =
                path.unwrap_or_else(|| format!("{}/Bios", self.system.path.trim_end_matches('/')));
            let found = self.service.find(RedfishPurpose::ReadBios, &path).await;
            self.bios = Some(match found {
                Ok(found) => found,
                // Some BMCs have no right to it, or no licence.
                Err(BmcFailure::Refused { .. }) => None,
                Err(failure) => return Err(failure),
            });
        }
        Ok(self.bios.as_ref().and_then(Option::as_ref))
    }

    /// The BIOS attributes; empty if none are shown.
    pub(super) async fn attributes(&mut self) -> Result<Map<String, Value>, BmcFailure> {
        let bios = self.bios().await?;
        Ok(bios.and_then(|bios| bios.body["Attributes"].as_object()).cloned().unwrap_or_default())
    }

    /// The boot options for which `wanted` holds, until the first that is `best`.
    pub(super) async fn boot_options(
        &mut self,
        best: impl Fn(&BootOptionView) -> bool,
    ) -> Result<Vec<BootOptionView>, BmcFailure> {
        let boot = &self.system.body["Boot"]["BootOptions"];
        let Some(path) = crate::resource::link_in(boot).map(str::to_owned) else {
            return Ok(Vec::new());
        };
        let all = self.service.collection(RedfishPurpose::ReadBootOptions, &path).await;
        let Some(all) = unless_refused(all)? else { return Ok(Vec::new()) };
        let mut options = Vec::new();
        let inline = all.body["Members"].as_array().into_iter().flatten();
        let inline: Vec<_> = inline.filter_map(option_of).collect();
        if !inline.is_empty() {
            return Ok(inline);
        }
        for path in all.members().iter().take(MOST_OPTIONS) {
            let found = self.service.find(RedfishPurpose::ReadBootOptions, path).await;
            let found = unless_refused(found)?;
            let Some(option) = found.as_ref().and_then(|found| option_of(&found.body)) else {
                continue;
            };
            let is_best = best(&option);
            options.push(option);
            if is_best {
                break;
            }
        }
        Ok(options)
    }

    /// The first `BootOrder` that is not empty: the settings resource's, else the system's; with its resource's path.
    pub(super) async fn boot_order(&mut self) -> Result<Option<(String, Vec<String>)>, BmcFailure> {
        let of = |resource: &RedfishResource| {
            let order = BootObject::of(resource).list("BootOrder")?;
            let order: Vec<_> = order.into_iter().map(str::to_owned).collect();
            (!order.is_empty()).then(|| (resource.path.clone(), order))
        };
        let in_settings = self.settings().await?.and_then(of);
        Ok(in_settings.or_else(|| of(self.system)))
    }
}

/// A resource that a BMC names and then refuses to show (403, 405, 501 …) counts as missing; a wrong password and a
/// busy BMC do not.
pub(super) fn unless_refused(
    found: Result<Option<RedfishResource>, BmcFailure>,
) -> Result<Option<RedfishResource>, BmcFailure> {
    match found {
        Err(failure @ BmcFailure::Refused { status, .. })
            if status != StatusCode::UNAUTHORIZED
                && !status.is_redirection()
                && quirks::wait_of_a_busy_bmc(&failure).is_none() =>
        {
            Ok(None)
        }
        found => found,
    }
}

fn option_of(body: &Value) -> Option<BootOptionView> {
    let reference = body["BootOptionReference"].as_str()?;
    let device_path = body["UefiDevicePath"].as_str().unwrap_or_default();
    Some(BootOptionView { reference: reference.to_owned(), device_path: device_path.to_owned() })
}
