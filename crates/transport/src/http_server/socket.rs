//! A socket that counts the bytes sent, gives up on a peer that takes none or too few, and replaces empty error
//! answers with a text.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::admission::Phase;
use super::file_parts::is_placeholder;
use super::listener::EncryptedStream;
use super::paced_stream::PeerStream;
use super::port_state::ConnectionPlace;
use super::progress::AnswerProgress;

/// Least average rate in bytes per second at which a peer must take an answer while the server waits for it. A BMC
/// that fetches virtual media takes ten times as much.
const MIN_RATE: u64 = 4 * 1024;

impl PeerStream for Box<dyn EncryptedStream> {
    /// The kernel does not encrypt: [`Caller::file_parts`](super::Caller::file_parts) offers none here.
    fn poll_send(
        &mut self,
        _: &mut Context<'_>,
        _: impl FnMut(BorrowedFd<'_>, usize) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

/// The type of a TLS record of the handshake, as a ClientHello begins (RFC 8446 §5.1). No method of HTTP begins so.
const TLS_HANDSHAKE: u8 = 22;

/// What the first byte of a connection shows, for its [`Socket`] and the loop.
#[derive(Clone, Debug, Default)]
pub(super) struct FirstByte {
    is_read: bool,
    is_tls: Arc<AtomicBool>,
}

impl FirstByte {
    /// Whether the peer began a TLS handshake.
    pub(super) fn is_tls(&self) -> bool {
        self.is_tls.load(Ordering::Acquire)
    }

    fn read(&mut self, bytes: &[u8]) {
        if let (false, Some(first)) = (self.is_read, bytes.first()) {
            self.is_read = true;
            self.is_tls.store(*first == TLS_HANDSHAKE, Ordering::Release);
        }
    }
}

/// The server's side of a connection.
#[derive(Debug)]
pub(super) struct Socket<S> {
    stream: S,
    first: FirstByte,
    progress: AnswerProgress,
    held: Arc<ConnectionPlace>,
    patience: Duration,
    stalled: Option<Stalled>,
    /// For the current answer: time spent waiting for the peer, and bytes taken.
    waited: Duration,
    taken: u64,
    /// The text that replaces hyper's own answer, and the number of its bytes sent.
    in_words: Option<(Vec<u8>, usize)>,
}

#[derive(Debug)]
struct Stalled {
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<S: PeerStream> Socket<S> {
    pub(super) fn new(
        stream: S,
        first: FirstByte,
        progress: AnswerProgress,
        held: Arc<ConnectionPlace>,
    ) -> Self {
        let patience = held.limits().stall;
        Self {
            stream,
            first,
            progress,
            held,
            patience,
            stalled: None,
            waited: Duration::ZERO,
            taken: 0,
            in_words: None,
        }
    }

    /// Fails if the peer has taken nothing for the stall time, or too little for longer.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let allowed = self.patience + Duration::from_secs(self.taken / MIN_RATE);
        let patience = self.patience.min(allowed.saturating_sub(self.waited));
        let stalled = self.stalled.get_or_insert_with(|| Stalled {
            since: Instant::now(),
            timer: Box::pin(sleep(patience)),
        });
        ready!(stalled.timer.as_mut().poll(cx));
        self.held.is_slow();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")))
    }

    fn took(&mut self, bytes: usize) {
        self.taken += bytes as u64;
        if let Some(stalled) = self.stalled.take() {
            self.waited += stalled.since.elapsed();
        }
    }

    /// hyper answers an unparsable request itself, without a body, and an empty body hangs shim (`httpboot.c`): this
    /// sends the same status with a text. hyper closes the connection afterwards.
    fn say_in_words(&mut self, cx: &mut Context<'_>, answer: &[u8]) -> Poll<io::Result<usize>> {
        let (words, said) = self.in_words.get_or_insert_with(|| (in_words(answer), 0));
        while *said < words.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &words[*said..])? {
                Poll::Ready(n) => *said += n,
                Poll::Pending => return self.wait(cx),
            }
        }
        Poll::Ready(Ok(answer.len()))
    }
}

fn in_words(answer: &[u8]) -> Vec<u8> {
    let head = String::from_utf8_lossy(answer);
    let status = head.split("\r\n").next().unwrap_or_default().split_once(' ');
    let status = status.map_or("400 Bad Request", |(_, status)| status);
    let body = if status.starts_with("414") || status.starts_with("431") {
        "the request's headers are too long\n"
    } else {
        "this is not a request of HTTP/1.1\n"
    };
    let len = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {len}\r\nContent-Type: text/plain\r\n\
         Connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Whether the bytes are an interim answer, which hyper writes when the first byte of a body is awaited.
fn is_interim(bytes: &[u8]) -> bool {
    bytes.starts_with(b"HTTP/1.1 100 ")
}

impl<S: PeerStream> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.as_mut().poll_write_vectored(cx, &[IoSlice::new(buffer)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = buffers.iter().find(|buffer| !buffer.is_empty());
        let Some(first) = first else { return Poll::Ready(Ok(0)) };
        let is_ours = self.progress.is_answering();
        if !is_ours && !is_interim(first) {
            return self.say_in_words(cx, first);
        }
        let taken = if is_placeholder(first) {
            let (parts, most) = (self.progress.file_parts(), first.len());
            self.stream.poll_send(cx, |socket, paced| parts.send(socket, most.min(paced)))
        } else {
            let parts = buffers.iter().position(|buffer| is_placeholder(buffer));
            let buffers = &buffers[..parts.unwrap_or(buffers.len())];
            Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
        };
        match taken? {
            Poll::Ready(taken) => {
                if is_ours {
                    self.progress.wrote(first, taken);
                }
                self.took(taken);
                Poll::Ready(Ok(taken))
            }
            Poll::Pending => self.wait(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx)? {
            Poll::Ready(()) => self.took(0),
            // An encrypted stream holds the last bytes.
            Poll::Pending => return self.wait(cx).map_ok(|_| ()),
        }
        if self.progress.flushed() {
            (self.waited, self.taken) = (Duration::ZERO, 0);
            self.held.enter(Phase::Idle);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: PeerStream> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.first.read(&buffer.filled()[before..]);
        let has_no_request = matches!(self.held.phase(), Phase::Idle | Phase::Handshake);
        if buffer.filled().len() > before && has_no_request {
            self.held.enter(Phase::Head);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> Drop for Socket<S> {
    fn drop(&mut self) {
        self.progress.closed();
    }
}
