//! The operator's key for Secure Boot, in a file or a token, which signs the UKI of each node.
//!
//! What nodes share is hashed once for each set of files: kernel and initramfs are most of a UKI. [`efi`] has the
//! formats.

use std::collections::VecDeque;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow, ensure};
use efi::{
    AuthenticodeBytes, ComposedImage, ImageDigest, SharedFile, SignerCertificate, SpcIndirectData,
    Uki, signed_uki,
};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::{Signer, Verifier};
use openssl::x509::X509;

use crate::boot_set::Shared;
use crate::private_file::open_private;
use crate::token_key::{TokenKey, TokenKeyUri};

/// Kept states of digests, of some hundred bytes each: one for each boot set, and for each node's own ramdisk.
const KEPT_DIGESTS: usize = 256;
const FEWEST_KEY_BITS: u32 = 2048;

/// A key with its certificate; clones share the digests of files.
#[derive(Clone, Debug)]
pub struct UkiSigner(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    key: SigningKey,
    certificate: SignerCertificate,
    subject: String,
    /// The states after the shared bytes, by their entity tag, the latest last.
    digests: Mutex<VecDeque<(String, ImageDigest)>>,
}

/// Where the key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignKey {
    /// In a file (PEM).
    File(PathBuf),
    /// In a PKCS #11 token.
    Token(TokenKeyUri),
}

impl FromStr for SignKey {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if TokenKeyUri::is_one(text) {
            Ok(Self::Token(TokenKeyUri::parse(text).context("the URI of the key")?))
        } else {
            Ok(Self::File(text.into()))
        }
    }
}

/// A private key that is ready to sign.
#[derive(Debug)]
pub struct SigningKey(KeyPlace);

#[derive(Debug)]
enum KeyPlace {
    InMemory(PKey<Private>),
    InToken(TokenKey),
}

impl SigningKey {
    /// Reads a key, or opens a session with its token.
    ///
    /// # Errors
    /// A file or token that cannot be used.
    pub fn open(key: &SignKey) -> Result<Self> {
        Ok(Self(match key {
            SignKey::File(path) => {
                let key = read_key(path).with_context(|| format!("the key {}", path.display()));
                KeyPlace::InMemory(key?)
            }
            SignKey::Token(uri) => KeyPlace::InToken(TokenKey::open(uri.clone())?),
        }))
    }

    /// Signs by RSASSA-PKCS1-v1_5 with SHA-256.
    ///
    /// # Errors
    /// OpenSSL or the token does not sign.
    pub fn sign(&self, data: &[u8]) -> Result<Vec<u8>> {
        match &self.0 {
            KeyPlace::InMemory(key) => {
                let mut signer = Signer::new(MessageDigest::sha256(), key)?;
                Ok(signer.sign_oneshot_to_vec(data)?)
            }
            KeyPlace::InToken(key) => key.sign(data),
        }
    }
}

impl UkiSigner {
    /// Opens a key and its certificate (PEM). More certificates in the file go into the signatures.
    ///
    /// # Errors
    /// A file or token that cannot be used: among others a key that other users may read, that is no RSA key of 2048 bits
    /// or more, or that belongs to another certificate.
    pub fn open(key: &SignKey, certificate: &Path) -> Result<Self> {
        let key = SigningKey::open(key)?;
        let chain = || read_chain(certificate, &key);
        let (certificate, subject) =
            chain().with_context(|| format!("the certificate {}", certificate.display()))?;
        let inner = Inner { key, certificate, subject, digests: Mutex::default() };
        Ok(Self(Arc::new(inner)))
    }

