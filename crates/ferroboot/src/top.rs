//! `ferroboot top`: the boots of a service at their stages, and the slowest of them.

use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use console::{Term, truncate_str};
use ironic::boots::{BootsUnderWay, ShownFetch, SlowBoot};
use jiff::Timestamp;
use provision::BootStage;
use provision::text::{printable, printable_json};
use tokio::time::sleep;

use crate::api_reader::ApiAccess;
use crate::service::runtime;

/// Size limit of an answer in bytes; a hundred boots with their diagnoses have some 100 KiB.
const LONGEST_ANSWER: usize = 16 << 20;
/// Interval of readings.
const EVERY: Duration = Duration::from_secs(1);

/// Shows the boots of a running service: how many machines are at which stage, and the slowest ones.
///
/// If the service has users, OS_USERNAME and OS_PASSWORD are the login, as for the baremetal command.
#[derive(Debug, Args)]
pub struct Top {
    /// Print one table and end. This is the default if the output is no terminal.
    #[arg(long)]
    once: bool,

    /// Print the API's answer unchanged, and end.
    #[arg(long)]
    json: bool,

    /// Number of slowest boots to show, at most 100.
    #[arg(long, value_name = "NUMBER", default_value_t = 15)]
    limit: usize,

    #[command(flatten)]
    access: ApiAccess,
}

impl Top {
    /// Prints the boots, and repeats that on a terminal until it is interrupted.
    ///
    /// # Errors
    /// The API's error message, or the reason why it was unreachable.
    pub fn run(self) -> Result<()> {
        runtime()?.block_on(self.show())
    }

    async fn show(self) -> Result<()> {
        let reader = self.access.reader()?;
        let limit = self.limit.to_string();
        let read = || reader.read(&["boots"], Some(("limit", &limit)), LONGEST_ANSWER);
        if self.json {
            return print(&printable_json(&read().await?));
        }
        let parsed = async || -> Result<BootsUnderWay> {
            serde_json::from_str(&read().await?).context("the API's answer is not a list of boots")
        };
        let terminal = Term::stdout();
        let is_live = terminal.is_term() && !self.once;
        let mut before = parsed().await?;
        loop {
            // The rate needs two readings.
            sleep(EVERY).await;
            let now = parsed().await?;
            let text = table(&before, &now);
            if !is_live {
                return print(&text);
            }
            let (height, width) = terminal.size();
            terminal.clear_screen().context("cannot clear the screen")?;
            print(&fitted(&text, usize::from(height).saturating_sub(1), usize::from(width)))?;
            before = now;
        }
    }
}

fn print(text: &str) -> Result<()> {
    writeln!(stdout(), "{}", text.trim_end()).context("cannot print")
}

