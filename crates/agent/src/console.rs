//! The console log for people at the machine: one line per step, on the screen and on the serial lines.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::sys::termios::{ControlFlags, SetArg, tcgetattr, tcsetattr};
use nix::time::{ClockId, clock_gettime};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::lines::printable_fields;
use crate::system_logs::RecentLog;

/// All consoles of the machine, and the memory of the latest lines.
#[derive(Debug)]
pub struct Consoles {
    files: Vec<File>,
    recent: RecentLog,
}

/// The serial lines that servers use for serial-over-LAN, whatever `console=` says.
const SERIAL: [&str; 2] = ["ttyS0", "ttyS1"];

impl Consoles {
    /// Opens the kernel's consoles (`console=`), and in any case the screen and the first serial lines, since
    /// `console=` is often missing.
    pub fn open() -> Self {
        let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        let active: BTreeSet<_> = active.split_whitespace().collect();
        let silent = SERIAL.into_iter().filter(|name| !active.contains(name)).filter_map(serial);
        let spoken_to = active.iter().copied().filter(|name| *name != "tty0").chain(["tty0"]);
        let files = spoken_to.filter_map(open).chain(silent).collect();
        Self { files, recent: RecentLog::default() }
    }

    /// Sends the log to the consoles from now on. Returns its latest lines, which grow with it.
    pub fn log(self, debug: bool) -> RecentLog {
        let recent = self.recent.clone();
        let ours = if debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
        let lines = tracing_subscriber::fmt::layer()
            .with_timer(SinceBoot)
            .with_target(false)
            .with_ansi(false)
            .fmt_fields(printable_fields())
            .with_writer(self);
        // Libraries log every connection; people at a console need only the agent's own lines.
        let filter = Targets::new().with_default(LevelFilter::WARN).with_target("agent", ours);
        tracing_subscriber::registry().with(lines.with_filter(filter)).init();
        recent
    }
}

impl<'a> MakeWriter<'a> for Consoles {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Write for &Consoles {
    /// A failing console, such as the address of a missing serial port, does not affect the others.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        for mut console in &self.files {
            let _ = console.write_all(line);
        }
        self.recent.append(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(name: &str) -> Option<File> {
    // A serial line without a reader must not block the agent.
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY | nix::libc::O_CLOEXEC;
    let path = Path::new("/dev").join(name);
    OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
}

/// A serial line that the kernel has not set up, set to the usual speed of BMCs instead of Linux's 9600 bit/s. `None`
/// if there is no port.
fn serial(name: &str) -> Option<File> {
    let line = open(name)?;
    let mut settings = tcgetattr(&line).ok()?;
    // Not cfsetspeed: libc binds a version of it that only the shared C library has.
    settings.control_flags.remove(ControlFlags::CBAUD);
    settings.control_flags |= ControlFlags::from_bits_truncate(nix::libc::B115200);
    tcsetattr(&line, SetArg::TCSANOW, &settings).ok()?;
    Some(line)
}

/// The kernel's own time stamp format, so that both logs form one sequence.
struct SinceBoot;

impl FormatTime for SinceBoot {
    fn format_time(&self, line: &mut Writer<'_>) -> fmt::Result {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(|_| fmt::Error)?;
        write!(line, "[{:>5}.{:06}]", now.tv_sec(), now.tv_nsec() / 1000)
    }
}
