//! HTTP Basic (RFC 7617), as in Ironic's `auth_strategy = http_basic`: credentials are checked against the users
//! file.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};
use transport::htpasswd::{Htpasswd, PasswordHash, UsersFileStamp};
use transport::repeats;

use super::logins::{LoginDigest, LoginSource, Logins, TooManyFailures};

/// Longest password, in bytes. bcrypt ignores the rest.
const MAX_PASSWORD: usize = 72;
/// Longest encoded credentials, in bytes.
const MAX_ENCODED: usize = 1_024;
/// Longest wait of a login for its check.
const PATIENCE: Duration = Duration::from_secs(10);

/// Base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The users of the API; clones share their state.
#[derive(Clone, Debug)]
pub(super) struct Users(Arc<SharedUsers>);

#[derive(Debug)]
struct SharedUsers {
    path: PathBuf,
    /// The random key of the digests in memory, so that they reveal nothing about a password.
    key: [u8; 32],
    known: Mutex<UsersFileState>,
    logins: Mutex<Logins>,
    /// Permits for password checks: they use at most half of the processors.
    room: Semaphore,
}

#[derive(Debug)]
struct UsersFileState {
    users: Arc<Htpasswd>,
    /// `None` if the file must be read again in any case.
    stamp: Option<UsersFileStamp>,
    /// The last logged reason why the file cannot be used.
    trouble: Option<String>,
}

/// The user of a request.
#[derive(Clone, Debug)]
pub(crate) struct ApiUser(pub(crate) Arc<str>);

/// Name and password in a request.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    user: String,
    password: Vec<u8>,
}

/// The reason for refusing a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotLoggedIn {
    /// There are no credentials.
    NoCredentials,
    /// The header is not HTTP Basic.
    Malformed,
    /// bcrypt cannot distinguish the password from others.
    Unfit,
    /// The user is unknown, or the password is wrong.
    Wrong,
    /// Too many logins of this source have failed.
    TooMany {
        /// Time until the next attempt is allowed.
        retry_after: Duration,
    },
    /// Too many logins are being checked.
    Busy,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl Credentials {
    /// Parses `Authorization` (RFC 7617 §2).
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, NotLoggedIn> {
        let mut all = headers.get_all(header::AUTHORIZATION).iter();
        let value = match (all.next(), all.next()) {
            (None, _) => return Err(NotLoggedIn::NoCredentials),
            (Some(_), Some(_)) => return Err(NotLoggedIn::Malformed),
            (Some(only), None) => only.to_str().map_err(|_| NotLoggedIn::Malformed)?,
        };
        let (scheme, encoded) = value.trim().split_once(' ').ok_or(NotLoggedIn::Malformed)?;
        if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > MAX_ENCODED {
            return Err(NotLoggedIn::Malformed);
        }
        let pair = BASE64.decode(encoded.trim()).map_err(|_| NotLoggedIn::Malformed)?;
        // The first colon ends the name: passwords may contain colons.
        let colon = pair.iter().position(|byte| *byte == b':').ok_or(NotLoggedIn::Malformed)?;
        let user = str::from_utf8(&pair[..colon]).map_err(|_| NotLoggedIn::Wrong)?.to_owned();
        let password = pair[colon + 1..].to_vec();
        // bcrypt repeats the password with a NUL after it, so that `a`, NUL, `a` would match `a`.
        if password.is_empty() || password.len() > MAX_PASSWORD || password.contains(&0) {
            return Err(NotLoggedIn::Unfit);
        }
        Ok(Self { user, password })
    }
}

