//! The machines of a storm.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use openssl::ssl::{SslConnector, SslMethod};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_openssl::SslStream;

/// EDK2's receive window before 2023-09; the kernel doubles the value for its own use.
const WINDOW: u32 = 32 * 1024;
/// A machine that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// What one machine measured.
struct Boot {
    first_byte: Duration,
    longest_gap: Duration,
    all: Duration,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(crate) async fn boot(
    target: SocketAddr,
    machines: usize,
    behind_nat: bool,
    ca: Option<&Path>,
) -> Result<()> {
    let tls = ca.map(|ca| {
        let mut connector = SslConnector::builder(SslMethod::tls_client())?;
        connector.set_ca_file(ca)?;
        anyhow::Ok(connector.build())
    });
    let tls = tls.transpose()?;
    let (mut boots, start) = (JoinSet::new(), Arc::new(Barrier::new(machines)));
    for number in 0..machines {
        let [_, _, high, low] = u32::try_from(number + 1)?.to_be_bytes();
        let from = if behind_nat { Ipv4Addr::LOCALHOST } else { Ipv4Addr::new(127, 1, high, low) };
        let (tls, start) = (tls.clone(), Arc::clone(&start));
        boots.spawn(async move {
            start.wait().await;
            timeout(PATIENCE, one(target, from, number, tls)).await.context("too slow")?
        });
    }
    let mut done = Vec::new();
    let mut failures = Vec::new();
    while let Some(boot) = boots.join_next().await {
        match boot? {
            Ok(boot) => done.push(boot),
            Err(failure) => failures.push(format!("{failure:#}")),
        }
    }
    report(&mut done, &failures)
}

fn report(done: &mut [Boot], failures: &[String]) -> Result<()> {
    done.sort_by_key(|boot| boot.first_byte);
    let at = |percent: usize| done.get(done.len() * percent / 100).or_else(|| done.last());
    let millis = |time: Duration| time.as_millis();
    let first = |percent| at(percent).map_or(0, |boot| millis(boot.first_byte));
    let gap = done.iter().map(|boot| boot.longest_gap).max().unwrap_or_default();
    let all = done.iter().map(|boot| boot.all).max().unwrap_or_default();
    let soonest = done.iter().map(|boot| boot.all).min().unwrap_or_default();
    let mut out = std::io::stdout();
    writeln!(
        out,
        "first byte {} {} {}  gap {}  done {} to {}  failed {}",
        first(50),
        first(99),
        first(100),
        millis(gap),
        millis(soonest),
        millis(all),
        failures.len()
    )?;
    if let Some(failure) = failures.first() {
        writeln!(out, "    {failure}")?;
    }
    Ok(())
}

async fn one(
    target: SocketAddr,
    from: Ipv4Addr,
    number: usize,
    tls: Option<SslConnector>,
) -> Result<Boot> {
    let start = Instant::now();
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(WINDOW)?;
    socket.bind((from, 0).into())?;
    let stream = socket.connect(target).await.context("connect")?;
    stream.set_nodelay(true)?;
    let mut stream: Box<dyn Stream> = match tls {
        None => Box::new(stream),
        Some(tls) => {
            let ssl = tls.configure()?.into_ssl("127.0.0.1")?;
            let mut stream = SslStream::new(ssl, stream)?;
            Pin::new(&mut stream).connect().await.context("handshake")?;
            Box::new(stream)
        }
    };
    let path = format!("/boot/m{number}/boot.iso");
    ask(&mut *stream, "HEAD", &path).await?;
    let (length, mut read) = ask(&mut *stream, "GET", &path).await?;
    let (mut last, mut first_byte, mut longest_gap) = (Instant::now(), None, Duration::ZERO);
    let mut buffer = vec![0; 16 * 1024];
    while read < length {
        if read > 0 {
            first_byte.get_or_insert(last - start);
        }
        let more = stream.read(&mut buffer).await?;
        ensure!(more > 0, "the answer ended after {read} of {length} bytes");
        let now = Instant::now();
        longest_gap = longest_gap.max(now - last);
        (read, last) = (read + more as u64, now);
    }
    let first_byte = first_byte.unwrap_or(last - start);
    Ok(Boot { first_byte, longest_gap, all: start.elapsed() })
}

/// The length of the body, and how much of it came with the head.
async fn ask(stream: &mut dyn Stream, method: &str, path: &str) -> Result<(u64, u64)> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nUser-Agent: UefiHttpBoot/1.0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let (mut head, mut read) = ([0; 4096], 0);
    loop {
        let more = stream.read(&mut head[read..]).await.context("head")?;
        ensure!(more > 0, "the connection ended within the head of {method}");
        read += more;
        let Some(end) = head[..read].windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let text = std::str::from_utf8(&head[..end])?;
        ensure!(text.starts_with("HTTP/1.1 200 "), "{method} {path}: {text}");
        let length = text.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        return Ok((length.context("no length")?.parse()?, (read - end - 4) as u64));
    }
}
