//! Connections of clients, and the requests on them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;

use anyhow::{Context as _, Result, ensure};
use openssl::ssl::{SslConnector, SslMethod};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_openssl::SslStream;

/// What is fetched, and how.
#[derive(Clone)]
pub(crate) struct Target {
    address: SocketAddr,
    path: String,
    pub(crate) tls: Option<SslConnector>,
    receive_buffer: Option<u32>,
}

/// A connection, perhaps encrypted.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Target {
    pub(crate) fn new(address: &str, path: &str, ca: Option<&Path>) -> Result<Self> {
        let tls = ca.map(|ca| {
            let mut connector = SslConnector::builder(SslMethod::tls_client())?;
            connector.set_ca_file(ca)?;
            anyhow::Ok(connector.build())
        });
        let (address, path) = (address.parse()?, path.to_owned());
        Ok(Self { address, path, tls: tls.transpose()?, receive_buffer: None })
    }

    /// With sockets whose receive buffer has this size (`SO_RCVBUF`), not one of the kernel's choice.
    pub(crate) fn with_receive_buffer(self, bytes: u32) -> Self {
        Self { receive_buffer: Some(bytes), ..self }
    }

    /// A path for the client with this number.
    pub(crate) fn path(&self, number: usize) -> String {
        self.path.replace("{n}", &number.to_string())
    }

    pub(crate) async fn connect(&self, from: Ipv4Addr) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        // Without it the kernel chooses a port that is free for this target, even after many thousand connections.
        if from != Ipv4Addr::LOCALHOST {
            socket.bind((from, 0).into())?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    pub(crate) async fn open(&self, from: Ipv4Addr) -> Result<Box<dyn Stream>> {
        let stream = self.connect(from).await?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let ssl = tls.configure()?.into_ssl(&self.address.ip().to_string())?;
        let mut stream = SslStream::new(ssl, stream)?;
        Pin::new(&mut stream).connect().await?;
        Ok(Box::new(stream))
    }
}

/// An address for each client, in the network 127.`network`.0.0.
pub(crate) fn source(network: u8, number: usize) -> Ipv4Addr {
    let [_, _, low, last] = (number as u32 + 1).to_be_bytes();
    Ipv4Addr::new(127, network, low, last)
}

/// The head of an answer.
pub(crate) struct Head {
    pub(crate) length: u64,
    /// The bytes of the body that came with the head.
    pub(crate) began: u64,
}

/// Sends a request and reads the head of its answer.
pub(crate) async fn ask(
    stream: &mut dyn Stream,
    method: &str,
    path: &str,
    headers: &str,
) -> Result<Head> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 192.0.2.1\r\nAccept: */*\r\nUser-Agent: UefiHttpBoot/1.0\r\n\
         {headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let (mut buffer, mut read) = ([0; 2048], 0);
    loop {
        let more = stream.read(&mut buffer[read..]).await?;
        ensure!(more > 0, "the connection ended within a head");
        read += more;
        let Some(end) = buffer[..read].windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&buffer[..end])?;
        ensure!(head.starts_with("HTTP/1.1 20"), "{method} {path}: {head}");
        let length = head.lines().filter_map(|line| line.split_once(": "));
        let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length = length.map(|(_, value)| value).next().context("no length")?.parse()?;
        return Ok(Head { length, began: (read - end - 4) as u64 });
    }
}

/// Reads the rest of a body in reads of `block` bytes.
pub(crate) async fn read_body(stream: &mut dyn Stream, head: &Head, block: usize) -> Result<()> {
    let mut left = head.length - head.began;
    let mut buffer = vec![0; block];
    while left > 0 {
        let most = block.min(usize::try_from(left).unwrap_or(block));
        let read = stream.read(&mut buffer[..most]).await?;
        ensure!(read > 0, "the connection ended {left} bytes before the body");
        left -= read as u64;
    }
    Ok(())
}
