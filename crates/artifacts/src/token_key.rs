//! A signing key in a PKCS #11 token, which it never leaves: the key's URI (RFC 7512), and one session with the token.

use std::fmt;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as TokenError, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;

use crate::private_file::open_private;

const SCHEME: &str = "pkcs11:";
/// Size limit of the file with the PIN, in bytes.
const LONGEST_PIN: u64 = 256;

/// The URI of a key in a token (RFC 7512).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKeyUri {
    /// `module-path`: the library of the token.
    module: PathBuf,
    /// `token`: the label of the token.
    token: Option<String>,
    /// `serial`: the serial number of the token.
    serial: Option<String>,
    /// `object`: the label of the key.
    object: Option<String>,
    /// `id`: `CKA_ID` of the key.
    id: Option<Vec<u8>>,
    /// `pin-source`: the file with the PIN of the user.
    pin: Option<PathBuf>,
}

impl TokenKeyUri {
    /// Whether a text is meant as such a URI.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// Reads a URI.
    ///
    /// # Errors
    /// It names no module, or no key, or a PIN without its token, or has the PIN itself; in words.
    pub fn parse(uri: &str) -> Result<Self> {
        let rest = uri.strip_prefix(SCHEME).context("does not begin with pkcs11:")?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (mut module, mut pin) = (None, None);
        let (mut token, mut serial, mut object, mut id) = (None, None, None, None);
        let attributes = path.split(';').chain(query.split('&')).filter(|it| !it.is_empty());
        for (index, attribute) in attributes.enumerate() {
            // It may be the rest of a PIN, and is not shown.
            let (name, value) = attribute.split_once('=').with_context(|| {
                format!("has attribute {}, which is not a name with a value", index + 1)
            })?;
            let bytes = decoded(value).with_context(|| format!("has a wrong % in {name}"))?;
            let text = || {
                let text = String::from_utf8(bytes.clone());
                text.map_err(|_| anyhow!("has a {name} that is not UTF-8"))
            };
            match name {
                "token" => token = Some(text()?),
                "serial" => serial = Some(text()?),
                "object" => object = Some(text()?),
                "id" => id = Some(bytes),
                "type" => ensure!(value == "private", "has the type {value}, not private"),
                "module-path" => module = Some(PathBuf::from(text()?)),
                "pin-source" => pin = Some(file(&text()?)?),
                "pin-value" => {
                    bail!("has a PIN in it: put it into a file of mode 0600, as pin-source")
                }
                _ => bail!("has the attribute {name}, which is not known here"),
            }
        }
        ensure!(object.is_some() || id.is_some(), "names no key: add object= or id=");
        // Each login with a wrong PIN brings a token nearer to its lock: no PIN goes to a token that happens to be first.
        ensure!(
            pin.is_none() || token.is_some() || serial.is_some(),
            "names no token for the PIN: add token= or serial="
        );
        let module = module
            .context("names no module: add ?module-path= with the library of the token (….so)")?;
        ensure!(module.is_absolute(), "has a module-path that does not begin with /");
        Ok(Self { module, token, serial, object, id, pin })
    }

    /// The key in words, without what leads to its PIN.
    fn key(&self) -> String {
        let token = self.token.as_deref().or(self.serial.as_deref()).unwrap_or("any token");
        match (&self.object, &self.id) {
            (Some(object), _) => format!("{object:?} in {token}"),
            (None, _) => format!("the key in {token}"),
        }
    }

    fn names(&self, token: &TokenInfo) -> bool {
        let is_meant = |meant: &Option<String>, own: &str| {
            meant.as_ref().is_none_or(|meant| meant == own.trim_end())
        };
        is_meant(&self.token, token.label()) && is_meant(&self.serial, token.serial_number())
    }

