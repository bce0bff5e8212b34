//! An operator's CA, and certificates of it for the listeners.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509NameBuilder};

/// A certificate of a listener. The key has 3072 bits of RSA.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SiteCertificate {
    /// The only address in it.
    pub(crate) address: &'static str,
    /// Its validity, as in X.509 (`20200101000000Z`).
    pub(crate) validity: [&'static str; 2],
}

impl SiteCertificate {
    /// For the daemon of a lab, valid today.
    pub(crate) fn for_lab() -> Self {
        Self { address: "10.77.0.1", validity: ["20200101000000Z", "20991231235959Z"] }
    }

    /// The settings `[tls]` with it, its key and its CA, in files in a folder of this name.
    pub(crate) fn files(self, folder: &str) -> Result<String> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
        fs::create_dir_all(&folder)?;
        let file = |name: &str| folder.join(name);
        let [certificate, key, authority] = ["server.pem", "server.key", "ca.pem"].map(file);
        // The test starts itself again, and would only make them twice.
        if !authority.exists() {
            self.write(&certificate, &key, &authority)?;
        }
        Ok(format!(
            "[tls]\ncertificate = {certificate:?}\nkey = {key:?}\nauthority = {authority:?}\n"
        ))
    }

    fn write(self, certificate: &Path, key: &Path, authority: &PathBuf) -> Result<()> {
        let [ca_key, own_key] = [rsa()?, rsa()?];
        let mut ca = begin("Site CA", "Site CA", 1, &ca_key, Self::for_lab().validity)?;
        ca.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        ca.append_extension(KeyUsage::new().critical().key_cert_sign().build()?)?;
        ca.sign(&ca_key, MessageDigest::sha256())?;
        let ca = ca.build();
        let mut own = begin("Site", "Site CA", 2, &own_key, self.validity)?;
        let name = SubjectAlternativeName::new()
            .ip(self.address)
            .build(&own.x509v3_context(Some(&ca), None))?;
        own.append_extension(name)?;
        own.sign(&ca_key, MessageDigest::sha256())?;
        fs::write(certificate, own.build().to_pem()?)?;
        fs::write(key, own_key.private_key_to_pem_pkcs8()?)?;
        fs::set_permissions(key, Permissions::from_mode(0o600))?;
        fs::write(authority, ca.to_pem()?)?;
        Ok(())
    }
}

fn rsa() -> Result<PKey<Private>> {
    Ok(PKey::from_rsa(Rsa::generate(3072)?)?)
}

fn begin(
    subject: &str,
    issuer: &str,
    serial: u32,
    key: &PKey<Private>,
    [not_before, not_after]: [&str; 2],
) -> Result<X509Builder> {
    let name = |text| {
        let mut name = X509NameBuilder::new()?;
        name.append_entry_by_text("CN", text)?;
        Ok::<_, openssl::error::ErrorStack>(name.build())
    };
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(&*BigNum::from_u32(serial)?.to_asn1_integer()?)?;
    builder.set_subject_name(&*name(subject)?)?;
    builder.set_issuer_name(&*name(issuer)?)?;
    builder.set_pubkey(key)?;
    builder.set_not_before(&*Asn1Time::from_str(not_before)?)?;
    builder.set_not_after(&*Asn1Time::from_str(not_after)?)?;
    Ok(builder)
}
