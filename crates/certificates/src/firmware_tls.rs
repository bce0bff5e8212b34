//! TLS for firmware, by OpenSSL: much firmware has no elliptic curves, and some has RSA key exchange alone, which rustls
//! does not have.

use std::fmt;
use std::net::IpAddr;

use anyhow::Result;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use openssl::error::Error as OpenSslError;
use openssl::ssl::{Error as SslError, Ssl, SslContext, SslRef};
use transport::http_server::{
    EncryptedConnection, HandshakeFailure, ListenerTls, PacedStream, TlsAlert,
};

use crate::address_cache::AddressCache;
use crate::certificate_pair::CertificatePair;
use crate::certificate_source::CertificateSource;
use crate::firmware_context::{FirmwareCiphers, firmware_context};
use crate::firmware_stream::FirmwareStream;

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
            .get(near, certificates, |certificates| firmware_context(certificates, self.ciphers))
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
            HandshakeFailure::NotTls
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
