//! The certificates of the listeners: issued by the service's authority for the address that was reached, or read from
//! the operator's files.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, anyhow};
use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

use crate::address_cache::MOST_ADDRESSES;
use crate::authority::{CertificateAuthority, SERVER_VALIDITY, ServerKeys};
use crate::certificate_pair::{CertificatePair, ServerCertificates};

/// Issued certificates are replaced when less of their validity is left.
const RENEWED_BEFORE_END: SignedDuration = SignedDuration::from_secs(SERVER_VALIDITY.as_secs() / 2);
/// A step of the clock back by less is no reason to replace them.
const SMALL_STEP: SignedDuration = SignedDuration::from_hours(24);
/// Interval of checks of the operator's files.
const FILES_CHECKED_EVERY: Duration = Duration::from_secs(5);

/// The paths of an operator's certificate and its key (PEM).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorFiles {
    /// The certificate, with those of its issuers.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// The source of certificates; clones share it.
#[derive(Clone, Debug)]
pub struct CertificateSource(Arc<Source>);

#[derive(Debug)]
enum Source {
    Authority(IssuedCertificates),
    Files(FileCertificates),
}

impl CertificateSource {
    /// Certificates of this authority, for each address that is reached, and for these names and addresses. Their keys
    /// are made meanwhile, in a thread: a start does not wait for them, only a handshake within the next part of a second.
    #[must_use]
    pub fn issued_by(
        authority: CertificateAuthority,
        names: Vec<String>,
        addresses: Vec<IpAddr>,
    ) -> Self {
        let keys = Arc::new(LazyLock::new(ServerKeys::make as fn() -> Result<ServerKeys>));
        let meanwhile = Arc::clone(&keys);
        thread::spawn(move || _ = LazyLock::force(&meanwhile));
        Self(Arc::new(Source::Authority(IssuedCertificates {
            authority,
            keys,
            names,
            addresses,
            issued: Mutex::default(),
        })))
    }

    /// The operator's certificate. The files are read again when they change.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn of_files(files: OperatorFiles) -> Result<Self> {
        let read = ReadFiles::read(&files)?;
        Ok(Self(Arc::new(Source::Files(FileCertificates { files, read: Mutex::new(read) }))))
    }

    /// The certificates for connections to this address of the service; the same value while they do not change.
    ///
    /// # Errors
    /// OpenSSL's.
    pub(crate) fn certificates(&self, near: IpAddr) -> Result<Arc<ServerCertificates>> {
        match &*self.0 {
            Source::Authority(issued) => issued.certificates(near),
            Source::Files(files) => Ok(files.certificates()),
        }
    }

    /// Whether clients that reach the service at this host accept the certificate. Always true for issued certificates:
    /// they name the address that was reached, the hosts of the settings' URLs, and `names` of `[tls]`.
    #[must_use]
    pub fn is_for(&self, host: &str) -> bool {
        match &*self.0 {
            Source::Authority(_) => true,
            Source::Files(files) => files.certificates().pairs.iter().any(|pair| pair.is_for(host)),
        }
    }

    /// The end of the validity of the operator's certificate; `None` for issued ones, which are renewed in time.
    ///
    /// # Errors
    /// The certificate has no usable date.
    pub fn not_after(&self) -> Result<Option<Timestamp>> {
        match &*self.0 {
            Source::Authority(_) => Ok(None),
            Source::Files(files) => {
                let current = files.certificates();
                current.pairs.first().map(CertificatePair::not_after).transpose()
            }
        }
    }

    /// The end of the validity of the service's own authority, which issues; `None` for the operator's certificate.
    ///
    /// # Errors
    /// The authority's certificate has no usable date.
    pub fn authority_not_after(&self) -> Result<Option<Timestamp>> {
        match &*self.0 {
            Source::Authority(issued) => issued.authority.not_after().map(Some),
            Source::Files(_) => Ok(None),
        }
    }
}

#[derive(Debug)]
struct IssuedCertificates {
    authority: CertificateAuthority,
    keys: Arc<LazyLock<Result<ServerKeys>>>,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    issued: Mutex<HashMap<IpAddr, IssuedUntil>>,
}

#[derive(Debug)]
struct IssuedUntil {
    not_after: Timestamp,
    certificates: Arc<ServerCertificates>,
}

impl IssuedUntil {
    fn is_current(&self, now: Timestamp) -> bool {
        let left = self.not_after.duration_since(now);
        left > RENEWED_BEFORE_END && left < SERVER_VALIDITY + SMALL_STEP
    }
}

