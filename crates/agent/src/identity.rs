//! The agent's identity towards Ironic: its token, the certificate of its command API, the key of its channel.
//!
//! They are kept in `/run`, so that a restarted agent has the same identity.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, SanType};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Storage for token and keys, which survives the agent but not a reboot.
#[derive(Debug, Clone)]
pub struct Keeper(PathBuf);

/// A self-signed certificate and its key.
#[derive(Clone)]
pub struct Certificate {
    /// The certificate for the heartbeat, in PEM.
    pub pem: String,
    key_pem: String,
}

impl Keeper {
    /// Storage in `folder`, which is created if missing.
    ///
    /// # Errors
    ///
    /// The folder cannot be created.
    pub fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(Self(folder.to_owned()))
    }

    /// The token of an earlier run of this agent.
    pub fn token(&self) -> Option<String> {
        fs::read_to_string(self.0.join("token")).ok()
    }

    /// Stores a token.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn keep_token(&self, token: &str) -> Result<()> {
        self.write("token", token)
    }

    /// The key of the channel to the service: an earlier run's, or a new random one.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn channel_key(&self) -> Result<String> {
        const NAME: &str = "channel-key";
        if let Ok(key) = fs::read_to_string(self.0.join(NAME)) {
            return Ok(key);
        }
        let key = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        self.write(NAME, &key)?;
        Ok(key)
    }

    /// The certificate for this address: an earlier run's, or a new one.
    ///
    /// # Errors
    ///
    /// No key can be generated, or the certificate cannot be written.
    pub fn certificate(&self, address: IpAddr) -> Result<Certificate> {
        let (pem, key) = (format!("{address}.crt"), format!("{address}.key"));
        let kept = |name: &str| fs::read_to_string(self.0.join(name)).ok();
        if let (Some(pem), Some(key_pem)) = (kept(&pem), kept(&key)) {
            return Ok(Certificate { pem, key_pem });
        }
        let certificate = Certificate::new(address)?;
        self.write(&key, &certificate.key_pem)?;
        self.write(&pem, &certificate.pem)?;
        Ok(certificate)
    }

    fn write(&self, name: &str, content: &str) -> Result<()> {
        let path = self.0.join(name);
        let write = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            file.write_all(content.as_bytes())
        };
        write().with_context(|| format!("writing {}", path.display()))
    }
}

impl Certificate {
    /// A certificate for `address` that is valid at any time of the machine's clock.
    ///
    /// # Errors
    ///
    /// The system has no random numbers.
    pub fn new(address: IpAddr) -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).context("making a key")?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress(address)];
        let certificate = params.self_signed(&key).context("making a certificate")?;
        Ok(Self { pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// A TLS 1.2 and 1.3 configuration with this certificate.
    ///
    /// # Errors
    ///
    /// The stored certificate is damaged.
    pub fn tls(&self) -> Result<Arc<ServerConfig>> {
        let certificate = CertificateDer::from_pem_slice(self.pem.as_bytes())
            .context("reading the certificate")?;
        let key =
            PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).context("reading the key")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("setting up TLS")?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .context("setting up TLS")?;
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_started_anew_is_still_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let address = IpAddr::from([10, 0, 0, 5]);

        let keeper = Keeper::new(folder.path()).unwrap();
        let first = keeper.certificate(address).unwrap();
        keeper.keep_token("0123456789abcdef0123456789abcdef").unwrap();
        let key = keeper.channel_key().unwrap();

        let keeper = Keeper::new(folder.path()).unwrap();
        assert_eq!(keeper.certificate(address).unwrap().pem, first.pem);
        assert_eq!(keeper.token().unwrap(), "0123456789abcdef0123456789abcdef");
        assert!(first.tls().is_ok());
        assert_eq!(keeper.channel_key().unwrap(), key);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Keeper::new(other.path()).unwrap().channel_key().unwrap(), key);
    }
}
