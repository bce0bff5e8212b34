//! The state directory: private, locked by one daemon at a time, and the source of the daemon's identity.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::{AccessFlags, access};
use tracing::{debug, info, warn};
use uuid::Uuid;

const LOCK_TRIES: u32 = 5;
const BETWEEN_LOCK_TRIES: Duration = Duration::from_millis(50);

/// The state of a directory, which is not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StateSeen {
    /// It does not exist: the service will create it.
    Missing,
    /// No service uses it.
    Free,
    /// A service uses it.
    InUse,
}

impl StateSeen {
    /// Checks `path`, and changes nothing.
    ///
    /// # Errors
    /// It is not a directory, or the user cannot create or write it.
    pub(crate) fn look(path: &Path) -> Result<Self> {
        let place = || format!("cannot keep state in {}: set state_dir", path.display());
        let Some(there) = path.ancestors().find(|path| path.exists()) else {
            return Ok(Self::Missing);
        };
        // A path may be relative.
        ensure!(there.is_dir(), "{}: {} is not a directory", place(), there.display());
        let may_write = access(there, AccessFlags::W_OK | AccessFlags::X_OK);
        may_write.with_context(|| format!("{}: {} cannot be written", place(), there.display()))?;
        if there != path {
            return Ok(Self::Missing);
        }
        is_open(path)?;
        let file = path.join("lock");
        let lock = match File::open(&file) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Free),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.display()));
            }
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(Self::Free),
            Err(TryLockError::WouldBlock) => Ok(Self::InUse),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", file.display()))
            }
        }
    }
}

/// Whether a process has the lock file of a state directory open.
pub(crate) fn is_held_by(path: &Path, pid: u32) -> bool {
    let Ok(lock) = fs::metadata(path.join("lock")) else { return false };
    let is_lock = |file: &Metadata| (file.dev(), file.ino()) == (lock.dev(), lock.ino());
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.filter_map(|fd| fs::metadata(fd.path()).ok()).any(|file| is_lock(&file))
}

/// A state directory that is locked until dropped.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    lock: File,
}

impl StateDir {
    /// Creates it if it is missing, readable only by its owner, and locks it.
    pub(crate) fn lock(path: PathBuf) -> Result<Self> {
        let place = || format!("cannot keep state in {}: set state_dir", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&path).with_context(place)?;
        let path = path.canonicalize().with_context(place)?;
        make_private(&path)?;
        let file = path.join("lock");
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&file)
            .with_context(|| format!("cannot write {}", file.display()))?;
        match try_again(&lock) {
            Ok(()) => Ok(Self { path, lock }),
            Err(TryLockError::WouldBlock) => {
                bail!("another ferroboot serves from {}", path.display())
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", file.display()))
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The identity of the daemon that serves from here: the previous daemon's, if that is certainly dead, otherwise
    /// a new one.
    ///
    /// The lock file holds the identity and the place where it is valid: this file, in this file system, until the
    /// machine reboots. Only one process can lock that file. In a copy of the directory, on this host or on another,
    /// the place differs.
    pub(crate) fn identity(&self) -> Result<Uuid> {
        let failed = || format!("cannot read the lock file in {}", self.path.display());
        let place = self.place().with_context(failed)?;
        let mut known = String::new();
        (&self.lock).rewind().with_context(failed)?;
        (&self.lock).read_to_string(&mut known).with_context(failed)?;
        if let Some((id, known_place)) = known.trim().split_once(' ')
            && known_place == place
            && let Ok(id) = Uuid::try_parse(id)
        {
            return Ok(id);
        }
        let id = Uuid::new_v4();
        if let Err(error) = self.write_identity(&format!("{id} {place}\n")) {
            // For example on a full disk. The next start finds no identity for this place, and creates another one.
            warn!(%error, "the identity of this daemon was not saved: after a crash its work waits until its claims expire");
        }
        Ok(id)
    }

    fn write_identity(&self, line: &str) -> io::Result<()> {
        let mut lock = &self.lock;
        lock.rewind()?;
        lock.write_all(line.as_bytes())?;
        lock.set_len(line.len().try_into().unwrap_or(u64::MAX))?;
        lock.sync_all()
    }

    fn place(&self) -> io::Result<String> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let file = self.lock.metadata()?;
        Ok(format!("{}:{}:{}", boot.trim(), file.dev(), file.ino()))
    }
}

/// Takes a lock that `ferroboot check` may hold for a moment.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing runs yet, and no lock is waited for with a limit"
)]
fn try_again(lock: &File) -> Result<(), TryLockError> {
    for _ in 1..LOCK_TRIES {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => sleep(BETWEEN_LOCK_TRIES),
            done => return done,
        }
    }
    lock.try_lock()
}

/// Names that may occur in a state directory: the service's own, and files that operators put there.
const KNOWN: [&str; 8] =
    ["lock", "ferroboot.", "leases", "cache", "images", "ramdisk", "lost+found", "htpasswd"];

