//! A connection to firmware after its handshake. Records are sent together: one call of the kernel for each of them would
//! take about as long as their encryption.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use openssl::error::ErrorStack;
use openssl::ssl::{self, Ssl, SslRef};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_openssl::SslStream;
use transport::http_server::PacedStream;

/// Longest content of a record (RFC 8446 §5.1).
const RECORD: usize = 16 * 1024;
/// What encryption adds to a record: its header, and at most an initialisation vector, a tag of SHA-384 and padding.
const OVERHEAD: usize = 5 + 16 + 48 + 16;
/// Number of bytes that are sent together at most: four records with what encryption adds.
const MOST_BATCH: usize = 4 * (RECORD + 256);

/// The server's side of an encrypted connection.
#[derive(Debug)]
pub(crate) struct FirmwareStream {
    ssl: SslStream<RecordBatch>,
    /// The content of a record that is not written yet: OpenSSL wants no less of it at the next attempt.
    pending: Option<usize>,
}

impl FirmwareStream {
    /// A connection before its handshake.
    ///
    /// # Errors
    /// OpenSSL's.
    pub(crate) fn new(ssl: Ssl, stream: PacedStream) -> Result<Self, ErrorStack> {
        let batch = RecordBatch { stream, unsent: Vec::new(), sent: 0 };
        Ok(Self { ssl: SslStream::new(ssl, batch)?, pending: None })
    }

    /// The content of a record now: in a storm so much that one write of the connection takes it, and that its peer can decrypt
    /// what has come.
    fn record(&self) -> usize {
        let write = self.ssl.get_ref().stream.longest_write();
        self.pending.unwrap_or_else(|| write.saturating_sub(OVERHEAD).clamp(1, RECORD))
    }

    /// What the handshake agreed on.
    pub(crate) fn ssl(&self) -> &SslRef {
        self.ssl.ssl()
    }

    /// Makes the handshake.
    ///
    /// # Errors
    /// OpenSSL's.
    pub(crate) async fn accept(&mut self) -> Result<(), ssl::Error> {
        Pin::new(&mut self.ssl).accept().await
    }
}

impl AsyncRead for FirmwareStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.ssl).poll_read(cx, buffer)
    }
}

impl AsyncWrite for FirmwareStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let record = self.record();
        let buffer = &buffer[..record.min(buffer.len())];
        let written = Pin::new(&mut self.ssl).poll_write(cx, buffer);
        self.pending = written.is_pending().then_some(record);
        written
    }

    /// The head of an answer and the start of its body are one record.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = buffers.iter().filter(|buffer| !buffer.is_empty());
        let Some(first) = filled.next() else { return Poll::Ready(Ok(0)) };
        let most = self.record();
        if first.len() >= most {
            return self.poll_write(cx, first);
        }
        let mut record = first.to_vec();
        for buffer in filled {
            let room = most - record.len();
            record.extend_from_slice(&buffer[..buffer.len().min(room)]);
        }
        self.as_mut().poll_write(cx, &record)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ssl.get_mut().poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.ssl).poll_shutdown(cx)
    }
}

/// The socket below OpenSSL, with the records that are not sent yet.
#[derive(Debug)]
struct RecordBatch {
    stream: PacedStream,
    unsent: Vec<u8>,
    /// The number of bytes of `unsent` that were sent.
    sent: usize,
}

impl RecordBatch {
    /// The number of bytes to send together now: in a storm, more would only wait in memory.
    fn most(&self) -> usize {
        self.stream.longest_write().saturating_mul(2).min(MOST_BATCH)
    }

    /// Sends all records. The memory is given back: most connections are idle.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            let unsent = &self.unsent[self.sent..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        (self.unsent, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Sends as much as the socket takes now. The rest follows at the next call, for which the task is woken.
    fn send_now(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.poll_send(cx) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncWrite for RecordBatch {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        record: &[u8],
    ) -> Poll<io::Result<usize>> {
        let most = self.most();
        if self.unsent.len() + record.len() > most {
            ready!(self.poll_send(cx))?;
        }
        if self.unsent.is_empty() {
            // A record that fills an eighth of the batch seldom comes alone.
            let room = if record.len() < most / 8 { record.len() } else { most.max(record.len()) };
            self.unsent.reserve_exact(room);
        }
        self.unsent.extend_from_slice(record);
        Poll::Ready(Ok(record.len()))
    }

    /// At the end of a flight of the handshake. OpenSSL takes an incomplete flush for an error.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send_now(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncRead for RecordBatch {
    /// The peer may wait for a record before it sends more.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.send_now(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}