impl Users {
    /// The users in a file.
    ///
    /// # Errors
    /// The file cannot be used.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let (users, stamp) = Htpasswd::read(path).context("users in [api]")?;
        info!("users of the API: {}, of {}", users.count(), path.display());
        let known = UsersFileState { users: Arc::new(users), stamp, trouble: None };
        let half = std::thread::available_parallelism().map_or(1, |all| all.get().div_ceil(2));
        Ok(Self(Arc::new(SharedUsers {
            path: path.to_owned(),
            key: rand::random(),
            known: Mutex::new(known),
            logins: Mutex::default(),
            room: Semaphore::new(half),
        })))
    }

    /// Reads the file again. If it cannot be used, the users stay the same, and the reason is logged.
    pub(super) fn reload(&self) {
        let inner = &*self.0;
        match Htpasswd::read(&inner.path).context("users in [api]") {
            Ok((users, stamp)) => {
                let mut known = locked(&inner.known);
                if *known.users != users {
                    info!("users of the API: {} now, of {}", users.count(), inner.path.display());
                }
                *known = UsersFileState { users: Arc::new(users), stamp, trouble: None };
            }
            Err(failed) => {
                let trouble = format!("{failed:#}");
                let mut known = locked(&inner.known);
                if known.trouble.as_ref() != Some(&trouble) {
                    error!("the users of the API are unchanged: {trouble}");
                    known.trouble = Some(trouble);
                }
            }
        }
    }

    /// The user of a request from `peer`.
    ///
    /// # Errors
    /// [`NotLoggedIn`]
    pub(super) async fn user_of(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
    ) -> Result<Arc<str>, NotLoggedIn> {
        let credentials = Credentials::read(headers)?;
        let users = self.current().await;
        let (user, hash) = users.hash_of(&credentials.user, self.0.other(&credentials.user));
        // The digest includes the hash, so that a changed password does not match a remembered login.
        let digest = self.0.digest(&credentials, hash);
        let remembered =
            || user.and_then(|_| locked(&self.0.logins).remembered(&digest, Instant::now()));
        if let Some(user) = remembered() {
            return Ok(user);
        }
        let source = LoginSource::from(peer);
        let turn = locked(&self.0.logins).turn(source, Instant::now());
        let _turn = turn.lock().await;
        // Another request with the same credentials may have been accepted meanwhile.
        if let Some(user) = remembered() {
            return Ok(user);
        }
        self.0.begin(source)?;
        let Ok(Ok(_room)) = timeout(PATIENCE, self.0.room.acquire()).await else {
            locked(&self.0.logins).not_checked(source, Instant::now());
            return Err(NotLoggedIn::Busy);
        };
        let is_right = check(credentials.password, hash.clone()).await;
        match user.filter(|_| is_right) {
            Some(user) => {
                let user = Arc::from(user);
                locked(&self.0.logins).went_well(source, digest, &user, Instant::now());
                Ok(user)
            }
            None => {
                // The name is not logged: people mistakenly type passwords there.
                if let Some(left_out) = repeats::line("login", source) {
                    warn!(
                        "a login from {source} is refused: no such user, or another password{left_out}"
                    );
                }
                Err(NotLoggedIn::Wrong)
            }
        }
    }

    /// The users, after reading a changed file again.
    async fn current(&self) -> Arc<Htpasswd> {
        let users = self.clone();
        let seen = spawn_blocking(move || {
            let stamp = UsersFileStamp::of(&users.0.path);
            if stamp.is_none() || locked(&users.0.known).stamp != stamp {
                users.reload();
            }
        });
        if let Err(failed) = seen.await {
            warn!("the users file was not checked: {failed}");
        }
        Arc::clone(&locked(&self.0.known).users)
    }
}

impl SharedUsers {
    fn begin(&self, source: LoginSource) -> Result<(), NotLoggedIn> {
        let begun = locked(&self.logins).begin(source, Instant::now());
        begun.map_err(|TooManyFailures { retry_after, is_first }| {
            if is_first {
                warn!("too many logins from {source} have failed: further ones are refused for a while");
            }
            NotLoggedIn::TooMany { retry_after }
        })
    }