    fn read_pin(&self) -> Result<Option<AuthPin>> {
        let Some(path) = &self.pin else { return Ok(None) };
        let read = || {
            let mut pin = String::new();
            open_private(path)?.take(LONGEST_PIN + 1).read_to_string(&mut pin)?;
            ensure!(pin.len() as u64 <= LONGEST_PIN, "has more than {LONGEST_PIN} bytes");
            Ok(AuthPin::from(pin.trim_end_matches(['\r', '\n']).to_owned()))
        };
        read().map(Some).with_context(|| format!("the PIN in {}", path.display()))
    }
}

/// `file:///path`, or a path.
fn file(text: &str) -> Result<PathBuf> {
    let path = text.strip_prefix("file:").unwrap_or(text);
    let path = path.strip_prefix("//").unwrap_or(path);
    ensure!(path.starts_with('/'), "has a pin-source that is not the path of a file");
    Ok(PathBuf::from(path))
}

/// Decodes `%41`.
fn decoded(value: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(others.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &others[2..];
        } else {
            bytes.push(*first);
            rest = others;
        }
    }
    Some(bytes)
}

/// A key in a token, with the session in which it signs.
pub(crate) struct TokenKey {
    uri: TokenKeyUri,
    context: Pkcs11,
    /// Opened again if the token has lost it.
    session: Mutex<Option<TokenSession>>,
    /// The words of a refused login. None follows, since a token locks itself after a few.
    refused_login: OnceLock<String>,
}

struct TokenSession {
    session: Session,
    key: ObjectHandle,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").field("uri", &self.uri).finish_non_exhaustive()
    }
}

impl TokenKey {
    /// Loads the module, and opens a session with the token.
    ///
    /// # Errors
    /// The module cannot be loaded, or there is no such token or key, or its PIN is wrong.
    pub(crate) fn open(uri: TokenKeyUri) -> Result<Self> {
        let module = || format!("the module {}", uri.module.display());
        let context = Pkcs11::new(&uri.module).with_context(module)?;
        match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            // By an earlier key of this process.
            Err(TokenError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            initialized => initialized.with_context(module)?,
        }
        let key = Self { uri, context, session: Mutex::default(), refused_login: OnceLock::new() };
        let session = key.new_session()?;
        *key.lock() = Some(session);
        Ok(key)
    }

    /// Signs by RSASSA-PKCS1-v1_5 with SHA-256. One signature at a time: a token has few sessions, and one signs faster than
    /// machines boot.
    ///
    /// # Errors
    /// The token does not sign, nor in a new session; or it refused a login before.
    pub(crate) fn sign(&self, data: &[u8]) -> Result<Vec<u8>> {
        let mut session = self.lock();
        if let Some(open) = session.as_ref()
            && let Ok(signature) = open.sign(data)
        {
            return Ok(signature);
        }
        // The old one first, since some tokens have one session alone.
        drop(session.take());
        let open = session.insert(self.new_session()?);
        open.sign(data).with_context(|| format!("{} does not sign", self.uri.key()))
    }

