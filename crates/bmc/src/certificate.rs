//! The certificate of the listeners: from files, or a self-signed one that is made once.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use rcgen::{CertificateParams, KeyPair, SanType, date_time_ymd};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::{BmcConfig, TlsConfig};
use crate::private;

/// Whether a certificate is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validity {
    Valid,
    Expired,
}

/// The TLS of a listener; `None` for plain HTTP.
pub(crate) fn acceptor(config: &BmcConfig, validity: Validity) -> Result<Option<TlsAcceptor>> {
    let Some(tls) = &config.tls else {
        ensure!(validity == Validity::Valid, "the fault certificate_expired needs [tls]");
        return Ok(None);
    };
    let (certificate, key) = match tls {
        TlsConfig { certificate: Some(certificate), key: Some(key) } => {
            ensure!(
                validity == Validity::Valid,
                "the fault certificate_expired needs a self-signed certificate: [tls] without files"
            );
            (certificate.clone(), key.clone())
        }
        _ => {
            let name = match validity {
                Validity::Valid => "certificate",
                Validity::Expired => "expired",
            };
            let file = |kind: &str| config.state_dir.join(format!("{name}.{kind}"));
            let (certificate, key) = (file("pem"), file("key"));
            if !certificate.exists() || !key.exists() {
                make(&certificate, &key, config.listen.ip(), validity)?;
            }
            (certificate, key)
        }
    };
    let chain = CertificateDer::pem_file_iter(&certificate).and_then(Iterator::collect);
    let chain: Vec<_> =
        chain.with_context(|| format!("the certificate {}", certificate.display()))?;
    let key_der =
        PrivateKeyDer::from_pem_file(&key).with_context(|| format!("the key {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .with_context(|| format!("{} does not fit {}", key.display(), certificate.display()))?;
    Ok(Some(TlsAcceptor::from(Arc::new(server))))
}

fn make(certificate: &Path, key: &Path, listen: IpAddr, validity: Validity) -> Result<()> {
    let pair = KeyPair::generate().context("making a key")?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    params.subject_alt_names.push(SanType::IpAddress(listen));
    (params.not_before, params.not_after) = match validity {
        Validity::Valid => (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1)),
        Validity::Expired => (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
    };
    let signed = params.self_signed(&pair).context("making a certificate")?;
    for (path, text) in [(key, pair.serialize_pem()), (certificate, signed.pem())] {
        private::write(path, text.as_bytes())
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path, tls: &str) -> BmcConfig {
        toml::from_str(&format!(
            "username = 'a'\npassword = 'b'\nstate_dir = {dir:?}\n{tls}\n[[machine]]\nid = '1'\n"
        ))
        .unwrap()
    }

    #[test]
    fn a_certificate_is_made_once_and_an_expired_one_apart() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), "tls = {}");
        assert!(acceptor(&config, Validity::Valid).unwrap().is_some());
        let first = std::fs::read(dir.path().join("certificate.pem")).unwrap();

        acceptor(&config, Validity::Valid).unwrap();
        acceptor(&config, Validity::Expired).unwrap();

        assert_eq!(std::fs::read(dir.path().join("certificate.pem")).unwrap(), first);
        assert_ne!(std::fs::read(dir.path().join("expired.pem")).unwrap(), first);
    }

    #[test]
    fn an_expired_certificate_cannot_be_made_of_files_or_of_plain_http() {
        let dir = tempfile::tempdir().unwrap();
        for tls in ["", "tls = { certificate = 'c', key = 'k' }"] {
            assert!(acceptor(&config(dir.path(), tls), Validity::Expired).is_err(), "{tls}");
        }
        let missing = config(dir.path(), "tls = { certificate = 'c', key = 'k' }");
        let said = format!("{:#}", acceptor(&missing, Validity::Valid).err().unwrap());
        assert!(said.contains("the certificate c"), "{said}");
    }
}