impl IssuedCertificates {
    fn certificates(&self, near: IpAddr) -> Result<Arc<ServerCertificates>> {
        // By the system's clock, not by one that nobody sets: clients compare the dates with theirs, and a server without
        // a battery starts decades ago and is set by NTP later.
        self.certificates_at(near, Timestamp::now())
    }

    fn certificates_at(&self, near: IpAddr, now: Timestamp) -> Result<Arc<ServerCertificates>> {
        let mut issued = locked(&self.issued);
        if let Some(found) = issued.get(&near).filter(|found| found.is_current(now)) {
            return Ok(Arc::clone(&found.certificates));
        }
        if issued.len() >= MOST_ADDRESSES {
            issued.clear();
        }
        let mut addresses = vec![near];
        addresses.extend(self.addresses.iter().filter(|address| **address != near));
        let keys =
            LazyLock::force(&self.keys).as_ref().map_err(|why| anyhow!("no keys: {why:#}"))?;
        let not_after = now.checked_add(SERVER_VALIDITY)?;
        let issue = self.authority.issue(keys, &addresses, &self.names, not_after);
        let certificates = Arc::new(issue?);
        issued.insert(near, IssuedUntil { not_after, certificates: Arc::clone(&certificates) });
        Ok(certificates)
    }
}

#[derive(Debug)]
struct FileCertificates {
    files: OperatorFiles,
    read: Mutex<ReadFiles>,
}

#[derive(Debug)]
struct ReadFiles {
    certificates: Arc<ServerCertificates>,
    /// When both files were changed last.
    changed: [Option<SystemTime>; 2],
    checked: Instant,
}

impl ReadFiles {
    fn read(files: &OperatorFiles) -> Result<Self> {
        // Looked at first: a change during the reading is seen at the next check.
        let changed = changes(files);
        let pair = CertificatePair::read(&files.certificate, &files.key)?;
        let certificates = Arc::new(ServerCertificates { pairs: vec![pair] });
        Ok(Self { certificates, changed, checked: Instant::now() })
    }
}

impl FileCertificates {
    fn certificates(&self) -> Arc<ServerCertificates> {
        let mut read = locked(&self.read);
        if read.checked.elapsed() >= FILES_CHECKED_EVERY {
            read.checked = Instant::now();
            let changed = changes(&self.files);
            if changed != read.changed {
                self.read_again(&mut read, changed);
            }
        }
        Arc::clone(&read.certificates)
    }

    fn read_again(&self, read: &mut ReadFiles, changed: [Option<SystemTime>; 2]) {
        match ReadFiles::read(&self.files) {
            Ok(new) => {
                info!("the certificate {} is read again", self.files.certificate.display());
                *read = new;
            }
            Err(error) => {
                // Said once for each change: a certificate and its key are often replaced one after the other.
                warn!("the former certificate stays in use: {error:#}");
                read.changed = changed;
            }
        }
    }
}

fn changes(files: &OperatorFiles) -> [Option<SystemTime>; 2] {
    let changed = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
    [changed(&files.certificate), changed(&files.key)]
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn issued_certificates_follow_the_clock_that_their_dates_are_compared_with() {
        let authority = CertificateAuthority::of_pem(&CertificateAuthority::make().unwrap());
        let issued = IssuedCertificates {
            authority: authority.unwrap(),
            keys: Arc::new(LazyLock::new(ServerKeys::make)),
            names: Vec::new(),
            addresses: Vec::new(),
            issued: Mutex::default(),
        };
        let at = |now: &str| issued.certificates_at(LOOPBACK, now.parse().unwrap()).unwrap();
        let end = |certificates: &ServerCertificates| {
            certificates.pairs.iter().map(|pair| pair.not_after().unwrap()).min().unwrap()
        };

        let without_battery = at("2001-01-01T00:00:00Z");
        let set_by_ntp = at("2026-03-01T00:00:00Z");
        assert_eq!(end(&without_battery).to_string(), "2003-01-01T00:00:00Z");
        assert_eq!(end(&set_by_ntp).to_string(), "2028-02-29T00:00:00Z");

        assert!(Arc::ptr_eq(&at("2027-02-28T00:00:00Z"), &set_by_ntp));
        assert!(Arc::ptr_eq(&at("2026-02-28T12:00:00Z"), &set_by_ntp));
        let renewed = at("2027-03-02T00:00:00Z");
        assert_eq!(end(&renewed).to_string(), "2029-03-01T00:00:00Z");
        assert!(!Arc::ptr_eq(&at("2026-03-01T00:00:00Z"), &renewed));
    }
}
