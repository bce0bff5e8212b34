//! The listeners of a port: plain HTTP, or HTTP over TLS.

use std::fmt::{self, Debug};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use super::paced_stream::PacedStream;

/// A listening socket, and its TLS.
#[derive(Debug)]
pub struct PortListener {
    /// The listening socket.
    pub socket: TcpListener,
    /// The TLS of its connections; `None` for plain HTTP.
    pub tls: Option<Arc<dyn ListenerTls>>,
}

/// The server's side of TLS.
pub trait ListenerTls: Debug + Send + Sync {
    /// Makes the handshake on a new connection to the local address `near`.
    fn accept(
        &self,
        stream: PacedStream,
        near: IpAddr,
    ) -> BoxFuture<'_, Result<EncryptedConnection, HandshakeFailure>>;
}

/// A connection after its handshake.
pub struct EncryptedConnection {
    /// The connection.
    pub stream: Box<dyn EncryptedStream>,
    /// What the two ends agreed on: version, cipher and kind of certificate, for people.
    pub agreed: String,
}

/// The stream of a connection after its handshake.
pub trait EncryptedStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> EncryptedStream for S {}

/// The reason why a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HandshakeFailure {
    /// The client sent this alert (RFC 8446 §6).
    #[error("the client ended the TLS handshake: {0}")]
    Alert(TlsAlert),
    /// The client offers no cipher, group or signature that this listener permits.
    #[error("the client offers no cipher that this listener permits")]
    NoCommonCipher,
    /// The client offers no version that this listener permits.
    #[error("the client offers no version of TLS that this listener permits")]
    NoCommonVersion,
    /// The client speaks plain HTTP, or anything else that is no TLS.
    #[error("the client sends no TLS to a port for HTTPS")]
    NotTls,
    /// The client speaks TLS, and the port is for plain HTTP.
    #[error("the client speaks TLS on a port for plain HTTP")]
    PlainPort,
    /// The client ended the handshake, and the listener's certificate has expired.
    #[error("the client ended the TLS handshake: the certificate of this listener has expired")]
    Expired,
    /// The client closed the connection within the handshake.
    #[error("the client closed the connection within the TLS handshake")]
    Closed,
    /// The listener has no usable certificate.
    #[error("this listener has no usable certificate: {0}")]
    NoCertificate(String),
    /// Anything else.
    #[error("the TLS handshake failed: {0}")]
    Other(String),
}

/// The description of an alert (RFC 8446 §6, RFC 5246 §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsAlert(pub u8);

impl fmt::Display for TlsAlert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            40 => "handshake_failure",
            42 => "bad_certificate",
            43 => "unsupported_certificate",
            44 => "certificate_revoked",
            45 => "certificate_expired",
            46 => "certificate_unknown",
            47 => "illegal_parameter",
            48 => "unknown_ca",
            49 => "access_denied",
            50 => "decode_error",
            51 => "decrypt_error",
            70 => "protocol_version",
            71 => "insufficient_security",
            80 => "internal_error",
            90 => "user_canceled",
            112 => "unrecognized_name",
            other => return write!(f, "alert {other}"),
        };
        f.write_str(name)
    }
}

/// A new connection.
#[derive(Debug)]
pub(super) struct NewConnection {
    pub(super) stream: TcpStream,
    /// The remote address.
    pub(super) peer: SocketAddr,
    pub(super) tls: Option<Arc<dyn ListenerTls>>,
}

/// The listeners of a port, which are asked in turns: a flood on one must not keep the others waiting.
#[derive(Debug)]
pub(super) struct Listeners {
    all: Vec<PortListener>,
    /// The listener that is asked first.
    first: usize,
}

impl Listeners {
    pub(super) fn new(all: Vec<PortListener>) -> Self {
        Self { all, first: 0 }
    }

    /// The next connection on any of them.
    pub(super) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<NewConnection>> {
        for number in (0..self.all.len()).map(|after| (self.first + after) % self.all.len()) {
            let listener = &self.all[number];
            if let Poll::Ready(accepted) = listener.socket.poll_accept(cx) {
                self.first = number + 1;
                let tls = listener.tls.clone();
                return Poll::Ready(accepted.map(|(stream, peer)| NewConnection {
                    stream,
                    peer: canonical(peer),
                    tls,
                }));
            }
        }
        Poll::Pending
    }
}

fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::from((v4, peer.port())),
        // Keeps the scope of a link-local address.
        IpAddr::V6(_) => peer,
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn a_listener_with_a_full_backlog_does_not_keep_the_next_one_waiting() {
        let listen = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sockets = [listen().await, listen().await];
        let addresses = sockets.each_ref().map(|socket| socket.local_addr().unwrap());
        let mut clients = Vec::new();
        for address in [0, 0, 0, 1, 1].map(|number| addresses[number]) {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let all = sockets.map(|socket| PortListener { socket, tls: None });
        let mut listeners = Listeners::new(all.into());

        let mut order = Vec::new();
        for _ in &clients {
            let new = poll_fn(|cx| listeners.poll_accept(cx)).await.unwrap();
            let near = new.stream.local_addr().unwrap();
            order.push(addresses.iter().position(|address| *address == near).unwrap());
        }

        assert_eq!(order, [0, 1, 0, 1, 0]);
    }
}
