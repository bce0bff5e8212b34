//! The platform of a BMC: whose firmware it is, by what its service root and its system show. Every quirk hangs on it.

use std::fmt;

use serde_json::Value;

use crate::resource::{RedfishResource, strings};

/// The firmware of a BMC, as far as booting differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BmcPlatform {
    /// Dell iDRAC, of any generation: what differs is shown (`@Redfish.Settings`).
    DellIdrac,
    /// HPE iLO 5 (Gen10, Gen10 Plus).
    HpeIlo5,
    /// HPE iLO 6 and 7 (Gen11, Gen12).
    HpeIlo6,
    /// Lenovo XClarity Controller.
    LenovoXcc,
    /// Supermicro's own firmware.
    Supermicro,
    /// AMI MegaRAC, whoever sells the machine.
    Ami,
    /// ASRock Rack's AMI MegaRAC.
    AsrockRack,
    /// NVIDIA's OpenBMC: Grace and BlueField.
    Nvidia,
    /// OpenBMC with bmcweb, whoever sells the machine.
    OpenBmc,
    /// Cisco CIMC.
    Cisco,
    /// Huawei iBMC.
    Huawei,
    /// Fujitsu iRMC.
    Fujitsu,
    /// sushy-tools' emulator.
    SushyTools,
    /// Any other: what it shows is believed.
    Standard,
}

impl BmcPlatform {
    /// By the service root, if it was read, and the system.
    #[must_use]
    pub fn of(root: Option<&RedfishResource>, system: &RedfishResource) -> Self {
        let body = &system.body;
        let vendor = root.map(|root| lower(&root.body["Vendor"])).unwrap_or_default();
        let maker = lower(&body["Manufacturer"]);
        let made_by = |name: &str| maker.contains(name) || vendor.contains(name);
        if is_bmcweb(body) {
            return if made_by("nvidia") { Self::Nvidia } else { Self::OpenBmc };
        }
        match () {
            () if has_oem(root, body, "Dell") || made_by("dell") => Self::DellIdrac,
            () if vendor == "ami" && made_by("asrock") => Self::AsrockRack,
            () if vendor == "ami" || has_oem(root, body, "Ami") => Self::Ami,
            () if made_by("asrock") => Self::AsrockRack,
            () if made_by("american megatrends") => Self::Ami,
            () if has_oem(root, body, "Hpe") => ilo(root, body),
            () if has_oem(root, body, "Lenovo") || made_by("lenovo") => Self::LenovoXcc,
            () if made_by("supermicro") || has_oem(root, body, "Supermicro") => Self::Supermicro,
            () if made_by("nvidia") || made_by("mellanox") => Self::Nvidia,
            () if made_by("cisco") => Self::Cisco,
            () if made_by("huawei") || made_by("xfusion") => Self::Huawei,
            () if made_by("fujitsu") || made_by("fsas") => Self::Fujitsu,
            () if made_by("sushy") || is_sushy_tools(body) => Self::SushyTools,
            () => Self::Standard,
        }
    }

    /// Whether the system alone says which platform it is, so that the service root need not be read.
    #[must_use]
    pub(crate) fn is_certain(self) -> bool {
        match self {
            Self::DellIdrac
            | Self::LenovoXcc
            | Self::Supermicro
            | Self::OpenBmc
            | Self::Cisco
            | Self::Huawei
            | Self::Fujitsu
            | Self::SushyTools => true,
            // The service root tells iLO 5 from 6, and AMI's firmware from the maker of the machine.
            Self::HpeIlo5
            | Self::HpeIlo6
            | Self::Ami
            | Self::AsrockRack
            | Self::Nvidia
            | Self::Standard => false,
        }
    }
}

impl fmt::Display for BmcPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DellIdrac => "Dell iDRAC",
            Self::HpeIlo5 => "HPE iLO 5",
            Self::HpeIlo6 => "HPE iLO 6",
            Self::LenovoXcc => "Lenovo XCC",
            Self::Supermicro => "Supermicro",
            Self::Ami => "AMI MegaRAC",
            Self::AsrockRack => "ASRock Rack",
            Self::Nvidia => "NVIDIA BMC",
            Self::OpenBmc => "OpenBMC",
            Self::Cisco => "Cisco CIMC",
            Self::Huawei => "Huawei iBMC",
            Self::Fujitsu => "Fujitsu iRMC",
            Self::SushyTools => "sushy-tools",
            Self::Standard => "standard Redfish",
        })
    }
}

/// bmcweb's targets are fixed in its source (systems.hpp), in this order.
fn is_bmcweb(system: &Value) -> bool {
    const TARGETS: [&str; 7] = ["None", "Pxe", "Hdd", "Cd", "Diags", "BiosSetup", "Usb"];
    let targets = &system["Boot"]["BootSourceOverrideTarget@Redfish.AllowableValues"];
    strings(targets).is_some_and(|targets| targets == TARGETS)
}

/// sushy-tools shows no manufacturer with less than its full set of features, and this device path always (its
/// `system.json`).
fn is_sushy_tools(system: &Value) -> bool {
    system["Boot"]["UefiTargetBootSourceOverride"] == "/0x31/0x33/0x01/0x01"
}

fn has_oem(root: Option<&RedfishResource>, system: &Value, name: &str) -> bool {
    let has = |body: &Value| !body["Oem"][name].is_null();
    has(system) || root.is_some_and(|root| has(&root.body))
}

fn ilo(root: Option<&RedfishResource>, system: &Value) -> BmcPlatform {
    let managers = root.and_then(|root| root.body["Oem"]["Hpe"]["Manager"].as_array());
    let manager = managers.into_iter().flatten().find_map(|it| it["ManagerType"].as_str());
    let is_fifth = match manager {
        Some(manager) => manager == "iLO 5" || manager == "iLO 4",
        None => {
            let model = lower(&system["Model"]);
            ["gen10", "gen9"].iter().any(|generation| model.contains(generation))
        }
    };
    if is_fifth { BmcPlatform::HpeIlo5 } else { BmcPlatform::HpeIlo6 }
}

fn lower(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_lowercase()
}
