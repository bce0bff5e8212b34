//! Connections to BMCs: TCP, and over it TLS by rustls or, where the node's settings permit outdated TLS, by OpenSSL.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use http::uri::Scheme;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower::{Service, ServiceExt as _};

use crate::connect_failure::{ConnectFailure, innermost};
use crate::first_bytes::FirstBytes;
use crate::legacy_tls::LegacyTls;
use crate::modern_tls;

/// Time limit of a connection, with its TLS: a slower BMC is considered unreachable.
const CONNECT: Duration = Duration::from_secs(10);

/// Connects to BMCs under one policy for TLS.
#[derive(Clone)]
pub(crate) struct BmcConnector {
    tcp: HttpConnector,
    tls: BmcTls,
    open: OpenConnections,
}

/// The number of open connections to BMCs. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct OpenConnections(Arc<AtomicUsize>);

impl OpenConnections {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn opened(&self) -> OpenConnection {
        self.0.fetch_add(1, Ordering::Relaxed);
        OpenConnection(self.clone())
    }
}

/// Counted as open until it is dropped.
struct OpenConnection(OpenConnections);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The TLS of a [`BmcConnector`].
#[derive(Clone)]
pub(crate) enum BmcTls {
    /// By rustls.
    Modern(TlsConnector),
    /// By OpenSSL.
    Legacy(LegacyTls),
}

impl BmcConnector {
    pub(crate) fn new(tls: BmcTls, open: OpenConnections) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Shared between the addresses of a name.
        tcp.set_connect_timeout(Some(CONNECT));
        Self { tcp, tls, open }
    }

    async fn connect(self, uri: Uri) -> Result<BmcStream, ConnectFailure> {
        let is_https = uri.scheme() == Some(&Scheme::HTTPS);
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let tcp = self.tcp.oneshot(uri).await;
        let tcp = tcp.map_err(|error| unreachable(&host, &error))?.into_inner();
        let open = self.open.opened();
        if !is_https {
            return Ok(BmcStream { stream: Box::new(tcp), _open: open });
        }
        let stream = FirstBytes::new(tcp);
        let stream: Box<dyn ByteStream> = match &self.tls {
            BmcTls::Modern(tls) => Box::new(modern(tls, &host, stream).await?),
            BmcTls::Legacy(tls) => Box::new(tls.connect(&host, stream).await?),
        };
        Ok(BmcStream { stream, _open: open })
    }
}

async fn modern(
    tls: &TlsConnector,
    host: &str,
    stream: FirstBytes<TcpStream>,
) -> Result<tokio_rustls::client::TlsStream<FirstBytes<TcpStream>>, ConnectFailure> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| {
        ConnectFailure::Unusable(format!("{host:?} in redfish_address is no name of a host"))
    })?;
    let connected = tls.connect(name, stream).into_fallible().await;
    connected.map_err(|(error, stream)| {
        stream.http_answer().unwrap_or_else(|| modern_tls::handshake_failure(&error))
    })
}

fn unreachable(host: &str, error: &(dyn Error + 'static)) -> ConnectFailure {
    ConnectFailure::Unreachable(format!("{host} cannot be reached: {}", innermost(error)))
}

impl Service<Uri> for BmcConnector {
    type Response = TokioIo<BmcStream>;
    type Error = ConnectFailure;
    type Future = BoxFuture<'static, Result<Self::Response, ConnectFailure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectFailure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let connected = timeout(CONNECT, connector.connect(uri)).await;
            let slow = || format!("no connection within {} s", CONNECT.as_secs());
            connected.unwrap_or_else(|_| Err(ConnectFailure::Unreachable(slow()))).map(TokioIo::new)
        })
    }
}

/// A connection, with or without TLS.
pub(crate) struct BmcStream {
    stream: Box<dyn ByteStream>,
    _open: OpenConnection,
}

trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

impl Connection for BmcStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for BmcStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

/// Without vectored writes: hyper then sends head and body of a small request in one piece.
impl AsyncWrite for BmcStream {
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
