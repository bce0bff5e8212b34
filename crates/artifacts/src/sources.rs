//! Images named in a node's `driver_info`: `file://` in permitted folders, and HTTP downloads, kept in a cache.

mod cache;
mod download;
mod reach;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow, bail, ensure};
use efi::SharedFile;
use futures::future::{BoxFuture, FutureExt as _, Shared as SharedFuture, WeakShared};
use netboot::image_limits::ImageLimits;
use netboot::image_reach::ImageReach;
use nix::libc::O_NONBLOCK;
use provision::text::shown_url;
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;
use url::Url;

use self::cache::{ImageCache, Meta, name_of};
use self::download::ImageClient;
use crate::boot_set::Shared;

const READ_AT_ONCE: usize = 1 << 20;

/// Nodes' images from all sources; clones share their state.
#[derive(Clone, Debug)]
pub(crate) struct Sources(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folders: Vec<PathBuf>,
    limits: ImageLimits,
    client: ImageClient,
    cache: ImageCache,
    open: Arc<Mutex<OpenImages>>,
    under_way: Mutex<HashMap<(String, Fresh), WeakShared<Finding>>>,
}

/// A search for a file, shared by all its waiters. It ends when the last waiter is dropped.
type Finding = BoxFuture<'static, Result<Shared, Arc<str>>>;

/// The known files, by URL.
#[derive(Debug, Default)]
struct OpenImages {
    all: HashMap<String, Known>,
    /// Counts uses, for the least recently used.
    uses: u64,
}

#[derive(Clone, Debug)]
struct Known {
    shared: Shared,
    /// The state of a local file, which reveals changes.
    seen: Option<SeenFile>,
    last_use: u64,
}

/// Distinguishes versions of a local file.
type SeenFile = (u64, u64, Option<SystemTime>);

/// The required freshness of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fresh {
    /// Before a boot: check with the source.
    Checked,
    /// During a boot: the version that was found before it.
    AsKnown,
}

impl Sources {
    /// `live` returns the URLs of current boots' images, including boots from before a restart.
    ///
    /// # Errors
    /// No HTTP client can be created.
    pub(crate) fn open(
        folders: Vec<PathBuf>,
        cache: PathBuf,
        reach: &ImageReach,
        limits: ImageLimits,
        live: impl Fn() -> Vec<String> + Send + Sync + 'static,
    ) -> Result<Self> {
        let open = Arc::new(Mutex::new(OpenImages::default()));
        let held = Arc::clone(&open);
        let in_use = move || {
            let mut urls: HashSet<String> = live().into_iter().collect();
            // An evicted image must be closed, too: an open file keeps its disk space.
            urls.extend(locked(&held).close_unheld());
            urls.iter().filter_map(|url| Some(name_of(&Url::parse(url).ok()?))).collect()
        };
        let cache = ImageCache::open(cache, limits.cache_bytes, Box::new(in_use));
        let client = ImageClient::new(reach.clone(), limits.pace, limits.image_bytes)?;
        let under_way = Mutex::default();
        Ok(Self(Arc::new(Inner { folders, limits, client, cache, open, under_way })))
    }

    /// The file at `url`. Concurrent searches for the same URL are shared.
    pub(crate) async fn find(&self, url: &str, fresh: Fresh) -> Result<Shared> {
        if fresh == Fresh::AsKnown
            && let Some(known) = locked(&self.0.open).used(url)
        {
            return Ok(known.shared);
        }
        self.join(url, fresh).await.map_err(|words| anyhow!("{words}"))
    }

    fn join(&self, url: &str, fresh: Fresh) -> SharedFuture<Finding> {
        let mut under_way = locked(&self.0.under_way);
        under_way.retain(|_, finding| finding.upgrade().is_some());
        let key = (url.to_owned(), fresh);
        let known = under_way.get(&key).and_then(WeakShared::upgrade);
        // A search that has ended may be outdated.
        if let Some(finding) = known.filter(|finding| finding.peek().is_none()) {
            return finding;
        }
        let (sources, url) = (self.clone(), url.to_owned());
        let finding = async move {
            let found = sources.look(&url, fresh).await;
            found.map_err(|error| Arc::from(format!("{error:#}")))
        };
        let finding = finding.boxed().shared();
        if let Some(weak) = finding.downgrade() {
            under_way.insert(key, weak);
        }
        finding
    }

