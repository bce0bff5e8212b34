//! How far the answer on a connection has come, so that the trace says what was really sent.
//!
//! Three take part: the listener begins an exchange, the body says when it has given all it has, and
//! the connection counts what the socket took.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use provision::boot::Artifact;
use provision::{Node, What};
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use crate::trace::Recorder;

/// A request and what it was answered, until the last byte has left.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) recorder: Recorder,
    /// Whose ticket it had.
    pub(super) node: Option<Arc<Node>>,
    pub(super) method: String,
    pub(super) artifact: Option<Artifact>,
    /// The name of the file, without the ticket.
    pub(super) path: String,
    pub(super) remote: IpAddr,
    pub(super) user_agent: Option<String>,
    pub(super) status: u16,
    pub(super) error: Option<String>,
    /// `Content-Range`.
    pub(super) range: Option<String>,
    /// Of the body.
    pub(super) length: u64,
    pub(super) started: Instant,
}

/// Shared by those who take part.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    state: Arc<Mutex<State>>,
    settled: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    exchange: Option<Exchange>,
    /// The body has no more to give.
    all_given: bool,
    head: Head,
    /// Bytes of the body that the socket took.
    sent: u64,
}

/// How much of an answer's head is still to be sent.
#[derive(Clone, Copy, Debug, Default)]
enum Head {
    /// It is not composed yet.
    #[default]
    All,
    /// So many bytes.
    Left(usize),
}

impl Progress {
    /// Waits until the answer before is over, so that bytes are counted to the right one even if
    /// the peer asks for the next file before it has read this one.
    pub(super) async fn settled(&self) {
        while self.is_answering() {
            self.settled.notified().await;
        }
    }

    /// An answer begins; the one before it has [settled](Self::settled).
    pub(super) fn begin(&self, exchange: Exchange) {
        let all_given = exchange.length == 0;
        self.with(|state| {
            *state = State { exchange: Some(exchange), all_given, ..State::default() };
        });
    }

    /// Whether an answer of ours is on its way.
    pub(super) fn is_answering(&self) -> bool {
        self.with(|state| state.exchange.is_some())
    }

    /// The body has given its last byte.
    pub(super) fn all_given(&self) {
        self.with(|state| state.all_given = true);
    }

    /// The body cannot be read to its end.
    pub(super) fn failed(&self, failure: &io::Error) {
        self.with(|state| {
            if let Some(exchange) = &mut state.exchange {
                exchange.error = Some(format!("the image cannot be read: {failure}"));
            }
        });
    }

    /// The socket took `taken` bytes, of which `first` are the first ones.
    pub(super) fn wrote(&self, first: &[u8], taken: usize) {
        self.with(|state| {
            let head = match state.head {
                Head::All => head_len(first),
                Head::Left(left) => left,
            };
            let of_head = taken.min(head);
            state.head = Head::Left(head - of_head);
            state.sent += (taken - of_head) as u64;
        });
    }

    /// Nothing waits to be written.
    pub(super) fn flushed(&self) {
        self.with(|state| {
            if state.all_given && matches!(state.head, Head::Left(0)) {
                state.finish();
            }
        });
        self.settled.notify_one();
    }

    /// The connection is gone.
    pub(super) fn closed(&self) {
        self.with(State::finish);
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn finish(&mut self) {
        let Some(exchange) = self.exchange.take() else { return };
        let sent = self.sent.min(exchange.length);
        exchange.record(sent);
    }
}

/// hyper hands a head over in one piece, perhaps with the start of the body behind it.
fn head_len(first: &[u8]) -> usize {
    let end = first.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    end.map_or(first.len(), |end| end + 4)
}

impl Exchange {
    fn record(self, sent: u64) {
        let Self { method, path, status, length, .. } = &self;
        let Some(node) = &self.node else {
            debug!("answered {method} {path} of nobody we know with {status}");
            return;
        };
        let error = self.error.as_deref().unwrap_or_default();
        if sent < *length {
            warn!(node.uuid = %node.uuid, "{method} {path} broke off after {sent} of {length} bytes");
        } else if *status >= 400 {
            warn!(node.uuid = %node.uuid, "answered {method} {path} with {status}: {error}");
        } else {
            info!(node.uuid = %node.uuid, "answered {method} {path} with {status}, {sent} bytes");
        }
        let what = What::Http {
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
        };
        self.recorder.record(node, what);
    }
}
