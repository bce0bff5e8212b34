//! The platforms that the emulator stands for: each shows and refuses what recorded BMCs of that vendor do, as far as
//! booting is concerned.

mod ami;
mod bluefield;
mod bodies;
mod dell;
mod generic;
mod hpe;
mod lenovo;
mod openbmc;
mod recorded;
mod supermicro;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};

pub(super) use self::bodies::collection;
use super::machine::{MachineResources, NextBoot, SystemLayout};
use super::patch::ResourcePatch;
use super::response::{EmulatorResponse, bad_request, error, no_content};
use super::tree::ResourceBodies;

/// A kind of BMC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// No vendor's: the standard properties, `HttpBootUri` among them.
    #[default]
    Generic,
    /// AMI MegaRAC as on DGX H100: changes of the boot override belong to `/SD`.
    Ami,
    /// Dell iDRAC9: the URL is a BIOS attribute, set by a job.
    DellIdrac9,
    /// Dell iDRAC10: as iDRAC9, with the boot override in the settings resource.
    DellIdrac10,
    /// HPE iLO 5: the URL is a BIOS attribute.
    HpeIlo5,
    /// HPE iLO 6: as iLO 5.
    HpeIlo6,
    /// Lenovo XCC: no `UefiHttp`; the target `Pxe` boots over HTTP if an attribute is set.
    LenovoXcc,
    /// Supermicro X13: `UefiHttp` works if an attribute is set.
    Supermicro,
    /// OpenBMC as on GB200: no `UefiHttp`, but boot options.
    #[serde(rename = "openbmc")]
    OpenBmc,
    /// NVIDIA BlueField-3: the boot override belongs to the settings resource.
    NvidiaBluefield,
}

impl Platform {
    /// All platforms.
    pub const ALL: [Self; 10] = [
        Self::Generic,
        Self::Ami,
        Self::DellIdrac9,
        Self::DellIdrac10,
        Self::HpeIlo5,
        Self::HpeIlo6,
        Self::LenovoXcc,
        Self::Supermicro,
        Self::OpenBmc,
        Self::NvidiaBluefield,
    ];

    pub(super) fn vendor(self) -> &'static dyn VendorRules {
        match self {
            Self::Generic => &generic::GenericBmc,
            Self::Ami => &ami::AmiMegaRac,
            Self::DellIdrac9 => &dell::DellIdrac { settings_for_boot: false },
            Self::DellIdrac10 => &dell::DellIdrac { settings_for_boot: true },
            Self::HpeIlo5 => &hpe::HpeIlo { generation: hpe::IloGeneration::Five },
            Self::HpeIlo6 => &hpe::HpeIlo { generation: hpe::IloGeneration::Six },
            Self::LenovoXcc => &lenovo::LenovoXcc,
            Self::Supermicro => &supermicro::SupermicroBmc,
            Self::OpenBmc => &openbmc::OpenBmc,
            Self::NvidiaBluefield => &bluefield::BlueFieldBmc,
        }
    }

    /// The path of the system on this platform; `name` is its last part if the platform leaves it open.
    #[must_use]
    pub fn system_path(self, name: &str) -> String {
        self.vendor().layout(name).system
    }

    /// The bodies for these systems. BMCs of the same kind share them.
    pub(super) fn bodies(self, seats: &[SystemSeat]) -> Arc<ResourceBodies> {
        static SHARED: Mutex<SharedBodies> = Mutex::new(BTreeMap::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (self, seats.to_vec());
        if let Some(bodies) = shared.get(&key).and_then(Weak::upgrade) {
            return bodies;
        }
        let bodies = Arc::new(self.vendor().bodies(seats));
        shared.insert(key, Arc::downgrade(&bodies));
        bodies
    }
}

/// The rules for a tree that was recorded.
pub(super) fn recorded() -> &'static dyn VendorRules {
    &recorded::RecordedBmc
}

/// The layout of a recorded tree.
pub(super) fn recorded_layout(bodies: &ResourceBodies) -> SystemLayout {
    recorded::layout(bodies)
}

/// The bodies in use, by platform and systems.
type SharedBodies = BTreeMap<(Platform, Vec<SystemSeat>), Weak<ResourceBodies>>;

/// A system to make bodies for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SystemSeat {
    pub(super) name: String,
    /// The position of its first card among those of all systems.
    pub(super) first_nic: usize,
    pub(super) nics: usize,
}

/// What differs between vendors.
pub(super) trait VendorRules: Sync {
    /// What the BMC shows before any change.
    fn bodies(&self, seats: &[SystemSeat]) -> ResourceBodies;

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
    fn patch_checked(
        &mut self,
        patch: &ResourcePatch<'_>,
        read_only: &[&str],
    ) -> Result<(), EmulatorResponse> {
        patch.check(read_only)?;
        self.check_boot_options(patch)?;
        self.tree.change(patch.path, &Value::Object(patch.body.clone()));
        Ok(())
    }

    /// `BootOrder` and `BootNext` must name boot options.
    fn check_boot_options(&self, patch: &ResourcePatch<'_>) -> Result<(), EmulatorResponse> {
        let known = self.boot_option_references();
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
}

/// A BIOS attribute with its registry entry.
#[derive(Clone, Debug)]
pub(super) struct BiosAttribute {
    name: &'static str,
    value: Value,
    /// Allowable values; empty for a text.
    allowable: Vec<String>,
    read_only: bool,
}

impl BiosAttribute {
    /// One of some values, the first of which it has.
    fn choice(name: &'static str, allowable: &[&str]) -> Self {
        let allowable: Vec<String> = allowable.iter().map(|value| (*value).to_owned()).collect();
        let value = allowable.first().cloned().unwrap_or_default().into();
        Self { name, value, allowable, read_only: false }
    }

    /// A text, empty at first.
    fn text(name: &'static str) -> Self {
        Self { name, value: "".into(), allowable: Vec::new(), read_only: false }
    }

    /// The same attribute, which no client can set.
    fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }
}

/// Checks `Attributes` of a PATCH against the registry.
fn check_attributes(
    patch: &ResourcePatch<'_>,
    registry: &[BiosAttribute],
) -> Result<(), EmulatorResponse> {
    use super::response::{malformed, not_writable, unknown_property, wrong_value};

    let other = patch
        .body
        .keys()
        .find(|name| *name != "Attributes" && *name != "@Redfish.SettingsApplyTime");
    if let Some(other) = other {
        return Err(unknown_property(other));
    }
    let Some(attributes) = patch.body.get("Attributes").and_then(Value::as_object) else {
        return Err(malformed());
    };
    for (name, value) in attributes {
        let Some(known) = registry.iter().find(|attribute| attribute.name == name) else {
            return Err(unknown_property(name));
        };
        if known.read_only {
            return Err(not_writable(name));
        }
        let Some(text) = value.as_str() else { return Err(wrong_value(name, value)) };
        let listed = known.allowable.is_empty() || known.allowable.iter().any(|v| v == text);
        if !listed || text.len() > 255 {
            return Err(wrong_value(name, value));
        }
    }
    Ok(())
}

/// The part of a PATCH of BIOS settings that is kept.
fn attributes_of(patch: &ResourcePatch<'_>) -> Value {
    let attributes = patch.body.get("Attributes").cloned().unwrap_or_default();
    serde_json::json!({"Attributes": attributes})
}