    async fn look(&self, url: &str, fresh: Fresh) -> Result<Shared> {
        // A text that is not a URL may still contain a password.
        let parsed = Url::parse(url).context("it is not a URL")?;
        let known = match parsed.scheme() {
            "file" => self.local(&parsed, url).await?,
            "http" | "https" => self.remote(&parsed, fresh).await?,
            scheme => bail!("{scheme} URLs are not supported: {}", shown_url(&parsed)),
        };
        let shared = known.shared.clone();
        locked(&self.0.open).keep(url, known, self.0.limits.open_files);
        Ok(shared)
    }

    async fn local(&self, url: &Url, text: &str) -> Result<Known> {
        let Ok(path) = url.to_file_path() else { bail!("{} names no file", shown_url(url)) };
        let known = locked(&self.0.open).used(text);
        let (folders, most) = (self.0.folders.clone(), self.0.limits.image_bytes);
        // Dropped with the last waiter.
        let waiting = Arc::new(());
        let waited_for = Arc::downgrade(&waiting);
        spawn_blocking(move || open_local(&path, &folders, known, most, &waited_for)).await?
    }

    async fn remote(&self, url: &Url, fresh: Fresh) -> Result<Known> {
        let cached = self.cached(url).await?;
        match (fresh, cached) {
            // Downloaded before the restart.
            (Fresh::AsKnown, Some((meta, file))) => Ok(known(url, &meta, file)),
            (Fresh::AsKnown | Fresh::Checked, cached) => {
                let (meta, file) = self.0.client.fetch(url, &self.0.cache, cached).await?;
                Ok(known(url, &meta, file))
            }
        }
    }

    async fn cached(&self, url: &Url) -> Result<Option<(Meta, File)>> {
        let (cache, url) = (self.0.cache.clone(), url.clone());
        Ok(spawn_blocking(move || cache.read(&url)).await?)
    }
}

impl OpenImages {
    fn used(&mut self, url: &str) -> Option<Known> {
        self.uses += 1;
        let now = self.uses;
        let known = self.all.get_mut(url)?;
        known.last_use = now;
        Some(known.clone())
    }

    /// Keeps a file open. If `most` are open, the least recently used one that no boot holds is closed for it.
    fn keep(&mut self, url: &str, known: Known, most: usize) {
        self.uses += 1;
        self.all.insert(url.to_owned(), Known { last_use: self.uses, ..known });
        while self.all.len() > most {
            let unheld = self.all.iter().filter(|(other, known)| !known.is_held() && *other != url);
            let oldest = unheld.min_by_key(|(_, known)| known.last_use);
            let Some(oldest) = oldest.map(|(url, _)| url.clone()) else { return };
            self.all.remove(&oldest);
        }
    }

    /// Closes downloads that no boot holds, and returns the URLs of the others.
    fn close_unheld(&mut self) -> Vec<String> {
        self.all.retain(|_, known| known.is_held() || known.seen.is_some());
        self.all.keys().cloned().collect()
    }
}

impl Known {
    /// Whether a boot, or the preparation of one, holds it.
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.shared.file) > 1
    }
}

fn known(url: &Url, meta: &Meta, file: File) -> Known {
    let source = SharedFile { name: shown_url(url).into(), len: meta.len, sha256: meta.sha256 };
    Known { shared: Shared { source, file: Arc::new(file) }, seen: None, last_use: 0 }
}