/// The part of a text that a screen has room for.
fn fitted(text: &str, height: usize, width: usize) -> String {
    let lines = text.lines().take(height).map(|line| truncate_str(line, width, "…"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Two readings as a table: the later one, and the rate between them.
#[must_use]
pub fn table(before: &BootsUnderWay, now: &BootsUnderWay) -> String {
    let mut text = String::new();
    let of = |stage| now.stages.get(&stage).copied().unwrap_or(0);
    let under_way: usize =
        now.stages.iter().filter(|(stage, _)| stage.is_under_way()).map(|(_, count)| count).sum();
    let _ = writeln!(
        text,
        "{}  {under_way} boots under way, the boot listener sends {}/s\n",
        now.at.strftime("%H:%M:%SZ"),
        size(rate(before, now)),
    );
    for stage in BootStage::ALL {
        let _ = writeln!(text, "{:>8}  {}", of(stage), words(stage));
    }
    if now.slowest.is_empty() {
        return text;
    }
    let _ = writeln!(text, "\n{:<20} {:<16} {:>8}  fetch", "slowest", "stage", "since");
    for boot in &now.slowest {
        line(&mut text, boot, now.at);
    }
    text
}

fn line(text: &mut String, boot: &SlowBoot, now: Timestamp) {
    let name = boot.node_name.clone().unwrap_or_else(|| boot.node_uuid.to_string());
    let name = printable(&name).into_owned();
    let seconds = now.duration_since(boot.since).as_secs().max(0);
    let fetch = boot.fetch.map(fetched).unwrap_or_default();
    let row = format!("{name:<20} {:<16} {seconds:>6} s  {fetch}", words(boot.stage));
    let _ = writeln!(text, "{}", row.trim_end());
    if let Some(diagnosis) = &boot.diagnosis {
        let _ = writeln!(text, "    {}", printable(&diagnosis.text));
    }
}

fn fetched(fetch: ShownFetch) -> String {
    let percent = fetch.sent.saturating_mul(100) / fetch.length.max(1);
    format!("{} {percent} % of {}", fetch.artifact.file_name(), size(fetch.length))
}

fn words(stage: BootStage) -> &'static str {
    match stage {
        BootStage::Preparing => "preparing",
        BootStage::SwitchedOn => "switched on",
        BootStage::DhcpAnswered => "DHCP answered",
        BootStage::Fetching => "fetching",
        BootStage::ImageFetched => "image fetched",
        BootStage::AgentCalled => "agent called",
        BootStage::RunningSteps => "running steps",
        BootStage::Ended => "ended (15 min)",
        BootStage::Failed => "failed (15 min)",
    }
}

/// Bytes per second between two readings; 0 if the daemon was restarted between them.
fn rate(before: &BootsUnderWay, now: &BootsUnderWay) -> u64 {
    let millis = u64::try_from(now.at.duration_since(before.at).as_millis()).unwrap_or(0);
    now.sent.saturating_sub(before.sent).saturating_mul(1_000) / millis.max(1)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1_000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ironic::trace::ShownDiagnosis;
    use provision::{Artifact, BootInterface, ProvisionState};
    use uuid::Uuid;

    use super::*;

    fn reading(second: i64, sent: u64, slowest: Vec<SlowBoot>) -> BootsUnderWay {
        BootsUnderWay {
            at: Timestamp::from_second(second).unwrap(),
            sent,
            stages: BTreeMap::from([(BootStage::Fetching, 998), (BootStage::Failed, 2)]),
            slowest,
        }
    }

    #[test]
    fn a_storm_is_a_table_with_its_slowest_machines() {
        let slow = SlowBoot {
            node_uuid: Uuid::nil(),
            node_name: Some("rack7-\u{1b}[31mn12".to_owned()),
            provision_state: ProvisionState::CleanWait,
            attempt: Uuid::nil(),
            boot_interface: BootInterface::Http,
            stage: BootStage::Fetching,
            since: Timestamp::from_second(40).unwrap(),
            fetch: Some(ShownFetch {
                artifact: Artifact::BootLoader,
                sent: 15_000_000,
                length: 60_000_000,
            }),
            diagnosis: Some(ShownDiagnosis {
                text: "nothing followed for 60 s".to_owned(),
                hint: None,
            }),
        };

        let text = table(&reading(99, 0, Vec::new()), &reading(100, 117_000_000, vec![slow]));

        assert!(
            text.starts_with("00:01:40Z  998 boots under way, the boot listener sends 117 MB/s")
        );
        assert!(text.contains("     998  fetching\n"), "{text}");
        assert!(text.contains("       2  failed (15 min)\n"), "{text}");
        assert!(text.contains("    60 s  bootx64.efi 25 % of 60 MB\n"), "{text}");
        assert!(text.contains("    nothing followed for 60 s\n"), "{text}");
        assert!(!text.contains('\u{1b}'), "names of nodes do not steer the terminal");
    }

    #[test]
    fn a_screen_gets_no_more_than_it_has_room_for() {
        assert_eq!(fitted("one two\nthree\nfour", 2, 5), "one …\nthree");
    }

    #[test]
    fn a_daemon_that_was_restarted_has_no_rate() {
        assert_eq!(rate(&reading(1, 500, Vec::new()), &reading(2, 10, Vec::new())), 0);
    }
}
