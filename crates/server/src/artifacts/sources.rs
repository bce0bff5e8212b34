//! Files that a node's `driver_info` names: `file://` in folders that are allowed, and what is
//! downloaded over HTTP, once, into a cache.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use efi::Source;
use http::StatusCode;
use http::header::{ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::info;
use url::Url;

use super::boot_set::Shared;

const READ_AT_ONCE: usize = 1 << 20;

/// The files that are known, and where others come from.
#[derive(Debug)]
pub(super) struct Sources {
    folders: Vec<PathBuf>,
    cache: PathBuf,
    most_bytes: u64,
    client: reqwest::Client,
    known: Mutex<HashMap<String, Slot>>,
}

/// One URL: whoever holds the lock fetches it, and everybody else waits for that.
type Slot = Arc<tokio::sync::Mutex<Option<Known>>>;

#[derive(Clone, Debug)]
struct Known {
    shared: Shared,
    /// Of a local file, whose change it shows.
    modified: Option<SystemTime>,
}

/// How sure one must be that a file is still what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fresh {
    /// Before a boot: ask again.
    Checked,
    /// During a boot: what was found before it is what it goes on with.
    AsKnown,
}

impl Sources {
    pub(super) fn new(
        folders: Vec<PathBuf>,
        cache: PathBuf,
        most_bytes: u64,
        client: reqwest::Client,
    ) -> Self {
        Self { folders, cache, most_bytes, client, known: Mutex::default() }
    }

    /// The file at `url`.
    pub(super) async fn find(&self, url: &str, fresh: Fresh) -> Result<Shared> {
        let parsed = Url::parse(url).with_context(|| format!("{url:?} is no URL"))?;
        let slot = self.slot(url);
        let mut known = slot.lock().await;
        let found = match (parsed.scheme(), fresh, &*known) {
            ("file" | "http" | "https", Fresh::AsKnown, Some(known)) => known.clone(),
            ("file", Fresh::Checked | Fresh::AsKnown, _) => {
                self.local(&parsed, known.clone()).await?
            }
            ("http" | "https", Fresh::AsKnown, None) => match self.cached(&parsed) {
                Some(cached) => cached,
                None => self.remote(parsed).await?,
            },
            ("http" | "https", Fresh::Checked, _) => self.remote(parsed).await?,
            (scheme, ..) => bail!("{scheme} URLs are not supported: {url}"),
        };
        Ok(known.insert(found).shared.clone())
    }

    fn slot(&self, url: &str) -> Slot {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(url.to_owned()).or_default())
    }

    async fn local(&self, url: &Url, known: Option<Known>) -> Result<Known> {
        let Ok(path) = url.to_file_path() else { bail!("{url} names no file") };
        let folders = self.folders.clone();
        tokio::task::spawn_blocking(move || open_local(&path, &folders, known)).await?
    }

    /// From before we were started again.
    fn cached(&self, url: &Url) -> Option<Known> {
        let (meta, file) = Entry::of(&self.cache, url).read()?;
        Some(meta.known(url, file))
    }

    async fn remote(&self, url: Url) -> Result<Known> {
        let entry = Entry::of(&self.cache, &url);
        let cached = entry.read();
        let mut request = self.client.get(url.clone());
        if let Some((meta, _)) = &cached {
            if let Some(etag) = &meta.etag {
                request = request.header(IF_NONE_MATCH, etag);
            } else if let Some(modified) = &meta.modified {
                request = request.header(IF_MODIFIED_SINCE, modified);
            }
        }
        let mut answer = request.send().await.with_context(|| format!("cannot fetch {url}"))?;
        if let (StatusCode::NOT_MODIFIED, Some((meta, file))) = (answer.status(), cached) {
            return Ok(meta.known(&url, file));
        }
        ensure!(answer.status() == StatusCode::OK, "{url} was answered {}", answer.status());
        let most = self.most_bytes;
        ensure!(answer.content_length().unwrap_or(0) <= most, "{url} has more than {most} bytes");

        let text = |name| answer.headers().get(name)?.to_str().ok().map(str::to_owned);
        let (etag, modified) = (text(ETAG), text(LAST_MODIFIED));
        let mut download = entry.download()?;
        let mut hash = Sha256::new();
        let mut len = 0;
        while let Some(chunk) = answer.chunk().await.with_context(|| format!("{url} broke off"))? {
            len += chunk.len() as u64;
            ensure!(len <= most, "{url} has more than {most} bytes");
            hash.update(&chunk);
            download.write_all(&chunk).context("cannot write into the cache")?;
        }
        info!("downloaded {url}: {len} bytes");
        let meta = Meta { etag, modified, len, sha256: hash.finalize().into() };
        let file = entry.keep(&meta)?;
        Ok(meta.known(&url, file))
    }
}

