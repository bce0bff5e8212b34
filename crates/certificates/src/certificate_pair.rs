//! Certificates with their keys.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;

/// A certificate, those of its issuers up to the root, and its key.
#[derive(Clone)]
pub struct CertificatePair {
    /// The certificate first.
    pub(crate) chain: Vec<X509>,
    pub(crate) key: PKey<Private>,
}

impl fmt::Debug for CertificatePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificatePair").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl CertificatePair {
    /// Reads a certificate with its chain, and its key.
    ///
    /// # Errors
    /// The file that cannot be used, among others a key that all users may read; or key and certificate do not belong
    /// together.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self> {
        let of_certificate = || format!("the certificate {}", certificate.display());
        let of_key = || format!("the key {}", key.display());
        let text = fs::read(certificate).with_context(of_certificate)?;
        let chain = X509::stack_from_pem(&text).with_context(of_certificate)?;
        let first = chain.first().with_context(of_certificate).context("no certificate in PEM")?;
        let mode = fs::metadata(key).with_context(of_key)?.permissions().mode() & 0o7777;
        ensure!(
            mode & 0o007 == 0,
            "{} is open to all users (mode {mode:04o}): chmod o= {}",
            of_key(),
            key.display()
        );
        let text = fs::read(key).with_context(of_key)?;
        let key = PKey::private_key_from_pem(&text).with_context(of_key)?;
        ensure!(
            first.public_key().is_ok_and(|public| public.public_eq(&key)),
            "{} does not belong to {}",
            of_key(),
            of_certificate()
        );
        Ok(Self { chain, key })
    }

    /// The end of its validity.
    ///
    /// # Errors
    /// The certificate has no usable date.
    pub fn not_after(&self) -> Result<Timestamp> {
        let first = self.chain.first().context("no certificate")?;
        timestamp(first.not_after())
    }

    /// Whether the host is among its names and addresses (RFC 9525 §6). A name with `*` has one label in its place.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        let subjects = self.chain.first().and_then(|first| first.subject_alt_names());
        subjects.iter().flatten().any(|subject| match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => subject.ipaddress() == Some(&address.octets()),
            Ok(IpAddr::V6(address)) => subject.ipaddress() == Some(&address.octets()),
            Err(_) => subject.dnsname().is_some_and(|name| is_named(host, name)),
        })
    }

    /// Whether it has expired.
    pub(crate) fn has_expired(&self) -> bool {
        let now = Asn1Time::days_from_now(0);
        let first = self.chain.first();
        first.zip(now.ok()).is_some_and(|(first, now)| *first.not_after() < *now)
    }

    /// The chain (DER), the certificate first.
    pub(crate) fn chain_der(&self) -> Result<Vec<Vec<u8>>> {
        self.chain.iter().map(|certificate| Ok(certificate.to_der()?)).collect()
    }
}

fn is_named(host: &str, name: &str) -> bool {
    let domain = host.split_once('.').map(|(_, domain)| domain);
    let of_wildcard = name.strip_prefix("*.");
    host.eq_ignore_ascii_case(name)
        || of_wildcard.zip(domain).is_some_and(|(of, domain)| of.eq_ignore_ascii_case(domain))
}

pub(crate) fn timestamp(time: &Asn1TimeRef) -> Result<Timestamp> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    Ok(Timestamp::from_second(i64::from(since.days) * 86_400 + i64::from(since.secs))?)
}

/// The certificates of a listener, one for each kind of key.
#[derive(Clone, Debug)]
pub struct ServerCertificates {
    pub(crate) pairs: Vec<CertificatePair>,
}
