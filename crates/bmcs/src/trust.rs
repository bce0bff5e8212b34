//! The server certificates that a BMC may show, read from files and ready for a TLS library.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use nix::libc::O_NONBLOCK;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use transport::tls::{CertificateFingerprint, TrustedCertificate};

use crate::settings::{BmcTrust, WrongBmcSetting};

/// Largest certificate file in bytes: the bundle of all public authorities has 300 KiB.
const CERTIFICATES_LIMIT: u64 = 4 << 20;

/// [`BmcTrust`] with the content of its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LoadedTrust {
    Authorities,
    Anything,
    Fingerprint(CertificateFingerprint),
    Certificates(Arc<[CertificateDer<'static>]>),
}

impl LoadedTrust {
    pub(crate) async fn of(trust: &BmcTrust) -> Result<Self, WrongBmcSetting> {
        Ok(match trust {
            BmcTrust::Authorities => Self::Authorities,
            BmcTrust::Anything => Self::Anything,
            BmcTrust::Fingerprint(fingerprint) => Self::Fingerprint(*fingerprint),
            BmcTrust::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || certificates(&path)).await;
                let certificates = read.map_err(|error| error.to_string()).flatten();
                Self::Certificates(certificates.map_err(of_file)?.into())
            }
        })
    }

    /// The verifier for rustls; `None` if anything is trusted.
    pub(crate) fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ServerCertVerifier>>, WrongBmcSetting> {
        Ok(Some(match self {
            Self::Authorities => {
                let verifier = WebPkiServerVerifier::builder_with_provider(
                    Arc::new(authorities()),
                    Arc::clone(provider),
                );
                verifier.build().map_err(|error| of_file(format!("cannot be used: {error}")))?
            }
            Self::Anything => return Ok(None),
            Self::Fingerprint(fingerprint) => {
                TrustedCertificate::Fingerprint(*fingerprint).verifier()
            }
            Self::Certificates(certificates) => {
                TrustedCertificate::of_file(certificates.to_vec()).verifier()
            }
        }))
    }
}

fn of_file(problem: String) -> WrongBmcSetting {
    WrongBmcSetting::new("redfish_verify_ca", problem)
}

/// The public authorities, and those of this host.
fn authorities() -> RootCertStore {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    // A host without certificates of its own has the public authorities still.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// The certificates in a PEM file, at least one.
///
/// # Errors
/// A text to follow the name of the setting.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let unreadable = |error| format!("cannot be read, {shown}: {error}");
    let file = open_regular(path)?;
    let mut pem = Vec::new();
    // A file's stated length may be wrong (`/proc`).
    file.take(CERTIFICATES_LIMIT + 1).read_to_end(&mut pem).map_err(unreadable)?;
    if pem.len() as u64 > CERTIFICATES_LIMIT {
        return Err(format!(
            "cannot be used, {shown}: it has more than {CERTIFICATES_LIMIT} bytes, and is no file of \
             certificates"
        ));
    }
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let certificates =
        certificates.map_err(|error| format!("holds no certificates, {shown}: {error}"))?;
    if certificates.is_empty() {
        return Err(format!("holds no certificates, {shown}: it must be a file in PEM format"));
    }
    Ok(certificates)
}

/// Opens a file without blocking on a pipe.
fn open_regular(path: &Path) -> Result<File, String> {
    let shown = path.display();
    let unreadable = |error| format!("cannot be read, {shown}: {error}");
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path);
    let file = file.map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_file() {
        Ok(file)
    } else {
        Err(format!("cannot be used, {shown}: it is not a regular file"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn what_is_no_file_of_certificates_is_refused_in_words_and_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        fs::write(at("empty"), "").unwrap();
        fs::write(at("text"), "not PEM").unwrap();
        fs::write(at("bad"), "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")
            .unwrap();
        File::create(at("huge")).unwrap().set_len(1 << 40).unwrap();
        let refused = |path: &Path| certificates(path).unwrap_err();

        for special in ["/dev/zero", "/dev/null", "/tmp", "/"] {
            let refused = refused(Path::new(special));
            assert!(refused.ends_with("is not a regular file"), "{refused}");
        }
        assert!(refused(&at("fifo")).ends_with("is not a regular file"));
        assert!(refused(&at("huge")).contains("more than 4194304 bytes"));
        assert!(refused(&at("gone")).starts_with("cannot be read, "));
        for name in ["empty", "text", "bad"] {
            let refused = refused(&at(name));
            assert!(refused.starts_with("holds no certificates, "), "{refused}");
        }
    }
}
