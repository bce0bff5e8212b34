//! All that can be booted, and the listener that serves it.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use hardware::CpuArch;
use http::header::{
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, USER_AGENT,
};
use http::{HeaderName, Method, Request};
use netboot::fetch_plan::FetchRequest;
use netboot::image_limits::ImageLimits;
use netboot::image_reach::ImageReach;
use netboot::ticket::{TicketRefusal, admit, boot_path};
use netboot::urls::Urls;
use nodes::{NodeIndex, Recorder};
use provision::boot::{Artifact, HttpLoader, NoBoot, bootable, kernel_command_line};
use provision::{Attempt, BootInterface, Boots, Node};
use tokio::net::TcpListener;
use tracing::{debug, info, warn};
use transport::http_server::metrics::HttpMetrics;
use transport::http_server::{
    self, Answered, BodyLimits, Caller, ConnectionLimits, HeaderNames, RequestBody, ServedPort,
    WhenSent,
};

use crate::answer::{Answer, Refused};
use crate::body::Body;
use crate::boot_sets::BootSets;
use crate::contents::Contents;
use crate::exchange::Exchange;
use crate::images::{Files, Images, Store, image_urls};
use crate::sources::{Fresh, Sources};

/// What the boot listener serves, and how machines are told of it.
#[derive(Clone, Debug)]
pub struct ArtifactSettings {
    /// The boot sets; they may come later.
    pub boot_sets: BootSets,
    /// Where downloaded images are kept.
    pub cache: PathBuf,
    /// Folders that `file://` images of nodes may lie in.
    pub image_dirs: Vec<PathBuf>,
    /// Which servers images of nodes may be fetched from.
    pub image_reach: ImageReach,
    /// How much images of nodes may take.
    pub image_limits: ImageLimits,
    /// What `http` starts first.
    pub http_loader: HttpLoader,
    /// Added to every kernel command line.
    pub kernel_append_params: String,
    /// Where agents call.
    pub urls: Urls,
}

/// All that can be booted; clones share it.
#[derive(Clone, Debug)]
pub struct Artifacts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: ArtifactSettings,
    images: Store,
    index: NodeIndex,
    recorder: Recorder,
}

impl Artifacts {
    /// Looks for the boot set; that it is not there yet is a warning, not an error.
    ///
    /// # Errors
    /// When no HTTP client can be made for downloads.
    pub fn open(settings: ArtifactSettings, index: NodeIndex, recorder: Recorder) -> Result<Self> {
        let booting = index.clone();
        let sources = Sources::open(
            settings.image_dirs.clone(),
            settings.cache.clone(),
            &settings.image_reach,
            settings.image_limits,
            move || booting.booting().iter().flat_map(|node| image_urls(node)).collect(),
        )?;
        let images = Store::new(settings.boot_sets.folder(), sources);
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
        let boots = attempt.map_or(Boots::Ramdisk, Attempt::boots);
        let found = images.find(node, boots, interface, Fresh::Checked).await?;
        let cpu_arch = found.cpu_arch();
        for artifact in artifacts_of(interface, settings.http_loader, &found)? {
            // Every address is as long as this one, or shorter.
            let near = IpAddr::V6(Ipv6Addr::from([0xff; 16]));
            let command_line = match attempt {
                Some(attempt) => self.command_line(node, attempt, near)?,
                None => String::new(),
            };
            Contents::of(artifact, settings.http_loader, &found, cpu_arch, &command_line)
                .with_context(|| format!("{} cannot be made", artifact.file_name()))?;
        }
        if let Some(attempt) = attempt {
            self.hold(node, attempt, &Arc::new(found));
        }
        Ok(())
    }

    /// Answers on `listeners` until `end`, and then lets answers under way come to theirs.
    pub async fn serve(
        self,
        listeners: Vec<TcpListener>,
        limits: ConnectionLimits,
        metrics: HttpMetrics,
        end: impl Future<Output = ()>,
    ) {
        let port = ServedPort {
            name: "boot",
            listeners,
            limits,
            // No request for a file has a body.
            bodies: BodyLimits { each: 0, all: 0 },
            headers: HeaderNames::TitleCase,
            service: self,
            metrics,
        };
        http_server::serve(port, end).await;
    }

    async fn find(
        &self,
        request: &Request<RequestBody>,
        caller: &Caller,
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
        let node = node.as_deref().ok_or(TicketRefusal::UnknownTicket)?;
        // Before anything that takes time: behind NAT, many machines wait for theirs.
        caller.is_for(node.uuid);

        let contents = self.contents(node, attempt, artifact, caller.near).await;
        let contents = contents.map_err(Refused::Unavailable)?;
        let text = |name| text_of(request, name);
        let fetch = FetchRequest {
            head,
            range: text(RANGE),
            if_match: text(IF_MATCH),
            if_none_match: text(IF_NONE_MATCH),
            if_range: text(IF_RANGE),
            if_modified_since: text(IF_MODIFIED_SINCE),
            if_unmodified_since: text(IF_UNMODIFIED_SINCE),
        };
        Ok(Answer::planned(&fetch, contents, attempt.started_at))
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
                let (boots, interface) = (attempt.boots(), attempt.boot_interface);
                let found = images.find(node, boots, interface, Fresh::AsKnown).await?;
                let found = Arc::new(found);
                self.hold(node, attempt, &found);
                found
            }
        };
        held.contents(artifact, near, |cpu_arch| {
            let command_line = self.command_line(node, attempt, near)?;
            Contents::of(artifact, settings.http_loader, &held, cpu_arch, &command_line)
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

impl http_server::HttpService for Artifacts {
    type Body = Body;

    async fn answer(&self, request: Request<RequestBody>, caller: &Caller) -> Answered<Body> {
        let started = Instant::now();
        let mut asked_for = AskedFor::default();
        let answer = match self.find(&request, caller, &mut asked_for).await {
            Ok(answer) => answer,
            Err(refused) => Answer::refused(&refused),
        };
        let range = if request.method() == Method::HEAD { 0..0 } else { answer.range.clone() };
        let is_useful = !answer.status.is_client_error() && !answer.status.is_server_error();
        if let Some(node) = asked_for.node.as_ref().filter(|_| is_useful && !range.is_empty()) {
            self.0.recorder.addresses().fetches(node, caller.remote.ip()).await;
        }
        let exchange = Exchange {
            recorder: self.0.recorder.clone(),
            node: asked_for.node,
            method: request.method().to_string().into(),
            artifact: asked_for.artifact,
            path: asked_for.file,
            remote: caller.remote.ip(),
            user_agent: text_of(&request, USER_AGENT).map(|agent| shortened(agent, 200)),
            status: answer.status.as_u16(),
            error: answer.error.clone(),
            range: answer.content_range().map(str::to_owned),
            length: range.end - range.start,
            started,
        };
        let body = Body::new(Arc::clone(&answer.contents), range);
        let when_sent: WhenSent = Box::new(move |sent| exchange.record(&sent));
        Answered { response: answer.response(body), is_useful, when_sent: Some(when_sent) }
    }
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
    images: &Images,
) -> Result<Vec<Artifact>, NoBoot> {
    let cpu_arch = images.cpu_arch();
    let boot_loader = Artifact::boot_loader(cpu_arch);
    Ok(match (interface, loader) {
        _ if matches!(images.files, Files::Iso(_)) => vec![Artifact::Iso],
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
fn text_of(request: &Request<RequestBody>, name: HeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}

/// What comes from a peer goes into the trace, which keeps no novels.
fn shortened(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}
