//! The boot listener: what firmware and boot loaders fetch, composed for each node, over HTTP/1.1.
//!
//! A server of its own rather than a part of the API: firmware takes less of HTTP than a browser,
//! and gives up without a word where an answer has another form than it expects.

mod answer;
mod body;
mod boot_set;
mod connection;
mod contents;
mod images;
pub mod plan;
mod progress;
pub mod scripts;
mod sources;
#[cfg(test)]
pub(crate) mod tests;
pub mod ticket;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http::header::{
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, USER_AGENT,
};
use http::{HeaderName, Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use provision::boot::{Artifact, HttpLoader, NoBoot, bootable, kernel_command_line};
use provision::{Attempt, BootInterface, CpuArch, Node};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use self::answer::{Answer, Refused};
use self::body::Body;
use self::boot_set::BootSet;
use self::connection::Connection;
use self::contents::Contents;
pub(crate) use self::images::how_to_make_one;
use self::images::{Images, Store, folder_of};
use self::plan::Asked;
use self::progress::{Exchange, Progress};
use self::sources::{Fresh, Sources};
use self::ticket::{Refusal, admit, boot_path};
use crate::nodes::Index;
use crate::trace::Recorder;
use crate::urls::Urls;

/// What the boot listener serves, and how machines are told of it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The boot sets; they may come later.
    pub boot_sets: BootSets,
    /// Where downloaded images are kept.
    pub cache: PathBuf,
    /// Folders that `file://` images of nodes may lie in.
    pub image_dirs: Vec<PathBuf>,
    /// What `http` starts first.
    pub http_loader: HttpLoader,
    /// Added to every kernel command line.
    pub kernel_append_params: String,
    /// Where agents call.
    pub urls: Urls,
    /// What a peer may do.
    pub limits: Limits,
}

/// What a peer may do, so that none of them keeps the others from booting.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; further ones wait in the socket's backlog.
    pub connections: usize,
    /// For a request's head to come, from the end of the answer before.
    pub head: Duration,
    /// For a peer that takes nothing of its answer.
    pub patience: Duration,
    /// For answers under way when the daemon ends.
    pub end: Duration,
    /// The length of a downloaded image, in bytes.
    pub download: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            head: Duration::from_secs(30),
            patience: Duration::from_secs(60),
            end: Duration::from_secs(20),
            download: 8 << 30,
        }
    }
}

/// All that can be booted; clones share it.
#[derive(Clone, Debug)]
pub struct Artifacts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    images: Store,
    index: Index,
    recorder: Recorder,
}

