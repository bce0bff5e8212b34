//! A request to the boot listener and its answer, for the trace, with the number of sent bytes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hardware::HttpMethod;
use nodes::{Recorder, RunningFetch};
use provision::artifact::{Artifact, HttpLoader};
use provision::instance_boot::is_saved_before_last_byte;
use provision::{BootEventKind, Node};
use tracing::{debug, info, warn};
use transport::http_server::Sent;
use transport::repeats::line;

/// Longest wait of the last byte of an instance's image. EDK2 gives up on an answer that pauses for 5 s
/// (`HTTP_BOOT_RESPONSE_TIMEOUT`).
const SAVED_WITHIN: Duration = Duration::from_secs(2);

/// A request and its answer. It lasts until the last byte was sent.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) recorder: Recorder,
    /// The node of the ticket.
    pub(crate) node: Option<Arc<Node>>,
    pub(crate) method: HttpMethod,
    pub(crate) artifact: Option<Artifact>,
    /// The name of the file, without the ticket.
    pub(crate) path: String,
    pub(crate) remote: IpAddr,
    pub(crate) user_agent: Option<String>,
    pub(crate) status: u16,
    pub(crate) error: Option<String>,
    /// `Content-Range`.
    pub(crate) range: Option<String>,
    /// The length of the body.
    pub(crate) length: u64,
    /// What the TLS handshake agreed on; `None` in clear.
    pub(crate) tls: Option<String>,
    pub(crate) started: Instant,
}

impl Exchange {
    /// The fetch for the live view, if a file of an attempt is sent.
    pub(crate) fn running_fetch(&self) -> Option<RunningFetch> {
        let attempt = self.node.as_ref()?.attempt.as_ref()?;
        let is_sent = matches!(self.status, 200..=299) && self.length > 0;
        let artifact = self.artifact.filter(|_| is_sent)?;
        Some(self.recorder.progress().begin_fetch(attempt.id, artifact, self.length))
    }

    /// What must be done before the last byte of the body is sent, if anything.
    pub(crate) fn before_last_byte(&self, loader: HttpLoader) -> Option<BoxFuture<'static, ()>> {
        let node = self.node.clone()?;
        let (artifact, range, length) = (self.artifact?, self.range.clone(), self.length);
        let what = BootEventKind::LastByte { artifact, range, length };
        let is_sent = self.method == HttpMethod::Get && matches!(self.status, 200..=299);
        if !is_sent || !is_saved_before_last_byte(&node, &what, loader) {
            return None;
        }
        let recorder = self.recorder.clone();
        let saved = async move {
            if !recorder.save(&node, what, SAVED_WITHIN).await {
                let name = artifact.file_name();
                warn!(
                    node.uuid = %node.uuid,
                    "the last byte of {name} is sent although the database could not save that in {SAVED_WITHIN:?}"
                );
            }
        };
        Some(saved.boxed())
    }

    /// Records the exchange. By then, the number of sent bytes is known.
    pub(crate) fn record(mut self, sent: &Sent) {
        if let Some(failure) = &sent.failure {
            self.error = Some(format!("the image cannot be read: {failure}"));
        }
        let sent = sent.bytes.min(self.length);
        let Self { method, path, status, length, .. } = &self;
        let Some(node) = &self.node else {
            debug!("answered {method} {path} without a known ticket with {status}");
            return;
        };
        let error = self.error.as_deref().unwrap_or_default();
        // A BMC reads an image in thousands of ranges, and firmware in a loop repeats requests forever.
        if let Some(more) = line("boot listener", (node.uuid, method, path, status, sent < *length))
        {
            if sent < *length {
                warn!(node.uuid = %node.uuid, "{method} {path} broke off after {sent} of {length} bytes{more}");
            } else if *status >= 400 {
                warn!(node.uuid = %node.uuid, "answered {method} {path} with {status}: {error}{more}");
            } else {
                info!(node.uuid = %node.uuid, "answered {method} {path} with {status}, {sent} bytes{more}");
            }
        }
        let what = BootEventKind::Http {
            method: self.method,
            artifact: self.artifact,
            path: self.path,
            remote: Some(self.remote),
            user_agent: self.user_agent,
            status: self.status,
            error: self.error,
            range: self.range,
            sent,
            length: self.length,
            millis: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            tls: self.tls,
        };
        self.recorder.record(node, what);
    }
}
