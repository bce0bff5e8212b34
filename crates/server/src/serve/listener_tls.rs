//! TLS of the three HTTP ports.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use certificates::{
    AuthorityPem, CertificateAuthority, CertificateNeeds, CertificateSource, CertificateValidity,
    FilesLook, FirmwareTls, OperatorAuthority, OperatorTls,
};
use store::{Clock, Store, StoredAuthority};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use transport::http_server::ListenerTls;

use crate::certificate_term::{CertificateTerm, OWN_AUTHORITY_REMEDY};
use crate::config::Config;

/// Interval of looks at the operator's files.
const LOOKED_EVERY: Duration = Duration::from_secs(3);
/// Interval of warnings.
const WARNED_EVERY: Duration = Duration::from_secs(24 * 3600);

/// TLS of the ports, if one has any.
#[derive(Clone, Debug)]
pub(super) struct DaemonTls {
    pub(super) source: CertificateSource,
    /// The certificate (PEM) of the authority, if it is known, and those beside it in its file.
    pub(super) authority: Option<String>,
    /// Of the boot listener.
    pub(super) firmware: Arc<dyn ListenerTls>,
    /// Of the API and the agents' port.
    pub(super) others: Arc<dyn ListenerTls>,
    /// The operator's.
    operator_authority: Option<OperatorAuthority>,
    /// The hosts of URLs, which the certificate must name.
    hosts: BTreeSet<String>,
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
        let operator_authority = config.tls.read_authority()?;
        let (source, authority) = match config.tls.files() {
            Some(files) => {
                let authority = operator_authority.clone();
                let needs = CertificateNeeds { authority, ..config.certificate_needs() };
                let source = CertificateSource::of_files(files, needs).context("[tls]")?;
                let authority = operator_authority.as_ref().map(OperatorAuthority::all_pem);
                (source, authority.transpose()?)
            }
            None => issued(config, store).await.context("certificates of the listeners")?,
        };
        let firmware = FirmwareTls::new(source.clone(), config.tls.firmware_ciphers());
        Ok(Some(Self {
            firmware: Arc::new(firmware),
            others: Arc::new(OperatorTls::new(source.clone())),
            source,
            authority,
            operator_authority,
            hosts: config.tls_hosts(),
        }))
    }

    /// Reads the operator's certificate again when it changes, and warns of what clients refuse, until `end`.
    pub(super) async fn watch(self, end: CancellationToken) {
        let (mut looked, mut warned) = (interval(LOOKED_EVERY), interval(WARNED_EVERY));
        looked.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = warned.tick() => self.warn(),
                _ = looked.tick() => self.look().await,
                () = end.cancelled() => return,
            }
        }
    }

    async fn look(&self) {
        let source = self.source.clone();
        match spawn_blocking(move || source.look()).await {
            Ok(FilesLook::Read) => self.warn(),
            Ok(FilesLook::Unchanged | FilesLook::Refused) => {}
            Err(error) => warn!("the certificate of the listeners: {error}"),
        }
    }

    fn warn(&self) {
        for line in self.problems() {
            warn!("{line}");
        }
    }

    /// What clients refuse, now or soon.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(refusal) = self.source.refusal() {
            problems.push(format!("the former certificate is still in use: {refusal}"));
        }
        let validity = self.source.validity();
        if let Some(words) = validity.transpose().and_then(term_problem) {
            problems.push(format!(
                "the certificate in [tls] {words}: replace its files, which are read again"
            ));
        }
        let validity = self.operator_authority.as_ref().map(OperatorAuthority::validity);
        if let Some(words) = validity.and_then(term_problem) {
            problems.push(format!(
                "the CA in authority of [tls] {words}: replace it and what it issued, then restart the service"
            ));
        }
        if let Some(words) = self.source.authority_validity().transpose().and_then(term_problem) {
            problems.push(format!("the service's own CA {words}: {OWN_AUTHORITY_REMEDY}"));
        }
        for host in self.source.unnamed(&self.hosts) {
            problems.push(format!(
                "the certificate in [tls] does not name {host}, the host of a URL: clients will refuse it"
            ));
        }
        problems
    }
}

fn term_problem(validity: Result<CertificateValidity>) -> Option<String> {
    match validity.map(|validity| CertificateTerm::judge(&validity, Clock::process().now())) {
        Ok(CertificateTerm::Valid(_)) => None,
        Ok(CertificateTerm::Ending(words) | CertificateTerm::Invalid(words)) => Some(words),
        Err(error) => Some(format!("has no usable date: {error:#}")),
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

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use certificates::{FirmwareCiphers, OperatorFiles};

    use super::*;

    /// A new certificate, which names nothing, and its key.
    fn write(files: &OperatorFiles) {
        let AuthorityPem { certificate, key } = CertificateAuthority::make().unwrap();
        fs::write(&files.certificate, certificate).unwrap();
        fs::write(&files.key, key).unwrap();
        fs::set_permissions(&files.key, Permissions::from_mode(0o600)).unwrap();
    }

    fn tls(files: OperatorFiles, authority: &Path) -> DaemonTls {
        let authority = OperatorAuthority::read(authority, Some(&files.certificate)).unwrap();
        let needs =
            CertificateNeeds { authority: Some(authority.clone()), ..CertificateNeeds::default() };
        let source = CertificateSource::of_files(files, needs).unwrap();
        DaemonTls {
            firmware: Arc::new(FirmwareTls::new(source.clone(), FirmwareCiphers::Modern)),
            others: Arc::new(OperatorTls::new(source.clone())),
            source,
            authority: None,
            operator_authority: Some(authority),
            hosts: ["boot.example".to_owned()].into(),
        }
    }

    #[tokio::test]
    async fn files_are_looked_at_without_a_connection_and_what_is_wrong_with_them_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let files = OperatorFiles { certificate: path("server.pem"), key: path("server.key") };
        write(&files);
        let authority = path("ca.pem");
        fs::copy(&files.certificate, &authority).unwrap();
        let tls = tls(files.clone(), &authority);
        let unnamed = "the certificate in [tls] does not name boot.example, the host of a URL: clients will refuse it";
        assert_eq!(tls.problems(), [unnamed]);

        write(&files);
        let end = CancellationToken::new();
        let watch = tokio::spawn(tls.clone().watch(end.clone()));
        while tls.source.refusal().is_none() {
            tokio::task::yield_now().await;
        }
        end.cancel();
        watch.await.unwrap();

        let problems = tls.problems();
        assert!(
            problems[0].starts_with("the former certificate is still in use: "),
            "{problems:?}"
        );
        assert_eq!(problems[1..], [unnamed]);
    }
}
