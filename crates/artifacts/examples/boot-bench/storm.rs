//! Machines that boot at the same time: each fetches an image once, as firmware does.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::connect::{Target, ask, source};

/// EDK2's receive window before 2023-09; the kernel doubles the value for its own use.
pub(crate) const WINDOW: u32 = 32 * 1024;
/// A machine that takes longer has failed.
const PATIENCE: Duration = Duration::from_mins(30);
/// The network of machines.
const MACHINES: u8 = 1;

/// What one machine measured since it began to connect.
struct Boot {
    first_byte: Duration,
    longest_gap: Duration,
    all: Duration,
}

/// `has_own_addresses`: each machine comes from an address of its own, else all from one.
pub(crate) async fn storm(
    target: Target,
    machines: usize,
    has_own_addresses: bool,
) -> Result<Value> {
    let target = Arc::new(target.with_receive_buffer(WINDOW));
    let (mut boots, start) = (JoinSet::new(), Arc::new(Barrier::new(machines)));
    for number in 0..machines {
        let from = if has_own_addresses { source(MACHINES, number) } else { Ipv4Addr::LOCALHOST };
        let (target, start) = (Arc::clone(&target), Arc::clone(&start));
        boots.spawn(async move {
            start.wait().await;
            timeout(PATIENCE, boot(&target, from, number)).await.context("too slow")?
        });
    }
    let (booted, failed): (Vec<_>, Vec<_>) =
        boots.join_all().await.into_iter().partition(Result::is_ok);
    let mut booted: Vec<Boot> = booted.into_iter().flatten().collect();
    let why = failed.into_iter().find_map(Result::err).map(|why| format!("{why:#}"));
    Ok(report(&mut booted, machines, why))
}

/// The figures of a storm, in ms.
fn report(booted: &mut [Boot], machines: usize, why: Option<String>) -> Value {
    booted.sort_by_key(|boot| boot.first_byte);
    let millis = |time: Duration| time.as_secs_f64() * 1_000.0;
    let below = |percent: usize| {
        let boot = booted.get(booted.len() * percent / 100).or_else(|| booted.last());
        boot.map(|boot| millis(boot.first_byte))
    };
    let all = booted.iter().map(|boot| boot.all);
    json!({
        "first_byte": { "p50": below(50), "p99": below(99), "most": below(100) },
        "gap": booted.iter().map(|boot| boot.longest_gap).max().map(millis),
        "done": { "first": all.clone().min().map(millis), "last": all.max().map(millis) },
        "failed": machines - booted.len(),
        "why": why,
    })
}

/// HEAD, then GET, on one connection.
async fn boot(target: &Target, from: Ipv4Addr, number: usize) -> Result<Boot> {
    let (begun, path) = (Instant::now(), target.path(number));
    let mut stream = target.open(from).await.context("connect")?;
    ask(&mut *stream, "HEAD", &path, "").await?;
    let head = ask(&mut *stream, "GET", &path, "").await?;
    let (mut last, mut read) = (Instant::now(), head.began);
    let mut first_byte = (read > 0).then(|| last - begun);
    let mut longest_gap = Duration::ZERO;
    let mut buffer = vec![0; 16 * 1024];
    while read < head.length {
        let more = stream.read(&mut buffer).await?;
        ensure!(more > 0, "the answer ended after {read} of {} bytes", head.length);
        let now = Instant::now();
        first_byte.get_or_insert(now - begun);
        longest_gap = longest_gap.max(now - last);
        (read, last) = (read + more as u64, now);
    }
    let first_byte = first_byte.context("the image is empty")?;
    Ok(Boot { first_byte, longest_gap, all: begun.elapsed() })
}