/// The folders are the operator's word on which files machines may read: a link out of them is not.
fn open_local(path: &Path, folders: &[PathBuf], known: Option<Known>) -> Result<Known> {
    let real = fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))?;
    let allowed = folders.iter().filter_map(|folder| fs::canonicalize(folder).ok());
    ensure!(
        allowed.into_iter().any(|folder| real.starts_with(folder)),
        "{} is in no folder that images may be served from",
        path.display()
    );
    let seen = fs::metadata(&real).with_context(|| format!("cannot see {}", real.display()))?;
    // Looked at before it is opened: opening a pipe would wait for a writer.
    ensure!(seen.is_file(), "{} is no regular file", real.display());
    let modified = seen.modified().ok();
    if let Some(known) = known
        && known.modified == modified
        && known.shared.source.len == seen.len()
    {
        return Ok(known);
    }
    let mut file = File::open(&real).with_context(|| format!("cannot open {}", real.display()))?;
    let (len, sha256) = digest(&mut file).with_context(|| format!("reading {}", real.display()))?;
    let source = Source { name: real.to_string_lossy().into(), len, sha256 };
    Ok(Known { shared: Shared { source, file: Arc::new(file) }, modified })
}

fn digest(file: &mut impl Read) -> io::Result<(u64, [u8; 32])> {
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
    }
}

/// Where a URL's file lies in the cache, and what is known of it beside it.
struct Entry {
    file: PathBuf,
    meta: PathBuf,
    part: PathBuf,
}

/// What the server said of a file, and what we saw.
#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    etag: Option<String>,
    modified: Option<String>,
    len: u64,
    sha256: [u8; 32],
}

impl Entry {
    fn of(cache: &Path, url: &Url) -> Self {
        let digest = Sha256::digest(url.as_str());
        let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            file: cache.join(&name),
            meta: cache.join(format!("{name}.json")),
            part: cache.join(format!("{name}.part")),
        }
    }

    fn read(&self) -> Option<(Meta, File)> {
        let meta: Meta = serde_json::from_slice(&fs::read(&self.meta).ok()?).ok()?;
        let file = File::open(&self.file).ok()?;
        (file.metadata().ok()?.len() == meta.len).then_some((meta, file))
    }

    fn download(&self) -> Result<File> {
        if let Some(folder) = self.part.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the cache {}", folder.display()))?;
        }
        File::create(&self.part).with_context(|| format!("cannot write {}", self.part.display()))
    }

    /// The old description goes first: at no moment does one describe the other's file.
    fn keep(&self, meta: &Meta) -> Result<File> {
        match fs::remove_file(&self.meta) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error)
                    .with_context(|| format!("cannot remove {}", self.meta.display()));
            }
            Ok(()) | Err(_) => {}
        }
        fs::rename(&self.part, &self.file)
            .with_context(|| format!("cannot keep {}", self.file.display()))?;
        fs::write(&self.meta, serde_json::to_vec(meta)?)
            .with_context(|| format!("cannot write {}", self.meta.display()))?;
        File::open(&self.file).with_context(|| format!("cannot open {}", self.file.display()))
    }
}

impl Meta {
    fn known(&self, url: &Url, file: File) -> Known {
        let source = Source { name: url.as_str().into(), len: self.len, sha256: self.sha256 };
        Known { shared: Shared { source, file: Arc::new(file) }, modified: None }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn allowed(folder: &Path) -> Sources {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::new();
        Sources::new(vec![folder.to_owned()], folder.join("cache"), 1000, client)
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
        use tokio::net::TcpListener;
        use tokio::task::JoinHandle;

        use super::*;

        /// A server of `/kernel` that counts how often it sends the whole of it.
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
            let mut sources = allowed(folder.path());
            sources.most_bytes = 10;

            let refused = sources.find(&url, Fresh::Checked).await.unwrap_err();

            assert!(refused.to_string().ends_with("has more than 10 bytes"), "{refused}");
        }

        #[tokio::test]
        async fn an_answer_without_the_file_is_named() {
            let folder = tempfile::tempdir().unwrap();
            let (url, ..) = server("").await;
            let refused = allowed(folder.path()).find(&format!("{url}2"), Fresh::Checked).await;
            assert_eq!(
                refused.unwrap_err().to_string(),
                format!("{url}2 was answered 404 Not Found")
            );
        }
    }
}
