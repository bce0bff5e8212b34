//! TLS by rustls.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, OtherError,
    SignatureScheme,
};
use tokio_rustls::TlsConnector;
use transport::tls::CertificateFingerprint;

use crate::certificate_refusal::{CertificateProblem, CertificateRefusal};
use crate::connect_failure::ConnectFailure;
use crate::settings::WrongBmcSetting;
use crate::trust::LoadedTrust;

/// TLS sessions that are kept for resumption: a handshake takes a BMC a second. One BMC has a certificate with a
/// given fingerprint; of the others, the most recent ones count.
const KEPT_SESSIONS: usize = 1024;

/// The side of the client.
///
/// # Errors
/// The trusted certificates cannot be used.
pub(crate) fn tls_connector(trust: &LoadedTrust) -> Result<TlsConnector, WrongBmcSetting> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        BmcVerifier { trust: trust.verifier(&provider)?, provider: Arc::clone(&provider) };
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| {
        WrongBmcSetting::new("redfish_verify_ca", format!("cannot be used: {error}"))
    })?;
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(match trust {
        LoadedTrust::Fingerprint(_) => 1,
        LoadedTrust::Authorities | LoadedTrust::Anything | LoadedTrust::Certificates(_) => {
            KEPT_SESSIONS
        }
    });
    Ok(Arc::new(config).into())
}

/// The failure of a handshake, in an operator's words.
#[expect(clippy::wildcard_enum_match_arm, reason = "rustls and std may add to their enums")]
pub(crate) fn handshake_failure(error: &io::Error) -> ConnectFailure {
    let Some(tls) = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) else {
        return match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                ConnectFailure::Unreachable(
                    "the BMC closed the connection at the beginning of TLS: if it is busy, try again; if it is \
                     old, set redfish_tls to legacy"
                        .to_owned(),
                )
            }
            _ => ConnectFailure::Unreachable(format!("TLS failed: {error}")),
        };
    };
    match tls {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(refusal)))
            if refusal.is::<CertificateRefusal>() =>
        {
            ConnectFailure::Unusable(refusal.to_string())
        }
        rustls::Error::AlertReceived(
            AlertDescription::HandshakeFailure
            | AlertDescription::ProtocolVersion
            | AlertDescription::InsufficientSecurity,
        )
        | rustls::Error::PeerIncompatible(_) => ConnectFailure::Unusable(format!(
            "the BMC has no version and cipher of TLS that is secure today ({tls}): set redfish_tls to legacy"
        )),
        other => ConnectFailure::Unreachable(format!(
            "TLS failed ({other}): if the BMC is old, set redfish_tls to legacy"
        )),
    }
}

/// Turns each refusal of a certificate into a [`CertificateRefusal`], which has its fingerprint. Without a `trust`, it
/// accepts every certificate, and so every proof of its possession: old BMCs have keys that rustls cannot check.
#[derive(Debug)]
struct BmcVerifier {
    trust: Option<Arc<dyn ServerCertVerifier>>,
    provider: Arc<CryptoProvider>,
}

fn reported(shown: &CertificateDer<'_>, error: &rustls::Error) -> rustls::Error {
    let refusal = CertificateRefusal {
        shown: CertificateFingerprint::of(shown),
        problem: CertificateProblem::of_rustls(error),
    };
    CertificateError::Other(OtherError(Arc::new(refusal))).into()
}

impl ServerCertVerifier for BmcVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(trust) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        trust
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| reported(end_entity, &error))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let Some(trust) = &self.trust else { return Ok(HandshakeSignatureValid::assertion()) };
        trust
            .verify_tls12_signature(message, certificate, signature)
            .map_err(|error| reported(certificate, &error))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let Some(trust) = &self.trust else { return Ok(HandshakeSignatureValid::assertion()) };
        trust
            .verify_tls13_signature(message, certificate, signature)
            .map_err(|error| reported(certificate, &error))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let own = || self.provider.signature_verification_algorithms.supported_schemes();
        self.trust.as_ref().map_or_else(own, |trust| trust.supported_verify_schemes())
    }
}
