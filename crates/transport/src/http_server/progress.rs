//! The progress of a connection's answer, which tells what was really sent.
//!
//! Three parties take part: the loop begins an answer, the body reports its end, and the socket counts the bytes
//! taken.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::file_parts::FileParts;

/// The result of sending an answer.
#[derive(Debug)]
pub struct Sent {
    /// Bytes of the body that the socket took.
    pub bytes: u64,
    /// The reason why the body could not be read to its end.
    pub failure: Option<String>,
}

/// Called once, when the last byte was sent or the connection is gone.
pub type WhenSent = Box<dyn FnOnce(Sent) + Send>;

/// Shared by the three parties.
#[derive(Clone, Debug, Default)]
pub(super) struct AnswerProgress {
    state: Arc<Mutex<AnswerState>>,
    settled: Arc<Notify>,
    taken: Arc<Notify>,
}

#[derive(Default)]
struct AnswerState {
    is_answering: bool,
    when_sent: Option<WhenSent>,
    /// What stands in the body for parts of files.
    file_parts: FileParts,
    /// Whether the body has ended.
    all_given: bool,
    failure: Option<String>,
    head: Head,
    /// Bytes of the body that the socket took.
    sent: u64,
}

impl fmt::Debug for AnswerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerState").field("sent", &self.sent).finish_non_exhaustive()
    }
}

/// The unsent part of an answer's head.
#[derive(Clone, Copy, Debug, Default)]
enum Head {
    /// The head is not written yet.
    #[default]
    All,
    /// This many bytes are left.
    Left(usize),
}

impl AnswerProgress {
    /// Waits for the end of the previous answer, so that bytes are counted for the right one even if the peer
    /// pipelines requests.
    pub(super) async fn settled(&self) {
        while self.is_answering() {
            self.settled.notified().await;
        }
    }

    /// Begins an answer; the previous one has [settled](Self::settled).
    pub(super) fn begin(&self, when_sent: Option<WhenSent>, file_parts: FileParts) {
        let is_answering = true;
        self.with(|state| {
            *state = AnswerState { is_answering, when_sent, file_parts, ..AnswerState::default() };
        });
    }

    /// The parts of files in the answer.
    pub(super) fn file_parts(&self) -> FileParts {
        self.with(|state| state.file_parts.clone())
    }

    /// Whether an answer is being sent.
    pub(super) fn is_answering(&self) -> bool {
        self.with(|state| state.is_answering)
    }

    /// Waits until the socket has taken so many bytes of the body.
    pub(super) async fn took(&self, bytes: u64) {
        while self.with(|state| state.sent) < bytes {
            self.taken.notified().await;
        }
    }

    /// The body has ended.
    pub(super) fn all_given(&self) {
        self.with(|state| state.all_given = true);
    }

    /// The body could not be read to its end.
    pub(super) fn failed(&self, failure: String) {
        self.with(|state| state.failure = Some(failure));
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
        self.taken.notify_one();
    }

    /// The socket's buffer is empty. Returns whether that is the end of an answer.
    pub(super) fn flushed(&self) -> bool {
        let is_over = self.with(|state| {
            let is_over = state.all_given && matches!(state.head, Head::Left(0));
            is_over && state.finish()
        });
        self.settled.notify_one();
        is_over
    }

    /// The connection is gone.
    pub(super) fn closed(&self) {
        self.with(AnswerState::finish);
    }

    fn with<T>(&self, act: impl FnOnce(&mut AnswerState) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AnswerState {
    /// Whether there was an answer.
    fn finish(&mut self) -> bool {
        if let Some(when_sent) = self.when_sent.take() {
            when_sent(Sent { bytes: self.sent, failure: self.failure.take() });
        }
        std::mem::take(&mut self.is_answering)
    }
}

/// The length of a head. hyper writes a head in one piece, perhaps with the start of the body after it.
fn head_len(first: &[u8]) -> usize {
    let end = first.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    end.map_or(first.len(), |end| end + 4)
}
