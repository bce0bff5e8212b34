//! TLS for firmware, by OpenSSL: much firmware has no elliptic curves, and some has RSA key exchange alone, which rustls
//! does not have.

use std::fmt;
use std::net::IpAddr;

use anyhow::Result;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use openssl::dh::Dh;
use openssl::error::{Error as OpenSslError, ErrorStack};
use openssl::ssl::{
    Error as SslError, Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslRef,
    SslSessionCacheMode, SslVersion,
};
use transport::http_server::{
    EncryptedConnection, HandshakeFailure, ListenerTls, PacedStream, TlsAlert,
};

use crate::address_cache::AddressCache;
use crate::certificate_pair::{CertificatePair, ServerCertificates};
use crate::certificate_source::CertificateSource;
use crate::firmware_stream::FirmwareStream;

/// The ciphers of TLS 1.2 with forward secrecy by elliptic curves.
const MODERN: &str = "ECDHE+AESGCM:ECDHE+CHACHA20";
/// Those that old firmware has beside or in place of these: OVMF before 2025-04, HPE Gen10 Plus and Gen11. The modern ones
/// stand first, and the server's order counts.
const OLD_FIRMWARE: &str = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:AES256-GCM-SHA384:AES128-GCM-SHA256:\
                            DHE+AES+SHA256:AES256-SHA256:AES128-SHA256";
/// RFC 7919 §A.1, `ffdhe2048`.
const FFDHE2048: &str = "-----BEGIN DH PARAMETERS-----
MIIBDAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAgICAOE=
-----END DH PARAMETERS-----
";

/// The ciphers that firmware may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirmwareCiphers {
    /// With forward secrecy by elliptic curves.
    #[default]
    Modern,
    /// Also DHE and RSA key exchange, for firmware that offers nothing else. A peer that offers better ones gets those.
    OldFirmware,
}

/// TLS 1.2 and 1.3 for firmware and boot loaders.
pub struct FirmwareTls {
    source: CertificateSource,
    ciphers: FirmwareCiphers,
    contexts: AddressCache<SslContext>,
}

impl fmt::Debug for FirmwareTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirmwareTls").field("ciphers", &self.ciphers).finish_non_exhaustive()
    }
}

impl FirmwareTls {
    /// TLS with certificates from `source`.
    #[must_use]
    pub fn new(source: CertificateSource, ciphers: FirmwareCiphers) -> Self {
        Self { source, ciphers, contexts: AddressCache::default() }
    }

    fn context(&self, near: IpAddr) -> Result<SslContext> {
        let certificates = self.source.certificates(near)?;
        self.contexts
            .get(near, certificates, |certificates| Ok(context(certificates, self.ciphers)?))
    }

    async fn handshake(
        &self,
        stream: PacedStream,
        near: IpAddr,
    ) -> Result<FirmwareStream, HandshakeFailure> {
        let unusable = |why: String| HandshakeFailure::NoCertificate(why);
        let context = self.context(near).map_err(|why| unusable(format!("{why:#}")))?;
        let stream = Ssl::new(&context).and_then(|ssl| FirmwareStream::new(ssl, stream));
        let mut stream = stream.map_err(|error| unusable(error.to_string()))?;
        match stream.accept().await {
            Ok(()) => Ok(stream),
            Err(error) => {
                let failure = failure(&error);
                // EDK2 closes the connection without an alert.
                let is_refusal =
                    matches!(failure, HandshakeFailure::Closed | HandshakeFailure::Alert(_));
                let has_expired = is_refusal && self.has_expired(near);
                Err(if has_expired { HandshakeFailure::Expired } else { failure })
            }
        }
    }

    fn has_expired(&self, near: IpAddr) -> bool {
        let certificates = self.source.certificates(near);
        certificates
            .is_ok_and(|certificates| certificates.pairs.iter().any(CertificatePair::has_expired))
    }
}

impl ListenerTls for FirmwareTls {
    fn accept(
        &self,
        stream: PacedStream,
        near: IpAddr,
    ) -> BoxFuture<'_, Result<EncryptedConnection, HandshakeFailure>> {
        async move {
            let stream = self.handshake(stream, near).await?;
            let agreed = agreed(stream.ssl());
            Ok(EncryptedConnection { stream: Box::new(stream), agreed })
        }
        .boxed()
    }
}

/// Such as `TLSv1.2, ECDHE-ECDSA-AES128-GCM-SHA256, certificate with ECDSA`.
fn agreed(ssl: &SslRef) -> String {
    let cipher = ssl.current_cipher().map_or("no cipher", |cipher| cipher.name());
    let key = ssl.certificate().and_then(|own| own.public_key().ok());
    let kind = match key.is_some_and(|key| key.rsa().is_ok()) {
        true => "RSA",
        false => "ECDSA",
    };
    format!("{}, {cipher}, certificate with {kind}", ssl.version_str())
}