    fn lock(&self) -> MutexGuard<'_, Option<TokenSession>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_session(&self) -> Result<TokenSession> {
        let key = || self.uri.key();
        for slot in self.slots()? {
            let session = self.context.open_ro_session(slot).with_context(key)?;
            self.login(&session)?;
            let mut template = vec![Attribute::Class(ObjectClass::PRIVATE_KEY)];
            let label = self.uri.object.as_ref().map(|label| label.as_bytes().to_vec());
            template.extend(label.map(Attribute::Label));
            template.extend(self.uri.id.clone().map(Attribute::Id));
            match session.find_objects(&template).with_context(key)?.as_slice() {
                [] => {}
                [found] => return Ok(TokenSession { key: *found, session }),
                all => bail!("{} keys are called {}: add id= to the URI", all.len(), key()),
            }
        }
        bail!("there is no private key {}, or its PIN is missing (pin-source)", key())
    }

    /// The slots of the tokens that the URI names.
    fn slots(&self) -> Result<Vec<Slot>> {
        let mut named = Vec::new();
        for slot in self.context.get_slots_with_token().context("the slots of the module")? {
            let info = self.context.get_token_info(slot)?;
            if self.uri.names(&info) {
                named.push(slot);
            }
        }
        let is_vague = self.uri.pin.is_some() && self.uri.serial.is_none();
        ensure!(
            named.len() < 2 || !is_vague,
            "{} tokens are called {}, and the PIN is for one: add serial= to the URI",
            named.len(),
            self.uri.token.as_deref().unwrap_or_default()
        );
        Ok(named)
    }

    fn login(&self, session: &Session) -> Result<()> {
        let key = self.uri.key();
        if let Some(refused) = self.refused_login.get() {
            bail!(
                "the login for {key} was refused ({refused}), and is not tried again before the next start of the service"
            );
        }
        let Some(pin) = self.uri.read_pin()? else { return Ok(()) };
        match session.login(UserType::User, Some(&pin)) {
            // All sessions of a process share the login.
            Ok(()) | Err(TokenError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            // No attempt for the token: it, or its session, is gone.
            Err(TokenError::Pkcs11(
                why @ (RvError::DeviceRemoved
                | RvError::TokenNotPresent
                | RvError::SessionClosed
                | RvError::SessionHandleInvalid),
                function,
            )) => Err(TokenError::Pkcs11(why, function)).context(format!("the login for {key}")),
            Err(refused) => {
                _ = self.refused_login.set(refused.to_string());
                Err(refused).context(format!("the login for {key}"))
            }
        }
    }
}

impl TokenSession {
    fn sign(&self, data: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.session.sign(&Mechanism::Sha256RsaPkcs, self.key, data)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const URI: &str = "pkcs11:token=Boot%20keys;object=uki;id=%01%A0;type=private\
                       ?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:///etc/ferroboot/pin";

    #[test]
    fn a_uri_names_token_key_module_and_the_file_with_the_pin() {
        let expected = TokenKeyUri {
            module: "/usr/lib/softhsm/libsofthsm2.so".into(),
            token: Some("Boot keys".to_owned()),
            serial: None,
            object: Some("uki".to_owned()),
            id: Some(vec![1, 0xA0]),
            pin: Some("/etc/ferroboot/pin".into()),
        };
        assert_eq!(TokenKeyUri::parse(URI).unwrap(), expected);
        assert!(TokenKeyUri::is_one(URI));
        assert!(!TokenKeyUri::is_one("/etc/ferroboot/uki.key"));
    }

    #[test]
    fn a_uri_that_leads_to_no_key_or_holds_the_pin_is_refused_in_words() {
        const MODULE: &str = "?module-path=/usr/lib/m.so";
        for (uri, words) in [
            (format!("pkcs11:token=a{MODULE}"), "names no key"),
            ("pkcs11:object=a".to_owned(), "names no module"),
            (format!("pkcs11:object=a{MODULE}&pin-value=1234"), "put it into a file of mode 0600"),
            (format!("pkcs11:object=a;type=cert{MODULE}"), "not private"),
            (format!("pkcs11:object=a%4{MODULE}"), "wrong % in object"),
            (format!("pkcs11:object{MODULE}"), "not a name with a value"),
            (format!("pkcs11:object=a;slot-description=b{MODULE}"), "not known here"),
            ("pkcs11:object=a?module-path=m.so".to_owned(), "does not begin with /"),
            (format!("pkcs11:object=a{MODULE}&pin-source=|ask"), "not the path of a file"),
            (format!("pkcs11:object=a{MODULE}&pin-source=/pin"), "names no token for the PIN"),
        ] {
            let refused = TokenKeyUri::parse(&uri).unwrap_err().to_string();
            assert!(refused.contains(words), "{uri}: {refused}");
            assert!(!refused.contains("1234"), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(pkcs11:)?[a-z%0-9=;?&/-]{0,60}") {
            let _ = TokenKeyUri::parse(&text);
        }
    }
}
