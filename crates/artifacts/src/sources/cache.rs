//! The disk cache of downloaded images: its contents, its size limit, and its evictions.
//!
//! Everything here blocks, and must run on blocking threads.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tracing::{debug, info, warn};
use url::Url;

/// Least accounted size of a file, so that the number of files is limited, too.
const LEAST_BYTES: u64 = 1 << 20;
/// Largest description of a file, in bytes.
const LONGEST_META: u64 = 64 << 10;

/// The images that must stay, by file name.
pub(super) type ImagesInUse = dyn Fn() -> HashSet<String> + Send + Sync;

/// The folder of downloaded images; clones share it.
#[derive(Clone)]
pub(super) struct ImageCache(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    /// Size limit in bytes, without old versions that current boots hold open.
    limit: u64,
    ledger: Mutex<Ledger>,
    in_use: Box<ImagesInUse>,
}

/// The contents of the folder.
#[derive(Debug, Default)]
struct Ledger {
    /// Bytes of all images and current downloads.
    total: u64,
    images: HashMap<String, CachedImage>,
    /// Counts uses, for the least recently used.
    uses: u64,
    downloads: u64,
}

#[derive(Clone, Copy, Debug)]
struct CachedImage {
    bytes: u64,
    last_use: u64,
}

/// The server's headers of a file, and its digest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) etag: Option<String>,
    pub(super) modified: Option<String>,
    pub(super) len: u64,
    pub(super) sha256: [u8; 32],
}

