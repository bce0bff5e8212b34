//! Names for common faults, as rules.

use http::Method;
use serde_json::json;

use super::faults::{EmulatedFault, FaultRule};

/// Faults and limitations of real BMCs, for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Personality {
    /// The machine is in BIOS boot mode.
    pub(crate) bios_mode: bool,
    /// `UefiHttp` is not among the boot targets.
    pub(crate) no_uefi_http: bool,
    /// There is no `HttpBootUri` (Dell iDRAC).
    pub(crate) no_http_boot_uri: bool,
    /// The boot targets have no list.
    pub(crate) no_targets: bool,
    /// Every boot override is answered with 400 (HPE iLO 6).
    pub(crate) refuses_override: bool,
    /// Boot overrides are accepted but not kept.
    pub(crate) forgets_override: bool,
    /// ETags are weak, so that none of them matches an `If-Match` (RFC 9110 §13.1.1).
    pub(crate) weak_etags: bool,
    /// Number of GETs after a power change that still show the former power state.
    pub(crate) stale_power_looks: u8,
}

impl Personality {
    /// The rules for it.
    #[must_use]
    pub(crate) fn rules(self) -> Vec<FaultRule> {
        let systems = "/redfish/v1/Systems/*";
        let on_systems = |fault| FaultRule { path: systems.to_owned(), ..FaultRule::always(fault) };
        let merge = |boot| on_systems(EmulatedFault::Merge(json!({"Boot": boot})));
        let without_http = ["None", "Pxe", "Hdd", "UefiShell", "BiosSetup"];
        let list = "BootSourceOverrideTarget@Redfish.AllowableValues";
        let mut rules = Vec::new();
        if self.bios_mode {
            rules.push(merge(json!({
                "BootSourceOverrideMode": "Legacy",
                "BootSourceOverrideMode@Redfish.AllowableValues": ["Legacy"],
                list: without_http,
            })));
        }
        if self.no_uefi_http {
            rules.push(merge(json!({list: without_http})));
        }
        if self.no_http_boot_uri {
            rules.push(merge(json!({"HttpBootUri": null})));
        }
        if self.no_targets {
            rules.push(merge(json!({list: null})));
        }
        if self.refuses_override {
            rules.push(FaultRule::refused_override());
        }
        if self.forgets_override {
            rules.push(FaultRule::on(&Method::PATCH, systems, EmulatedFault::ForgetPatch));
        }
        if self.weak_etags {
            rules.push(FaultRule::always(EmulatedFault::WeakEtags));
        }
        if self.stale_power_looks > 0 {
            let looks = self.stale_power_looks.into();
            rules.push(FaultRule::always(EmulatedFault::PowerLate { secs: 0, looks }));
        }
        rules
    }
}
