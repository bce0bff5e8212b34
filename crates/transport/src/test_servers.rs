//! Hostile HTTP servers for tests.

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The server's reaction to a request.
#[derive(Clone, Copy, Debug)]
pub enum Hostility {
    /// No answer.
    Silent,
    /// A head, then an endless body.
    Endless,
    /// A `Content-Length` of 100 GB, and no body.
    LiesLong,
    /// A `Content-Length` of 10 bytes, and 5 bytes of body.
    BreaksOff,
    /// An endless head.
    EndlessHead,
    /// One byte every 20 ms.
    Trickles,
    /// A redirect to itself.
    Redirects,
    /// A compressed body of zeros, 1000 times as large when unpacked.
    Bomb,
}

/// A hostile server on loopback.
///
/// # Panics
/// No port is free.
pub async fn hostile_server(hostility: Hostility) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback is free");
    let address = listener.local_addr().expect("a listener has an address");
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("a connection comes");
            connections.spawn(answer(stream, hostility));
        }
    });
    address
}

async fn answer(mut stream: TcpStream, hostility: Hostility) {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await;
    let _: Result<(), std::io::Error> = async {
        match hostility {
            Hostility::Silent => pending().await,
            Hostility::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await?;
                loop {
                    stream.write_all(&[b'['; 65_536]).await?;
                }
            }
            Hostility::LiesLong => {
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n";
                stream.write_all(head.as_bytes()).await?;
                pending().await
            }
            Hostility::BreaksOff => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345").await
            }
            Hostility::EndlessHead => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
                loop {
                    stream.write_all(b"X-More: and more\r\n").await?;
                }
            }
            Hostility::Trickles => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await?;
                loop {
                    stream.write_all(b" ").await?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Hostility::Redirects => {
                stream
                    .write_all(
                        b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\
                          Connection: close\r\n\r\n",
                    )
                    .await
            }
            Hostility::Bomb => {
                // `gzip -9` of a mebibyte of zeros, only its header; the rest does not matter.
                let body = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x00\x00\x00\x00\x00\x00";
                let head = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\
                            Content-Length: 16\r\n\r\n";
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(body).await
            }
        }
    }
    .await;
}