/// A panic elsewhere leaves nothing half done under these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a local file. The operator permits only these folders, so links that lead out of them are refused.
fn open_local(
    path: &Path,
    folders: &[PathBuf],
    known: Option<Known>,
    most: u64,
    waited_for: &Weak<()>,
) -> Result<Known> {
    let real = fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))?;
    expect_inside(&real, path, folders)?;
    let see = || format!("cannot see {}", real.display());
    // Checked before opening, which has effects on some devices.
    ensure!(
        fs::metadata(&real).with_context(see)?.is_file(),
        "{} is not a regular file",
        real.display()
    );
    // Does not block on a pipe that has replaced the file; a link is resolved to its target.
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(&real);
    let mut file = file.with_context(|| format!("cannot open {}", real.display()))?;
    let opened = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)));
    expect_inside(&opened.with_context(see)?, path, folders)?;
    let now = file.metadata().with_context(see)?;
    ensure!(now.is_file(), "{} is not a regular file", real.display());
    ensure!(now.len() <= most, "{} has more than {most} bytes", real.display());
    let seen = Some((now.ino(), now.len(), now.modified().ok()));
    if let Some(known) = known.filter(|known| known.seen == seen) {
        return Ok(known);
    }
    let (len, sha256) = digest(&mut file, most, waited_for)
        .with_context(|| format!("reading {}", real.display()))?;
    let source = SharedFile { name: real.to_string_lossy().into(), len, sha256 };
    Ok(Known { shared: Shared { source, file: Arc::new(file) }, seen, last_use: 0 })
}

fn expect_inside(real: &Path, path: &Path, folders: &[PathBuf]) -> Result<()> {
    let mut allowed = folders.iter().filter_map(|folder| fs::canonicalize(folder).ok());
    ensure!(
        allowed.any(|folder| real.starts_with(folder)),
        "{} is in no folder that images may be served from",
        path.display()
    );
    Ok(())
}