/// Whether a directory is accessible to other users and may be made private; nothing is changed.
///
/// # Errors
/// Other users have files in it.
fn is_open(path: &Path) -> Result<bool> {
    let see = || format!("cannot see {}", path.display());
    let mode = fs::metadata(path).with_context(see)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(false);
    }
    let foreign = foreign_files(path).with_context(see)?;
    if mode & 0o1000 != 0 || !foreign.is_empty() {
        bail!(
            "{} is open to other users of this host (mode {:04o}) and is not ferroboot's alone{}: set state_dir to \
             a directory of its own, or take the others' rights away with chmod 700",
            path.display(),
            mode & 0o7777,
            foreign.first().map(|name| format!(", as {name} lies in it")).unwrap_or_default()
        );
    }
    Ok(true)
}

/// Makes the directory and its files accessible only to their owner: they hold tokens and passwords. A directory with
/// other users' files is not changed, and refused.
fn make_private(path: &Path) -> Result<()> {
    if !is_open(path)? {
        return Ok(());
    }
    let see = || format!("cannot see {}", path.display());
    let private = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    private(path, 0o700).with_context(|| {
        format!(
            "cannot take the rights of other users on {} away: chown it to the user that ferroboot runs as",
            path.display()
        )
    })?;
    info!("{} was accessible to other users of this host, and is private now", path.display());
    for file in fs::read_dir(path).with_context(see)?.flatten() {
        let Ok(about) = file.metadata() else { continue };
        let mode = about.permissions().mode() & 0o7777;
        if about.is_file()
            && mode & 0o077 != 0
            && let Err(error) = private(&file.path(), mode & 0o700)
        {
            debug!("{} is still open to other users: {error}", file.path().display());
        }
    }
    Ok(())
}

fn foreign_files(path: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(path)?.flatten().map(|file| file.file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    Ok(names.filter(|name| !KNOWN.iter().any(|known| name.starts_with(known))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_changes_nothing_and_sees_who_serves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/state");

        assert_eq!(StateSeen::look(&path).unwrap(), StateSeen::Missing);
        assert!(!path.exists() && !dir.path().join("a").exists());
        let serving = StateDir::lock(path.clone()).unwrap();
        assert_eq!(StateSeen::look(&path).unwrap(), StateSeen::InUse);
        assert!(is_held_by(&path, std::process::id()));
        drop(serving);
        assert!(!is_held_by(&path, std::process::id()));
        assert_eq!(StateSeen::look(&path).unwrap(), StateSeen::Free);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "but for the lock of before");
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let said = StateSeen::look(&file.join("state")).unwrap_err().to_string();
        assert!(said.contains("is not a directory"), "{said}");
    }

    #[test]
    fn two_daemons_do_not_share_a_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::lock(dir.path().join("state")).unwrap();

        let second = StateDir::lock(first.path().to_owned()).unwrap_err().to_string();

        assert!(second.contains("another ferroboot"), "{second}");
        drop(first);
        StateDir::lock(dir.path().join("state")).unwrap();
    }

    #[test]
    fn a_daemon_keeps_its_identity_when_it_starts_anew_and_a_copy_gets_another() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("state"), dir.path().join("copy"));
        let first = StateDir::lock(path.clone()).unwrap();
        let id = first.identity().unwrap();
        assert_eq!(first.identity().unwrap(), id);
        fs::create_dir(&copy).unwrap();
        fs::copy(path.join("lock"), copy.join("lock")).unwrap();

        let copied = StateDir::lock(copy.clone()).unwrap().identity().unwrap();
        drop(first);
        let again = StateDir::lock(path).unwrap().identity().unwrap();

        assert_ne!(copied, id);
        assert_eq!(again, id);
        assert_eq!(StateDir::lock(copy).unwrap().identity().unwrap(), copied);
    }

    #[test]
    fn a_machine_that_was_started_anew_has_an_identity_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::lock(dir.path().join("state")).unwrap();
        let id = state.identity().unwrap();
        let written = fs::read_to_string(state.path().join("lock")).unwrap();
        let (_, place) = written.split_once(' ').unwrap();
        let (boot, file) = place.split_once(':').unwrap();
        let other = boot.replace(|digit: char| digit.is_ascii_hexdigit(), "0");

        state.write_identity(&format!("{id} {other}:{file}")).unwrap();

        assert_ne!(state.identity().unwrap(), id);
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn open_to_all(dir: &Path) -> PathBuf {
        let path = dir.join("state");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_directory_that_was_there_is_taken_from_others_with_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = open_to_all(dir.path());
        let database = path.join("ferroboot.db-wal");
        fs::write(&database, "").unwrap();
        fs::set_permissions(&database, Permissions::from_mode(0o644)).unwrap();
        fs::create_dir(path.join("ramdisk")).unwrap();

        StateDir::lock(path.clone()).unwrap();

        assert_eq!((mode(&path), mode(&database)), (0o700, 0o600));
    }

    #[test]
    fn a_directory_of_others_is_refused_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = open_to_all(dir.path());
        fs::write(path.join("passwd"), "").unwrap();

        let refused = StateDir::lock(path.clone()).unwrap_err().to_string();

        assert!(refused.contains("as passwd lies in it"), "{refused}");
        assert_eq!(mode(&path), 0o755);
        fs::remove_file(path.join("passwd")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o1777)).unwrap();
        assert!(StateDir::lock(path.clone()).unwrap_err().to_string().contains("(mode 1777)"));
        assert_eq!(mode(&path), 0o1777);
    }
}