impl Artifacts {
    /// Looks for the boot set; that it is not there yet is a warning, not an error.
    ///
    /// # Errors
    /// When no HTTP client can be made for downloads.
    pub fn open(settings: Settings, index: Index, recorder: Recorder) -> Result<Self> {
        // reqwest panics where the process has no provider yet; an error means that it has one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(30))
            .user_agent(concat!("ferroboot/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("cannot make an HTTP client")?;
        let sources = Sources::new(
            settings.image_dirs.clone(),
            settings.cache.clone(),
            settings.limits.download,
            client,
        );
        let images = Store::new(&settings.boot_sets.folder, sources);
        let mut there = Vec::new();
        for (cpu_arch, boot_set) in images.boot_sets() {
            match boot_set {
                Ok(_) => there.push(cpu_arch.name()),
                Err(missing) if cpu_arch == CpuArch::X64 => {
                    warn!("x64 nodes without images of their own cannot boot yet: {missing:#}");
                }
                Err(missing) => debug!("no boot set for {cpu_arch}: {missing:#}"),
            }
        }
        if !there.is_empty() {
            info!("there are boot sets for {}", there.join(" and "));
        }
        Ok(Self(Arc::new(Inner { settings, images, index, recorder })))
    }

    /// Finds all that a node will boot with, downloads what is not here, and holds it for the
    /// node's attempt, if one is under way.
    ///
    /// # Errors
    /// Why the node could not boot, in words, before its machine is touched.
    pub async fn prepare(&self, node: &Node) -> Result<()> {
        let Inner { settings, images, .. } = &*self.0;
        settings.boot_sets.look_again();
        let attempt = node.live_attempt();
        let interface = attempt.map_or(node.boot_interface, |attempt| attempt.boot_interface);
        let found = images.find(node, interface, Fresh::Checked).await?;
        let cpu_arch = found.cpu_arch();
        for artifact in artifacts_of(interface, settings.http_loader, cpu_arch)? {
            // Every address is as long as this one, or shorter.
            let near = IpAddr::V6(Ipv6Addr::from([0xff; 16]));
            let command_line = match attempt {
                Some(attempt) => self.command_line(node, attempt, near)?,
                None => String::new(),
            };
            Contents::of(artifact, settings.http_loader, &found.files, cpu_arch, &command_line)
                .with_context(|| format!("{} cannot be made", artifact.file_name()))?;
        }
        if let Some(attempt) = attempt {
            self.hold(node, attempt, &Arc::new(found));
        }
        Ok(())
    }

    /// Answers on `listener` until `end`, and then lets answers under way come to theirs.
    pub async fn serve(self, listener: TcpListener, end: impl Future<Output = ()>) {
        let limits = self.0.settings.limits;
        let room = Arc::new(Semaphore::new(limits.connections));
        let (ending, ended) = watch::channel(());
        let mut connections = JoinSet::new();
        let mut end = pin!(end);
        loop {
            let accept = async {
                let room = Arc::clone(&room).acquire_owned().await;
                (listener.accept().await, room)
            };
            tokio::select! {
                () = &mut end => break,
                Some(_) = connections.join_next() => {}
                (accepted, room) = accept => match accepted {
                    Ok((stream, peer)) => {
                        let connection = self.clone().connection(stream, peer, ended.clone());
                        connections.spawn(async move {
                            let _room = room;
                            connection.await;
                        });
                    }
                    Err(error) => {
                        warn!("cannot take a connection: {error}");
                        // Out of file descriptors: trying again at once would spin.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        drop(listener);
        drop(ending);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(limits.end, all).await.is_err() {
            info!("broke off the answers that took longer than {:?}", limits.end);
        }
    }

    async fn connection(self, stream: TcpStream, peer: SocketAddr, ended: watch::Receiver<()>) {
        let limits = self.0.settings.limits;
        let Ok(near) = stream.local_addr() else { return };
        let ends = Ends { near: near.ip().to_canonical(), remote: peer.ip().to_canonical() };
        // Each write is as large as it will get: waiting for more costs a round trip.
        let _ = stream.set_nodelay(true);
        let progress = Progress::default();
        let io = TokioIo::new(Connection::new(stream, progress.clone(), limits.patience));
        let service = service_fn(|request| self.answer(request, ends, &progress));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            // rhboot's GRUB and shim compare names of headers letter by letter.
            .title_case_headers(true)
            .max_headers(64)
            .max_buf_size(16 * 1024)
            // A client that has no more to ask may close its side and still read.
            .half_close(true)
            .serve_connection(io, service);
        let mut connection = pin!(connection);
        let mut ended = pin!(ended_of(ended));
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = &mut ended => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            debug!("connection of {peer} broke: {error}");
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        ends: Ends,
        progress: &Progress,
    ) -> Result<Response<Body>, Infallible> {
        progress.settled().await;
        let started = Instant::now();
        let mut asked_for = AskedFor::default();
        let answer = match self.find(&request, ends.near, &mut asked_for).await {
            Ok(answer) => answer,
            Err(refused) => Answer::refused(&refused),
        };
        let range = if request.method() == Method::HEAD { 0..0 } else { answer.range.clone() };
        progress.begin(Exchange {
            recorder: self.0.recorder.clone(),
            node: asked_for.node,
            method: request.method().to_string(),
            artifact: asked_for.artifact,
            path: asked_for.file,
            remote: ends.remote,
            user_agent: text_of(&request, USER_AGENT).map(|agent| shortened(agent, 200)),
            status: answer.status.as_u16(),
            error: answer.error.clone(),
            range: answer.content_range().map(str::to_owned),
            length: range.end - range.start,
            started,
        });
        let body = Body::new(Arc::clone(&answer.contents), range, progress.clone());
        Ok(answer.response(body))
    }

    async fn find(
        &self,
        request: &Request<Incoming>,
        near: IpAddr,
        asked_for: &mut AskedFor,
    ) -> Result<Answer, Refused> {
        let head = match *request.method() {
            Method::GET => false,
            Method::HEAD => true,
            _ => return Err(Refused::Method),
        };
        let path = boot_path(request.uri().path())?;
        asked_for.file = shortened(path.file, 80);
        asked_for.artifact = Artifact::of_file_name(path.file);
        let node = self.0.index.by_ticket(path.ticket);
        asked_for.node = node.clone();
        let (attempt, artifact) = admit(node.as_deref(), path)?;
        let node = node.as_deref().ok_or(Refusal::UnknownTicket)?;

        let contents = self.contents(node, attempt, artifact, near).await;
        let contents = contents.map_err(Refused::Unavailable)?;
        let text = |name| text_of(request, name);
        let asked = Asked {
            head,
            range: text(RANGE),
            if_match: text(IF_MATCH),
            if_none_match: text(IF_NONE_MATCH),
            if_range: text(IF_RANGE),
            if_modified_since: text(IF_MODIFIED_SINCE),
            if_unmodified_since: text(IF_UNMODIFIED_SINCE),
        };
        Ok(Answer::planned(&asked, contents, attempt.started_at))
    }

    async fn contents(
        &self,
        node: &Node,
        attempt: &Attempt,
        artifact: Artifact,
        near: IpAddr,
    ) -> Result<Arc<Contents>> {
        let Inner { settings, images, .. } = &*self.0;
        let held = match images.held(node.uuid, attempt.id) {
            Some(held) => held,
            // We were started again in the middle of a boot.
            None => {
                let found = images.find(node, attempt.boot_interface, Fresh::AsKnown).await?;
                let found = Arc::new(found);
                self.hold(node, attempt, &found);
                found
            }
        };
        held.contents(artifact, near, |cpu_arch| {
            let command_line = self.command_line(node, attempt, near)?;
            Contents::of(artifact, settings.http_loader, &held.files, cpu_arch, &command_line)
        })
    }

    fn hold(&self, node: &Node, attempt: &Attempt, images: &Arc<Images>) {
        let is_over = |node, attempt| {
            let node = self.0.index.by_uuid(node);
            let current = node.as_ref().and_then(|(node, _)| bootable(node));
            current.is_none_or(|current| current.id != attempt)
        };
        self.0.images.hold(node.uuid, attempt.id, images, is_over);
    }

    fn command_line(&self, node: &Node, attempt: &Attempt, near: IpAddr) -> Result<String> {
        let Inner { settings, index, .. } = &*self.0;
        let ports = index.by_uuid(node.uuid).map(|(_, ports)| ports).unwrap_or_default();
        let mut bootable = ports.iter().filter(|port| port.pxe_enabled);
        let boot_mac = match (bootable.next(), bootable.next()) {
            (Some(only), None) => Some(only.address),
            (None, _) | (Some(_), Some(_)) => None,
        };
        let api_url = settings.urls.agent(near);
        let append = &settings.kernel_append_params;
        Ok(kernel_command_line(node, attempt, &api_url, append, boot_mac)?)
    }
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug)]
struct Ends {
    /// Ours, as the machine reached us.
    near: IpAddr,
    remote: IpAddr,
}

/// What is known of a request before it is known what it gets.
#[derive(Debug, Default)]
struct AskedFor {
    node: Option<Arc<Node>>,
    artifact: Option<Artifact>,
    file: String,
}

/// What a machine may fetch on its way through a boot interface.
fn artifacts_of(
    interface: BootInterface,
    loader: HttpLoader,
    cpu_arch: CpuArch,
) -> Result<Vec<Artifact>, NoBoot> {
    let boot_loader = Artifact::boot_loader(cpu_arch);
    Ok(match (interface, loader) {
        (BootInterface::RedfishHttps, _) => vec![Artifact::Iso],
        (BootInterface::Http, HttpLoader::Uki) => vec![boot_loader],
        (BootInterface::Http, HttpLoader::Grub) => {
            vec![boot_loader, Artifact::GrubConfig, Artifact::Kernel, Artifact::Initramfs]
        }
        (BootInterface::HttpIpxe, _) => {
            let ipxe = Artifact::ipxe(cpu_arch).ok_or(NoBoot::NoIpxe { cpu_arch })?;
            vec![ipxe, Artifact::IpxeScript, Artifact::Kernel, Artifact::Initramfs]
        }
    })
}

/// A header that is no text counts as none.
fn text_of(request: &Request<Incoming>, name: HeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}

/// What comes from a peer goes into the trace, which keeps no novels.
fn shortened(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

/// Resolves when the sender is gone.
async fn ended_of(mut ended: watch::Receiver<()>) {
    while ended.changed().await.is_ok() {}
}

/// Whether a boot set is whole: that for `cpu_arch` of those in `folder`.
///
/// # Errors
/// What is missing or damaged.
pub fn check_boot_set(folder: &Path, cpu_arch: CpuArch) -> Result<()> {
    BootSet::open(&folder_of(folder, cpu_arch), cpu_arch).map(drop)
}

/// The architectures that there are boot sets for; clones share what was seen last.
#[derive(Clone, Debug)]
pub struct BootSets {
    folder: PathBuf,
    there: Arc<Mutex<Vec<CpuArch>>>,
}

impl BootSets {
    /// Looks into a folder of boot sets.
    #[must_use]
    pub fn look(folder: &Path) -> Self {
        let boot_sets = Self { folder: folder.to_owned(), there: Arc::default() };
        boot_sets.look_again();
        boot_sets
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What was there when somebody last looked.
    #[must_use]
    pub fn there(&self) -> Vec<CpuArch> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Boot sets may be made while we run.
    pub(crate) fn look_again(&self) {
        let manifest = |cpu_arch| folder_of(&self.folder, cpu_arch).join("manifest.json");
        let there = CpuArch::ALL.into_iter().filter(|cpu_arch| manifest(*cpu_arch).exists());
        *self.there.lock().unwrap_or_else(PoisonError::into_inner) = there.collect();
    }
}