fn digest(file: &mut impl Read, most: u64, waited_for: &Weak<()>) -> io::Result<(u64, [u8; 32])> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; READ_AT_ONCE];
    let mut len = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((len, hash.finalize().into()));
        }
        hash.update(&buffer[..read]);
        len += read as u64;
        if len > most {
            return Err(io::Error::other("it grows while it is read"));
        }
        if waited_for.strong_count() == 0 {
            return Err(io::Error::other("no reader waits for it any more"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use netboot::image_limits::ImagePace;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    fn allowed(folder: &Path) -> Sources {
        let _ = rustls::crypto::ring::default_provider().install_default();
        with(folder, ImageLimits { image_bytes: 1000, ..ImageLimits::default() }, Vec::new())
    }

    /// The image servers of these tests are on loopback.
    fn with(folder: &Path, limits: ImageLimits, live: Vec<String>) -> Sources {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let reach = ImageReach { loopback: true, ..ImageReach::default() };
        let live = move || live.clone();
        Sources::open(vec![folder.to_owned()], folder.join("cache"), &reach, limits, live).unwrap()
    }

    #[tokio::test]
    async fn a_file_in_an_allowed_folder_is_found_with_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kernel"), "abc").unwrap();
        let url = format!("file://{}/kernel", folder.path().display());

        let found = allowed(folder.path()).find(&url, Fresh::Checked).await.unwrap();

        assert_eq!(found.source.len, 3);
        assert_eq!(found.source.sha256, <[u8; 32]>::from(Sha256::digest("abc")));
    }

    #[tokio::test]
    async fn neither_a_path_nor_a_link_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("images");
        fs::create_dir(&inside).unwrap();
        fs::write(folder.path().join("secret"), "x").unwrap();
        symlink(folder.path().join("secret"), inside.join("kernel")).unwrap();
        let sources = allowed(&inside);

        for path in ["kernel", "../secret", "%2e%2e/secret"] {
            let url = format!("file://{}/{path}", inside.display());
            let refused = sources.find(&url, Fresh::Checked).await.unwrap_err().to_string();
            assert!(refused.contains("in no folder that images"), "{path}: {refused}");
        }
    }

    #[tokio::test]
    async fn a_changed_file_is_seen_before_the_next_boot() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kernel");
        let url = format!("file://{}", file.display());
        let sources = allowed(folder.path());
        fs::write(&file, "old").unwrap();
        sources.find(&url, Fresh::Checked).await.unwrap();
        fs::write(folder.path().join("new"), "newer").unwrap();
        fs::rename(folder.path().join("new"), &file).unwrap();

        let during = sources.find(&url, Fresh::AsKnown).await.unwrap();
        let before_next = sources.find(&url, Fresh::Checked).await.unwrap();

        assert_eq!((during.source.len, before_next.source.len), (3, 5));
    }

    #[tokio::test]
    async fn what_is_no_regular_file_or_too_long_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        mkfifo(&folder.path().join("pipe"), Mode::S_IRWXU).unwrap();
        File::create(folder.path().join("long")).unwrap().set_len(1 << 40).unwrap();
        let sources = allowed(folder.path());

        for (name, words) in [
            ("pipe", "is not a regular file"),
            ("", "is not a regular file"),
            ("long", "has more than 1000 bytes"),
        ] {
            let url = format!("file://{}/{name}", folder.path().display());
            let refused = sources.find(&url, Fresh::Checked).await.unwrap_err().to_string();
            assert!(refused.contains(words), "{name}: {refused}");
        }
    }

    #[tokio::test]
    async fn few_files_are_kept_open_but_for_those_that_boots_hold() {
        let folder = tempfile::tempdir().unwrap();
        let limits = ImageLimits { open_files: 2, ..ImageLimits::default() };
        let sources = with(folder.path(), limits, Vec::new());
        let find = async |number: i32| {
            let file = folder.path().join(number.to_string());
            fs::write(&file, "abc").unwrap();
            sources.find(&format!("file://{}", file.display()), Fresh::Checked).await.unwrap()
        };

        for number in 0..9 {
            find(number).await;
            assert!(locked(&sources.0.open).all.len() <= 2);
        }
        let mut held = Vec::new();
        for number in 0..4 {
            held.push(find(number).await);
        }
        assert_eq!(locked(&sources.0.open).all.len(), 4);
        held.clear();
        find(5).await;
        assert_eq!(locked(&sources.0.open).all.len(), 2);
    }

    #[tokio::test]
    async fn other_schemes_are_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let refused = allowed(folder.path()).find("glance://uuid", Fresh::Checked).await;
        assert_eq!(
            refused.unwrap_err().to_string(),
            "glance URLs are not supported: glance://uuid"
        );
    }

    mod downloads {
        use std::sync::atomic::{AtomicUsize, Ordering};

        use axum::Router;
        use axum::http::HeaderMap;
        use axum::response::IntoResponse;
        use axum::routing::get;
        use http::StatusCode;
        use http::header::{AUTHORIZATION, ETAG, IF_NONE_MATCH};
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        use tokio::net::TcpListener;
        use tokio::task::JoinHandle;
        use transport::test_servers::{Hostility, hostile_server};

        use super::*;

        /// A server of `/kernel` that counts its complete answers.
        async fn server(body: &'static str) -> (String, Arc<AtomicUsize>, JoinHandle<()>) {
            let sent = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&sent);
            let kernel = move |headers: HeaderMap| async move {
                if headers.get(IF_NONE_MATCH).is_some_and(|tag| tag == "\"v1\"") {
                    return StatusCode::NOT_MODIFIED.into_response();
                }
                counter.fetch_add(1, Ordering::Relaxed);
                ([(ETAG, "\"v1\"")], body).into_response()
            };
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/kernel", listener.local_addr().unwrap());
            let app = Router::new().route("/kernel", get(kernel));
            let running = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
            (url, sent, running)
        }

        #[tokio::test]
        async fn what_is_in_the_cache_is_not_sent_again() {
            let folder = tempfile::tempdir().unwrap();
            let (url, sent, _running) = server("contents").await;

            for _restart in 0..2 {
                let sources = allowed(folder.path());
                for fresh in [Fresh::Checked, Fresh::Checked, Fresh::AsKnown] {
                    assert_eq!(sources.find(&url, fresh).await.unwrap().source.len, 8);
                }
            }

            assert_eq!(sent.load(Ordering::Relaxed), 1);
        }

        #[tokio::test]
        async fn a_boot_goes_on_from_the_cache_when_we_start_again_and_the_server_is_gone() {
            let folder = tempfile::tempdir().unwrap();
            let (url, _, running) = server("contents").await;
            allowed(folder.path()).find(&url, Fresh::Checked).await.unwrap();
            running.abort();
            assert!(running.await.unwrap_err().is_cancelled());

            let found = allowed(folder.path()).find(&url, Fresh::AsKnown).await.unwrap();

            assert_eq!(found.source.len, 8);
            let asked = allowed(folder.path()).find(&url, Fresh::Checked).await.unwrap_err();
            assert!(asked.to_string().starts_with("cannot fetch http://127.0.0.1"), "{asked}");
        }

        #[tokio::test]
        async fn what_is_longer_than_allowed_is_not_kept() {
            let folder = tempfile::tempdir().unwrap();
            let (url, ..) = server(concat!("0123456789", "0123456789")).await;
            let limits = ImageLimits { image_bytes: 10, ..ImageLimits::default() };
            let sources = with(folder.path(), limits, Vec::new());

            let refused = sources.find(&url, Fresh::Checked).await.unwrap_err();

            assert!(refused.to_string().ends_with("has more than 10 bytes"), "{refused}");
        }

        #[tokio::test]
        async fn a_server_that_is_slow_endless_or_lies_is_left_in_words() {
            let folder = tempfile::tempdir().unwrap();
            let pace = ImagePace { head: Duration::from_millis(300), ..ImagePace::default() };
            let limits = ImageLimits { image_bytes: 1000, pace, ..ImageLimits::default() };
            let sources = with(folder.path(), limits, Vec::new());

            for (hostility, words) in [
                (Hostility::Silent, "no answer within"),
                (Hostility::EndlessHead, "cannot fetch"),
                (Hostility::Trickles, "it arrives too slowly"),
                (Hostility::Endless, "it has more than 1000 bytes"),
                (Hostility::LiesLong, "it has more than 1000 bytes"),
                (Hostility::BreaksOff, "it broke off after 5 bytes"),
                (Hostility::Redirects, "more than 5 redirects"),
                (Hostility::Bomb, "compresses it"),
            ] {
                let url = format!("http://{}/x.iso", hostile_server(hostility).await);
                let refused = sources.find(&url, Fresh::Checked).await.unwrap_err().to_string();
                assert!(refused.contains(words), "{hostility:?}: {refused}");
            }
        }

        #[tokio::test]
        async fn silence_in_the_middle_is_not_waited_for_as_long_as_a_long_image_may_take() {
            let folder = tempfile::tempdir().unwrap();
            let pace = ImagePace { silence: Duration::from_millis(200), ..ImagePace::default() };
            let sources =
                with(folder.path(), ImageLimits { pace, ..ImageLimits::default() }, vec![]);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/x.iso", listener.local_addr().unwrap());
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
                    .await
                    .unwrap();
                std::future::pending::<()>().await;
            });

            let refused = sources.find(&url, Fresh::Checked).await.unwrap_err().to_string();

            assert!(refused.contains("broke off after 5 bytes: nothing came"), "{refused}");
        }

        #[tokio::test]
        async fn two_who_want_one_url_at_once_share_one_download() {
            let folder = tempfile::tempdir().unwrap();
            let sources = allowed(folder.path());
            let sent = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&sent);
            // Without an entity tag, each download sends the whole file.
            let app = Router::new().route(
                "/kernel",
                get(async move || {
                    counter.fetch_add(1, Ordering::Relaxed);
                    "contents"
                }),
            );
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/kernel", listener.local_addr().unwrap());
            tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

            let finds = (0..20).map(|_| sources.find(&url, Fresh::Checked));
            for found in futures::future::join_all(finds).await {
                assert_eq!(found.unwrap().source.len, 8);
            }
            assert_eq!(sent.load(Ordering::Relaxed), 1);
            sources.find(&url, Fresh::Checked).await.unwrap();
            assert_eq!(sent.load(Ordering::Relaxed), 2, "it may have changed since");
        }

        #[tokio::test]
        async fn neither_loopback_nor_our_own_ports_are_asked_unless_they_may_be() {
            let folder = tempfile::tempdir().unwrap();
            let (url, sent, _running) = server("contents").await;
            let port = Url::parse(&url).unwrap().port().unwrap();
            let reached = async |reach: ImageReach, url: String| {
                let cache = folder.path().join("cache");
                let limits = ImageLimits::default();
                let sources = Sources::open(Vec::new(), cache, &reach, limits, Vec::new).unwrap();
                sources.find(&url, Fresh::Checked).await.map(drop).map_err(|it| it.to_string())
            };
            let own = ImageReach { loopback: true, own_ports: vec![port], ..ImageReach::default() };

            for host in ["127.0.0.1", "localhost", "LOCALHOST", "0", "[::1]", "[::ffff:127.0.0.1]"]
            {
                let url = format!("http://{host}:{port}/kernel");
                let refused = reached(ImageReach::default(), url).await.unwrap_err();
                assert!(refused.contains("set loopback = true in [images]"), "{refused}");
            }
            assert_eq!(sent.load(Ordering::Relaxed), 0);
            let refused = reached(own, url).await.unwrap_err();
            assert!(refused.contains("is this service itself"), "{refused}");
        }

        #[tokio::test]
        async fn a_password_in_a_url_is_used_and_not_said() {
            let folder = tempfile::tempdir().unwrap();
            let app = Router::new().route(
                "/kernel",
                get(async |headers: HeaderMap| match headers.get(AUTHORIZATION) {
                    Some(who) if who == "Basic bWU6Z2VoZWlt" => "contents".into_response(),
                    _ => StatusCode::UNAUTHORIZED.into_response(),
                }),
            );
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let running = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
            let url = format!("http://me:geheim@{address}/kernel?signature=geheim");
            let sources = allowed(folder.path());

            let found = sources.find(&url, Fresh::Checked).await.unwrap();
            let wrong =
                sources.find(&url.replace("me:", "you:"), Fresh::Checked).await.unwrap_err();
            running.abort();
            assert!(running.await.unwrap_err().is_cancelled());
            let gone = sources.find(&url, Fresh::Checked).await.unwrap_err();
            let bad = sources.find("http://me:geheim@[/", Fresh::Checked).await.unwrap_err();

            assert_eq!(&*found.source.name, format!("http://{address}/kernel?…"));
            for said in [wrong, gone, bad] {
                assert!(!format!("{said:#}").contains("geheim"), "{said:#}");
            }
        }

        #[tokio::test]
        async fn an_image_that_a_boot_holds_stays_in_the_cache_and_others_make_room() {
            let folder = tempfile::tempdir().unwrap();
            let (url, ..) = server("contents").await;
            let at = |name: &str| format!("{url}?{name}");
            let limits = ImageLimits { cache_bytes: 3 << 20, ..ImageLimits::default() };
            let sources = with(folder.path(), limits, vec![at("before-a-restart")]);
            sources.find(&at("before-a-restart"), Fresh::Checked).await.unwrap();
            let held = sources.find(&at("held"), Fresh::Checked).await.unwrap();

            for name in ["a", "b", "c", "d"] {
                sources.find(&at(name), Fresh::Checked).await.unwrap();
            }

            let cached = |name: &str| sources.0.cache.read(&Url::parse(&at(name)).unwrap());
            assert!(cached("held").is_some() && cached("before-a-restart").is_some());
            assert!(cached("d").is_some() && cached("c").is_none());
            drop(held);
            sources.find(&at("e"), Fresh::Checked).await.unwrap();
            sources.find(&at("f"), Fresh::Checked).await.unwrap();
            assert!(cached("held").is_none());
        }

        #[tokio::test]
        async fn an_answer_without_the_file_is_named() {
            let folder = tempfile::tempdir().unwrap();
            let (url, ..) = server("").await;
            let refused = allowed(folder.path()).find(&format!("{url}2"), Fresh::Checked).await;
            assert_eq!(
                refused.unwrap_err().to_string(),
                format!("cannot use {url}2: the server answered 404 Not Found")
            );
        }
    }
}
