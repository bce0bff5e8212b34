//! What differs between the vendors of BMCs, with the usual behaviour.

use http::{Method, StatusCode};
use serde_json::{Map, Value};

use super::machine::{MachineResources, NextBoot, SystemLayout};
use super::patch::ResourcePatch;
use super::response::{EmulatorResponse, bad_request, error, no_content};
use super::tree::ResourceBodies;

/// A system to make bodies for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SystemSpec {
    pub(super) name: String,
    /// The position of its first card among those of all systems.
    pub(super) first_nic: usize,
    pub(super) nics: usize,
}

/// What differs between vendors.
pub(super) trait VendorRules: Sync {
    /// What the BMC shows before any change.
    fn bodies(&self, specs: &[SystemSpec]) -> ResourceBodies;

    /// The paths of a system.
    fn layout(&self, name: &str) -> SystemLayout;

    /// Whether a resource can be changed at all.
    fn accepts_patch(&self, layout: &SystemLayout, path: &str) -> bool;

    /// Whether a PATCH needs `If-Match`.
    fn needs_if_match(&self) -> bool {
        false
    }

    /// Checks and performs a PATCH.
    fn patch(
        &self,
        machine: &mut MachineResources<'_>,
        patch: &ResourcePatch<'_>,
    ) -> Result<EmulatorResponse, EmulatorResponse> {
        machine.patch_checked(patch, &[])?;
        Ok(no_content())
    }

    /// Answers a POST or DELETE of the vendor's own.
    fn act(
        &self,
        _: &mut MachineResources<'_>,
        _: &Method,
        _: &str,
        _: &Map<String, Value>,
    ) -> Option<EmulatorResponse> {
        None
    }

    /// Applies settings, as firmware does in POST.
    fn apply_settings(&self, _: &mut MachineResources<'_>) {}

    /// Whether settings that POST applies hold for the boot after the next reset only.
    fn needs_reset_after_settings(&self) -> bool {
        false
    }

    /// Whether a change of Secure Boot is shown only after the next start (a configuration job on iDRAC).
    fn applies_secure_boot_at_start(&self) -> bool {
        false
    }

    /// The boot by the target `UefiHttp`.
    fn boot_over_http(&self, _: &MachineResources<'_>, boot: &Value) -> NextBoot {
        match boot["HttpBootUri"].as_str() {
            Some(url) if !url.is_empty() => NextBoot::Url(url.to_owned()),
            Some(_) | None => NextBoot::Http { nic: 0 },
        }
    }

    /// The boot by the target `Pxe`.
    fn boot_over_pxe(&self, _: &MachineResources<'_>) -> NextBoot {
        NextBoot::Pxe { nic: 0 }
    }

    /// The boot without an override.
    fn usual_boot(&self, machine: &MachineResources<'_>, boot: &Value) -> NextBoot {
        boot["BootOrder"][0]
            .as_str()
            .map_or(NextBoot::Usual, |first| machine.boot_from_option(first))
    }

    /// Clears what was for one boot.
    fn consume_once(&self, machine: &mut MachineResources<'_>) {
        machine.consume_once();
    }

    /// The refusal of a change while the host is in POST.
    fn busy(&self) -> EmulatorResponse {
        let words = "The service is temporarily unavailable: the host is in POST.";
        error(StatusCode::SERVICE_UNAVAILABLE, "ServiceTemporarilyUnavailable", words)
            .with_header("Retry-After", "5".to_owned())
    }

    /// Changes what a resource shows while the host is in POST.
    fn show_in_post(&self, _: &mut Value) {}

    /// The refusal of a further session.
    fn sessions_full(&self) -> EmulatorResponse {
        let words =
            "The session establishment failed: the limit of simultaneous sessions is reached.";
        error(StatusCode::SERVICE_UNAVAILABLE, "SessionLimitExceeded", words)
    }

    /// The answer to a power change to the state that the machine is in, if it is refused.
    fn same_power(&self) -> Option<EmulatorResponse> {
        None
    }
}

impl MachineResources<'_> {
    /// Checks a PATCH against what is shown, and merges it.
    pub(super) fn patch_checked(
        &mut self,
        patch: &ResourcePatch<'_>,
        read_only: &[&str],
    ) -> Result<(), EmulatorResponse> {
        patch.check(read_only)?;
        self.check_boot_options(patch)?;
        self.tree.change(patch.path, &Value::Object(patch.body.clone()));
        Ok(())
    }

    /// `BootOrder` and `BootNext` must name boot options. Those of the order as it is shown exist: a recorded tree may
    /// lack some of them.
    fn check_boot_options(&self, patch: &ResourcePatch<'_>) -> Result<(), EmulatorResponse> {
        let mut known = self.boot_option_references();
        for boot in [&patch.view["Boot"], &self.boot()] {
            let shown = boot["BootOrder"].as_array().into_iter().flatten();
            known.extend(shown.filter_map(|it| it.as_str().map(str::to_owned)));
        }
        let unknown = |value: &Value| {
            let name = value.as_str().unwrap_or_default();
            !name.is_empty() && !known.iter().any(|reference| reference == name)
        };
        let refused = |value: &Value| {
            let words = format!("The boot option {value} does not exist.");
            Err(bad_request("PropertyValueNotInList", &words))
        };
        let order = patch.boot("BootOrder").and_then(Value::as_array);
        let next = patch.boot("BootNext");
        match order.into_iter().flatten().chain(next).find(|value| unknown(value)) {
            Some(value) => refused(value),
            None => Ok(()),
        }
    }

    /// What the machine boots now, by its override, `BootNext` and `BootOrder`.
    pub(super) fn next_boot(&self, vendor: &dyn VendorRules) -> NextBoot {
        let boot = self.boot();
        let text = |name: &str| boot[name].as_str().unwrap_or_default().to_owned();
        let enabled = boot.get("BootSourceOverrideEnabled").map(|enabled| enabled.as_str());
        let target = match enabled {
            // Without the property, the target alone counts.
            Some(Some("Once" | "Continuous")) | None => text("BootSourceOverrideTarget"),
            Some(_) => "None".to_owned(),
        };
        match target.as_str() {
            "UefiHttp" => vendor.boot_over_http(self, &boot),
            "Pxe" => vendor.boot_over_pxe(self),
            "Cd" | "UsbCd" | "RemoteDrive" => self.inserted().map_or(NextBoot::Usual, NextBoot::Cd),
            "UefiTarget" => self.boot_along(&text("UefiTargetBootSourceOverride")),
            "UefiBootNext" => self.boot_from_option(&text("BootNext")),
            "None" | "" => match text("BootNext").as_str() {
                "" => vendor.usual_boot(self, &boot),
                next => self.boot_from_option(next),
            },
            _ => NextBoot::Usual,
        }
    }
}
