//! A stream that keeps the first bytes that it received: they show a server that does not speak TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connect_failure::ConnectFailure;

const HTTP: &[u8; 5] = b"HTTP/";

/// A stream and the first bytes from it.
#[derive(Debug)]
pub(crate) struct FirstBytes<S> {
    stream: S,
    first: [u8; HTTP.len()],
    len: usize,
}

impl<S> FirstBytes<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, first: [0; HTTP.len()], len: 0 }
    }

    /// The failure if the server answered with plain HTTP.
    pub(crate) fn http_answer(&self) -> Option<ConnectFailure> {
        (self.first == *HTTP).then(|| {
            ConnectFailure::Unusable(
                "the BMC answers plain HTTP where https was expected: begin redfish_address with http://, or \
                 correct its port"
                    .to_owned(),
            )
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstBytes<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let Self { first, len, .. } = &mut *self;
        for (place, byte) in first[*len..].iter_mut().zip(&buf.filled()[before..]) {
            *place = *byte;
            *len += 1;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstBytes<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