/// The file name of a URL in the cache.
pub(super) fn name_of(url: &Url) -> String {
    Sha256::digest(url.as_str()).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl ImageCache {
    /// Scans the folder; removes interrupted downloads.
    pub(super) fn open(folder: PathBuf, limit: u64, in_use: Box<ImagesInUse>) -> Self {
        let ledger = look(&folder);
        if ledger.total > 0 {
            info!("{} downloaded images are in {}", ledger.images.len(), folder.display());
        }
        Self(Arc::new(Inner { folder, limit, ledger: Mutex::new(ledger), in_use }))
    }

    /// The image of a URL, if it is complete.
    pub(super) fn read(&self, url: &Url) -> Option<(Meta, File)> {
        let name = name_of(url);
        let paths = Paths::of(&self.0.folder, &name);
        let (meta, file) = paths.read()?;
        self.used(&name, &paths);
        Some((meta, file))
    }

    /// Marks an image as used, which delays its eviction, also across restarts.
    fn used(&self, name: &str, paths: &Paths) {
        let mut ledger = self.ledger();
        ledger.uses += 1;
        let now = ledger.uses;
        if let Some(image) = ledger.images.get_mut(name) {
            image.last_use = now;
        }
        drop(ledger);
        let touched = OpenOptions::new().write(true).open(&paths.meta);
        if let Err(error) = touched.and_then(|meta| meta.set_modified(SystemTime::now())) {
            debug!("the use of {} was not noted: {error}", paths.meta.display());
        }
    }

    /// Begins a download of `len` bytes, if known.
    ///
    /// # Errors
    /// There is no room, or the folder cannot be written.
    pub(super) fn begin(&self, url: &Url, len: Option<u64>) -> Result<Download> {
        if let Some(len) = len {
            self.expect_fits(len)?;
        }
        let number = {
            let mut ledger = self.ledger();
            ledger.downloads += 1;
            ledger.downloads
        };
        let name = name_of(url);
        let part = self.0.folder.join(format!("{name}.{number}.part"));
        let make = DirBuilder::new().recursive(true).mode(0o700).create(&self.0.folder);
        make.map_err(|error| self.unwritable(error))?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
        let file = file.map_err(|error| self.unwritable(error))?;
        let hash = Sha256::new();
        Ok(Download { cache: self.clone(), name, part: Some(part), file, hash, len: 0 })
    }

    fn expect_fits(&self, len: u64) -> Result<()> {
        if len > self.0.limit {
            bail!(
                "it has {len} bytes, and the image cache may have {} in all: raise cache_mib in [images]",
                self.0.limit
            );
        }
        Ok(())
    }

    /// Reserves room for more bytes of a download.
    fn reserve(&self, bytes: u64) -> Result<()> {
        if self.ledger().total + bytes > self.0.limit {
            self.evict(bytes);
        }
        let mut ledger = self.ledger();
        if ledger.total + bytes > self.0.limit {
            bail!(
                "the image cache has {} bytes already, all of images that machines boot from now: raise \
                 cache_mib in [images]",
                ledger.total
            );
        }
        ledger.total += bytes;
        Ok(())
    }

    /// Evicts the least recently used images that are not in use, until `bytes` more fit.
    fn evict(&self, bytes: u64) {
        let in_use = (self.0.in_use)();
        let mut ledger = self.ledger();
        let mut images: Vec<_> =
            ledger.images.iter().map(|(name, image)| (name.clone(), *image)).collect();
        images.sort_by_key(|(_, image)| image.last_use);
        for (name, image) in images {
            if ledger.total + bytes <= self.0.limit {
                return;
            }
            if in_use.contains(&name) {
                continue;
            }
            Paths::of(&self.0.folder, &name).remove();
            ledger.forget(&name);
            info!("removed {name}, of {} bytes, from the image cache to make room", image.bytes);
        }
    }

    fn unwritable(&self, error: io::Error) -> anyhow::Error {
        let folder = self.0.folder.display();
        if is_full(&error) {
            return anyhow::Error::new(error).context(format!(
                "the disk of the image cache {folder} is full: make room on it, or lower cache_mib in [images]"
            ));
        }
        anyhow::Error::new(error).context(format!("cannot write into the image cache {folder}"))
    }

    // The ledger is consistent after each statement under the lock.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the file system, a quota, or the process's limit is exhausted.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Ledger {
    fn keep(&mut self, name: &str, bytes: u64) {
        self.forget(name);
        self.uses += 1;
        let last_use = self.uses;
        self.images.insert(name.to_owned(), CachedImage { bytes, last_use });
        self.total += bytes;
    }

    fn forget(&mut self, name: &str) {
        if let Some(image) = self.images.remove(name) {
            self.total -= image.bytes;
        }
    }
}

/// A download under way. Dropping it removes its file.
pub(super) struct Download {
    cache: ImageCache,
    name: String,
    part: Option<PathBuf>,
    file: File,
    hash: Sha256,
    len: u64,
}

impl Download {
    /// Writes received bytes.
    ///
    /// # Errors
    /// There is no room in the cache or on the disk.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let before = self.charge();
        self.len += bytes.len() as u64;
        if let Err(full) = self.cache.reserve(self.charge() - before) {
            self.len -= bytes.len() as u64;
            return Err(full);
        }
        self.hash.update(bytes);
        self.file.write_all(bytes).map_err(|error| self.cache.unwritable(error))
    }

    /// Replaces the image of the URL. The file is complete on disk before it is renamed.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn keep(
        mut self,
        etag: Option<String>,
        modified: Option<String>,
    ) -> Result<(Meta, File)> {
        if self.len == 0 {
            self.cache.reserve(LEAST_BYTES)?;
        }
        let Some(part) = self.part.take() else { bail!("it was kept before") };
        let sha256 = std::mem::take(&mut self.hash).finalize().into();
        let meta = Meta { etag, modified, len: self.len, sha256 };
        let paths = Paths::of(&self.cache.0.folder, &self.name);
        let kept = self.file.sync_data().and_then(|()| paths.keep(&part, &meta));
        let mut ledger = self.cache.ledger();
        ledger.total -= self.len.max(LEAST_BYTES);
        ledger.forget(&self.name);
        match kept {
            Ok(file) => {
                ledger.keep(&self.name, self.len.max(LEAST_BYTES));
                Ok((meta, file))
            }
            Err(error) => {
                drop(ledger);
                let _ = fs::remove_file(part);
                paths.remove();
                Err(self.cache.unwritable(error))
            }
        }
    }

    /// Its accounted size.
    fn charge(&self) -> u64 {
        if self.len == 0 { 0 } else { self.len.max(LEAST_BYTES) }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let Some(part) = self.part.take() else { return };
        self.cache.ledger().total -= self.charge();
        let remove = move || {
            if let Err(error) = fs::remove_file(&part) {
                warn!("cannot remove {}: {error}", part.display());
            }
        };
        // Freeing the blocks of a long file takes tens of milliseconds.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// The paths of a URL's file and of its description.
struct Paths {
    file: PathBuf,
    meta: PathBuf,
}

impl Paths {
    fn of(folder: &Path, name: &str) -> Self {
        Self { file: folder.join(name), meta: folder.join(format!("{name}.json")) }
    }

    fn read(&self) -> Option<(Meta, File)> {
        let mut json = Vec::new();
        File::open(&self.meta).ok()?.take(LONGEST_META).read_to_end(&mut json).ok()?;
        let meta: Meta = serde_json::from_slice(&json).ok()?;
        let file = File::open(&self.file).ok()?;
        (file.metadata().ok()?.len() == meta.len).then_some((meta, file))
    }

    /// The old description is removed first: no description may ever belong to another version of the file.
    fn keep(&self, part: &Path, meta: &Meta) -> io::Result<File> {
        match fs::remove_file(&self.meta) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::rename(part, &self.file)?;
        let json = serde_json::to_vec(meta)?;
        let mut described = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.meta)?;
        described.write_all(&json)?;
        File::open(&self.file)
    }

    fn remove(&self) {
        for path in [&self.meta, &self.file] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    warn!("cannot remove {}: {error}", path.display());
                }
                Ok(()) | Err(_) => {}
            }
        }
    }
}

