//! What is asked of a BMC: the boot, and what may serve for it.

use hardware::Mac;

use super::http_attributes::HttpSupport;

/// What is asked of a BMC.
#[derive(Clone, Copy, Debug)]
pub struct BootNeed<'n> {
    /// Whether the BMC gets the URL; else the machine gets it by DHCP.
    pub by_url: bool,
    /// The addresses of the cards that the machine may boot by.
    pub macs: &'n [Mac],
    /// Whether requests by PXE are answered, so that firmware without HTTP boots all the same.
    pub allows_pxe: bool,
    /// The use of virtual media.
    pub media: MediaUse,
    /// What the firmware boots over, if advice about the BIOS attributes for it is wanted, which takes further requests.
    pub advice: Option<HttpSupport>,
}

/// The use of a BMC's virtual CD drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaUse {
    /// None.
    Never,
    /// If the BMC has no other way to take a URL.
    AsFallback,
    /// In every case.
    Only,
}

/// The boot that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpBootOverride {
    /// The URL; `None` if it comes from DHCP.
    pub uri: Option<String>,
    /// `BootSourceOverrideEnabled`.
    pub enabled: OverrideEnabled,
}

/// The duration of a boot override.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverrideEnabled {
    /// For one boot.
    Once,
    /// Until it is cleared; on a BMC without `Continuous`, for one boot.
    Continuous,
}

impl HttpBootOverride {
    /// An override for the next boot only.
    #[must_use]
    pub fn once(uri: Option<String>) -> Self {
        Self { uri, enabled: OverrideEnabled::Once }
    }
}

impl OverrideEnabled {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Once => "Once",
            Self::Continuous => "Continuous",
        }
    }
}
