//! The CA of the operator's certificate, or of a proxy before the service: machines trust it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use openssl::error::ErrorStack;
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509, X509StoreContext};

use crate::certificate_pair::{CertificateValidity, name, read_chain};
use crate::pem;

/// The certificates of the file `authority`.
#[derive(Clone, Debug)]
pub struct OperatorAuthority {
    path: PathBuf,
    /// The certificate of the CA that machines trust.
    used: X509,
    /// The others in the file.
    others: Vec<X509>,
}

impl OperatorAuthority {
    /// Reads the file. Of several certificates it takes the first one that verifies `certificate`, a file too; without
    /// that, as for a proxy, the first one of a CA.
    ///
    /// # Errors
    /// A file cannot be used, or none of the certificates fits.
    pub fn read(path: &Path, certificate: Option<&Path>) -> Result<Self> {
        let mut all = read_authorities(path)?;
        let fits = match certificate {
            None => all.iter().position(is_authority),
            Some(certificate) => {
                let chain = read_chain(certificate)?;
                all.iter().position(|authority| has_issued(authority, &chain))
            }
        };
        let at = fits.with_context(|| match certificate {
            None => format!(
                "{} has no certificate of a CA: name the file of the CA that issued the proxy's certificate",
                path.display()
            ),
            Some(certificate) => format!(
                "no CA in {} has issued the certificate {}: name the file of its CA, and put the certificates of CAs \
                 in between after the certificate",
                path.display(),
                certificate.display()
            ),
        })?;
        Ok(Self { path: path.to_owned(), used: all.remove(at), others: all })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name in the certificate.
    #[must_use]
    pub fn subject(&self) -> String {
        name(self.used.subject_name())
    }

    /// The time in which the certificate is valid.
    ///
    /// # Errors
    /// It has no usable date.
    pub fn validity(&self) -> Result<CertificateValidity> {
        CertificateValidity::of_chain(std::slice::from_ref(&self.used))
    }

    /// The certificate (PEM).
    ///
    /// # Errors
    /// OpenSSL's.
    pub fn pem(&self) -> Result<String> {
        pem_of([&self.used])
    }

    /// The certificate, and after it the others in the file (PEM).
    ///
    /// # Errors
    /// OpenSSL's.
    pub fn all_pem(&self) -> Result<String> {
        pem_of([&self.used].into_iter().chain(&self.others))
    }

    /// Whether the CA has issued a certificate, which is the first one of the chain.
    pub(crate) fn has_issued(&self, chain: &[X509]) -> bool {
        has_issued(&self.used, chain)
    }

    /// Whether the file has the same certificates now.
    ///
    /// # Errors
    /// It cannot be used.
    pub(crate) fn is_unchanged(&self) -> Result<bool> {
        let now = read_authorities(&self.path)?;
        let has = |one: &X509| now.contains(one);
        Ok(now.len() == 1 + self.others.len() && has(&self.used) && self.others.iter().all(has))
    }
}

fn read_authorities(path: &Path) -> Result<Vec<X509>> {
    let text = fs::read(path).with_context(|| {
        format!("{} cannot be read: name the file with the CA's certificate in PEM", path.display())
    })?;
    pem::certificates(&text).map_err(|why| anyhow!("{} {why}", path.display()))
}

fn pem_of<'c>(certificates: impl IntoIterator<Item = &'c X509>) -> Result<String> {
    let mut text = Vec::new();
    for certificate in certificates {
        text.extend(certificate.to_pem()?);
    }
    String::from_utf8(text).context("PEM is text")
}

/// Whether a client that trusts this certificate accepts the chain, at the right time.
fn has_issued(authority: &X509, chain: &[X509]) -> bool {
    let Some((own, issuers)) = chain.split_first() else { return false };
    // As a trusted certificate, that of a server would verify itself; firmware wants that of its CA.
    if authority == own && !is_self_issued(own) {
        return false;
    }
    verifies(authority, own, issuers).unwrap_or(false)
}

fn verifies(authority: &X509, own: &X509, issuers: &[X509]) -> Result<bool, ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    store.add_cert(authority.clone())?;
    // As EDK2 (`TlsSetCaCertificate`) and rustls do, a CA is trusted although it has an issuer. Dates are judged apart.
    store.set_flags(X509VerifyFlags::PARTIAL_CHAIN | X509VerifyFlags::NO_CHECK_TIME)?;
    let mut between = Stack::new()?;
    for issuer in issuers {
        between.push(issuer.clone())?;
    }
    let store = store.build();
    X509StoreContext::new()?.init(&store, own, &between, |context| context.verify_cert())
}

fn is_self_issued(certificate: &X509) -> bool {
    let issuer = certificate.issuer_name().try_cmp(certificate.subject_name());
    issuer.is_ok_and(std::cmp::Ordering::is_eq)
}

/// Whether it says that it is a CA's (RFC 5280 §4.2.1.9), or issued itself.
fn is_authority(certificate: &X509) -> bool {
    /// The identifier of the extension `basicConstraints`.
    const BASIC_CONSTRAINTS: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x13];
    const TRUE: &[u8] = &[0x01, 0x01, 0xff];
    let Ok(der) = certificate.to_der() else { return false };
    let mut places = der.windows(BASIC_CONSTRAINTS.len());
    let found = places.position(|bytes| bytes == BASIC_CONSTRAINTS);
    let says_so = found.is_some_and(|at| {
        let value = &der[at + BASIC_CONSTRAINTS.len()..];
        let value = value.strip_prefix(TRUE).unwrap_or(value);
        // An octet string with a sequence, which begins with `cA`.
        matches!(value, [0x04, _, 0x30, _, rest @ ..] if rest.starts_with(TRUE))
    });
    says_so || is_self_issued(certificate)
}
