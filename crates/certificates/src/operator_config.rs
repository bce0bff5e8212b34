//! The settings of rustls for a listener's certificates.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;

use crate::certificate_pair::{CertificatePair, ServerCertificates};

/// TLS 1.2 and 1.3 with these certificates.
///
/// # Errors
/// rustls cannot use a key.
pub(crate) fn operator_config(certificates: &ServerCertificates) -> Result<ServerConfig> {
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
    let key = ring::sign::any_supported_type(&key).context(
        "TLS of the API and of agents takes keys of RSA with 2048 to 8192 bits, P-256, P-384 and Ed25519 alone",
    )?;
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
