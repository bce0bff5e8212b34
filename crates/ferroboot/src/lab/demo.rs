//! `ferroboot lab demo`: one machine, from enrollment to `available`, booted by its firmware on every path.

use std::cell::Cell;
use std::env;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use console::{Term, style};
use indicatif::{ProgressBar, ProgressStyle};
use ironic::trace::BootTrace;
use provision::BootEventKind;
use provision::trace::AgentCall;
use uuid::Uuid;

use super::machine::LabMachine;
use super::{Lab, Plan, disk};
use crate::trace::timeline;

/// The boot listener in clear and with TLS; the installed OVMF (2022.11) has no elliptic curves.
const SETTINGS: &str = "[boot]\nlisten = [\"[::]:8080\", \"https://[::]:8443\"]\n\
                        [agent]\nlisten = \"https://[::]:6386\"\n[tls]\nold_firmware = true\n";

/// The node's boot URL for boots in clear.
const IN_CLEAR: &str = "external_http_url=http://10.77.0.1:8080";

const STEPS: &str = r#"[{"interface": "deploy", "step": "erase_devices_metadata"}]"#;

/// Cleans a machine over redfish-https, http and http-ipxe in clear, and provides it over HTTPS.
#[derive(Debug, Args)]
pub struct Demo {}

impl Demo {
    pub(super) fn run(self) -> Result<()> {
        let own = env::current_exe().context("cannot find this program")?;
        let machines = vec![LabMachine::new(1), LabMachine::new(2)];
        let screen = Screen::new();
        screen
            .head("A network namespace, two machines (QEMU, OVMF), a Redfish BMC, ferroboot serve");
        let root = env::current_dir().unwrap_or_default();
        let plan = Plan::of_checkout(&root, &own, machines);
        let lab = Lab::set_up(Plan { settings: SETTINGS.to_owned(), ..plan })?;
        screen.note(&format!("state, logs and serial consoles: {}", lab.dir().display()));
        let (idle, _) = lab.daemon_memory()?;
        let story = Story { lab: &lab, screen: &screen, machine: &lab.machines()[0] };
        let boots = story.tell();
        if boots.is_err() {
            // The first thing that an operator would read.
            if let Ok(trace) = lab.trace(&story.machine.name) {
                screen.text(&timeline(&trace));
            }
        }
        summary(&screen, &boots?);
        let (_, most) = lab.daemon_memory()?;
        screen.head("The daemon's memory");
        screen.text(&format!("    {idle} MiB before the first boot, {most} MiB at most since"));
        where_next(&screen, &lab);
        Ok(())
    }
}

struct Story<'a> {
    lab: &'a Lab,
    screen: &'a Screen,
    machine: &'a LabMachine,
}

impl Story<'_> {
    /// Runs the demonstration; returns the trace of each boot.
    fn tell(&self) -> Result<Vec<BootTrace>> {
        let name = &self.machine.name;
        let other = self.lab.disk(&self.lab.machines()[1]);
        let others_digest = disk::digest(&other)?;
        let own = self.lab.disk(self.machine);

        self.screen.head(&format!("Enroll {name}, and let the daemon check its BMC"));
        for line in self.machine.enrolment() {
            self.baremetal(&line)?;
        }
        self.baremetal(&["node", "set", name, "--driver-info", IN_CLEAR])?;
        self.baremetal(&["node", "manage", "--wait", "60", name])?;

        let mut boots = Vec::new();
        for (boot_interface, how) in [
            ("redfish-https", "the BMC tells the firmware the URL of an ISO image"),
            ("http", "DHCP tells the firmware the URL of a UKI"),
            ("http-ipxe", "DHCP tells the firmware the URL of iPXE, and iPXE that of a script"),
        ] {
            self.screen.head(&format!("Clean over {boot_interface}: {how}"));
            disk::make_used(&own)?;
            self.screen
                .note(&format!("on the disk before: {}", disk::signatures(&own)?.join(", ")));
            self.baremetal(&["node", "set", name, "--boot-interface", boot_interface])?;
            self.baremetal(&["node", "clean", "--wait", "600", "--clean-steps", STEPS, name])?;
            let left = disk::signatures(&own)?;
            ensure!(left.is_empty(), "the disk still has: {}", left.join(", "));
            self.screen.note("on the disk after: nothing, as blkid sees it from outside");
            boots.push(self.lab.trace(name)?);
        }

        self.screen.head(
            "Provide it, which cleans it once more, over HTTPS: the BMC enrols the daemon's own CA in the firmware",
        );
        self.baremetal(&["node", "unset", name, "--driver-info", "external_http_url"])?;
        self.baremetal(&["node", "set", name, "--boot-interface", "http"])?;
        self.baremetal(&["node", "provide", "--wait", "600", name])?;
        let trace = self.lab.trace(name)?;
        let agreed = agreed_by_firmware(&trace).context("the last boot was not over HTTPS")?;
        self.screen.note(&format!("the firmware fetched its image over HTTPS: {agreed}"));
        boots.push(trace);
        let state = self.lab.node(name)?["provision_state"].clone();
        ensure!(state == "available", "the node is {state}, not available");
        ensure!(disk::digest(&other)? == others_digest, "the other machine's disk has changed");
        self.screen.note("the other machine's disk is as it was, to the last byte");
        Ok(boots)
    }

    /// Runs a command visibly, and shows the boot's events meanwhile.
    fn baremetal<S: AsRef<str>>(&self, arguments: &[S]) -> Result<()> {
        let wait = self.screen.command(arguments);
        let seen = SeenEvents::of(self.lab.trace(&self.machine.name).ok());
        let tell = || {
            if let Ok(trace) = self.lab.trace(&self.machine.name) {
                wait.suspend(|| seen.tell(&trace, self.screen));
            }
        };
        let said = self.lab.baremetal_while(arguments, tell);
        tell();
        wait.finish_and_clear();
        said.map(drop)
    }
}

