//! The users file: lines of `user:hash`, as written by Apache's `htpasswd -B` and read by Ironic's `http_basic`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail, ensure};
use nix::fcntl::OFlag;
use tracing::warn;

/// Largest users file, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;
/// Accepted costs of bcrypt. Each step doubles the work; 2^16 rounds take about 5 s.
const COSTS: std::ops::RangeInclusive<u32> = 4..=16;

/// Prefixes of bcrypt hashes. `$2x$` is missing: it marks the hashes of a faulty implementation, which accept other
/// passwords.
const BCRYPT_KINDS: [&str; 3] = ["$2a$", "$2b$", "$2y$"];

/// All users, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Htpasswd(BTreeMap<String, PasswordHash>);

/// A bcrypt hash in the form `$2y$10$…`.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

/// The identity and times of a file, which change with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsersFileStamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

impl PasswordHash {
    /// The hash in the form of the file.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl UsersFileStamp {
    /// The stamp of the file at `path`.
    pub fn of(path: &Path) -> Option<Self> {
        path.metadata().ok().map(|metadata| Self::from(&metadata))
    }

    /// Whether a change of the file after `now` is sure to change the stamp: within the same tick of the file
    /// system's clock it may not.
    fn is_settled(self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
        self.changed.0.saturating_add(2) < i64::try_from(now).unwrap_or(i64::MAX)
    }
}

