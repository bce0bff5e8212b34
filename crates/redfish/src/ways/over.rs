//! The boot override, at the resource that takes it: the system, or its settings resource.

use serde_json::{Map, Value, json};

use super::wanted::OverrideEnabled;
use crate::failure::BmcFailure;
use crate::platform::BmcPlatform;
use crate::quirks;
use crate::resource::RedfishResource;
use crate::system::BootObject;

/// The resource that takes a boot override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OverridePlace {
    /// Its path.
    pub(super) path: String,
    /// Whether it is the settings resource of the system, which the system follows at the reset.
    pub(super) is_settings: bool,
    /// Whether `BootSourceOverrideMode` is sent: some refuse what they do not show.
    sends_mode: bool,
    knows_once: bool,
    knows_continuous: bool,
}

impl OverridePlace {
    /// The place of the override: the settings resource if it shows a target, else the system (sushy's rule since
    /// 5.14). `None` if neither does.
    pub(super) fn of(
        platform: BmcPlatform,
        system: &RedfishResource,
        settings: Option<&RedfishResource>,
    ) -> Option<Self> {
        const TARGET: &str = "BootSourceOverrideTarget";
        let shows = |resource: &&RedfishResource| {
            let boot = BootObject::of(resource);
            boot.shows(TARGET) || boot.allowed(TARGET).is_some()
        };
        let in_settings = settings.filter(shows);
        let resource = in_settings.or_else(|| Some(system).filter(shows))?;
        let boot = BootObject::of(resource);
        let listed = boot.allowed("BootSourceOverrideEnabled");
        let listed = listed.or_else(|| BootObject::of(system).allowed("BootSourceOverrideEnabled"));
        let knows = |name| listed.as_ref().is_none_or(|listed| listed.contains(&name));
        const MODE: &str = "BootSourceOverrideMode";
        let shows_mode = boot.shows(MODE) || boot.allowed(MODE).is_some();
        Some(Self {
            path: resource.path.clone(),
            is_settings: in_settings.is_some(),
            sends_mode: shows_mode && !quirks::refuses_mode(platform),
            knows_once: knows("Once"),
            knows_continuous: knows("Continuous"),
        })
    }

    /// Whether `BootSourceOverrideMode` is sent.
    pub(super) fn sends_mode(&self) -> bool {
        self.sends_mode
    }

    /// The value for `BootSourceOverrideEnabled` that the BMC knows.
    pub(super) fn enabled(&self, wanted: OverrideEnabled) -> OverrideEnabled {
        match wanted {
            OverrideEnabled::Continuous if !self.knows_continuous => OverrideEnabled::Once,
            OverrideEnabled::Once if !self.knows_once && self.knows_continuous => {
                OverrideEnabled::Continuous
            }
            OverrideEnabled::Once | OverrideEnabled::Continuous => wanted,
        }
    }

    /// The properties that set an override.
    pub(super) fn properties(&self, wanted: OverrideEnabled, target: &str) -> Map<String, Value> {
        let mut boot = Map::new();
        boot.insert("BootSourceOverrideEnabled".into(), json!(self.enabled(wanted).name()));
        if self.sends_mode {
            boot.insert("BootSourceOverrideMode".into(), json!("UEFI"));
        }
        boot.insert("BootSourceOverrideTarget".into(), json!(target));
        boot
    }
}

/// Whether the BMC refused an override for want of `BootSourceOverrideMode`, which it may not even show (some vendors
/// "require explicit values for all boot parameters": Ironic's `fix-redfish-boot-device-full-request`;
/// community.general#11542).
pub(super) fn wants_mode(failure: &BmcFailure) -> bool {
    let words = failure.message();
    let lower = words.to_ascii_lowercase();
    failure.status() == Some(400)
        && words.contains("BootSourceOverrideMode")
        && (failure.has_message("PropertyMissing")
            || ["required", "missing"].iter().any(|it| lower.contains(it)))
}

/// The most forms in which an override is sent.
pub(super) const FORMS: usize = 3;

/// Another form of an override that was refused. `shown` is the resource that refused it.
pub(super) fn other_form(
    boot: Map<String, Value>,
    failure: &BmcFailure,
    shown: BootObject<'_>,
) -> Option<Map<String, Value>> {
    const MODE: &str = "BootSourceOverrideMode";
    const ENABLED: &str = "BootSourceOverrideEnabled";
    if failure.status() != Some(400) {
        return None;
    }
    let without = |name: &str| {
        let rest = boot.iter().filter(|(other, _)| *other != name);
        Some(rest.map(|(name, value)| (name.clone(), value.clone())).collect())
    };
    let is_unknown =
        |name: &str| failure.has_message("PropertyUnknown") && failure.message().contains(name);
    if boot.contains_key(ENABLED) && is_unknown(ENABLED) {
        return without(ENABLED);
    }
    // A BMC that shows the mode may still refuse it.
    if boot.contains_key(MODE) {
        return without(MODE);
    }
    if wants_mode(failure) {
        let mut with = boot;
        with.insert(MODE.to_owned(), json!("UEFI"));
        return Some(with);
    }
    // Some have a target alone.
    (boot.contains_key(ENABLED) && !shown.shows(ENABLED)).then(|| without(ENABLED)).flatten()
}

/// The body of a PATCH with these boot properties.
pub(super) fn boot_body(boot: Map<String, Value>) -> Value {
    json!({ "Boot": boot })
}
