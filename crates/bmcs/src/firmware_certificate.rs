//! A certificate, as firmware and BMCs know it.

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::x509::{X509, X509NameRef};
use redfish::firmware_certificates::{CertificateIdentity, FirmwareCertificate};

/// The certificates of this service that firmware may have to trust.
#[derive(Clone, Debug, Default)]
pub struct ServiceCertificates {
    /// The CA of the listeners.
    pub authority: Option<FirmwareCertificate>,
    /// The certificate that signs images for Secure Boot.
    pub signer: Option<FirmwareCertificate>,
}

/// The first certificate of a text in PEM.
///
/// # Errors
/// It has none.
pub fn firmware_certificate(pem: &str) -> Result<FirmwareCertificate, ErrorStack> {
    let certificate = X509::from_pem(pem.as_bytes())?;
    let algorithms = [
        MessageDigest::sha1(),
        MessageDigest::sha256(),
        MessageDigest::sha384(),
        MessageDigest::sha512(),
    ];
    let fingerprints = algorithms.map(|algorithm| Ok(certificate.digest(algorithm)?.to_vec()));
    let identity = CertificateIdentity {
        fingerprints: fingerprints.into_iter().collect::<Result<_, ErrorStack>>()?,
        serial_number: certificate.serial_number().to_bn()?.to_vec(),
        subject: common_name(certificate.subject_name()),
        issuer: common_name(certificate.issuer_name()),
    };
    let pem = String::from_utf8_lossy(&certificate.to_pem()?).into_owned();
    Ok(FirmwareCertificate { pem, identity })
}

fn common_name(name: &X509NameRef) -> Option<String> {
    let entry = name.entries_by_nid(Nid::COMMONNAME).next()?;
    entry.data().to_string().ok()
}
