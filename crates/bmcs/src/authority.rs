//! The certificate of an authority, as firmware and BMCs know it.

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::x509::{X509, X509NameRef};
use redfish::boot_certificates::AuthorityCertificate;

/// The first certificate of a text in PEM.
///
/// # Errors
/// It has none.
pub fn authority_certificate(pem: &str) -> Result<AuthorityCertificate, ErrorStack> {
    let certificate = X509::from_pem(pem.as_bytes())?;
    let algorithms = [
        MessageDigest::sha1(),
        MessageDigest::sha256(),
        MessageDigest::sha384(),
        MessageDigest::sha512(),
    ];
    let fingerprints = algorithms.map(|algorithm| Ok(certificate.digest(algorithm)?.to_vec()));
    Ok(AuthorityCertificate {
        pem: String::from_utf8_lossy(&certificate.to_pem()?).into_owned(),
        der: certificate.to_der()?,
        fingerprints: fingerprints.into_iter().collect::<Result<_, ErrorStack>>()?,
        serial_number: certificate.serial_number().to_bn()?.to_vec(),
        subject: common_name(certificate.subject_name()),
        issuer: common_name(certificate.issuer_name()),
    })
}

fn common_name(name: &X509NameRef) -> Option<String> {
    let entry = name.entries_by_nid(Nid::COMMONNAME).next()?;
    entry.data().to_string().ok()
}
