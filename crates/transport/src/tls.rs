//! Server certificates that are trusted without public authorities: one certificate, byte for byte; one with a
//! fingerprint; or those in a file.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// The trusted server certificates.
#[derive(Debug)]
pub enum TrustedCertificate {
    /// This certificate. Names and dates are not checked, since the bytes are the same.
    Pinned(CertificateDer<'static>),
    /// The one with this fingerprint.
    Fingerprint(CertificateFingerprint),
    /// One of these, whatever its names, dates and usages are: a BMC's self-signed certificate is often marked as an
    /// authority's, which usual verification refuses for a server. Otherwise, one that one of these has issued, with
    /// the usual verification.
    OfFile {
        /// All in the file.
        certificates: Vec<CertificateDer<'static>>,
        /// `None` if none of them can be an authority.
        authorities: Option<Arc<WebPkiServerVerifier>>,
    },
}

impl TrustedCertificate {
    /// Trusts these certificates and those that they issued.
    pub fn of_file(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
        Self::OfFile { certificates, authorities: verifier.build().ok() }
    }

    /// The TLS configuration that trusts only these certificates.
    ///
    /// # Errors
    /// No protocol version is usable.
    pub fn client(self) -> Result<ClientConfig, rustls::Error> {
        Ok(ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier())
            .with_no_client_auth())
    }

    /// The verifier that trusts only these certificates.
    #[must_use]
    pub fn verifier(self) -> Arc<dyn ServerCertVerifier> {
        Arc::new(TrustedVerifier { trusted: self, provider: provider() })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// SHA-256 of a certificate (DER).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CertificateFingerprint([u8; 32]);

/// The text is not a [`CertificateFingerprint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "must be the SHA-256 fingerprint of the certificate, 64 hexadecimal digits with or without colons, as \
     `openssl x509 -noout -fingerprint -sha256` shows it"
)]
pub struct NoFingerprint;

impl CertificateFingerprint {
    /// The fingerprint of a certificate.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl FromStr for CertificateFingerprint {
    type Err = NoFingerprint;

    fn from_str(text: &str) -> Result<Self, NoFingerprint> {
        let digits: Vec<u8> = text.trim().bytes().filter(|byte| *byte != b':').collect();
        let mut bytes = [0; 32];
        if digits.len() != 64 {
            return Err(NoFingerprint);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or(NoFingerprint);
            *byte = u8::try_from(digit(0)? * 16 + digit(1)?).map_err(|_| NoFingerprint)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for CertificateFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02X}", if at == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct TrustedVerifier {
    trusted: TrustedCertificate,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for TrustedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || Err(CertificateError::UnknownIssuer.into());
        match &self.trusted {
            TrustedCertificate::Pinned(certificate) if end_entity == certificate => {}
            TrustedCertificate::Pinned(_) => return unknown(),
            TrustedCertificate::Fingerprint(wanted) => {
                let shown = CertificateFingerprint::of(end_entity);
                if shown != *wanted {
                    return Err(rustls::Error::General(format!(
                        "the server's certificate has another fingerprint than the one that is pinned: {shown}"
                    )));
                }
            }
            TrustedCertificate::OfFile { certificates, .. }
                if certificates.iter().any(|certificate| end_entity == certificate) => {}
            TrustedCertificate::OfFile { authorities: Some(authorities), .. } => {
                return authorities.verify_server_cert(
                    end_entity,
                    intermediates,
                    server_name,
                    ocsp_response,
                    now,
                );
            }
            TrustedCertificate::OfFile { authorities: None, .. } => return unknown(),
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_openssl_shows_it_and_without_colons() {
        let shown = vec!["0F"; 32].join(":");
        let fingerprint: CertificateFingerprint = shown.parse().unwrap();

        assert_eq!(fingerprint.to_string(), shown);
        assert_eq!("0f".repeat(32).parse(), Ok(fingerprint));
        for wrong in ["", "0f", &"0f".repeat(31), &"0g".repeat(32), &"+f".repeat(32)] {
            assert_eq!(wrong.parse::<CertificateFingerprint>(), Err(NoFingerprint), "{wrong}");
        }
    }
}
