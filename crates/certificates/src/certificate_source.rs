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
use jiff::Timestamp;
use tracing::{info, warn};

use crate::address_cache::MOST_ADDRESSES;
use crate::authority::{CertificateAuthority, SERVER_DAYS, ServerKeys};
use crate::certificate_pair::{CertificatePair, ServerCertificates};

/// Issued certificates are replaced after this time.
const RENEWED_AFTER: Duration = Duration::from_secs(SERVER_DAYS as u64 / 2 * 86_400);
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

    /// Whether clients that reach the service at this host accept the operator's certificate; issued ones name every host.
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
}

#[derive(Debug)]
struct IssuedCertificates {
    authority: CertificateAuthority,
    keys: Arc<LazyLock<Result<ServerKeys>>>,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    issued: Mutex<HashMap<IpAddr, IssuedAt>>,
}

#[derive(Debug)]
struct IssuedAt {
    at: Instant,
    certificates: Arc<ServerCertificates>,
}

impl IssuedCertificates {
    fn certificates(&self, near: IpAddr) -> Result<Arc<ServerCertificates>> {
        let mut issued = locked(&self.issued);
        if let Some(found) = issued.get(&near).filter(|it| it.at.elapsed() < RENEWED_AFTER) {
            return Ok(Arc::clone(&found.certificates));
        }
        if issued.len() >= MOST_ADDRESSES {
            issued.clear();
        }
        let mut addresses = vec![near];
        addresses.extend(self.addresses.iter().filter(|address| **address != near));
        let keys =
            LazyLock::force(&self.keys).as_ref().map_err(|why| anyhow!("no keys: {why:#}"))?;
        let certificates = Arc::new(self.authority.issue(keys, &addresses, &self.names)?);
        let entry = IssuedAt { at: Instant::now(), certificates: Arc::clone(&certificates) };
        issued.insert(near, entry);
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