    /// The name of the certificate's owner.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// Signs a UKI whose extents lie in `files`. Blocks while it reads them, once for each set of files.
    ///
    /// # Errors
    /// A file that cannot be read, or a stub that cannot be signed.
    pub(crate) fn sign(&self, uki: &Uki, files: &[Shared]) -> Result<ComposedImage> {
        let AuthenticodeBytes { shared, own } = AuthenticodeBytes::of(uki)?;
        let read = |source: &SharedFile, offset: u64, buffer: &mut [u8]| {
            let file = files.iter().find(|file| file.source == *source);
            let file = file.ok_or_else(|| anyhow!("no {}", source.name))?;
            let read = file.file.read_exact_at(buffer, offset);
            read.with_context(|| format!("cannot read {}", source.name))
        };
        let mut digest = self.0.digest_of(&shared, read)?;
        digest.update_with(&own, read)?;

        let spc = SpcIndirectData::of(&digest.finish());
        let signature = self.0.key.sign(&spc.to_be_signed())?;
        Ok(signed_uki(uki, &spc.signed_data(&self.0.certificate, &signature))?)
    }
}

impl Inner {
    fn digest_of(
        &self,
        shared: &ComposedImage,
        read: impl FnMut(&SharedFile, u64, &mut [u8]) -> Result<()>,
    ) -> Result<ImageDigest> {
        let etag = shared.etag();
        // Held while files are read: of many nodes that boot at once, one reads, and the others wait for its result.
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        let known = digests.iter().position(|(known, _)| *known == etag);
        let entry = match known.and_then(|at| digests.remove(at)) {
            Some(entry) => entry,
            None => {
                let mut digest = ImageDigest::default();
                digest.update_with(shared, read)?;
                (etag, digest)
            }
        };
        let digest = entry.1.clone();
        digests.push_back(entry);
        if digests.len() > KEPT_DIGESTS {
            digests.pop_front();
        }
        Ok(digest)
    }
}

fn read_key(path: &Path) -> Result<PKey<Private>> {
    let mut file = open_private(path)?;
    let mut pem = Vec::new();
    file.read_to_end(&mut pem).context("cannot be read")?;
    // A passphrase, so that OpenSSL does not ask for one at the terminal.
    let key = PKey::private_key_from_pem_passphrase(&pem, b"");
    let key = key.context("holds no private key in PEM without a passphrase")?;
    // ECDSA signatures differ each time, and the entity tags of images with them; and much firmware verifies RSA alone.
    ensure!(
        key.rsa().is_ok() && key.bits() >= FEWEST_KEY_BITS,
        "is not an RSA key of {FEWEST_KEY_BITS} bits or more"
    );
    Ok(key)
}

fn read_chain(path: &Path, key: &SigningKey) -> Result<(SignerCertificate, String)> {
    let pem = fs::read(path).context("cannot be read")?;
    let chain = X509::stack_from_pem(&pem).context("is not in PEM")?;
    let own = chain.first().context("holds no certificate")?;
    // Tokens do not always show the public part of a key, but every key can sign.
    const PROOF: &[u8] = b"the key of this certificate";
    let public = own.public_key()?;
    // ECDSA signatures differ each time, and the entity tags of images with them; and much firmware verifies RSA alone.
    ensure!(
        public.rsa().is_ok() && public.bits() >= FEWEST_KEY_BITS,
        "is not that of an RSA key of {FEWEST_KEY_BITS} bits or more"
    );
    let mut verifier = Verifier::new(MessageDigest::sha256(), &public)?;
    let is_its = verifier.verify_oneshot(&key.sign(PROOF)?, PROOF).unwrap_or(false);
    ensure!(is_its, "is not that of the key (the first one in the file)");
    let subject = own.subject_name().entries().filter_map(|entry| entry.data().to_string().ok());
    let subject = subject.collect::<Vec<_>>().join(", ");
    let certificate = SignerCertificate {
        chain: chain.iter().map(|certificate| certificate.to_der()).collect::<Result<_, _>>()?,
        issuer: own.issuer_name().to_der()?,
        serial: own.serial_number().to_bn()?.to_vec(),
    };
    Ok((certificate, subject))
}
