//! What a boot does about the certificates in the firmware: this service's CA for URLs with https, and the certificate that
//! signs images, for Secure Boot.

use hardware::BmcObservation;

use crate::channel::BmcChannel;
use crate::firmware_certificates::FirmwareCertificate;
use crate::machine::RedfishSystem;
use crate::secure_boot_databases::SecureBootCare;
use crate::system::SystemView;
use crate::ways::ChosenWay;

/// What is done before a boot.
#[derive(Clone, Copy, Debug, Default)]
pub struct FirmwareCare<'c> {
    /// Whether the service's CA is enrolled.
    pub enrols_ca: bool,
    /// That CA, if it is known.
    pub authority: Option<&'c FirmwareCertificate>,
    /// What is done about Secure Boot.
    pub secure_boot: Option<SecureBootCare<'c>>,
}

impl FirmwareCare<'_> {
    /// Whether nothing is done.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        !self.enrols_ca && self.secure_boot.is_none()
    }
}

/// The certificates that are removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemovedCertificates<'c> {
    /// The CA.
    pub authority: Option<&'c FirmwareCertificate>,
    /// The certificate that signs images.
    pub signer: Option<&'c FirmwareCertificate>,
}

impl RemovedCertificates<'_> {
    /// Whether there are none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.authority.is_none() && self.signer.is_none()
    }
}

impl<C: BmcChannel> RedfishSystem<'_, C> {
    /// Does what a boot by `way` needs, and says what was found and done.
    pub async fn care_for_firmware(
        &self,
        view: &SystemView,
        way: &ChosenWay,
        care: FirmwareCare<'_>,
    ) -> Vec<BmcObservation> {
        let mut seen = Vec::new();
        if care.enrols_ca {
            seen.extend(self.enrol_ca(view, way, care.authority).await);
        }
        if let Some(secure_boot) = care.secure_boot {
            seen.extend(self.care_for_secure_boot(view, secure_boot).await);
        }
        seen
    }

    /// Removes certificates from the firmware, and says what became of them.
    pub async fn remove_certificates(
        &self,
        view: &SystemView,
        removed: RemovedCertificates<'_>,
    ) -> Vec<BmcObservation> {
        let mut seen = Vec::new();
        if let Some(authority) = removed.authority {
            seen.extend(self.remove_ca(view, authority).await);
        }
        if let Some(signer) = removed.signer {
            seen.extend(self.remove_sign_certificate(view, signer).await);
        }
        seen
    }
}
