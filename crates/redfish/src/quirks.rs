//! Vendors' quirks: one predicate for each bug, named for it.

use std::time::Duration;

use http::StatusCode;

use crate::failure::BmcFailure;
use crate::platform::BmcPlatform;

/// AMI, ASRock Rack and Supermicro answer 400 to a boot override without `BootSourceOverrideMode`, even when clearing
/// it (Redfishtool#106: elsewhere the mode reverts to its default otherwise).
#[must_use]
pub fn wants_mode_when_clearing(platform: BmcPlatform) -> bool {
    matches!(platform, BmcPlatform::Ami | BmcPlatform::AsrockRack | BmcPlatform::Supermicro)
}

/// HPE iLO 5 "implements BootSourceOverrideMode as a read-only item" (its adaptation guide), iLO 6 refuses a whole
/// override that has it (libredfish#76), and Lenovo's is read-only.
#[must_use]
pub fn refuses_mode(platform: BmcPlatform) -> bool {
    matches!(platform, BmcPlatform::HpeIlo5 | BmcPlatform::HpeIlo6 | BmcPlatform::LenovoXcc)
}

/// Whether the firmware tries HTTP when it is told to boot by `Pxe`: Lenovo's "Network" does with IPv4HTTPSupport
/// (libredfish lenovo.rs); bmcweb has no other target for the network; Cisco, Huawei and Fujitsu list no `UefiHttp`.
#[must_use]
pub fn tries_http_for_pxe(platform: BmcPlatform) -> bool {
    matches!(
        platform,
        BmcPlatform::LenovoXcc
            | BmcPlatform::OpenBmc
            | BmcPlatform::Nvidia
            | BmcPlatform::Cisco
            | BmcPlatform::Huawei
            | BmcPlatform::Fujitsu
    )
}

/// iDRAC9 before 6.00 boots the machine's own CD drive by the target `Cd` (iDRAC-Redfish-Scripting#90, community.general#494):
/// its virtual one is `VCD-DVD`, among its own attributes. `firmware` is the manager's `FirmwareVersion`.
#[must_use]
pub fn boots_only_real_cds(platform: BmcPlatform, firmware: &str) -> bool {
    let major = firmware.split('.').next().and_then(|major| major.parse::<u32>().ok());
    // iDRAC7 and 8 have 1 and 2; iDRAC10 begins with 1 again.
    platform == BmcPlatform::DellIdrac && major.is_some_and(|major| (3..6).contains(&major))
}

/// sushy-tools fetches the image of `HttpBootUri` itself while it answers the PATCH, puts it into the machine's virtual
/// CD drive, and sets `Cd` (its `main.py`).
#[must_use]
pub fn boots_url_from_cd(platform: BmcPlatform) -> bool {
    platform == BmcPlatform::SushyTools
}

/// sushy-tools has one `HttpBootUri` for all its machines, and keeps it as long as it runs (its `libvirtdriver.py`).
#[must_use]
pub fn shares_boot_uri(platform: BmcPlatform) -> bool {
    platform == BmcPlatform::SushyTools
}

/// sushy-tools' libvirt driver answers 500 to a boot device that the machine does not have.
#[must_use]
pub fn has_no_such_device(failure: &BmcFailure) -> bool {
    let BmcFailure::Refused { message, .. } = failure else { return false };
    message.contains("Target libvirt device") && message.contains("does not exist")
}

/// Whether the firmware has BIOS attributes with boot URLs, which it prefers to a URL from DHCP: Dell's `HttpDev1Uri`
/// (libredfish#75), HPE's `UrlBootFile` (HPE BIOS reference).
#[must_use]
pub fn has_url_in_bios(platform: BmcPlatform) -> bool {
    matches!(platform, BmcPlatform::DellIdrac | BmcPlatform::HpeIlo5 | BmcPlatform::HpeIlo6)
}

/// Supermicro's A21GE lists `UefiHttp` only after a start with `BootSourceOverrideMode` = `UEFI`.
#[must_use]
pub fn lists_http_after_uefi_mode(platform: BmcPlatform) -> bool {
    platform == BmcPlatform::Supermicro
}

/// Lenovo drops what waits in `Bios/Pending` when it gets another write before the reset (libredfish's `lenovo.rs`).
#[must_use]
pub fn forgets_staged_bios(platform: BmcPlatform) -> bool {
    platform == BmcPlatform::LenovoXcc
}

/// AMI has the BIOS settings at `Bios/SD`, also where the BIOS links to none (Gigabyte R263).
#[must_use]
pub fn keeps_bios_settings_at_sd(platform: BmcPlatform) -> bool {
    matches!(platform, BmcPlatform::Ami | BmcPlatform::AsrockRack | BmcPlatform::Supermicro)
}

/// The time to wait at least before a refused request is repeated; `None` if another try would end in the same way.
///
/// HPE refuses changes during the machine's self-test, AMI answers 503 while the host boots, Dell's Lifecycle
/// Controller and others answer 503 or 409 while they are at work.
#[must_use]
pub fn wait_of_a_busy_bmc(failure: &BmcFailure) -> Option<Duration> {
    const IN_POST: [&str; 3] = [
        "UnableToModifyDuringSystemPOST",
        "UnableToModifyDueToServerState",
        "ServiceInUnknownState",
    ];
    const BUSY: [&str; 2] = ["ServiceTemporarilyUnavailable", "ResourceInUse"];
    let BmcFailure::Refused { status, .. } = failure else { return None };
    let has_one_of = |names: &[&str]| names.iter().any(|name| failure.has_message(name));
    match *status {
        _ if has_one_of(&IN_POST) => Some(Duration::from_secs(5)),
        StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::GATEWAY_TIMEOUT
        | StatusCode::INTERNAL_SERVER_ERROR => Some(Duration::from_secs(1)),
        StatusCode::LOCKED => Some(Duration::from_secs(5)),
        StatusCode::BAD_REQUEST if has_one_of(&BUSY) => Some(Duration::from_secs(5)),
        _ => None,
    }
}
