//! The service of the boot listener: it passes a request's path and headers to [`netboot`], and sends the answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::header::{
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, USER_AGENT,
};
use http::{HeaderName, Method, Request};
use jiff::Timestamp;
use netboot::fetch_answer::FetchRefusal;
use netboot::fetch_plan::FetchRequest;
use netboot::scripts::{SIGNED_GRUB_CONFIG, SIGNED_GRUB_CONFIG_PATH};
use netboot::ticket::{TicketRefusal, admit, boot_path, is_signed_grub_config, traced_path};
use nodes::{NodeIndex, Recorder};
use provision::Node;
use provision::artifact::Artifact;
use provision::trace::HandshakePort;
use provision::virtual_media::is_of_bmc;
use transport::http_server::{Answered, Caller, HttpService, PortPeers, RequestBody, WhenSent};

use crate::answer::Answer;
use crate::attempt_images::AttemptImages;
use crate::body::Body;
use crate::contents::Contents;
use crate::exchange::Exchange;
use crate::machine_peers::MachinePeers;

/// The service of the boot listener's port; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct BootService(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    images: Arc<AttemptImages>,
    index: NodeIndex,
    recorder: Recorder,
    peers: MachinePeers,
}

impl BootService {
    pub(crate) fn new(images: Arc<AttemptImages>, index: NodeIndex, recorder: Recorder) -> Self {
        let (of_nodes, events) = (index.clone(), recorder.clone());
        let peers = MachinePeers::new(of_nodes, events, HandshakePort::Boot);
        Self(Arc::new(Parts { images, index, recorder, peers }))
    }
}

impl HttpService for BootService {
    type Body = Body;

    async fn answer(&self, request: Request<RequestBody>, caller: &Caller) -> Answered<Body> {
        let started = Instant::now();
        let mut asked_for = AskedFor::default();
        let answer = match self.find(&request, caller, &mut asked_for).await {
            Ok(answer) => answer,
            Err(refusal) => Answer::refused(&refusal),
        };
        let Answer { head, contents, range } = answer;
        let range = if request.method() == Method::HEAD { 0..0 } else { range };
        let is_useful = head.is_useful();
        let has_range = head.content_range().is_some();
        let remote = Some(caller.remote.ip());
        let is_of_machine =
            |node: &&Arc<Node>| !is_of_bmc(node, asked_for.artifact, has_range, remote);
        let is_sent = is_useful && !range.is_empty();
        if let Some(node) = asked_for.node.as_ref().filter(|_| is_sent).filter(is_of_machine) {
            self.0.recorder.addresses().fetches(node, caller.remote.ip()).await;
        }
        let exchange = Exchange {
            recorder: self.0.recorder.clone(),
            node: asked_for.node.or_else(|| self.sender_of_old_ticket(&asked_for.file, caller)),
            method: shortened(request.method().as_str(), 20).into(),
            artifact: asked_for.artifact,
            path: asked_for.file,
            remote: caller.remote.ip(),
            user_agent: text_of(&request, USER_AGENT).map(|agent| shortened(agent, 200)),
            status: head.status.as_u16(),
            error: head.error.clone(),
            range: head.content_range().map(str::to_owned),
            length: range.end - range.start,
            tls: caller.tls.clone(),
            started,
        };
        let file_parts = caller.file_parts();
        let body = Body::new(contents, range, file_parts.clone(), exchange.running_fetch());
        let mut response = http::Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers();
        let before_last_byte = exchange.before_last_byte(self.0.images.loader());
        let when_sent: WhenSent = Box::new(move |sent| exchange.record(&sent));
        let (when_sent, file_parts) = (Some(when_sent), file_parts.unwrap_or_default());
        Answered { response, is_useful, before_last_byte, when_sent, file_parts }
    }

    fn peers(&self) -> &dyn PortPeers {
        &self.0.peers
    }
}

/// The data of a request before its answer is decided.
#[derive(Debug, Default)]
struct AskedFor {
    node: Option<Arc<Node>>,
    artifact: Option<Artifact>,
    file: String,
}

impl BootService {
    /// The node whose machine has this address, for its trace alone: an address proves nothing.
    fn node_at(&self, remote: IpAddr) -> Option<Arc<Node>> {
        let owner = self.0.recorder.addresses().owner(remote)?;
        self.0.index.by_uuid(owner).map(|(node, _)| node)
    }

    /// The node whose machine asks with a ticket that is not known, such as one from before the start of the daemon.
    fn sender_of_old_ticket(&self, file: &str, caller: &Caller) -> Option<Arc<Node>> {
        if file.is_empty() { None } else { self.node_at(caller.remote.ip()) }
    }

    async fn find(
        &self,
        request: &Request<RequestBody>,
        caller: &Caller,
        asked_for: &mut AskedFor,
    ) -> Result<Answer, FetchRefusal> {
        let path = request.uri().path();
        // Before any refusal, so that the trace shows each of them.
        self.trace(path, asked_for);
        let head = match *request.method() {
            Method::GET => false,
            Method::HEAD => true,
            _ => return Err(FetchRefusal::Method),
        };
        if is_signed_grub_config(path) {
            return Ok(self.signed_grub_config(head, caller, asked_for));
        }
        let path = boot_path(path)?;
        asked_for.artifact = Artifact::of_file_name(&path.file);
        let node = self.0.index.by_ticket(&path.ticket);
        if node.is_none() && asked_for.node.is_some() {
            return Err(TicketRefusal::Over.into());
        }
        let (attempt, artifact) = admit(node.as_deref(), &path)?;
        let node = node.as_deref().ok_or(TicketRefusal::UnknownTicket)?;
        // Counted before anything slow: behind NAT, many machines wait for a connection.
        caller.is_for(node.uuid);

        let contents = self.0.images.contents(node, attempt, artifact, caller.near).await;
        let contents = contents.map_err(|why| FetchRefusal::Unavailable(format!("{why:#}")))?;
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
}

impl BootService {
    /// Notes the file and the node of a path with a ticket: a valid one, a late one, or one that nobody has.
    fn trace(&self, path: &str, asked_for: &mut AskedFor) {
        let index = &self.0.index;
        let node_of = |part: &str| index.by_ticket(part).or_else(|| index.by_earlier_ticket(part));
        let Some(traced) = traced_path(path, |part| node_of(part).is_some()) else { return };
        asked_for.file = shortened(&traced.file, 80);
        asked_for.node = node_of(&traced.ticket);
    }

    /// The configuration that Debian's signed GRUB asks for outside of its ticket's folder. It is the same for
    /// everybody and without a secret. It belongs to the boot of the node whose machine has this address.
    fn signed_grub_config(&self, head: bool, caller: &Caller, asked_for: &mut AskedFor) -> Answer {
        asked_for.file = SIGNED_GRUB_CONFIG_PATH.trim_start_matches('/').to_owned();
        let owner = self.0.recorder.addresses().owner(caller.remote.ip());
        asked_for.node = owner.and_then(|owner| self.0.index.by_uuid(owner)).map(|(node, _)| node);
        let contents = Arc::new(Contents::sentence(SIGNED_GRUB_CONFIG.to_owned()));
        Answer::planned(
            &FetchRequest { head, ..FetchRequest::default() },
            contents,
            Timestamp::UNIX_EPOCH,
        )
    }
}

/// A header that is not a text is ignored.
fn text_of(request: &Request<RequestBody>, name: HeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}

/// Texts of a peer are shortened for the trace.
fn shortened(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}
