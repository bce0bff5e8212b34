//! TLS by OpenSSL, for BMCs that have only what rustls refuses.

use std::net::IpAddr;
use std::pin::Pin;

use openssl::error::ErrorStack;
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslRef, SslVerifyMode, SslVersion,
};
use openssl::x509::verify::{X509CheckFlags, X509VerifyFlags};
use openssl::x509::{X509, X509Ref, X509VerifyResult};
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_openssl::SslStream;
use transport::tls::CertificateFingerprint;

use crate::certificate_refusal::{CertificateProblem, CertificateRefusal};
use crate::connect_failure::ConnectFailure;
use crate::first_bytes::FirstBytes;
use crate::settings::WrongBmcSetting;
use crate::trust::LoadedTrust;

/// All ciphers with a certificate and encryption. At level 0, OpenSSL permits TLS 1.0, SHA-1 and short keys.
const CIPHERS: &str = "DEFAULT:!aNULL:!eNULL:@SECLEVEL=0";

/// `SSL_OP_LEGACY_SERVER_CONNECT`, for servers without RFC 5746, which OpenSSL 3 refuses by default. The crate has no
/// name for it.
const LEGACY_SERVER_CONNECT: u64 = 0x4;

/// The side of the client.
#[derive(Clone)]
pub(crate) struct LegacyTls {
    context: SslContext,
    trust: LoadedTrust,
}

impl LegacyTls {
    /// # Errors
    /// The trusted certificates cannot be used.
    pub(crate) fn new(trust: LoadedTrust) -> Result<Self, WrongBmcSetting> {
        let context = context(&trust).map_err(|error| {
            WrongBmcSetting::new("redfish_tls", format!("cannot be used: {error}"))
        })?;
        Ok(Self { context, trust })
    }

    /// Makes the handshake, and judges the certificate before anything else is sent.
    pub(crate) async fn connect(
        &self,
        host: &str,
        stream: FirstBytes<TcpStream>,
    ) -> Result<SslStream<FirstBytes<TcpStream>>, ConnectFailure> {
        let broken = |error: ErrorStack| ConnectFailure::Unusable(format!("TLS failed: {error}"));
        let ssl = self.session(host).map_err(broken)?;
        let mut stream = SslStream::new(ssl, stream).map_err(broken)?;
        if let Err(error) = Pin::new(&mut stream).connect().await {
            let by_http = stream.get_ref().http_answer();
            return Err(by_http.unwrap_or_else(|| handshake_failure(&error)));
        }
        self.judge(stream.ssl()).map_err(|error| ConnectFailure::Unusable(error.to_string()))?;
        Ok(stream)
    }

    fn session(&self, host: &str) -> Result<Ssl, ErrorStack> {
        let mut ssl = Ssl::new(&self.context)?;
        let address = host.parse::<IpAddr>();
        if address.is_err() {
            ssl.set_hostname(host)?;
        }
        let check = ssl.param_mut();
        check.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
        // One of the certificates in the file may be trusted without its own issuer.
        check.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
        match address {
            Ok(address) => check.set_ip(address)?,
            Err(_) => check.set_host(host)?,
        }
        Ok(ssl)
    }

    fn judge(&self, ssl: &SslRef) -> Result<(), CertificateRefusal> {
        let certificate = ssl.peer_certificate();
        let der = certificate.as_ref().and_then(|shown| shown.to_der().ok()).unwrap_or_default();
        let shown = CertificateFingerprint::of(&CertificateDer::from_slice(&der));
        let problem = match &self.trust {
            LoadedTrust::Anything => None,
            LoadedTrust::Fingerprint(wanted) if *wanted == shown => None,
            LoadedTrust::Fingerprint(_) => Some(CertificateProblem::OtherFingerprint),
            LoadedTrust::Certificates(certificates)
                if certificates.iter().any(|trusted| **trusted == *der) =>
            {
                None
            }
            LoadedTrust::Certificates(_) | LoadedTrust::Authorities => {
                problem(ssl.verify_result(), certificate.as_deref())
            }
        };
        match problem {
            None => Ok(()),
            Some(problem) => Err(CertificateRefusal { shown, problem }),
        }
    }
}

fn context(trust: &LoadedTrust) -> Result<SslContext, ErrorStack> {
    let mut context = SslContextBuilder::new(SslMethod::tls_client())?;
    context.set_min_proto_version(Some(SslVersion::TLS1))?;
    context.set_cipher_list(CIPHERS)?;
    context.set_options(SslOptions::from_bits_retain(LEGACY_SERVER_CONNECT as _));
    // OpenSSL makes its verification all the same; `LegacyTls::judge` looks at the result.
    context.set_verify(SslVerifyMode::NONE);
    match trust {
        LoadedTrust::Authorities => context.set_default_verify_paths()?,
        LoadedTrust::Certificates(certificates) => {
            for certificate in certificates.iter() {
                context.cert_store_mut().add_cert(X509::from_der(certificate)?)?;
            }
        }
        LoadedTrust::Anything | LoadedTrust::Fingerprint(_) => {}
    }
    Ok(context.build())
}

/// Values of `openssl/x509_vfy.h`, which the crate does not name.
fn problem(result: X509VerifyResult, certificate: Option<&X509Ref>) -> Option<CertificateProblem> {
    if result == X509VerifyResult::OK && certificate.is_some() {
        return None;
    }
    Some(match result.as_raw() {
        // X509_V_ERR_CERT_NOT_YET_VALID
        9 => CertificateProblem::NotYetValid,
        // X509_V_ERR_CERT_HAS_EXPIRED
        10 => CertificateProblem::Expired,
        // X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, DEPTH_ZERO_SELF_SIGNED_CERT, SELF_SIGNED_CERT_IN_CHAIN,
        // UNABLE_TO_GET_ISSUER_CERT_LOCALLY, UNABLE_TO_VERIFY_LEAF_SIGNATURE
        2 | 18..=21 => CertificateProblem::UnknownIssuer,
        // X509_V_ERR_HOSTNAME_MISMATCH, IP_ADDRESS_MISMATCH
        62 | 64 => CertificateProblem::WrongName(certificate.map(names).unwrap_or_default()),
        _ => CertificateProblem::Unusual(result.to_string()),
    })
}

fn names(certificate: &X509Ref) -> Vec<String> {
    let alternative = certificate.subject_alt_names();
    let names = alternative.iter().flatten().filter_map(|name| {
        let address = |bytes: &[u8]| match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        };
        name.dnsname().map(str::to_owned).or_else(|| name.ipaddress().and_then(address))
    });
    names.collect()
}

fn handshake_failure(error: &openssl::ssl::Error) -> ConnectFailure {
    match (error.io_error(), error.ssl_error()) {
        (Some(error), _) => ConnectFailure::Unreachable(format!("TLS failed: {error}")),
        (None, Some(stack)) => {
            let reasons = stack.errors().iter().filter_map(|error| error.reason());
            let reasons: Vec<_> = reasons.collect();
            ConnectFailure::Unreachable(format!(
                "TLS failed, with all that OpenSSL has ({}): update the BMC's firmware",
                reasons.join(", ")
            ))
        }
        (None, None) => ConnectFailure::Unreachable(
            "the BMC closed the connection at the beginning of TLS".to_owned(),
        ),
    }
}
