//! A connection of a port, which sends no more at once than its answer's share.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::sockopt::{GetStruct, SndBuf};
use nix::sys::socket::{getsockopt, setsockopt};
use nix::{getsockopt_impl, libc, sockopt_impl};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::pacing::{MOST_SHARE, Pacing};

/// The round trip is that of an answer's data after this number of bytes.
const KNOWN_AFTER: u64 = 128 << 10;

sockopt_impl!(
    /// The kernel's view of a connection (`TCP_INFO`, tcp(7)).
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    libc::tcp_info,
    GetStruct<libc::tcp_info>
);

/// A connection below TLS.
#[derive(Debug)]
pub struct PacedStream {
    stream: TcpStream,
    pacing: Arc<Pacing>,
    /// The share that the kernel was given.
    share: Option<usize>,
    /// The number of bytes that were sent.
    sent: u64,
    /// The number of bytes that were sent since a full socket, or the share, last ended a turn of the connection's task.
    sent_in_turn: usize,
}

impl PacedStream {
    pub(super) fn new(stream: TcpStream, pacing: Arc<Pacing>) -> Self {
        Self { stream, pacing, share: None, sent: 0, sent_in_turn: 0 }
    }

    /// The local address.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Waits for the peer's first byte, which stays to be read, or for the end of the connection without any: then `false`.
    pub(super) async fn has_first_byte(&self) -> bool {
        matches!(self.stream.peek(&mut [0]).await, Ok(1))
    }

    /// The number of bytes that one write takes now at most: half of the answer's share, since the kernel takes a whole write
    /// if there is any room.
    #[must_use]
    pub fn longest_write(&self) -> usize {
        self.pacing.share().map_or(usize::MAX, |share| share / 2)
    }

    /// Counts the bytes that the socket took. If it takes none, the task's turn ends by itself.
    fn counted(&mut self, sent: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match sent {
            Poll::Ready(Ok(sent)) => self.count(sent),
            Poll::Pending => self.sent_in_turn = 0,
            Poll::Ready(Err(_)) => {}
        }
        sent
    }

    fn count(&mut self, sent: usize) {
        self.sent += sent as u64;
        self.sent_in_turn += sent;
        // Before, it is the round trip of the connection's first packets, from before the storm.
        let is_known = self.sent > KNOWN_AFTER;
        let round_trip = || {
            let info = is_known.then(|| getsockopt(&self.stream, TcpInfo))?.ok()?;
            Some(Duration::from_micros(info.tcpi_rtt.into()))
        };
        self.pacing.sent(sent, round_trip);
    }

    /// Ends the task's turn once it has sent its share: where peers take everything at once, the processors are the limit,
    /// and the other connections' tasks wait for them. The task goes on after theirs. The turn of an answer that is alone lasts
    /// until tokio ends it: tokio would wake a second thread at the end of each turn.
    fn poll_turn(&mut self, cx: &Context<'_>) -> Poll<()> {
        let is_over = self.sent_in_turn >= self.share.unwrap_or(MOST_SHARE);
        if !is_over || self.pacing.answers() <= 1 {
            return Poll::Ready(());
        }
        self.sent_in_turn = 0;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The number of bytes to send now at most.
    fn most(&mut self) -> usize {
        let share = self.pacing.share();
        if share != self.share {
            // The kernel doubles the size, for its own use. What it holds already is sent. If it refuses, writes are
            // short all the same.
            let buffer = share.unwrap_or(MOST_SHARE) / 2;
            let _ = setsockopt(&self.stream, SndBuf, &buffer);
            self.share = share;
        }
        self.longest_write()
    }
}

/// The other answers of a port, for tests of its connections.
#[cfg(feature = "test-servers")]
#[derive(Clone, Debug)]
pub struct OtherAnswers(Arc<Pacing>);

#[cfg(feature = "test-servers")]
impl OtherAnswers {
    /// No other answers.
    #[expect(clippy::new_without_default, reason = "a port's pacing begins at a time")]
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Pacing::new()))
    }

    /// A connection of the port.
    #[must_use]
    pub fn connection(&self, stream: TcpStream) -> PacedStream {
        PacedStream::new(stream, Arc::clone(&self.0))
    }

    /// So many answers begin.
    pub fn begin(&self, answers: usize) {
        (0..answers).for_each(|_| self.0.begin());
    }
}

/// The bytes between server and peer.
pub(super) trait PeerStream: AsyncRead + AsyncWrite + Send + Unpin {
    /// Calls `send` with the number of bytes to send at most, as soon as the peer can take something.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        send: impl FnMut(BorrowedFd<'_>, usize) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>>;
}

impl PeerStream for PacedStream {
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        mut send: impl FnMut(BorrowedFd<'_>, usize) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(cx));
        let most = self.most();
        let sent = loop {
            if self.stream.poll_write_ready(cx)?.is_pending() {
                break Poll::Pending;
            }
            let stream = &self.stream;
            match stream.try_io(Interest::WRITABLE, || send(stream.as_fd(), most)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => break Poll::Ready(done),
            }
        };
        self.counted(sent)
    }
}

impl AsyncRead for PacedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PacedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(cx));
        let most = self.most().min(buffer.len());
        let sent = Pin::new(&mut self.stream).poll_write(cx, &buffer[..most]);
        self.counted(sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if buffers.iter().map(|buffer| buffer.len()).sum::<usize>() > self.most() {
            let first = buffers.iter().find(|buffer| !buffer.is_empty());
            return self.poll_write(cx, first.map_or(&[], |first| first));
        }
        ready!(self.poll_turn(cx));
        let sent = Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        self.counted(sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Read as _;
    use std::net::TcpListener;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpSocket;

    use super::*;

    const PART: usize = 32 << 10;

    /// The number of bytes that a connection's task sends in a turn while this number of answers is current. Its peer takes
    /// everything at once, and is given `8 * MOST_SHARE` bytes at most.
    async fn sent_in_turn(answers: usize) -> usize {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        // All of a share fits, so that the socket itself never ends a turn.
        socket.set_send_buffer_size(4 * MOST_SHARE as u32).unwrap();
        let stream = socket.connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let pacing = Arc::new(Pacing::new());
        (0..answers).for_each(|_| pacing.begin());
        let mut stream = PacedStream::new(stream, pacing);

        let mut in_turn = 0;
        poll_fn(|cx| {
            while in_turn < 8 * MOST_SHARE
                && let Poll::Ready(sent) = Pin::new(&mut stream).poll_write(cx, &[0; PART])
            {
                let sent = sent.unwrap();
                peer.read_exact(&mut vec![0; sent]).unwrap();
                in_turn += sent;
            }
            Poll::Ready(())
        })
        .await;
        stream.write_all(&[0; PART]).await.unwrap();
        in_turn
    }

    #[tokio::test]
    async fn a_task_whose_peer_takes_everything_lets_others_run_after_each_share() {
        assert_eq!(sent_in_turn(2).await, MOST_SHARE);
    }

    #[tokio::test]
    async fn a_task_whose_answer_is_alone_sends_on() {
        assert_eq!(sent_in_turn(1).await, 8 * MOST_SHARE);
    }
}