impl From<&std::fs::Metadata> for UsersFileStamp {
    fn from(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Htpasswd {
    /// Reads a file; the stamp is `None` if the file changed so recently that it must be read again.
    ///
    /// # Errors
    /// A message with the path: not readable, not a regular file, too large, world-writable, or with an invalid line.
    pub fn read(path: &Path) -> Result<(Self, Option<UsersFileStamp>)> {
        let shown = path.display();
        let (text, stamp) =
            text_of(path).with_context(|| format!("the file of users {shown} cannot be used"))?;
        let users =
            Self::parse(&text).with_context(|| format!("the file of users {shown} is wrong"))?;
        Ok((users, stamp))
    }

    /// Parses the text of a file. Empty lines and lines that begin with `#` are ignored.
    ///
    /// # Errors
    /// A message with the line number.
    pub fn parse(text: &str) -> Result<Self> {
        let mut users = BTreeMap::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (user, hash) = entry(line).with_context(|| format!("line {}", at + 1))?;
            ensure!(!users.contains_key(user), "line {}: the user {user} is there twice", at + 1);
            users.insert(user.to_owned(), hash);
        }
        ensure!(!users.is_empty(), "it has no users: add one with `htpasswd -B FILE USER`");
        Ok(Self(users))
    }

    /// The hash of a user's password. For an unknown user, the hash of another user selected by `other`, so that the
    /// check takes as long.
    pub fn hash_of(&self, user: &str, other: usize) -> (Option<&str>, &PasswordHash) {
        if let Some((user, hash)) = self.0.get_key_value(user) {
            return (Some(user), hash);
        }
        let hash = self.0.values().nth(other % self.0.len()).expect("there is a user");
        (None, hash)
    }

    /// Number of users.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

fn text_of(path: &Path) -> Result<(String, Option<UsersFileStamp>)> {
    // Does not block if the file is a pipe.
    let nonblocking = OFlag::O_NONBLOCK.bits();
    let mut file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let stamp = stamp_of(&file, path)?;
    let mut text = String::new();
    file.by_ref()
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .context("it is not a UTF-8 text")?;
    ensure!(text.len() as u64 <= MAX_BYTES, "it has more than {MAX_BYTES} bytes");
    Ok((text, Some(stamp).filter(|stamp| stamp.is_settled(SystemTime::now()))))
}

fn stamp_of(file: &File, path: &Path) -> Result<UsersFileStamp> {
    let metadata = file.metadata()?;
    ensure!(metadata.is_file(), "it is not a regular file");
    ensure!(metadata.len() <= MAX_BYTES, "it has more than {MAX_BYTES} bytes");
    let mode = metadata.mode();
    ensure!(mode & 0o002 == 0, "everybody may write it: chmod o-rwx {}", path.display());
    if mode & 0o004 != 0 {
        let path = path.display();
        warn!("everybody on this host may read the hashes in {path}: chmod o-rwx {path}");
    }
    Ok(UsersFileStamp::from(&metadata))
}

fn entry(line: &str) -> Result<(&str, PasswordHash)> {
    let Some((user, hash)) = line.split_once(':') else {
        bail!("it is not user:hash, as `htpasswd -B` writes it");
    };
    ensure!(!user.is_empty(), "its user has no name");
    ensure!(user.len() <= 255, "its user's name is longer than 255 bytes");
    ensure!(!user.chars().any(char::is_control), "its user's name has a control character");
    // A hash in the wrong field must not be shown as a name.
    ensure!(
        !BCRYPT_KINDS.iter().any(|kind| user.contains(kind)),
        "a hash stands where its user's name should be: it is user:hash, as `htpasswd -B` writes it"
    );
    let no_bcrypt = || {
        format!(
            "the password of {user} is not a bcrypt hash ($2a$, $2b$ or $2y$): `htpasswd -B` makes one"
        )
    };
    ensure!(BCRYPT_KINDS.iter().any(|kind| hash.starts_with(kind)), no_bcrypt());
    let parts: bcrypt::HashParts = hash.parse().with_context(no_bcrypt)?;
    ensure!(
        COSTS.contains(&parts.get_cost()),
        "the hash of {user} has the cost {}, and may have {} to {}: `htpasswd -B -C 10` sets it",
        parts.get_cost(),
        COSTS.start(),
        COSTS.end()
    );
    Ok((user, PasswordHash(hash.to_owned())))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;

    /// The hash of `secret`, from Apache's `htpasswd -nbBC 4`.
    const SECRET: &str = "$2y$04$xPqUd8kyTwXmA9iLH8D9UuD0FZMaGEZ1SgdlMqVdLmoiT3cvgFgBW";

    fn refusal(text: &str) -> String {
        format!("{:#}", Htpasswd::parse(text).unwrap_err())
    }

    #[test]
    fn users_are_read_and_comments_are_not() {
        let text = format!("# ours\n\n  ann:{SECRET}\r\nBjörn:{SECRET}\n");

        let users = Htpasswd::parse(&text).unwrap();

        assert_eq!(users.count(), 2);
        assert_eq!(users.hash_of("Björn", 0).0, Some("Björn"));
        assert_eq!(users.hash_of("ann ", 0).0, None);
        assert!(!format!("{users:?}").contains("xPqU"), "a hash is shown");
    }

    #[test]
    fn a_wrong_line_is_named_by_its_number_and_never_quoted() {
        for (line, says) in [
            ("ann", "line 2: it is not user:hash"),
            (":x", "line 2: its user has no name"),
            ("ann:$apr1$x$hushhush", "the password of ann is not a bcrypt hash"),
            ("ann:hushhush", "not a bcrypt hash"),
            ("ann:$2x$04$xPqUd8kyTwXmA9iLH8D9UuD0FZMaGEZ1SgdlMqVdLmoiT3cvgFgBW", "not a bcrypt"),
            ("ann:$2y$04$hushhush", "not a bcrypt hash"),
            ("ann:$2y$31$xPqUd8kyTwXmA9iLH8D9UuD0FZMaGEZ1SgdlMqVdLmoiT3cvgFgBW", "cost 31"),
            ("a\u{1b}n:x", "control character"),
        ] {
            let said = refusal(&format!("#\n{line}"));
            assert!(said.contains(says) && said.contains("line 2"), "{said}");
            assert!(!said.contains("hushhush"), "{said}");
        }
        assert!(refusal(&format!("a:{SECRET}\na:{SECRET}")).contains("a is there twice"));
        assert!(refusal("\n# nobody\n").contains("no users"));
    }

    #[test]
    fn a_file_that_others_may_write_or_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("htpasswd");
        let said = |path: &Path| format!("{:#}", Htpasswd::read(path).unwrap_err());

        assert!(said(&path).contains("No such file"));
        fs::write(&path, format!("ann:{SECRET}")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert_eq!(Htpasswd::read(&path).unwrap().0.count(), 1);
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        assert!(said(&path).contains("everybody may write it"));
        assert!(said(dir.path()).contains("not a regular file"));
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(said(&pipe).contains("not a regular file"));
        fs::write(&path, [0xff, 0xfe]).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(said(&path).contains("UTF-8"));
        fs::write(&path, " ".repeat(2_000_000)).unwrap();
        assert!(said(&path).contains("more than"));
    }

    #[test]
    fn a_hash_in_the_place_of_a_name_is_not_shown() {
        let hash = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

        for line in [format!("{hash}:admin"), format!("admin {hash}:{hash}")] {
            let refused = format!("{:#}", Htpasswd::parse(&line).unwrap_err());
            assert!(refused.contains("line 1") && !refused.contains(hash), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(.{0,20}(:\\$2y\\$.{0,60})?\n){0,4}") {
            let _ = Htpasswd::parse(&text);
        }
    }
}
