//! Clients that fetch as firmware and BMCs do.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::connect::{Target, ask, read_body};

/// EDK2 reads a file in blocks of this size (`HTTP_BOOT_BLOCK_SIZE` in `HttpBootClient.h`).
const EDK2_BLOCK: usize = 1500;
/// A BMC's read of virtual media.
const RANGE: u64 = 64 * 1024;

#[derive(Default)]
struct Fetched {
    fetches: u64,
    bytes: u64,
    failed: Option<String>,
    first_bytes: Vec<Duration>,
}

pub(crate) async fn fetch(
    client: &str,
    target: Target,
    connections: usize,
    seconds: f64,
) -> Result<Value> {
    let (target, mut clients) = (Arc::new(target), JoinSet::new());
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(seconds);
    for number in 0..connections {
        let target = Arc::clone(&target);
        match client {
            "edk2" => clients.spawn(repeat(target, number, end)),
            "ranges" => clients.spawn(ranges(target, number, end)),
            other => bail!("there is no client `{other}`"),
        };
    }
    let all = clients.join_all().await;
    let seconds = begun.elapsed().as_secs_f64();
    let failed: Vec<_> = all.iter().filter_map(|one| one.failed.as_ref()).collect();
    let mut first: Vec<_> = all.iter().flat_map(|one| &one.first_bytes).copied().collect();
    first.sort_unstable();
    let below = |share: f64| {
        let at = (first.len() as f64 * share) as usize;
        first.get(at).or_else(|| first.last()).map(|time| time.as_secs_f64() * 1_000.0)
    };
    Ok(json!({
        "fetches": all.iter().map(|one| one.fetches).sum::<u64>() as f64 / seconds,
        "bytes": all.iter().map(|one| one.bytes).sum::<u64>() as f64 / seconds,
        "first_byte": { "p50": below(0.5), "p99": below(0.99), "most": below(1.0) },
        "failed": failed.len(),
        "why": failed.first(),
    }))
}

async fn repeat(target: Arc<Target>, number: usize, end: Instant) -> Fetched {
    let mut all = Fetched::default();
    while Instant::now() < end {
        // A large file may take longer than is left.
        let left = tokio::time::Instant::from_std(end);
        let once = boot(&target, number, &mut all);
        match tokio::time::timeout_at(left, once).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                all.failed = Some(format!("{error:#}"));
                break;
            }
            Err(_) => break,
        }
    }
    all
}

/// HEAD, then GET, on a connection of its own.
async fn boot(target: &Target, number: usize, all: &mut Fetched) -> Result<()> {
    let (begun, path) = (Instant::now(), target.path(number));
    let mut stream = target.open(Ipv4Addr::LOCALHOST).await?;
    ask(&mut *stream, "HEAD", &path, "").await?;
    let mut head = ask(&mut *stream, "GET", &path, "").await?;
    if head.began == 0 {
        let length = head.length;
        head.length = 1;
        read_body(&mut *stream, &head, 1).await?;
        (head.length, head.began) = (length, 1);
    }
    all.first_bytes.push(begun.elapsed());
    all.bytes += head.began;
    while head.began < head.length {
        // Counted as they come: the time may end within a large file.
        let until = head.length.min(head.began + (1 << 20));
        let part = crate::connect::Head { length: until, began: head.began };
        read_body(&mut *stream, &part, EDK2_BLOCK).await?;
        all.bytes += until - head.began;
        head.began = until;
    }
    all.fetches += 1;
    Ok(())
}

/// Ranges of the file in turn, on one connection.
async fn ranges(target: Arc<Target>, number: usize, end: Instant) -> Fetched {
    let mut all = Fetched::default();
    if let Err(error) = read_ranges(&target, number, end, &mut all).await {
        all.failed = Some(format!("{error:#}"));
    }
    all
}

async fn read_ranges(
    target: &Target,
    number: usize,
    end: Instant,
    all: &mut Fetched,
) -> Result<()> {
    let path = target.path(number);
    let mut stream = target.open(Ipv4Addr::LOCALHOST).await?;
    let length = ask(&mut *stream, "HEAD", &path, "").await?.length;
    let mut at = 0;
    while Instant::now() < end {
        let begun = Instant::now();
        let last = (at + RANGE).min(length) - 1;
        let header = format!("Range: bytes={at}-{last}\r\n");
        let head = ask(&mut *stream, "GET", &path, &header).await?;
        all.first_bytes.push(begun.elapsed());
        read_body(&mut *stream, &head, RANGE as usize).await?;
        all.bytes += head.length;
        all.fetches += 1;
        at = if last + 1 < length { last + 1 } else { 0 };
    }
    Ok(())
}
