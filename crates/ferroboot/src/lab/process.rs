//! The processes of a lab: each reports when it is ready, and ends with the lab.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

/// Start timeout, long enough for a busy host.
const PATIENCE: Duration = Duration::from_secs(60);

/// The log line of this project's programs when they are ready.
pub const READY: &str = "ready: ";

/// A program that logs to standard error, with a line when it is ready.
#[derive(Debug)]
pub struct Process {
    child: Child,
    ready: Receiver<()>,
    log: PathBuf,
}

impl Process {
    /// Starts it and waits for the line `ready`. Output is appended to `log`.
    ///
    /// # Errors
    /// Its last log lines, if it ends instead.
    pub fn start(command: &mut Command, ready: &'static str, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let stderr = child.stderr.take().context("it has no standard error")?;
        let (say_ready, said) = channel();
        thread::spawn(move || copy(stderr, file, ready, &say_ready));
        let mut process = Self { child, ready: said, log: log.to_owned() };
        process.wait_until_ready()?;
        Ok(process)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let why = match self.ready.recv_timeout(PATIENCE) {
            Ok(()) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => format!("is not ready after {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => "has ended".to_owned(),
        };
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(5)..];
        bail!("it {why}; {} ends with:\n{}", self.log.display(), last.join("\n"));
    }

    /// Kills it, like a power failure, and waits for its end.
    ///
    /// # Errors
    /// It had ended before by itself.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        let status = self.child.wait()?;
        match status.signal() {
            Some(_) => Ok(()),
            None => Err(anyhow!("it had ended before ({status}): see {}", self.log.display())),
        }
    }

    /// Its process ID.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its current and highest memory, in MiB.
    ///
    /// # Errors
    /// It has ended.
    pub fn memory(&self) -> Result<(u64, u64)> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        };
        let both = kib("VmRSS:").zip(kib("VmHWM:"));
        let (now, most) = both.with_context(|| format!("{path} does not tell"))?;
        Ok((now / 1024, most / 1024))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // If this fails, the namespace's end kills the process.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn copy(from: ChildStderr, mut to: File, ready: &str, said: &Sender<()>) {
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        if line.contains(ready) {
            let _ = said.send(());
        }
        // A full disk ends the log, not the program.
        let _ = writeln!(to, "{line}");
    }
}
