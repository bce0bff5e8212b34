//! The platforms that the emulator stands for: each shows and refuses what recorded BMCs of that vendor do, as far as
//! booting is concerned.

mod ami;
mod bios;
mod bluefield;
mod bodies;
mod dell;
mod generic;
mod hpe;
mod lenovo;
mod openbmc;
mod recorded;
mod secure_boot;
mod supermicro;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::Deserialize;
use serde_json::Value;

pub(super) use self::bodies::collection;
use self::secure_boot::{DELL_RESETS, KeyReset, STANDARD_RESETS, SecureBootShape};
use super::machine::SystemLayout;
use super::tree::ResourceBodies;
use super::vendor::{SystemSpec, VendorRules};

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
    /// Supermicro A21GE: as X13, with `UefiHttp` only after a start in UEFI mode.
    #[serde(rename = "supermicro-a21ge")]
    SupermicroA21ge,
    /// OpenBMC as on GB200: no `UefiHttp`, but boot options.
    #[serde(rename = "openbmc")]
    OpenBmc,
    /// NVIDIA BlueField-3: the boot override belongs to the settings resource.
    NvidiaBluefield,
}

impl Platform {
    /// All platforms.
    pub const ALL: [Self; 11] = [
        Self::Generic,
        Self::Ami,
        Self::DellIdrac9,
        Self::DellIdrac10,
        Self::HpeIlo5,
        Self::HpeIlo6,
        Self::LenovoXcc,
        Self::Supermicro,
        Self::SupermicroA21ge,
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
            Self::Supermicro => &supermicro::SupermicroBmc { lists_http: true },
            Self::SupermicroA21ge => &supermicro::SupermicroBmc { lists_http: false },
            Self::OpenBmc => &openbmc::OpenBmc,
            Self::NvidiaBluefield => &bluefield::BlueFieldBmc,
        }
    }

    /// The path of the system on this platform; `name` is its last part if the platform leaves it open.
    #[must_use]
    pub fn system_path(self, name: &str) -> String {
        self.vendor().layout(name).system
    }

    /// `SecureBoot`, as in the recordings.
    fn secure_boot(self) -> SecureBootShape {
        let (mode, reset, has_databases) = match self {
            Self::Generic => ("SetupMode", KeyReset::Inline(&STANDARD_RESETS), true),
            Self::DellIdrac9 | Self::DellIdrac10 => {
                ("DeployedMode", KeyReset::Inline(&DELL_RESETS), true)
            }
            Self::Ami => ("UserMode", KeyReset::ActionInfo, true),
            Self::HpeIlo5 => ("UserMode", KeyReset::Bare, false),
            Self::HpeIlo6 => ("UserMode", KeyReset::Bare, true),
            Self::LenovoXcc => ("UserMode", KeyReset::ActionInfo, false),
            Self::Supermicro | Self::SupermicroA21ge => ("SetupMode", KeyReset::ActionInfo, true),
            Self::OpenBmc | Self::NvidiaBluefield => ("SetupMode", KeyReset::None, true),
        };
        SecureBootShape { mode, reset, has_databases }
    }

    /// The bodies for these systems. BMCs of the same kind share them.
    pub(super) fn bodies(self, specs: &[SystemSpec]) -> Arc<ResourceBodies> {
        static SHARED: Mutex<SharedBodies> = Mutex::new(BTreeMap::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (self, specs.to_vec());
        if let Some(bodies) = shared.get(&key).and_then(Weak::upgrade) {
            return bodies;
        }
        shared.retain(|_, bodies| bodies.strong_count() > 0);
        let mut bodies = self.vendor().bodies(specs);
        for spec in specs {
            let system = self.system_path(&spec.name);
            secure_boot::add_secure_boot(&mut bodies, &system, self.secure_boot());
        }
        let bodies = Arc::new(bodies);
        shared.insert(key, Arc::downgrade(&bodies));
        bodies
    }
}

/// The rules for a tree that was recorded.
pub(super) fn recorded() -> &'static dyn VendorRules {
    &recorded::RecordedBmc
}

/// The resources of a recorded tree.
pub(super) fn recorded_bodies(bodies: BTreeMap<String, Value>) -> ResourceBodies {
    recorded::completed(bodies)
}

/// The layouts of the systems in a recorded tree.
pub(super) fn recorded_layouts(bodies: &ResourceBodies) -> Vec<SystemLayout> {
    recorded::layouts(bodies)
}

/// The bodies in use, by platform and systems.
type SharedBodies = BTreeMap<(Platform, Vec<SystemSpec>), Weak<ResourceBodies>>;
