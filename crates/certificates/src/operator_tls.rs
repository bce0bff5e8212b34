//! TLS for clients of the API and for agents, by rustls.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Result;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rustls::PeerIncompatible;
use tokio_rustls::TlsAcceptor;
use transport::http_server::{
    EncryptedConnection, HandshakeFailure, ListenerTls, PacedStream, TlsAlert,
};

use crate::address_cache::AddressCache;
use crate::certificate_source::CertificateSource;
use crate::operator_config::operator_config;

/// TLS 1.2 and 1.3 with forward secrecy.
pub struct OperatorTls {
    source: CertificateSource,
    acceptors: AddressCache<TlsAcceptor>,
}

impl fmt::Debug for OperatorTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorTls").finish_non_exhaustive()
    }
}

impl OperatorTls {
    /// TLS with certificates from `source`.
    #[must_use]
    pub fn new(source: CertificateSource) -> Self {
        Self { source, acceptors: AddressCache::default() }
    }

    fn acceptor(&self, near: IpAddr) -> Result<TlsAcceptor> {
        let certificates = self.source.certificates(near)?;
        self.acceptors.get(near, certificates, |certificates| {
            Ok(TlsAcceptor::from(Arc::new(operator_config(certificates)?)))
        })
    }
}

impl ListenerTls for OperatorTls {
    fn accept(
        &self,
        stream: PacedStream,
        near: IpAddr,
    ) -> BoxFuture<'_, Result<EncryptedConnection, HandshakeFailure>> {
        async move {
            let acceptor = self.acceptor(near);
            let acceptor =
                acceptor.map_err(|why| HandshakeFailure::NoCertificate(format!("{why:#}")))?;
            let stream = acceptor.accept(stream).await.map_err(|error| failure(&error))?;
            let (_, session) = stream.get_ref();
            let version = session.protocol_version().and_then(|version| version.as_str());
            let cipher = session.negotiated_cipher_suite().and_then(|it| it.suite().as_str());
            let agreed = [version, cipher].map(|part| part.unwrap_or("unknown")).join(", ");
            Ok(EncryptedConnection { stream: Box::new(stream), agreed })
        }
        .boxed()
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "rustls has many errors, and may get more")]
fn failure(error: &io::Error) -> HandshakeFailure {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        None => HandshakeFailure::Closed,
        Some(rustls::Error::AlertReceived(alert)) => {
            HandshakeFailure::Alert(TlsAlert(u8::from(*alert)))
        }
        Some(rustls::Error::PeerIncompatible(why)) => match why {
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired
            // Versions before 1.2 have no such extension.
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired => {
                HandshakeFailure::NoCommonVersion
            }
            _ => HandshakeFailure::NoCommonCipher,
        },
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            HandshakeFailure::NotTls
        }
        Some(other) => HandshakeFailure::Other(other.to_string()),
    }
}
