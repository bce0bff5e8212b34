//! Connections that are held and fetch nothing more.

use std::io::{self, Write as _};
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use openssl::ssl::SslConnector;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_openssl::SslStream;

use crate::connect::{Stream, Target, ask, read_body, source};

/// Connections that are opened at the same time.
const AT_ONCE: usize = 64;
/// The network of strangers.
const STRANGERS: u8 = 2;

pub(crate) async fn idle(
    client: &str,
    target: &Target,
    connections: usize,
    sources: usize,
) -> Result<()> {
    let hello = match &target.tls {
        Some(tls) => client_hello(tls).await?,
        None => b"GET /boot/".to_vec(),
    };
    let open = async |number: usize| -> Result<Box<dyn Stream>> {
        let from =
            if sources > 1 { source(STRANGERS, number % sources) } else { Ipv4Addr::LOCALHOST };
        Ok(match client {
            "silent" => Box::new(target.connect(from).await?),
            "half" => {
                let mut stream = target.connect(from).await?;
                // The server may have closed it already.
                let _ = stream.write_all(&hello).await;
                Box::new(stream)
            }
            "used" => {
                let mut stream = target.open(from).await?;
                let head = ask(&mut *stream, "GET", &target.path(number), "").await?;
                read_body(&mut *stream, &head, 4096).await?;
                stream
            }
            other => bail!("there is no client `{other}`"),
        })
    };
    let opening = stream::iter(0..connections).map(open).buffer_unordered(AT_ONCE);
    let held: Vec<_> = opening.try_collect().await?;
    writeln!(io::stdout(), "{}", held.len())?;
    io::stdout().flush()?;
    tokio::io::stdin().read_to_end(&mut Vec::new()).await.context("cannot wait")?;
    Ok(())
}

/// The first message of a handshake.
async fn client_hello(tls: &SslConnector) -> Result<Vec<u8>> {
    let (ours, mut theirs) = tokio::io::duplex(16 * 1024);
    let ssl = tls.configure()?.into_ssl("192.0.2.1")?;
    let mut stream = SslStream::new(ssl, ours)?;
    let mut hello = vec![0; 16 * 1024];
    let read = tokio::select! {
        read = theirs.read(&mut hello) => read?,
        _ = Pin::new(&mut stream).connect() => bail!("the handshake ended by itself"),
    };
    hello.truncate(read);
    Ok(hello)
}
