//! A socket that counts what it takes, gives up on a peer that takes nothing, and never lets an
//! error without words out.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::progress::Progress;

/// The server's side of a connection.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    progress: Progress,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    /// An answer in words in place of hyper's own, and how far it got.
    in_words: Option<(Vec<u8>, usize)>,
}

impl<S: AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(stream: S, progress: Progress, patience: Duration) -> Self {
        Self { stream, progress, patience, stalled: None, in_words: None }
    }

    /// Fails once the peer has taken nothing for as long as our patience is.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")))
    }

    /// hyper answers what it cannot parse by itself, with no body, and a body of no bytes hangs
    /// shim (`httpboot.c`): say the same in words. hyper closes the connection afterwards.
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
        "this is no request of HTTP/1.1\n"
    };
    let len = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {len}\r\nContent-Type: text/plain\r\n\
         Connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
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
        if !self.progress.is_answering() {
            return self.say_in_words(cx, first);
        }
        match Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)? {
            Poll::Ready(taken) => {
                self.progress.wrote(first, taken);
                self.stalled = None;
                Poll::Ready(Ok(taken))
            }
            Poll::Pending => self.wait(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.progress.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        self.progress.closed();
    }
}
