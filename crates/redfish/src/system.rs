//! A computer system as its BMC shows it: power, reset types, boot override.

use serde_json::Value;

use crate::platform::BmcPlatform;
use crate::quirks;
use crate::resource::{RedfishResource, path_in, strings};

/// The state of a system.
#[derive(Clone, Debug, PartialEq)]
pub struct SystemView(pub(crate) RedfishResource);

/// The power state, simplified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemPower {
    /// `On`, or on the way to it.
    On,
    /// `Off`.
    Off,
    /// On the way to `Off`, or paused.
    Changing,
    /// Not shown.
    Unknown,
}

/// `Boot` of a system, or of its settings resource.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BootObject<'v>(&'v Value);

impl From<RedfishResource> for SystemView {
    fn from(resource: RedfishResource) -> Self {
        Self(resource)
    }
}

impl SystemView {
    /// The power state.
    #[must_use]
    pub fn power(&self) -> SystemPower {
        let shown = self.0.body["PowerState"].as_str().unwrap_or_default();
        match shown.to_ascii_lowercase().as_str() {
            "on" | "poweringon" => SystemPower::On,
            "off" => SystemPower::Off,
            // HP's schema before Redfish has `Unknown`, for which others write nothing.
            "" | "unknown" => SystemPower::Unknown,
            _ => SystemPower::Changing,
        }
    }

    /// The boot properties.
    pub(crate) fn boot(&self) -> BootObject<'_> {
        BootObject::of(&self.0)
    }

    /// Whether an override is set, or a URL is left that can be cleared.
    #[must_use]
    pub fn is_overridden(&self) -> bool {
        let boot = self.boot();
        let platform = BmcPlatform::of(None, &self.0);
        boot.has_override() || (boot.has_url() && !quirks::shares_boot_uri(platform))
    }

    /// The target of the reset action, and its `ResetType@Redfish.AllowableValues`.
    pub(crate) fn reset_action(&self) -> Option<(&str, Option<Vec<&str>>)> {
        let reset = &self.0.body["Actions"]["#ComputerSystem.Reset"];
        let types = strings(&reset["ResetType@Redfish.AllowableValues"]);
        Some((path_in(reset["target"].as_str()?)?, types.filter(|types| !types.is_empty())))
    }
}

impl<'v> BootObject<'v> {
    pub(crate) fn of(resource: &'v RedfishResource) -> Self {
        Self(&resource.body["Boot"])
    }

    /// Whether the resource has the property, if only as null.
    pub(crate) fn shows(self, property: &str) -> bool {
        self.0.as_object().is_some_and(|boot| boot.contains_key(property))
    }

    pub(crate) fn text(self, property: &str) -> Option<&'v str> {
        self.0[property].as_str()
    }

    pub(crate) fn list(self, property: &str) -> Option<Vec<&'v str>> {
        strings(&self.0[property])
    }

    /// `…@Redfish.AllowableValues` of a property. An empty list says nothing. iLO 4 has `BootSourceOverrideSupported`.
    pub(crate) fn allowed(self, property: &str) -> Option<Vec<&'v str>> {
        let listed = |name: &str| self.list(name).filter(|list| !list.is_empty());
        let older = || match property {
            "BootSourceOverrideTarget" => listed("BootSourceOverrideSupported"),
            _ => None,
        };
        listed(&format!("{property}@Redfish.AllowableValues")).or_else(older)
    }

    /// Whether a target is set that is not the usual one.
    pub(crate) fn has_override(self) -> bool {
        let is_other = |target| target != "None" && self.usual_target() != Some(target);
        self.is_enabled() && self.text("BootSourceOverrideTarget").is_some_and(is_other)
    }

    /// Whether `BootSourceOverrideEnabled` is set. Where it is not among the properties, the target alone counts.
    pub(crate) fn is_enabled(self) -> bool {
        const ENABLED: &str = "BootSourceOverrideEnabled";
        match self.text(ENABLED) {
            Some(enabled) => !matches!(enabled, "" | "Disabled"),
            None => !self.shows(ENABLED),
        }
    }

    /// The target that clears an override: `None`, or `Hdd` where `None` is not allowed. sushy-tools keeps every
    /// target, and allows only devices. No target if neither is allowed.
    pub(crate) fn usual_target(self) -> Option<&'static str> {
        let Some(allowed) = self.allowed("BootSourceOverrideTarget") else { return Some("None") };
        ["None", "Hdd"].into_iter().find(|target| allowed.contains(target))
    }

    /// Whether `HttpBootUri` is set. sushy-tools shows the text `None` where it is not.
    pub(crate) fn has_url(self) -> bool {
        self.text("HttpBootUri").is_some_and(|url| !matches!(url, "" | "None"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn view(boot: Value) -> SystemView {
        let path = "/redfish/v1/Systems/1".to_owned();
        SystemView(RedfishResource { path, etag: None, body: json!({ "Boot": boot }) })
    }

    #[test]
    fn an_override_is_what_boots_something_else_than_usual() {
        let shown = |enabled, target, url| {
            view(json!({
                "BootSourceOverrideEnabled": enabled, "BootSourceOverrideTarget": target, "HttpBootUri": url,
            }))
        };

        assert!(shown("Once", "UefiHttp", json!(null)).is_overridden());
        assert!(shown("Disabled", "None", json!("http://10.0.0.1/boot.iso")).is_overridden());
        for empty in [json!(null), json!(""), json!("None")] {
            assert!(!shown("Disabled", "UefiHttp", empty.clone()).is_overridden(), "{empty}");
            assert!(!shown("Continuous", "None", empty.clone()).is_overridden(), "{empty}");
        }
    }

    #[test]
    fn where_no_target_is_none_the_disk_is_the_usual_one() {
        let shown = |target: &str, allowed: Value| {
            view(json!({
                "BootSourceOverrideEnabled": "Continuous",
                "BootSourceOverrideTarget": target,
                "BootSourceOverrideTarget@Redfish.AllowableValues": allowed,
            }))
        };
        let devices = || json!(["Pxe", "Cd", "Hdd", "UefiHttp"]);

        assert!(shown("Cd", devices()).is_overridden());
        assert!(!shown("Hdd", devices()).is_overridden());
        assert!(shown("Hdd", json!(["None", "Hdd"])).is_overridden());
        assert_eq!(shown("Pxe", devices()).boot().usual_target(), Some("Hdd"));
        assert_eq!(shown("Pxe", json!(["Pxe"])).boot().usual_target(), None);
        assert_eq!(shown("Pxe", json!([])).boot().usual_target(), Some("None"));
    }

    #[test]
    fn a_power_state_that_is_not_shown_is_not_guessed() {
        let power = |shown: Value| {
            let path = "/redfish/v1/Systems/1".to_owned();
            let body = json!({ "PowerState": shown });
            SystemView(RedfishResource { path, etag: None, body }).power()
        };

        assert_eq!(power(json!("PoweringOn")), SystemPower::On);
        assert_eq!(power(json!("PoweringOff")), SystemPower::Changing);
        assert_eq!(power(json!("Paused")), SystemPower::Changing);
        assert_eq!(power(json!("on")), SystemPower::On);
        for unknown in [json!(null), json!(""), json!("Unknown"), json!(1)] {
            assert_eq!(power(unknown), SystemPower::Unknown);
        }
    }
}
