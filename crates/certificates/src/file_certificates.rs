//! The operator's certificate, read again when its files change.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};
use tracing::{info, warn};

use crate::certificate_pair::{CertificatePair, ServerCertificates};
use crate::firmware_context::{FirmwareCiphers, expect_usable};
use crate::operator_authority::OperatorAuthority;
use crate::operator_config::operator_config;

/// The paths of an operator's certificate and its key (PEM).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorFiles {
    /// The certificate, with those of its issuers.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// What an operator's certificate must fit.
#[derive(Clone, Debug, Default)]
pub struct CertificateNeeds {
    /// The ciphers of the boot listener, if it has TLS.
    pub firmware: Option<FirmwareCiphers>,
    /// Whether the API or the agents' port has TLS.
    pub others: bool,
    /// The CA that machines trust, if it is known.
    pub authority: Option<OperatorAuthority>,
}

/// The result of a look at the operator's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesLook {
    /// They are as before.
    Unchanged,
    /// They have changed, and are in use.
    Read,
    /// They cannot be used: the former ones stay in use.
    Refused,
}

#[derive(Debug)]
pub(crate) struct FileCertificates {
    files: OperatorFiles,
    needs: CertificateNeeds,
    current: Mutex<Arc<ServerCertificates>>,
    look: Mutex<LastLook>,
}

#[derive(Debug)]
struct LastLook {
    files: [PemFileStamp; 2],
    authority: PemFileStamp,
    /// Why the files were refused.
    refusal: Option<String>,
}

impl FileCertificates {
    /// Reads the files.
    ///
    /// # Errors
    /// They cannot be used.
    pub(crate) fn read(files: OperatorFiles, needs: CertificateNeeds) -> Result<Self> {
        // Looked at first: a change during the reading is seen at the next look.
        let stamps = stamps(&files);
        let authority = authority_stamp(&needs);
        let current = Mutex::new(Arc::new(read(&files, &needs)?));
        let look = Mutex::new(LastLook { files: stamps, authority, refusal: None });
        Ok(Self { files, needs, current, look })
    }

    /// The certificates in use.
    pub(crate) fn current(&self) -> Arc<ServerCertificates> {
        Arc::clone(&locked(&self.current))
    }

    /// Reads the files again if they have changed, or could not be used before.
    pub(crate) fn look(&self) -> FilesLook {
        let mut last = locked(&self.look);
        self.look_at_authority(&mut last);
        let stamps = stamps(&self.files);
        if stamps == last.files && last.refusal.is_none() {
            return FilesLook::Unchanged;
        }
        last.files = stamps;
        match read(&self.files, &self.needs) {
            Ok(new) => {
                info!("the certificate {} is read again", self.files.certificate.display());
                *locked(&self.current) = Arc::new(new);
                last.refusal = None;
                FilesLook::Read
            }
            Err(error) => {
                let refusal = format!("{error:#}");
                // Said once: a certificate and its key are often replaced one after the other.
                if last.refusal.as_ref() != Some(&refusal) {
                    warn!("the former certificate stays in use: {refusal}");
                }
                last.refusal = Some(refusal);
                FilesLook::Refused
            }
        }
    }

    /// Why the files cannot be used at present.
    pub(crate) fn refusal(&self) -> Option<String> {
        locked(&self.look).refusal.clone()
    }

    fn look_at_authority(&self, last: &mut LastLook) {
        let stamp = authority_stamp(&self.needs);
        let Some(authority) = self.needs.authority.as_ref().filter(|_| stamp != last.authority)
        else {
            return;
        };
        last.authority = stamp;
        match authority.is_unchanged() {
            Ok(true) => {}
            Ok(false) => warn!(
                "the CA in {} has changed, and machines get the former one ({}): restart the service to use the new one",
                authority.path().display(),
                authority.subject()
            ),
            Err(error) => warn!("authority in [tls], needed at the next start: {error:#}"),
        }
    }
}

fn read(files: &OperatorFiles, needs: &CertificateNeeds) -> Result<ServerCertificates> {
    let CertificateNeeds { firmware, others, authority } = needs;
    let of_certificate = || format!("the certificate {}", files.certificate.display());
    let pair = CertificatePair::read(&files.certificate, &files.key)?;
    if let Some(authority) = authority {
        ensure!(
            authority.has_issued(&pair.chain),
            "{} is not issued by the CA that machines trust ({}, read from {} at the start): a new CA takes a restart",
            of_certificate(),
            authority.subject(),
            authority.path().display()
        );
    }
    let certificates = ServerCertificates { pairs: vec![pair] };
    if let Some(ciphers) = *firmware {
        expect_usable(&certificates, ciphers).with_context(of_certificate)?;
    }
    if *others {
        operator_config(&certificates).with_context(of_certificate)?;
    }
    Ok(certificates)
}

/// Differs after each change of a file, also of its rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PemFileStamp(Option<[i64; 4]>);

impl PemFileStamp {
    fn of(path: &Path) -> Self {
        Self(fs::metadata(path).ok().map(|found| {
            let file = [found.dev().cast_signed(), found.ino().cast_signed()];
            [file[0], file[1], found.ctime(), found.ctime_nsec()]
        }))
    }
}

fn stamps(files: &OperatorFiles) -> [PemFileStamp; 2] {
    [&files.certificate, &files.key].map(|path| PemFileStamp::of(path))
}

fn authority_stamp(needs: &CertificateNeeds) -> PemFileStamp {
    match &needs.authority {
        None => PemFileStamp(None),
        Some(authority) => PemFileStamp::of(authority.path()),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
