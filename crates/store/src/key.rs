//! The key of a database: its file, and the texts encrypted with it.
//!
//! AES-256-GCM with random nonces. Each node has its own key, derived from the file's key (HKDF, RFC 5869), so that
//! no key reaches the limit of 2³² texts for random nonces (NIST SP 800-38D §8.3).

use std::fmt::{self, Write as _};
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{digest, hkdf};
use thiserror::Error;
use uuid::Uuid;

const KEY_LEN: usize = 32;
/// Number of digits in a key's name.
const ID_LEN: usize = 8;
/// The prefix of encrypted texts, with the version of the format.
const PREFIX: &str = "encrypted:1:";

/// The command that makes a key file.
pub const HOW_TO_MAKE_A_KEY: &str = "(umask 077; openssl rand -hex 32 > FILE)";

/// The key that encrypts the secrets of a database.
#[derive(Clone)]
pub(crate) struct DatabaseKey {
    id: String,
    derived: hkdf::Prk,
}

impl fmt::Debug for DatabaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseKey({}, …)", self.id)
    }
}

/// The reason why the key file cannot be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The key file is missing, and the database has secrets or is shared by several daemons.
    #[error(
        "there is no key file {path}: {}",
        .key.as_ref().map_or_else(
            || format!("make one for all daemons of the database with {HOW_TO_MAKE_A_KEY}"),
            |key| format!(
                "the secrets in the database are encrypted under the key {key}, whose file belongs there (from the \
                 other daemons, or from a back-up)"
            ),
        )
    )]
    Missing {
        /// Its expected path.
        path: PathBuf,
        /// The name of the database's key, if known.
        key: Option<String>,
    },
    /// The key file could not be read or created.
    #[error("cannot read or make the key file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Other users may read or write the key file.
    #[error("the key file {path} is open to other users (mode {mode:04o}): chmod 600 {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file does not contain a key.
    #[error(
        "the key file {path} holds no key, which is 64 hexadecimal digits: make one with {HOW_TO_MAKE_A_KEY}"
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The file contains another key than the database's.
    #[error(
        "the secrets in the database are encrypted under the key {expected}, and {path} holds the key {found}: give this \
         daemon the key file of the other daemons of the database, or that of its back-up"
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// The name of the key in the file.
        found: String,
        /// The name of the database's key.
        expected: String,
    },
}

/// The reason why a text could not be decrypted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecryptError {
    /// The text is encrypted with another key.
    #[error("it is encrypted under the key {0}, which is not this database's")]
    Key(String),
    /// The text was modified, or moved from another place.
    #[error("it was changed, or written for another place")]
    Forged,
}

