//! The service's own authority, which machines trust.

use std::fmt;
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};
use openssl::asn1::{Asn1Integer, Asn1Time, Asn1TimeRef};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};

use crate::certificate_pair::{CertificatePair, CertificateValidity, ServerCertificates};
use crate::pem::private_key;

/// Length of RSA keys, in bits. EDK2 builds with OpenSSL's security level 3 refuse 2048 (edk2#12651).
const RSA_BITS: u32 = 3072;
/// `notBefore` of all certificates: EDK2 checks dates since 2025-07 (f920354f92), and a machine whose clock was reset
/// is in 1970, 1980 or 2000.
const NOT_BEFORE: &str = "19700101000000Z";
/// `notAfter` of authorities: it is enrolled in firmware and stays there, so it must not depend on the clock of the
/// server that makes it, which may be in 1970 until NTP has set it. It is the last moment that X.509 writes as `UTCTime`
/// (RFC 5280 §4.1.2.5), the only form of a date that firmware and BMCs are sure to read.
const AUTHORITY_NOT_AFTER: &str = "20491231235959Z";
/// Time for which a certificate of a listener is valid.
pub(crate) const SERVER_VALIDITY: SignedDuration = SignedDuration::from_hours(2 * 365 * 24);

/// Certificate and key of an authority in PEM. The key is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorityPem {
    /// The certificate.
    pub certificate: String,
    /// The private key (PKCS#8).
    pub key: String,
}

impl fmt::Debug for AuthorityPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorityPem")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// An authority that issues certificates for the listeners.
///
/// Its key is RSA: firmware without elliptic curves (OVMF before 2025-04, HPE Gen10 and Gen11) must verify its signature.
#[derive(Clone)]
pub struct CertificateAuthority {
    certificate: X509,
    key: PKey<Private>,
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority").finish_non_exhaustive()
    }
}

/// The keys of the listeners' certificates: one of each kind, since some firmware verifies only RSA, and some peers
/// prefer the other.
pub(crate) struct ServerKeys {
    keys: [PKey<Private>; 2],
}

impl fmt::Debug for ServerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerKeys").finish_non_exhaustive()
    }
}

impl ServerKeys {
    /// Makes new keys, which takes a part of a second.
    ///
    /// # Errors
    /// OpenSSL's.
    pub(crate) fn make() -> Result<Self> {
        let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let rsa = PKey::from_rsa(Rsa::generate(RSA_BITS)?)?;
        Ok(Self { keys: [rsa, PKey::from_ec_key(EcKey::generate(&curve)?)?] })
    }
}

impl CertificateAuthority {
    /// Makes an authority with a new key, which takes a part of a second.
    ///
    /// # Errors
    /// OpenSSL's.
    pub fn make() -> Result<AuthorityPem> {
        let key = PKey::from_rsa(Rsa::generate(RSA_BITS)?)?;
        let serial = serial()?;
        // Two authorities differ in their names, so that a client with both finds the right one.
        let unique: String =
            serial.to_hex_str()?.chars().take(8).flat_map(char::to_lowercase).collect();
        let name = common_name(&format!("Ferroboot CA {unique}"))?;
        let not_after = Asn1Time::from_str_x509(AUTHORITY_NOT_AFTER)?;
        let mut builder = begin(&name, &name, &key, &serial, &not_after)?;
        builder.append_extension(BasicConstraints::new().critical().ca().pathlen(0).build()?)?;
        builder.append_extension(
            KeyUsage::new().critical().key_cert_sign().crl_sign().digital_signature().build()?,
        )?;
        let id = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
        builder.append_extension(id)?;
        builder.sign(&key, MessageDigest::sha256())?;
        let pem = |bytes| String::from_utf8(bytes).context("PEM is text");
        Ok(AuthorityPem {
            certificate: pem(builder.build().to_pem()?)?,
            key: pem(key.private_key_to_pem_pkcs8()?)?,
        })
    }

