//! TLS for clients of the API and for agents, by rustls.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{PeerIncompatible, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;
use transport::http_server::{
    EncryptedConnection, HandshakeFailure, ListenerTls, PacedStream, TlsAlert,
};

use crate::address_cache::AddressCache;
use crate::certificate_pair::{CertificatePair, ServerCertificates};
use crate::certificate_source::CertificateSource;

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
            Ok(TlsAcceptor::from(Arc::new(config(certificates)?)))
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

fn config(certificates: &ServerCertificates) -> Result<ServerConfig> {
    let keys = certificates.pairs.iter().map(certified).collect::<Result<Vec<_>>>()?;
    Ok(ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(CertificateChoice(keys))))
}

fn certified(pair: &CertificatePair) -> Result<Arc<CertifiedKey>> {
    let chain = pair.chain_der()?.into_iter().map(Into::into).collect();
    let key = pair.key.private_key_to_pkcs8()?;
    let key = PrivateKeyDer::try_from(key).ok().context("a key in PKCS#8")?;
    let key = ring::sign::any_supported_type(&key).context("a key that rustls can use")?;
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

/// Takes the first certificate whose key the client can verify.
#[derive(Debug)]
struct CertificateChoice(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for CertificateChoice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        // The last one is of the better kind, if there are two.
        self.0.iter().rev().find(fits).cloned()
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
            HandshakeFailure::PlainHttp
        }
        Some(other) => HandshakeFailure::Other(other.to_string()),
    }
}