fn context(
    certificates: &ServerCertificates,
    ciphers: FirmwareCiphers,
) -> Result<SslContext, ErrorStack> {
    let mut context = SslContextBuilder::new(SslMethod::tls_server())?;
    context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    let list = match ciphers {
        FirmwareCiphers::Modern => MODERN,
        FirmwareCiphers::OldFirmware => {
            context.set_tmp_dh(&*Dh::params_from_pem(FFDHE2048.as_bytes())?)?;
            OLD_FIRMWARE
        }
    };
    context.set_cipher_list(list)?;
    context.set_options(SslOptions::CIPHER_SERVER_PREFERENCE | SslOptions::NO_RENEGOTIATION);
    // A write ends after each record, so that it is known how much of an answer a slow peer has taken. Idle connections
    // hold no buffers.
    context.set_mode(
        SslMode::ENABLE_PARTIAL_WRITE
            | SslMode::ACCEPT_MOVING_WRITE_BUFFER
            | SslMode::RELEASE_BUFFERS,
    );
    // A call of the kernel takes all that has come, not first the head of a record and then its content.
    context.set_read_ahead(true);
    // A boot is one connection or two: sessions would only cost memory.
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    for pair in &certificates.pairs {
        if let Some((own, issuers)) = pair.chain.split_first() {
            context.set_certificate(own)?;
            context.set_private_key(&pair.key)?;
            for issuer in issuers {
                context.add_extra_chain_cert(issuer.clone())?;
            }
        }
    }
    Ok(context.build())
}

/// The reasons of `openssl/sslerr.h` (`SSL_R_…`), which the crate does not name.
mod reason {
    pub(super) const NO_SUITABLE_KEY_SHARE: i32 = 101;
    pub(super) const NO_SUITABLE_SIGNATURE_ALGORITHM: i32 = 118;
    /// `CONNECT` in place of a record.
    pub(super) const HTTPS_PROXY_REQUEST: i32 = 155;
    /// `GET`, `HEAD`, `POST` or `PUT` in place of a record.
    pub(super) const HTTP_REQUEST: i32 = 156;
    pub(super) const NO_SHARED_CIPHER: i32 = 193;
    /// Each version of the client is disabled here.
    pub(super) const UNSUPPORTED_PROTOCOL: i32 = 258;
    /// Any other bytes in place of a record: the name is that of a record's first field.
    pub(super) const WRONG_VERSION_NUMBER: i32 = 267;
    pub(super) const UNEXPECTED_EOF_WHILE_READING: i32 = 294;
    pub(super) const NO_SUITABLE_GROUPS: i32 = 295;
    /// The library itself has none of the client's versions, as with SSL 3.0.
    pub(super) const VERSION_TOO_LOW: i32 = 396;
    /// `SSL_AD_REASON_OFFSET`: an alert's number is added to it.
    pub(super) const ALERT: i32 = 1000;
}

fn failure(error: &SslError) -> HandshakeFailure {
    let reason = error.ssl_error().and_then(|stack| stack.errors().first());
    let Some(reason) = reason else {
        let cut = error.io_error().is_none_or(|error| {
            matches!(
                error.kind(),
                std::io::ErrorKind::UnexpectedEof
                    | std::io::ErrorKind::ConnectionReset
                    | std::io::ErrorKind::BrokenPipe
            )
        });
        return if cut {
            HandshakeFailure::Closed
        } else {
            HandshakeFailure::Other(error.to_string())
        };
    };
    match reason.reason_code() {
        reason::NO_SHARED_CIPHER
        | reason::NO_SUITABLE_GROUPS
        | reason::NO_SUITABLE_KEY_SHARE
        | reason::NO_SUITABLE_SIGNATURE_ALGORITHM => HandshakeFailure::NoCommonCipher,
        reason::UNSUPPORTED_PROTOCOL | reason::VERSION_TOO_LOW => HandshakeFailure::NoCommonVersion,
        reason::HTTP_REQUEST | reason::HTTPS_PROXY_REQUEST | reason::WRONG_VERSION_NUMBER => {
            HandshakeFailure::PlainHttp
        }
        reason::UNEXPECTED_EOF_WHILE_READING => HandshakeFailure::Closed,
        code if code > reason::ALERT => match u8::try_from(code - reason::ALERT) {
            Ok(alert) => HandshakeFailure::Alert(TlsAlert(alert)),
            Err(_) => other(reason),
        },
        _ => other(reason),
    }
}

fn other(error: &OpenSslError) -> HandshakeFailure {
    HandshakeFailure::Other(error.reason().unwrap_or("unknown").to_owned())
}