/// Scans a folder of images. Removes files with names of this cache that are not complete images.
fn look(folder: &Path) -> Ledger {
    let mut found = Vec::new();
    let mut names = HashSet::new();
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(file) = file.file_name().into_string() else { continue };
        let name = file.split('.').next().unwrap_or_default();
        if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            continue;
        }
        if Path::new(&file).extension().is_some_and(|it| it == "part") {
            let path = folder.join(&file);
            info!("removing {}, a download that was cut short", path.display());
            if let Err(error) = fs::remove_file(&path) {
                warn!("cannot remove {}: {error}", path.display());
            }
            continue;
        }
        if !names.insert(name.to_owned()) {
            continue;
        }
        let paths = Paths::of(folder, name);
        match paths.read() {
            Some((meta, _)) => {
                let used = fs::metadata(&paths.meta).and_then(|meta| meta.modified()).ok();
                found.push((used, name.to_owned(), meta.len.max(LEAST_BYTES)));
            }
            None => paths.remove(),
        }
    }
    found.sort();
    let mut ledger = Ledger::default();
    for (_, name, bytes) in found {
        ledger.keep(&name, bytes);
    }
    ledger
}

impl std::fmt::Debug for ImageCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageCache").field("folder", &self.0.folder).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    const MIB: usize = 1 << 20;

    fn url(name: &str) -> Url {
        Url::parse(&format!("http://images.example/{name}")).unwrap()
    }

    fn cache(folder: &Path, mib: u64, in_use: &[&str]) -> ImageCache {
        let in_use: HashSet<_> = in_use.iter().map(|name| name_of(&url(name))).collect();
        ImageCache::open(folder.to_owned(), mib << 20, Box::new(move || in_use.clone()))
    }

    fn put(cache: &ImageCache, name: &str, mib: usize) -> Result<(Meta, File)> {
        let mut download = cache.begin(&url(name), None)?;
        for _ in 0..mib {
            download.write(&vec![7; MIB])?;
        }
        download.keep(None, None)
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn the_image_that_was_not_used_for_longest_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), 4, &[]);
        put(&cache, "a", 2).unwrap();
        put(&cache, "b", 2).unwrap();
        cache.read(&url("a")).unwrap();

        put(&cache, "c", 2).unwrap();

        assert!(cache.read(&url("b")).is_none());
        assert!(cache.read(&url("a")).is_some() && cache.read(&url("c")).is_some());
        assert_eq!(files(folder.path()), 4);
        assert_eq!(cache.ledger().total, 4 << 20);
    }

    #[test]
    fn an_image_in_use_stays_and_what_then_has_no_room_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), 4, &["a", "b"]);
        put(&cache, "a", 2).unwrap();
        put(&cache, "b", 2).unwrap();

        let refused = put(&cache, "c", 1).unwrap_err().to_string();
        let too_long = cache.begin(&url("d"), Some(5 << 20)).map(drop).unwrap_err().to_string();

        assert!(refused.contains("raise cache_mib in [images]"), "{refused}");
        assert!(too_long.contains("may have 4194304 in all"), "{too_long}");
        assert!(cache.read(&url("a")).is_some() && cache.read(&url("b")).is_some());
        assert_eq!(files(folder.path()), 4, "what was begun is gone");
        assert_eq!(cache.ledger().total, 4 << 20);
    }

    #[test]
    fn what_is_found_at_the_start_counts_and_what_was_cut_short_goes() {
        let folder = tempfile::tempdir().unwrap();
        let before = cache(folder.path(), 8, &[]);
        put(&before, "a", 2).unwrap();
        put(&before, "b", 2).unwrap();
        let old = SystemTime::UNIX_EPOCH;
        let meta = folder.path().join(format!("{}.json", name_of(&url("b"))));
        OpenOptions::new().write(true).open(meta).unwrap().set_modified(old).unwrap();
        let at = |name: String| folder.path().join(name);
        fs::write(at(format!("{}.3.part", name_of(&url("x")))), "x").unwrap();
        fs::write(at(name_of(&url("no description"))), "x").unwrap();
        fs::write(at(format!("{}.json", name_of(&url("no file")))), "{}").unwrap();
        fs::write(at("notes.part".to_owned()), "an operator's own").unwrap();

        let cache = cache(folder.path(), 4, &[]);

        assert_eq!(files(folder.path()), 5);
        assert_eq!(cache.ledger().total, 4 << 20);
        put(&cache, "c", 2).unwrap();
        assert!(cache.read(&url("a")).is_some(), "b was used before it");
        assert!(cache.read(&url("b")).is_none());
    }

    #[test]
    fn many_short_images_have_a_limit_too() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), 3, &[]);
        for name in 0..10 {
            let mut download = cache.begin(&url(&name.to_string()), None).unwrap();
            download.write(b"short").unwrap();
            download.keep(None, None).unwrap();
        }

        assert_eq!(files(folder.path()), 6);
        let new = put(&cache, "9", 1).unwrap();
        assert_eq!(new.0.len, MIB as u64);
        assert_eq!(cache.ledger().total, 2 << 20, "a new version counts in place of the old");
    }

    #[test]
    fn an_empty_image_is_kept_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), 3, &[]);
        cache.begin(&url("empty"), Some(0)).unwrap().keep(None, None).unwrap();
        assert_eq!(cache.ledger().total, LEAST_BYTES);
        assert_eq!(cache.read(&url("empty")).unwrap().0.len, 0);
    }

    #[test]
    fn files_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("cache");
        put(&cache(&folder, 3, &[]), "a", 1).unwrap();
        for path in [folder.clone(), folder.join(name_of(&url("a")))] {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
        }
    }

    /// On a file system of 2 MiB, mounted only for this thread.
    #[test]
    fn a_full_disk_is_named_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let none = None::<&str>;
        if unshare(CloneFlags::CLONE_NEWNS).is_err() {
            eprintln!("not tested: a file system of its own needs root");
            return;
        }
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(none, folder.path(), Some("tmpfs"), MsFlags::empty(), Some("size=2m")).unwrap();
        let cache = cache(folder.path(), 100, &[]);

        let refused = format!("{:#}", put(&cache, "a", 4).unwrap_err());

        assert!(refused.contains("the disk of the image cache"), "{refused}");
        assert!(refused.contains("is full: make room on it"), "{refused}");
        assert_eq!((files(folder.path()), cache.ledger().total), (0, 0));
        put(&cache, "a", 1).unwrap();
    }
}