impl DatabaseKey {
    /// The key in a file; `None` if there is no file.
    ///
    /// # Errors
    /// [`KeyError`], but neither [`KeyError::Missing`] nor [`KeyError::Other`].
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, KeyError> {
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Open { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        let key =
            key_of_hex(text.trim()).ok_or_else(|| KeyError::NoKey { path: path.to_owned() })?;
        Ok(Some(Self::of(&key)))
    }

    /// Creates a key file that only its owner may read. If another process creates it at the same time, the first
    /// one's key is used.
    ///
    /// # Errors
    /// [`KeyError::File`], and those of [`DatabaseKey::read`].
    pub(crate) fn make(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        let key: [u8; KEY_LEN] = random();
        match write_new(path, &format!("{}\n", hex(&key))) {
            Ok(()) => Ok(Self::of(&key)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Self::read(path)?.ok_or_else(|| failed(error))
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn of(key: &[u8; KEY_LEN]) -> Self {
        let name = digest::digest(&digest::SHA256, &[b"ferroboot key", &key[..]].concat());
        let id = hex(name.as_ref()).get(..ID_LEN).unwrap_or_default().to_owned();
        Self { id, derived: hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(key) }
    }

    /// The name of the key; not a secret.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Encrypts a text for its place in a node. It can be decrypted only for the same place.
    pub(crate) fn encrypt(&self, node: Uuid, place: &str, text: &str) -> String {
        let nonce: [u8; NONCE_LEN] = random();
        let mut bytes = text.as_bytes().to_owned();
        let sealed = self.cipher(node).seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            self.bound_to(node, place),
            &mut bytes,
        );
        let tag = sealed.expect("a text is shorter than 64 GiB");
        let bytes = [&nonce[..], &bytes, tag.as_ref()].concat();
        format!("{PREFIX}{}:{}", self.id, URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Decrypts the text of a place in a node; `None` if the text is not encrypted.
    ///
    /// # Errors
    /// [`DecryptError`]
    pub(crate) fn decrypt(
        &self,
        node: Uuid,
        place: &str,
        text: &str,
    ) -> Result<Option<String>, DecryptError> {
        let Some((id, bytes)) = parts(text) else { return Ok(None) };
        if id != self.id {
            return Err(DecryptError::Key(id.to_owned()));
        }
        let bytes = URL_SAFE_NO_PAD.decode(bytes).map_err(|_| DecryptError::Forged)?;
        let (nonce, sealed) = bytes.split_first_chunk().ok_or(DecryptError::Forged)?;
        let (nonce, mut sealed) = (Nonce::assume_unique_for_key(*nonce), sealed.to_owned());
        let opened =
            self.cipher(node).open_in_place(nonce, self.bound_to(node, place), &mut sealed);
        let opened = opened.map_err(|_| DecryptError::Forged)?.to_owned();
        Ok(Some(String::from_utf8(opened).map_err(|_| DecryptError::Forged)?))
    }

    fn cipher(&self, node: Uuid) -> LessSafeKey {
        let info = [b"ferroboot secrets of a node".as_slice(), node.as_bytes()];
        let key = self.derived.expand(&info, &AES_256_GCM);
        LessSafeKey::new(UnboundKey::from(key.expect("a key is shorter than 255 digests")))
    }

    fn bound_to(&self, node: Uuid, place: &str) -> Aad<String> {
        Aad::from(format!("{PREFIX}{}:{node}/{place}", self.id))
    }
}

/// Whether a text is encrypted.
pub(crate) fn is_encrypted(text: &str) -> bool {
    parts(text).is_some()
}

/// The name of the key in an encrypted text, and the rest.
fn parts(text: &str) -> Option<(&str, &str)> {
    let (id, bytes) = text.strip_prefix(PREFIX)?.split_once(':')?;
    let is_id = id.len() == ID_LEN && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then_some((id, bytes))
}

fn key_of_hex(text: &str) -> Option<[u8; KEY_LEN]> {
    let digits = text.as_bytes();
    if digits.len() != KEY_LEN * 2 {
        return None;
    }
    let mut key = [0; KEY_LEN];
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(key)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes any text");
        text
    })
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the kernel has random numbers");
    bytes
}

/// Writes a file atomically and durably: without the key, texts encrypted afterwards would be lost.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    fs::set_permissions(file.path(), Permissions::from_mode(0o600))?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt as _;

    use super::*;

    const NODE: Uuid = Uuid::from_u128(1);

    fn key(byte: u8) -> DatabaseKey {
        DatabaseKey::of(&[byte; KEY_LEN])
    }

    #[test]
    fn a_text_is_decrypted_for_its_own_place_alone() {
        let key = key(1);
        let text = key.encrypt(NODE, "driver_info/redfish_password", "s3cret");
        let decrypt = |node, place| key.decrypt(node, place, &text);

        assert!(text.starts_with(&format!("encrypted:1:{}:", key.id())), "{text}");
        let clear = decrypt(NODE, "driver_info/redfish_password").unwrap();
        assert_eq!(clear.as_deref(), Some("s3cret"));
        for (node, place) in [
            (NODE, "driver_info/other_password"),
            (Uuid::from_u128(2), "driver_info/redfish_password"),
        ] {
            assert_eq!(decrypt(node, place), Err(DecryptError::Forged));
        }
    }

    #[test]
    fn a_changed_text_and_one_of_another_key_are_refused() {
        let text = key(1).encrypt(NODE, "x", "s3cret");
        let (header, bytes) = text.rsplit_once(':').unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(bytes).unwrap();

        assert_eq!(key(2).decrypt(NODE, "x", &text), Err(DecryptError::Key(key(1).id)));
        for place in 0..bytes.len() {
            bytes[place] ^= 1;
            let forged = format!("{header}:{}", URL_SAFE_NO_PAD.encode(&bytes));
            assert_eq!(key(1).decrypt(NODE, "x", &forged), Err(DecryptError::Forged), "{place}");
            bytes[place] ^= 1;
        }
        for short in [format!("{header}:"), format!("{header}:AAAA"), format!("{header}:?")] {
            assert_eq!(key(1).decrypt(NODE, "x", &short), Err(DecryptError::Forged), "{short}");
        }
    }

    #[test]
    fn equal_texts_are_not_equal_when_encrypted() {
        assert_ne!(key(1).encrypt(NODE, "x", "s3cret"), key(1).encrypt(NODE, "x", "s3cret"));
    }

    #[test]
    fn a_text_in_clear_is_none_that_is_encrypted() {
        for text in ["", "secret", "encrypted:1:", "encrypted:1:rack:x", "encrypted:2:00000000:x"] {
            assert_eq!(key(1).decrypt(NODE, "x", text), Ok(None), "{text}");
        }
    }

    #[test]
    fn a_key_shows_nothing_but_its_name() {
        let key = key(7);
        assert_eq!(format!("{key:?}"), format!("DatabaseKey({}, …)", key.id()));
        assert!(!key.id().contains("0707"), "{}", key.id());
    }

    #[test]
    fn a_made_key_is_its_owners_alone_and_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ferroboot.key");
        assert!(DatabaseKey::read(&path).unwrap().is_none());

        let made = DatabaseKey::make(&path).unwrap();
        let second = DatabaseKey::make(&path).unwrap();

        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(DatabaseKey::read(&path).unwrap().unwrap().id(), made.id());
        assert_eq!(second.id(), made.id(), "whoever was first has made it");
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_key_file_that_is_open_to_others_or_holds_no_key_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let said = |name: &str, mode, text: &str| {
            let path = folder.path().join(name);
            let file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
            file.unwrap().write_all(text.as_bytes()).unwrap();
            DatabaseKey::read(&path).unwrap_err().to_string()
        };

        let open = said("open", 0o640, &"0".repeat(64));
        assert!(open.contains("is open to other users (mode 0640): chmod 600"), "{open}");
        for (name, text) in [("empty", ""), ("short", "00"), ("word", &"x".repeat(64))] {
            let words = said(name, 0o600, text);
            assert!(words.contains("openssl rand -hex 32"), "{words}");
        }
        let path = folder.path().join("upper");
        fs::write(&path, format!(" {}\n", "AB".repeat(32))).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert_eq!(DatabaseKey::read(&path).unwrap().unwrap().id(), key(0xab).id());
    }
}