    fn digest(&self, credentials: &Credentials, hash: &PasswordHash) -> LoginDigest {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a key may have any length");
        mac.update(hash.as_str().as_bytes());
        mac.update(&(credentials.user.len() as u64).to_be_bytes());
        mac.update(credentials.user.as_bytes());
        mac.update(&credentials.password);
        mac.finalize().into_bytes().into()
    }

    /// A keyed number for an unknown name: constant, but unpredictable.
    fn other(&self, user: &str) -> usize {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a key may have any length");
        mac.update(user.as_bytes());
        let digest: LoginDigest = mac.finalize().into_bytes().into();
        usize::from_be_bytes(*digest.first_chunk().expect("it has 32 bytes"))
    }
}

/// Checks a password on a separate thread: bcrypt takes tens of milliseconds by design.
async fn check(password: Vec<u8>, hash: PasswordHash) -> bool {
    let checked = spawn_blocking(move || bcrypt::verify(password, hash.as_str()));
    checked.await.is_ok_and(|checked| checked.unwrap_or(false))
}

/// A poisoned lock is used as it is: no change under these locks can be left half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use axum::http::HeaderValue;

    use super::*;

    fn basic(pair: &[u8]) -> HeaderMap {
        value(&format!("Basic {}", BASE64.encode(pair)))
    }

    fn value(text: &str) -> HeaderMap {
        [(header::AUTHORIZATION, HeaderValue::from_str(text).unwrap())].into_iter().collect()
    }

    struct Fixture {
        users: Users,
        path: PathBuf,
        _dir: tempfile::TempDir,
    }

    fn users(all: &[(&str, &str)]) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("htpasswd");
        write(&path, all);
        Fixture { users: Users::open(&path).unwrap(), path, _dir: dir }
    }

    fn write(path: &Path, all: &[(&str, &str)]) {
        let lines = all
            .iter()
            .map(|(user, password)| format!("{user}:{}\n", bcrypt::hash(password, 4).unwrap()));
        fs::write(path, lines.collect::<String>()).unwrap();
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn credentials_are_read_as_clients_send_them() {
        let read = |pair: &[u8]| Credentials::read(&basic(pair));
        let good = read(b"ann:a:b\xe4:").unwrap();

        assert_eq!((good.user.as_str(), &good.password[..]), ("ann", &b"a:b\xe4:"[..]));
        assert!(Credentials::read(&value("bAsIc   YTpi ")).is_ok(), "any case and spaces");
        assert_eq!(Credentials::read(&value("Basic YTpiYw")), read(b"a:bc"), "no padding");
        assert_eq!(Credentials::read(&HeaderMap::new()).err(), Some(NotLoggedIn::NoCredentials));
        for malformed in ["Basic", "Bearer abc", "Basic %%%", "YTpi", "Basic YWI=", ""] {
            let read = Credentials::read(&value(malformed));
            assert_eq!(read.err(), Some(NotLoggedIn::Malformed), "{malformed}");
        }
        let mut twice = basic(b"a:b");
        twice.append(header::AUTHORIZATION, HeaderValue::from_static("Basic YTpi"));
        assert_eq!(Credentials::read(&twice).err(), Some(NotLoggedIn::Malformed));
        assert_eq!(read(&[b"a:", &[b'x'; 900][..]].concat()).err(), Some(NotLoggedIn::Malformed));
    }

    #[test]
    fn passwords_that_bcrypt_cannot_tell_from_others_are_refused() {
        let read = |pair: &[u8]| Credentials::read(&basic(pair)).err();

        assert_eq!(read(b"ann:"), Some(NotLoggedIn::Unfit));
        assert_eq!(read(b"ann:a\0a"), Some(NotLoggedIn::Unfit));
        assert_eq!(read(&[b"ann:", &[b'x'; 72][..]].concat()), None);
        assert_eq!(read(&[b"ann:", &[b'x'; 73][..]].concat()), Some(NotLoggedIn::Unfit));
    }

    #[tokio::test]
    async fn the_right_password_lets_a_user_in_and_every_other_does_not() {
        let Fixture { users, .. } = users(&[("ann", "secret"), ("bob", "other")]);
        let is = async |pair: &str| users.user_of(&basic(pair.as_bytes()), HERE).await;

        assert_eq!(is("ann:secret").await, Ok(Arc::from("ann")));
        for wrong in ["ann:other", "ann:Secret", "bob:secret", "Ann:secret", "eve:secret", ":x"] {
            assert_eq!(is(wrong).await, Err(NotLoggedIn::Wrong), "{wrong}");
        }
        assert_eq!(is("bob:other").await, Ok(Arc::from("bob")));
    }

    #[tokio::test]
    async fn hashes_of_each_kind_that_htpasswd_and_bcrypt_write_are_understood() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("htpasswd");
        let salt = *b"0123456789abcdef";
        let hash = bcrypt::hash_with_salt("secret", 4, salt).unwrap();
        let kinds = [bcrypt::Version::TwoA, bcrypt::Version::TwoB, bcrypt::Version::TwoY];
        let lines =
            kinds.map(|kind| format!("u{kind}:{}\n", hash.format_for_version(kind.clone())));
        fs::write(&path, lines.concat()).unwrap();

        let users = Users::open(&path).unwrap();

        for user in ["u2a", "u2b", "u2y"] {
            let headers = basic(format!("{user}:secret").as_bytes());
            assert_eq!(users.user_of(&headers, HERE).await, Ok(Arc::from(user)));
        }
    }

    #[tokio::test]
    async fn guesses_from_one_place_are_slowed_down_and_keep_nobody_out_who_is_known() {
        let Fixture { users, .. } = users(&[("ann", "secret")]);
        let known = basic(b"ann:secret");
        assert!(users.user_of(&known, HERE).await.is_ok());

        let mut refused = 0;
        for guess in 0..30 {
            let guess = basic(format!("ann:guess{guess}").as_bytes());
            let why = users.user_of(&guess, HERE).await.unwrap_err();
            if let NotLoggedIn::TooMany { retry_after } = why {
                assert!(retry_after <= Duration::from_secs(2));
                refused += 1;
            } else {
                assert_eq!(why, NotLoggedIn::Wrong);
            }
        }

        assert!(refused >= 15, "{refused} of 30 guesses were refused");
        assert!(users.user_of(&known, HERE).await.is_ok());
        assert!(users.user_of(&known, THERE).await.is_ok());
    }

    #[tokio::test]
    async fn many_requests_of_a_user_at_once_are_one_login() {
        let Fixture { users, .. } = users(&[("ann", "secret")]);
        let headers = basic(b"ann:secret");

        let all = (0..100).map(|_| users.user_of(&headers, HERE));

        assert!(futures::future::join_all(all).await.into_iter().all(|user| user.is_ok()));
    }

    #[tokio::test]
    async fn a_change_of_the_file_counts_at_once_and_a_broken_one_does_not() {
        let Fixture { users, path, _dir } = users(&[("ann", "secret")]);
        let is =
            async |pair: &str, peer| users.user_of(&basic(pair.as_bytes()), peer).await.is_ok();
        assert!(is("ann:secret", HERE).await);

        write(&path, &[("ann", "changed"), ("bob", "new")]);
        assert!(!is("ann:secret", HERE).await, "a login that was remembered");
        assert!(is("ann:changed", HERE).await && is("bob:new", HERE).await);

        fs::write(&path, "ann:half a ha").unwrap();
        assert!(is("ann:changed", HERE).await);
        fs::remove_file(&path).unwrap();
        assert!(is("bob:new", HERE).await);
        write(&path, &[("bob", "new")]);
        assert!(!is("ann:changed", THERE).await, "a user who was removed");
        assert!(is("bob:new", THERE).await);
    }
}
