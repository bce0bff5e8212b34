//! TLS of the three HTTP ports.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use certificates::{
    AuthorityPem, CertificateAuthority, CertificateSource, FirmwareTls, OperatorTls,
};
use jiff::{SignedDuration, Timestamp};
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
                _ = warned.tick() => {
                    self.warn();
                    self.warn_of_own_authority();
                }
                () = end.cancelled() => return,
            }
        }
    }

    fn warn_of_own_authority(&self) {
        match self.source.authority_not_after() {
            Ok(until) => {
                let now = Clock::process().now();
                let problem = until.and_then(|until| own_authority_problem(until, now));
                problem.into_iter().for_each(|problem| warn!("{problem}"));
            }
            Err(error) => warn!("the service's own CA: {error:#}"),
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

/// What is wrong with the service's own CA, which nothing replaces, since machines have it in their firmware.
fn own_authority_problem(until: Timestamp, now: Timestamp) -> Option<String> {
    let left = until.duration_since(now);
    let when = match () {
        () if left.is_negative() => "expired",
        () if left < WARNED_BEFORE => "expires",
        () => return None,
    };
    Some(format!(
        "the service's own CA {when} at {until}, and machines then refuse its certificates: set certificate and key in \
         [tls] to ones of a CA of yours, and enrol that in the machines"
    ))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_that_was_made_by_a_clock_in_the_past_is_warned_of_before_it_ends() {
        let until = "2031-01-01T00:00:00Z".parse().unwrap();
        let problem = |now: &str| own_authority_problem(until, now.parse().unwrap());

        assert_eq!(problem("2026-11-30T00:00:00Z"), None);
        let soon = problem("2030-12-20T00:00:00Z").unwrap();
        assert!(soon.starts_with("the service's own CA expires at 2031-01-01"), "{soon}");
        let over = problem("2031-01-02T00:00:00Z").unwrap();
        assert!(over.starts_with("the service's own CA expired at 2031-01-01"), "{over}");
    }
}
