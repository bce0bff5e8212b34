//! Why a BMC's certificate was refused, and what an operator can do about it.

use std::error::Error;
use std::fmt;

use rustls::{CertificateError, OtherError};
use transport::tls::CertificateFingerprint;

/// Number of names of a certificate that are shown.
const SHOWN_NAMES: usize = 5;

/// A certificate that is not trusted.
#[derive(Debug)]
pub(crate) struct CertificateRefusal {
    /// Its fingerprint.
    pub(crate) shown: CertificateFingerprint,
    pub(crate) problem: CertificateProblem,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CertificateProblem {
    UnknownIssuer,
    Expired,
    NotYetValid,
    /// With the names that it has.
    WrongName(Vec<String>),
    /// Not the one of `redfish_fingerprint`.
    OtherFingerprint,
    /// It has a form or a signature that rustls cannot check, in the words of rustls.
    Outdated(String),
    /// In the words of OpenSSL or rustls.
    Unusual(String),
}

impl CertificateProblem {
    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls may add to its enums")]
    pub(crate) fn of_rustls(error: &rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(error) = error else {
            // `TrustedCertificate` says so, of the fingerprint alone.
            return match error {
                rustls::Error::General(_) => Self::OtherFingerprint,
                other => Self::Unusual(other.to_string()),
            };
        };
        match error {
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::NotValidForName => Self::WrongName(Vec::new()),
            CertificateError::NotValidForNameContext { presented, .. } => {
                Self::WrongName(presented.iter().map(|name| plain(name)).collect())
            }
            // webpki refuses an authority's certificate as a server's before it looks for the issuer.
            CertificateError::Other(OtherError(other)) if is_authority(other.as_ref()) => {
                Self::UnknownIssuer
            }
            CertificateError::BadEncoding
            | CertificateError::Other(_)
            | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                Self::Outdated(error.to_string())
            }
            other => Self::Unusual(other.to_string()),
        }
    }
}

fn is_authority(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    error.to_string() == "CaUsedAsEndEntity"
}

/// `DnsName("bmc.example")` is `bmc.example`.
fn plain(name: &str) -> String {
    let inner = name.split_once('(').map_or(name, |(_, inner)| inner);
    inner.trim_end_matches(')').trim_matches('"').to_owned()
}

impl fmt::Display for CertificateRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.shown;
        match &self.problem {
            CertificateProblem::UnknownIssuer => write!(
                f,
                "the BMC's certificate is signed by itself or by an authority that is not trusted: set \
                 redfish_verify_ca to the file of that certificate, or redfish_fingerprint to {shown}"
            ),
            CertificateProblem::Expired => write!(
                f,
                "the BMC's certificate has expired: renew it, or set redfish_fingerprint to {shown}"
            ),
            CertificateProblem::NotYetValid => write!(
                f,
                "the BMC's certificate is not valid yet: compare the clocks, or set redfish_fingerprint to {shown}"
            ),
            CertificateProblem::WrongName(names) => {
                f.write_str("the BMC's certificate is for ")?;
                if names.is_empty() {
                    f.write_str("no host (a common name alone does not count)")?;
                } else {
                    let few: Vec<_> = names.iter().take(SHOWN_NAMES).map(String::as_str).collect();
                    let more = if names.len() > SHOWN_NAMES { " and others" } else { "" };
                    write!(f, "{}{more}", few.join(", "))?;
                }
                write!(
                    f,
                    ", which is not the host of redfish_address: correct that, or set redfish_fingerprint to {shown}"
                )
            }
            CertificateProblem::OtherFingerprint => write!(
                f,
                "the BMC's certificate has another fingerprint than redfish_fingerprint: {shown}"
            ),
            CertificateProblem::Outdated(error) => write!(
                f,
                "the BMC's certificate cannot be checked by today's rules ({error}): set redfish_tls to legacy"
            ),
            CertificateProblem::Unusual(error) => write!(
                f,
                "the BMC's certificate is not trusted ({error}): set redfish_fingerprint to {shown}"
            ),
        }
    }
}

impl Error for CertificateRefusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_names_of_a_certificate_are_shown() {
        let shown = "0f".repeat(32).parse().unwrap();
        let names = (0..9).map(|at| format!("bmc{at}")).collect();
        let refusal = CertificateRefusal { shown, problem: CertificateProblem::WrongName(names) };

        assert!(refusal.to_string().contains("bmc0, bmc1, bmc2, bmc3, bmc4 and others,"));
        assert_eq!(plain(r#"DnsName("bmc.example")"#), "bmc.example");
        assert_eq!(plain("IpAddress(192.0.2.1)"), "192.0.2.1");
    }
}
