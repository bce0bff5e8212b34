//! TLS of the three HTTP ports.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use certificates::{
    AuthorityPem, CertificateAuthority, CertificateSource, FirmwareTls, OperatorTls,
};
use jiff::SignedDuration;
use store::{Clock, Store, StoredAuthority};
use tokio::task::spawn_blocking;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use transport::http_server::ListenerTls;

use crate::config::Config;

/// Time before the end of the operator's certificate from which on the log warns.
const WARNED_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Interval of warnings.
const WARNED_EVERY: Duration = Duration::from_secs(24 * 3600);

/// TLS of the ports, if one has any.
#[derive(Clone, Debug)]
pub(super) struct DaemonTls {
    source: CertificateSource,
    /// The certificate (PEM) of the authority, if it is known.
    pub(super) authority: Option<String>,
    /// Of the boot listener.
    pub(super) firmware: Arc<dyn ListenerTls>,
    /// Of the API and the agents' port.
    pub(super) others: Arc<dyn ListenerTls>,
}

impl DaemonTls {
    /// Reads the operator's certificate, or makes the service's own authority, if there is none yet.
    ///
    /// # Errors
    /// The files cannot be used, or the database does not answer.
    pub(super) async fn open(config: &Config, store: &Store) -> Result<Option<Self>> {
        if !config.has_tls() {
            return Ok(None);
        }
        let (source, authority) = match config.tls.files() {
            Some(files) => {
                let source = CertificateSource::of_files(files).context("[tls]")?;
                for host in config.tls_hosts().iter().filter(|host| !source.is_for(host)) {
                    warn!(
                        "the certificate in [tls] does not name {host}, the host of a URL: clients will refuse it"
                    );
                }
                (source, config.tls.read_authority()?)
            }
            None => issued(config, store).await.context("certificates of the listeners")?,
        };
        let firmware = FirmwareTls::new(source.clone(), config.tls.firmware_ciphers());
        Ok(Some(Self {
            firmware: Arc::new(firmware),
            others: Arc::new(OperatorTls::new(source.clone())),
            source,
            authority,
        }))
    }

    /// Warns before the operator's certificate expires, until `end`.
    pub(super) async fn watch(self, end: CancellationToken) {
        let mut warned = interval(WARNED_EVERY);
        loop {
            tokio::select! {
                _ = warned.tick() => self.warn(),
                () = end.cancelled() => return,
            }
        }
    }

    fn warn(&self) {
        let until = match self.source.not_after() {
            Ok(Some(until)) => until,
            Ok(None) => return,
            Err(error) => return warn!("the certificate of the listeners: {error:#}"),
        };
        let left = until.duration_since(Clock::process().now());
        if left.is_negative() {
            warn!(
                "the certificate in [tls] expired at {until}: replace its files, which are read again"
            );
        } else if left < WARNED_BEFORE {
            warn!(
                "the certificate in [tls] expires at {until}: replace its files, which are read again"
            );
        }
    }
}

async fn issued(config: &Config, store: &Store) -> Result<(CertificateSource, Option<String>)> {
    let authority = match store.authority().await? {
        Some(authority) => authority,
        None => {
            let made = spawn_blocking(CertificateAuthority::make).await??;
            let made = StoredAuthority { certificate: made.certificate, key: made.key };
            let saved = store.add_authority(&made).await?;
            info!("made the service's own CA, which machines must trust: `ferroboot ca` prints it");
            saved
        }
    };
    let StoredAuthority { certificate, key } = authority;
    let shown = certificate.clone();
    let authority = CertificateAuthority::of_pem(&AuthorityPem { certificate, key })?;
    let (names, addresses) = config.certificate_subjects();
    Ok((CertificateSource::issued_by(authority, names, addresses), Some(shown)))
}