/// The boot and the number of its events shown so far.
struct SeenEvents(Cell<(Option<Uuid>, usize)>);

impl SeenEvents {
    fn of(trace: Option<BootTrace>) -> Self {
        let mark = trace.map_or((None, 0), |trace| (id(&trace), trace.events.len()));
        Self(Cell::new(mark))
    }

    fn tell(&self, trace: &BootTrace, screen: &Screen) {
        let (attempt, told) = self.0.get();
        let told = if attempt == id(trace) { told } else { 0 };
        for event in trace.events.iter().skip(told) {
            let what = &event.what;
            screen.text(&format!("    {:<8} {what}", style(what.kind()).cyan()));
        }
        self.0.set((id(trace), trace.events.len()));
    }
}

/// What the firmware's TLS handshake agreed on.
fn agreed_by_firmware(trace: &BootTrace) -> Option<&str> {
    trace.events.iter().find_map(|event| {
        if let BootEventKind::Http { tls, .. } = &event.what { tls.as_deref() } else { None }
    })
}

fn id(trace: &BootTrace) -> Option<Uuid> {
    trace.attempt.as_ref().map(|attempt| attempt.id)
}

fn summary(screen: &Screen, boots: &[BootTrace]) {
    screen.head("The boots, one by one");
    boots.iter().for_each(|boot| screen.text(&timeline(boot)));
    screen.head("From power-on to the agent's first heartbeat");
    for boot in boots {
        let seconds = to_heartbeat(boot).map_or_else(|| "-".to_owned(), |s| format!("{s:.1} s"));
        let latest = boot.attempt.as_ref().and_then(|attempt| attempt.latest.as_ref());
        let over = latest.map(|latest| latest.boot_interface.name()).unwrap_or_default();
        screen.text(&format!("    {over:<15} {seconds}"));
    }
}

fn where_next(screen: &Screen, lab: &Lab) {
    screen.head("Where to look next");
    screen.text(&format!(
        "    {}: logs, serial consoles, the daemon's database\n    \
         make shell: the same lab, and you drive\n    \
         README.md: how to run it; ARCHITECTURE.md: how it is made",
        lab.dir().display()
    ));
}

fn to_heartbeat(boot: &BootTrace) -> Option<f64> {
    let on = boot.attempt.as_ref()?.latest.as_ref()?.powered_on_at?;
    let first = boot.events.iter().find(
        |event| matches!(&event.what, BootEventKind::Agent { call: AgentCall::Heartbeat, outcome, .. } if outcome.error().is_none()),
    )?;
    Some(first.at.duration_since(on).as_secs_f64())
}

/// The screen, with the seconds since the start before each headline.
struct Screen {
    term: Term,
    began: Instant,
}

impl Screen {
    fn new() -> Self {
        Self { term: Term::stdout(), began: Instant::now() }
    }

    fn head(&self, text: &str) {
        let seconds = self.began.elapsed().as_secs();
        self.text(&format!(
            "\n{} {}",
            style(format!("[{seconds:>3} s]")).dim(),
            style(text).bold()
        ));
    }

    fn note(&self, text: &str) {
        self.text(&format!("  {text}"));
    }

    fn text(&self, text: &str) {
        // The terminal is gone, so there is no place for a message.
        let _ = self.term.write_line(text);
    }

    /// Shows the command, with a spinner until it ends.
    fn command<S: AsRef<str>>(&self, arguments: &[S]) -> ProgressBar {
        let quoted: Vec<_> = arguments.iter().map(|word| quote(word.as_ref())).collect();
        self.text(&format!("  {} baremetal {}", style("$").green(), quoted.join(" ")));
        let style = ProgressStyle::with_template("    {spinner} {elapsed}")
            .expect("the template is constant and valid");
        let bar = ProgressBar::new_spinner().with_style(style);
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }
}

fn quote(word: &str) -> String {
    if word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=".contains(c)) {
        word.to_owned()
    } else {
        format!("'{word}'")
    }
}
