//! Reads the power state and the boot override of many BMCs by the daemon's client, for measurements.
//!
//! ```text
//! redfish-read URL_WITHOUT_PORT FIRST_PORT COUNT CERTIFICATE AT_ONCE WARM
//! ```
//!
//! The BMCs listen at COUNT ports from FIRST_PORT, with the user `admin` and the password `secret`. AT_ONCE of them are
//! read at the same time. The first reading is cold: it connects, opens a session and finds the system. WARM more
//! follow, then the sessions are closed. Prints JSON: of each reading the `secs`, the number of `requests` with logins,
//! and the `cpu_secs` of this process; and `rss_mib`, its largest resident set. A BMC that cannot be read is an error.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};
use bmcs::{BmcConnections, BmcSettings};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike as _;
use redfish::facts::BmcFacts;
use redfish::machine::RedfishSystem;
use redfish::system::SystemPower;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(60);

/// The BMCs to read.
struct BmcFleet {
    connections: BmcConnections<BmcFacts>,
    settings: Vec<BmcSettings>,
    requests: AtomicU64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let (_, most_files) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most_files, most_files)?;
    let mut arguments = env::args().skip(1);
    let mut next = |name| arguments.next().with_context(|| format!("{name} is missing"));
    let url = next("URL_WITHOUT_PORT")?;
    let first: u16 = next("FIRST_PORT")?.parse()?;
    let count: u16 = next("COUNT")?.parse()?;
    let certificate = next("CERTIFICATE")?;
    let at_once: usize = next("AT_ONCE")?.parse()?;
    let warm: usize = next("WARM")?.parse()?;
    ensure!(first.checked_add(count).is_some(), "there are too few ports from {first}");
    let settings = (first..first + count).map(|port| settings(&url, port, &certificate));
    let fleet = Arc::new(BmcFleet {
        connections: BmcConnections::new(),
        settings: settings.collect::<Result<_>>()?,
        requests: AtomicU64::new(0),
    });
    let mut readings = Vec::new();
    for _ in 0..=warm {
        readings.push(measured(&fleet, at_once).await?);
    }
    fleet.connections.close().await;
    let line = json!({"readings": readings, "rss_mib": largest_rss_mib()?});
    Ok(writeln!(io::stdout(), "{line}")?)
}

fn settings(url: &str, port: u16, certificate: &str) -> Result<BmcSettings> {
    let driver_info = json!({
        "redfish_address": format!("{url}:{port}"),
        "redfish_username": "admin",
        "redfish_password": "secret",
        "redfish_auth_type": "session",
        "redfish_verify_ca": certificate,
    });
    Ok(BmcSettings::of(driver_info.as_object().context("it is an object")?)?)
}

async fn measured(fleet: &Arc<BmcFleet>, at_once: usize) -> Result<Value> {
    let (begun, cpu) = (Instant::now(), cpu_secs()?);
    let requests = fleet.requests.load(Ordering::Relaxed);
    read_all(fleet, at_once).await?;
    Ok(json!({
        "secs": begun.elapsed().as_secs_f64(),
        "cpu_secs": cpu_secs()? - cpu,
        "requests": fleet.requests.load(Ordering::Relaxed) - requests,
    }))
}

/// User and system time of this process, in seconds.
fn cpu_secs() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let used = usage.user_time() + usage.system_time();
    Ok(Duration::from_micros(used.num_microseconds().try_into()?).as_secs_f64())
}

/// Not by `getrusage`, which counts the memory of this process before `exec` too.
fn largest_rss_mib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmHWM")?;
    Ok(kib.parse::<u64>()? / 1024)
}

/// Each task reads one BMC after the other.
async fn read_all(fleet: &Arc<BmcFleet>, at_once: usize) -> Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let (fleet, next) = (Arc::clone(fleet), Arc::clone(&next));
        tasks.spawn(async move {
            while let Some(settings) = fleet.settings.get(next.fetch_add(1, Ordering::Relaxed)) {
                let read = read(&fleet, settings).await;
                read.with_context(|| format!("reading {}", settings.address))?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

async fn read(fleet: &BmcFleet, settings: &BmcSettings) -> Result<()> {
    let count = |_: &_, _: Result<&_, &_>| {
        fleet.requests.fetch_add(1, Ordering::Relaxed);
    };
    let link = fleet.connections.link(settings, Box::new(count)).await?;
    let facts = link.facts().unwrap_or_else(|| {
        let facts = Arc::<BmcFacts>::default();
        link.note_facts(Arc::clone(&facts));
        facts
    });
    let system = RedfishSystem::find(&link, &facts, None, PATIENCE).await?;
    let view = system.look().await?;
    ensure!(view.power() == SystemPower::Off, "the machine is {:?}", view.power());
    ensure!(!view.is_overridden(), "the boot override is set");
    Ok(())
}
