//! The built daemon as a process: started, watched, killed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// Start timeout of the daemon.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
/// The usual soft limit of open files.
const USUAL_DESCRIPTORS: u32 = 1_024;

/// The daemon's files, and its process if it runs.
#[derive(Debug)]
pub(crate) struct DaemonProcess {
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

/// The resource usage of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) resident_kib: u64,
    pub(crate) descriptors: u64,
}

impl DaemonProcess {
    pub(crate) fn new(config: PathBuf, log: PathBuf) -> Self {
        Self { config, log, child: None }
    }

    /// Starts the daemon, and waits until it is ready.
    ///
    /// # Errors
    /// It ends, or does not become ready.
    pub(crate) async fn start(&mut self) -> Result<(), String> {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let before = log.metadata().unwrap().len();
        let child = Command::new("sh")
            .arg("-c")
            .arg(format!("ulimit -S -n {USUAL_DESCRIPTORS}; exec \"$0\" \"$@\""))
            .arg(env!("CARGO_BIN_EXE_ferroboot"))
            .args(["serve", "--config"])
            .arg(&self.config)
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let began = Instant::now();
        loop {
            if let Some(status) = self.has_ended() {
                return Err(format!(
                    "it ended ({status}) instead of starting: {}",
                    self.last_words()
                ));
            }
            if says_ready(&self.log, before) {
                return Ok(());
            }
            if began.elapsed() > STARTS_WITHIN {
                return Err(format!(
                    "it is not ready after {STARTS_WITHIN:?}: {}",
                    self.last_words()
                ));
            }
            // A log has no event to wait for.
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills it, like a power failure.
    pub(crate) async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    /// Sends SIGTERM.
    ///
    /// # Errors
    /// It does not end in time, or fails.
    pub(crate) async fn terminate(&mut self, within: Duration) -> Result<(), String> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let Some(id) = child.id() else { return Err("it had ended before".to_owned()) };
        let _ = kill(Pid::from_raw(id.cast_signed()), Signal::SIGTERM);
        match timeout(within, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(status) => Err(format!("it ended with {status:?}: {}", self.last_words())),
            Err(_) => {
                let _ = child.kill().await;
                Err(format!("it still runs {within:?} after SIGTERM"))
            }
        }
    }

    /// Its exit status, if it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().unwrap()
    }

    pub(crate) fn usage(&self) -> Option<Usage> {
        let id = self.child.as_ref()?.id()?;
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let resident_kib = resident.split_whitespace().next()?.parse().ok()?;
        let descriptors = fs::read_dir(format!("/proc/{id}/fd")).ok()?.count() as u64;
        Some(Usage { resident_kib, descriptors })
    }

    /// The last lines of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(4)..].join(" / ")
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }
}

fn says_ready(log: &Path, after: u64) -> bool {
    let Ok(text) = fs::read(log) else { return false };
    let new = text.get(usize::try_from(after).unwrap_or_default()..).unwrap_or_default();
    String::from_utf8_lossy(new).contains("ready: ")
}
