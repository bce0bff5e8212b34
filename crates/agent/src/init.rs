//! The first process of the ramdisk: it mounts the file systems, and keeps an agent running.
//!
//! The agent is a separate process, since the kernel panics without an explanation when its init ends.

use std::fs;
use std::panic;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use tokio::process::Command;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use crate::console::Consoles;
use crate::effects::AgentHost;

/// The argument of the agent process.
pub const AGENT: &str = "ramdisk";

/// Time of failing agents after which the machine is switched off: longer than Ironic waits for one (30 minutes).
const PATIENCE: Duration = Duration::from_secs(3600);

/// Lifetime of an agent that has found its node: others give up earlier.
const USEFUL: Duration = Duration::from_secs(1800);

/// First and longest pause between two agents. An agent that Ironic refuses must not burden it.
const PAUSES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];

/// Runs as init. Does not return while the machine is on.
pub fn run() -> ! {
    let mounted = mounts();
    Consoles::open().log(false);
    report_panics(AgentHost::Machine);
    info!("Ferroboot {}: the ramdisk has started", env!("CARGO_PKG_VERSION"));
    if let Err(error) = mounted {
        error!("{error:#}");
    }
    let ended = crate::start(async {
        supervise().await;
        Ok(())
    });
    if let Err(error) = ended {
        error!("{error:#}");
    }
    loop {
        AgentHost::Machine.power_off();
        // If the machine does not switch off, init must not end: that would be a kernel panic.
        std::thread::park();
    }
}

/// Logs panics on the consoles. After a panic of init itself only the kernel's could follow.
pub fn report_panics(host: AgentHost) {
    panic::set_hook(Box::new(move |panic| {
        error!("a bug in this program: {panic}");
        match host {
            AgentHost::Machine => host.power_off(),
            AgentHost::Process => {}
        }
    }));
}

fn mounts() -> Result<()> {
    let all: [(&str, &str, MsFlags); 5] = [
        ("proc", "/proc", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV),
        ("sysfs", "/sys", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV),
        ("devtmpfs", "/dev", MsFlags::MS_NOSUID),
        ("tmpfs", "/run", MsFlags::MS_NOSUID | MsFlags::MS_NODEV),
        ("tmpfs", "/tmp", MsFlags::MS_NOSUID | MsFlags::MS_NODEV),
    ];
    for (kind, place, flags) in all {
        fs::create_dir_all(place).with_context(|| format!("creating {place}"))?;
        mount(Some(kind), Path::new(place), Some(kind), flags, None::<&str>)
            .with_context(|| format!("mounting {place}"))?;
    }
    Ok(())
}

async fn supervise() {
    let [first, longest] = PAUSES;
    let mut pause = first;
    let mut failing = Instant::now();
    loop {
        let started = Instant::now();
        match Command::new("/proc/self/exe").arg(AGENT).status().await {
            Ok(status) => warn!("the agent has ended ({status})"),
            Err(error) => error!("the agent cannot be started: {error}"),
        }
        if started.elapsed() > USEFUL {
            (pause, failing) = (first, Instant::now());
        }
        if failing.elapsed() > PATIENCE {
            error!("no agent has worked for {} minutes", PATIENCE.as_secs() / 60);
            return;
        }
        info!("restarting it in {} s", pause.as_secs());
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}
