//! How far the answer on a connection has come, so that it is known what was really sent.
//!
//! Three take part: the loop begins an answer, its body says when it has given all it has, and the
//! socket counts what was taken.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// What became of an answer.
#[derive(Debug)]
pub struct Sent {
    /// Bytes of the body that the socket took.
    pub bytes: u64,
    /// Why the body could not be read to its end.
    pub failure: Option<String>,
}

/// Called once, when the last byte has left or the connection is gone.
pub type WhenSent = Box<dyn FnOnce(Sent) + Send>;

/// Shared by those who take part.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    state: Arc<Mutex<State>>,
    settled: Arc<Notify>,
}

#[derive(Default)]
struct State {
    is_answering: bool,
    when_sent: Option<WhenSent>,
    /// The body has no more to give.
    all_given: bool,
    failure: Option<String>,
    head: Head,
    /// Bytes of the body that the socket took.
    sent: u64,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("sent", &self.sent).finish_non_exhaustive()
    }
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
    pub(super) fn begin(&self, when_sent: Option<WhenSent>) {
        self.with(|state| *state = State { is_answering: true, when_sent, ..State::default() });
    }

    /// Whether an answer of ours is on its way.
    pub(super) fn is_answering(&self) -> bool {
        self.with(|state| state.is_answering)
    }

    /// The body has given its last byte.
    pub(super) fn all_given(&self) {
        self.with(|state| state.all_given = true);
    }

    /// The body cannot be read to its end.
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
    }

    /// Nothing waits to be written. Whether that is the end of an answer.
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
        self.with(State::finish);
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    /// Whether there was an answer.
    fn finish(&mut self) -> bool {
        if let Some(when_sent) = self.when_sent.take() {
            when_sent(Sent { bytes: self.sent, failure: self.failure.take() });
        }
        std::mem::take(&mut self.is_answering)
    }
}

/// hyper hands a head over in one piece, perhaps with the start of the body behind it.
fn head_len(first: &[u8]) -> usize {
    let end = first.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    end.map_or(first.len(), |end| end + 4)
}
