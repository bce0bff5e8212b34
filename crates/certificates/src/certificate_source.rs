//! The certificates of the listeners: issued by the service's authority for the address that was reached, or read from
//! the operator's files.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Result, anyhow};
use jiff::{SignedDuration, Timestamp};

use crate::address_cache::MOST_ADDRESSES;
use crate::authority::{CertificateAuthority, SERVER_VALIDITY, ServerKeys};
use crate::certificate_pair::{CertificatePair, CertificateValidity, ServerCertificates};
use crate::file_certificates::{CertificateNeeds, FileCertificates, FilesLook, OperatorFiles};

/// Issued certificates are replaced when less of their validity is left.
const RENEWED_BEFORE_END: SignedDuration = SignedDuration::from_secs(SERVER_VALIDITY.as_secs() / 2);
/// A step of the clock back by less is no reason to replace them.
const SMALL_STEP: SignedDuration = SignedDuration::from_hours(24);

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

    /// The operator's certificate. [`CertificateSource::look`] reads the files again.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn of_files(files: OperatorFiles, needs: CertificateNeeds) -> Result<Self> {
        Ok(Self(Arc::new(Source::Files(FileCertificates::read(files, needs)?))))
    }

    /// Looks at the operator's files, and reads them again if they have changed. Blocks while files are read; handshakes
    /// go on meanwhile.
    #[must_use]
    pub fn look(&self) -> FilesLook {
        match &*self.0 {
            Source::Authority(_) => FilesLook::Unchanged,
            Source::Files(files) => files.look(),
        }
    }

    /// Why the operator's files cannot be used at present, so that the former ones stay in use.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        match &*self.0 {
            Source::Authority(_) => None,
            Source::Files(files) => files.refusal(),
        }
    }

    /// The certificates for connections to this address of the service; the same value while they do not change.
    ///
    /// # Errors
    /// OpenSSL's.
    pub(crate) fn certificates(&self, near: IpAddr) -> Result<Arc<ServerCertificates>> {
        match &*self.0 {
            Source::Authority(issued) => issued.certificates(near),
            Source::Files(files) => Ok(files.current()),
        }
    }

    /// The hosts at which clients refuse the operator's certificate, since it does not name them; none for issued ones, which name
    /// the address that was reached, the hosts of the settings' URLs, and `names` of `[tls]`.
    pub fn unnamed<'h>(&self, hosts: impl IntoIterator<Item = &'h String>) -> Vec<&'h str> {
        let named = match &*self.0 {
            Source::Authority(_) => return Vec::new(),
            Source::Files(files) => files.current(),
        };
        let hosts = hosts.into_iter().map(String::as_str);
        hosts.filter(|host| !named.pairs.iter().any(|pair| pair.is_for(host))).collect()
    }

    /// The validity of the operator's certificate; `None` for issued ones, which are renewed in time.
    ///
    /// # Errors
    /// The certificate has no usable date.
    pub fn validity(&self) -> Result<Option<CertificateValidity>> {
        match &*self.0 {
            Source::Authority(_) => Ok(None),
            Source::Files(files) => {
                files.current().pairs.first().map(CertificatePair::validity).transpose()
            }
        }
    }

    /// The validity of the service's own authority, which issues; `None` for the operator's certificate.
    ///
    /// # Errors
    /// The authority's certificate has no usable date.
    pub fn authority_validity(&self) -> Result<Option<CertificateValidity>> {
        match &*self.0 {
            Source::Authority(issued) => issued.authority.validity().map(Some),
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
            certificates.pairs.iter().map(|pair| pair.validity().unwrap().until).min().unwrap()
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
