//! Certificates with their keys.

use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use jiff::Timestamp;
use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::pkey::{PKey, Private};
use openssl::x509::{X509, X509NameRef};

use crate::pem;

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
    /// The file that cannot be used, among others a key that all users may read or that has a passphrase; or key and
    /// certificate do not belong together.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self> {
        let chain = read_chain(certificate)?;
        let of_key = || format!("the key {}", key.display());
        let mut file = File::open(key).with_context(of_key)?;
        let mode = file.metadata().with_context(of_key)?.permissions().mode() & 0o7777;
        ensure!(
            mode & 0o007 == 0,
            "{} is open to all users (mode {mode:04o}): chmod o= {}",
            of_key(),
            key.display()
        );
        let mut text = Vec::new();
        file.read_to_end(&mut text).with_context(of_key)?;
        let private = pem::private_key(&text).map_err(|why| anyhow!("{} {why}", of_key()))?;
        let own = chain.first().and_then(|first| first.public_key().ok());
        ensure!(
            own.is_some_and(|public| public.public_eq(&private)),
            "{} does not belong to the certificate {} (the first one in the file)",
            of_key(),
            certificate.display()
        );
        Ok(Self { chain, key: private })
    }

    /// The time in which the whole chain is valid.
    ///
    /// # Errors
    /// A certificate has no usable date.
    pub fn validity(&self) -> Result<CertificateValidity> {
        CertificateValidity::of_chain(&self.chain)
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

    /// Whether it or an issuer's certificate has expired.
    pub(crate) fn has_expired(&self) -> bool {
        let now = Asn1Time::days_from_now(0);
        now.is_ok_and(|now| self.chain.iter().any(|certificate| *certificate.not_after() < *now))
    }

    /// The chain (DER), the certificate first.
    pub(crate) fn chain_der(&self) -> Result<Vec<Vec<u8>>> {
        self.chain.iter().map(|certificate| Ok(certificate.to_der()?)).collect()
    }
}

/// Reads a certificate and those of its issuers.
///
/// # Errors
/// The file cannot be used.
pub(crate) fn read_chain(certificate: &Path) -> Result<Vec<X509>> {
    let what = || format!("the certificate {}", certificate.display());
    let text = fs::read(certificate).with_context(what)?;
    pem::certificates(&text).map_err(|why| anyhow!("{} {why}", what()))
}

/// The time in which a certificate and those of its issuers are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateValidity {
    /// The latest of their beginnings.
    pub from: Timestamp,
    /// The earliest of their ends.
    pub until: Timestamp,
    /// The name of the issuer whose certificate ends first; `None` if it is the certificate itself.
    pub until_of_issuer: Option<String>,
}

impl CertificateValidity {
    pub(crate) fn of_chain(chain: &[X509]) -> Result<Self> {
        let (first, issuers) = chain.split_first().context("no certificate")?;
        let from = timestamp(first.not_before())?;
        let until = timestamp(first.not_after())?;
        let mut all = Self { from, until, until_of_issuer: None };
        for issuer in issuers {
            all.from = all.from.max(timestamp(issuer.not_before())?);
            let until = timestamp(issuer.not_after())?;
            if until < all.until {
                all.until = until;
                all.until_of_issuer = Some(name(issuer.subject_name()));
            }
        }
        Ok(all)
    }
}

/// The values of a name's parts, such as `Example Inc., Example CA`.
pub(crate) fn name(name: &X509NameRef) -> String {
    let parts = name.entries().filter_map(|entry| entry.data().to_string().ok());
    parts.collect::<Vec<_>>().join(", ")
}

fn is_named(host: &str, name: &str) -> bool {
    let domain = host.split_once('.').map(|(_, domain)| domain);
    let of_wildcard = name.strip_prefix("*.");
    host.eq_ignore_ascii_case(name)
        || of_wildcard.zip(domain).is_some_and(|(of, domain)| of.eq_ignore_ascii_case(domain))
}

fn timestamp(time: &Asn1TimeRef) -> Result<Timestamp> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    Ok(Timestamp::from_second(i64::from(since.days) * 86_400 + i64::from(since.secs))?)
}

/// The certificates of a listener, one for each kind of key.
#[derive(Clone, Debug)]
pub struct ServerCertificates {
    pub(crate) pairs: Vec<CertificatePair>,
}
