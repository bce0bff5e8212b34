//! A system of the emulated BMC: its power, its boot override, and its faults.

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::response::{EmulatorResponse, error, malformed, unknown_property, wrong_value};

/// `PowerState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmulatedPower {
    /// On.
    On,
    /// Off.
    Off,
}

/// The boot target of a starting machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextBoot {
    /// The firmware's own boot order.
    Usual,
    /// Over HTTP, from this URL.
    Url(String),
    /// Over HTTP, with the URL from DHCP.
    Http,
}

/// Faults and limitations of real BMCs, for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Personality {
    /// The machine is in BIOS boot mode.
    pub bios_mode: bool,
    /// `UefiHttp` is not among the boot targets.
    pub no_uefi_http: bool,
    /// There is no `HttpBootUri` (Dell iDRAC).
    pub no_http_boot_uri: bool,
    /// The boot targets have no list.
    pub no_targets: bool,
    /// Every boot override is answered with 400 (HPE iLO 6).
    pub refuses_override: bool,
    /// Boot overrides are accepted but not kept.
    pub forgets_override: bool,
    /// ETags are weak, so that none of them matches an `If-Match` (RFC 9110 §13.1.1).
    pub weak_etags: bool,
    /// Number of GETs after a power change that still show the former power state.
    pub stale_power_looks: u8,
}

#[derive(Clone, Debug)]
pub(super) struct EmulatedSystem {
    pub(super) macs: Vec<String>,
    pub(super) personality: Personality,
    pub(super) power: EmulatedPower,
    /// Number of further GETs that show the former power state.
    pub(super) stale_power_looks: u8,
    pub(super) boot: EmulatedOverride,
    /// Counts changes, for the ETag.
    pub(super) changes: u64,
}

/// The boot override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EmulatedOverride {
    pub(super) enabled: BootSourceOverrideEnabled,
    pub(super) target: String,
    pub(super) http_boot_uri: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum BootSourceOverrideEnabled {
    Disabled,
    Once,
    Continuous,
}

const TARGETS: [&str; 6] = ["None", "Pxe", "Hdd", "UefiHttp", "UefiShell", "BiosSetup"];

pub(super) const RESETS: [&str; 6] =
    ["On", "ForceOn", "ForceOff", "GracefulShutdown", "ForceRestart", "GracefulRestart"];

impl EmulatedSystem {
    pub(super) fn etag(&self) -> String {
        let weak = if self.personality.weak_etags { "W/" } else { "" };
        format!("{weak}\"{}\"", self.changes)
    }

    pub(super) fn turn(&mut self, power: EmulatedPower) {
        if self.power != power {
            self.stale_power_looks = self.personality.stale_power_looks;
        }
        self.power = power;
        self.changes += 1;
    }

    /// The power state that a GET shows.
    pub(super) fn shown_power(&self) -> EmulatedPower {
        match (self.power, self.stale_power_looks) {
            (EmulatedPower::On, 0) | (EmulatedPower::Off, 1..) => EmulatedPower::On,
            (EmulatedPower::Off, 0) | (EmulatedPower::On, 1..) => EmulatedPower::Off,
        }
    }

    /// The boot override after a PATCH, or the refusal.
    pub(super) fn patched(&self, body: &[u8]) -> Result<EmulatedOverride, EmulatorResponse> {
        let body: Value = serde_json::from_slice(body).map_err(|_| malformed())?;
        let root = body.as_object().ok_or_else(malformed)?;
        if let Some(other) = root.keys().find(|key| *key != "Boot") {
            return Err(unknown_property(other));
        }
        let Some(patch) = root.get("Boot").and_then(Value::as_object) else {
            return Err(unknown_property("Boot"));
        };
        if self.personality.refuses_override {
            let no = "The requested boot override is not supported on this system.";
            return Err(error(StatusCode::BAD_REQUEST, "UnsupportedOperation", no));
        }
        let mut boot = self.boot.clone();
        for (property, value) in patch {
            self.patch_one(&mut boot, property, value)?;
        }
        Ok(boot)
    }

    fn patch_one(
        &self,
        boot: &mut EmulatedOverride,
        property: &str,
        value: &Value,
    ) -> Result<(), EmulatorResponse> {
        let wrong = || wrong_value(property, value);
        match property {
            "BootSourceOverrideEnabled" => {
                boot.enabled =
                    BootSourceOverrideEnabled::deserialize(value).map_err(|_| wrong())?;
            }
            "BootSourceOverrideTarget" => {
                let target = value.as_str().ok_or_else(wrong)?;
                if !self.targets().any(|known| known == target) {
                    return Err(wrong());
                }
                target.clone_into(&mut boot.target);
            }
            "BootSourceOverrideMode" => {
                let mode = if self.personality.bios_mode { "Legacy" } else { "UEFI" };
                if value.as_str() != Some(mode) {
                    return Err(wrong());
                }
            }
            "HttpBootUri" if self.personality.no_http_boot_uri => {
                return Err(unknown_property(property));
            }
            "HttpBootUri" => boot.http_boot_uri = uri(value).ok_or_else(wrong)?,
            other => return Err(unknown_property(other)),
        }
        Ok(())
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = &'static str> {
        let http = !self.personality.no_uefi_http && !self.personality.bios_mode;
        TARGETS.into_iter().filter(move |target| http || *target != "UefiHttp")
    }
}

impl EmulatedOverride {
    pub(super) fn next(&self) -> NextBoot {
        match (self.enabled, self.target.as_str(), &self.http_boot_uri) {
            (
                BootSourceOverrideEnabled::Once | BootSourceOverrideEnabled::Continuous,
                "UefiHttp",
                Some(url),
            ) => NextBoot::Url(url.clone()),
            (
                BootSourceOverrideEnabled::Once | BootSourceOverrideEnabled::Continuous,
                "UefiHttp",
                None,
            ) => NextBoot::Http,
            (
                BootSourceOverrideEnabled::Disabled
                | BootSourceOverrideEnabled::Once
                | BootSourceOverrideEnabled::Continuous,
                _,
                _,
            ) => NextBoot::Usual,
        }
    }
}

/// A URL that firmware can fetch; null and the empty text mean none. `None` for any other value.
fn uri(value: &Value) -> Option<Option<String>> {
    match value {
        Value::Null => Some(None),
        Value::String(text) if text.is_empty() => Some(None),
        Value::String(text) => {
            let url = url::Url::parse(text).ok()?;
            // EDK2's boot URI has at most 255 characters (`HttpBootDxe.h`).
            let fits = matches!(url.scheme(), "http" | "https") && text.len() <= 255;
            (fits && text.is_ascii()).then(|| Some(text.clone()))
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    }
}