    /// The authority of these texts.
    ///
    /// # Errors
    /// They are no certificate and its key.
    pub fn of_pem(pem: &AuthorityPem) -> Result<Self> {
        let certificate =
            X509::from_pem(pem.certificate.as_bytes()).context("the authority's certificate")?;
        let key = private_key(pem.key.as_bytes()).context("the authority's key")?;
        Ok(Self { certificate, key })
    }

    /// Its certificate (DER).
    ///
    /// # Errors
    /// OpenSSL's.
    pub fn der(&self) -> Result<Vec<u8>> {
        Ok(self.certificate.to_der()?)
    }

    /// Its validity.
    ///
    /// # Errors
    /// The certificate has no usable date.
    pub fn validity(&self) -> Result<CertificateValidity> {
        CertificateValidity::of_chain(std::slice::from_ref(&self.certificate))
    }

    /// Issues the certificates of a listener that is reached at `addresses` and by `names`.
    ///
    /// # Errors
    /// OpenSSL's; a name is no DNS name.
    pub(crate) fn issue(
        &self,
        keys: &ServerKeys,
        addresses: &[IpAddr],
        names: &[String],
        not_after: Timestamp,
    ) -> Result<ServerCertificates> {
        let not_after = Asn1Time::from_unix(not_after.as_second())?;
        let pairs = keys.keys.iter().map(|key| {
            let certificate = self.issue_one(key, addresses, names, &not_after)?;
            Ok(CertificatePair { chain: vec![certificate], key: key.clone() })
        });
        Ok(ServerCertificates { pairs: pairs.collect::<Result<_>>()? })
    }

    fn issue_one(
        &self,
        key: &PKey<Private>,
        addresses: &[IpAddr],
        names: &[String],
        not_after: &Asn1TimeRef,
    ) -> Result<X509> {
        let name = common_name("Ferroboot")?;
        let issuer = self.certificate.subject_name();
        let mut builder = begin(&name, issuer, key, &serial()?, not_after)?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        let mut usage = KeyUsage::new();
        usage.critical().digital_signature();
        if key.rsa().is_ok() {
            // For RSA key exchange, the only one of HPE's firmware beside DHE.
            usage.key_encipherment();
        }
        builder.append_extension(usage.build()?)?;
        builder.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
        let mut alternatives = SubjectAlternativeName::new();
        for address in addresses {
            alternatives.ip(&address.to_string());
        }
        for name in names {
            alternatives.dns(name);
        }
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let extensions = [
            alternatives.build(&context)?,
            SubjectKeyIdentifier::new().build(&context)?,
            AuthorityKeyIdentifier::new().keyid(true).build(&context)?,
        ];
        for extension in extensions {
            builder.append_extension(extension)?;
        }
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok(builder.build())
    }
}

fn begin(
    subject: &openssl::x509::X509NameRef,
    issuer: &openssl::x509::X509NameRef,
    key: &PKey<Private>,
    serial: &BigNum,
    not_after: &Asn1TimeRef,
) -> Result<X509Builder> {
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(&*Asn1Integer::from_bn(serial)?)?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    builder.set_not_before(&*Asn1Time::from_str_x509(NOT_BEFORE)?)?;
    builder.set_not_after(not_after)?;
    Ok(builder)
}

/// A random serial number of 159 bits (RFC 5280 §4.1.2.2).
fn serial() -> Result<BigNum> {
    let mut serial = BigNum::new()?;
    serial.rand(159, MsbOption::ONE, false)?;
    Ok(serial)
}

fn common_name(text: &str) -> Result<X509Name> {
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_nid(Nid::COMMONNAME, text)?;
    Ok(name.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_valid_from_1970_to_2049_in_the_form_that_all_firmware_reads() {
        let authority = CertificateAuthority::of_pem(&CertificateAuthority::make().unwrap());
        let authority = authority.unwrap();

        let der = authority.der().unwrap();

        // SEQUENCE of two UTCTime.
        let validity = b"\x30\x1e\x17\x0d700101000000Z\x17\x0d491231235959Z";
        assert!(der.windows(validity.len()).any(|part| part == validity));
        assert_eq!(authority.validity().unwrap().until.to_string(), "2049-12-31T23:59:59Z");
    }
}
