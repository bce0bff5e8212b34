//! `ferroboot trace NODE`: the timeline of a boot, and its diagnosis.

use std::fmt::Write as _;
use std::io::{Write as _, stdout};

use anyhow::{Context as _, Result};
use clap::Args;
use ironic::trace::BootTrace;
use jiff::Timestamp;
use provision::text::{printable, printable_json};
use uuid::Uuid;

use crate::api_reader::ApiAccess;
use crate::service::runtime;

/// Size limit of a trace in bytes.
const LONGEST_TRACE: usize = 256 << 20;

/// Shows the trace of a node's boot, from a running service.
///
/// If the service has users, OS_USERNAME and OS_PASSWORD are the login, as for the baremetal command.
#[derive(Debug, Args)]
pub struct Trace {
    /// The node's name or UUID.
    node: String,

    /// An earlier boot than the last one.
    #[arg(long, value_name = "UUID")]
    attempt: Option<Uuid>,

    /// Print the API's answer unchanged.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    access: ApiAccess,
}

impl Trace {
    /// Prints the trace.
    ///
    /// # Errors
    /// The API's error message, or the reason why it was unreachable.
    pub fn run(self) -> Result<()> {
        let text = runtime()?.block_on(self.fetch())?;
        let shown = if self.json {
            printable_json(&text).into_owned()
        } else {
            timeline(&serde_json::from_str(&text).context("the API's answer is not a trace")?)
        };
        writeln!(stdout(), "{}", shown.trim_end()).context("cannot print")
    }

    async fn fetch(&self) -> Result<String> {
        let attempt = self.attempt.map(|attempt| attempt.to_string());
        let attempt = attempt.as_deref().map(|attempt| ("attempt", attempt));
        let path = ["v1", "nodes", &self.node, "boot-trace"];
        self.access.reader()?.read(&path, attempt, LONGEST_TRACE).await
    }
}

/// One line per event, with the seconds since the start of the attempt.
#[must_use]
pub fn timeline(trace: &BootTrace) -> String {
    let mut text = String::new();
    let name = trace.node_name.clone().unwrap_or_else(|| trace.node_uuid.to_string());
    let name = printable(&name);
    let _ = writeln!(text, "node {name}: {}", trace.provision_state);
    let Some(attempt) = &trace.attempt else {
        text.push_str("it has not been booted yet\n");
        return text;
    };
    let began = trace.events.first().map(|event| event.at);
    if let Some(latest) = &attempt.latest {
        let _ = write!(text, "boot by {}", latest.boot_interface);
    } else {
        text.push_str("boot");
    }
    if let Some(began) = began {
        let _ = write!(text, ", began {}", began.strftime("%Y-%m-%d %H:%M:%SZ"));
    }
    let _ = writeln!(text, " (attempt {})\n", attempt.id);
    for event in &trace.events {
        let seconds = since(began, event.at);
        let what = event.what.to_string();
        let _ = writeln!(text, "{seconds:>8.1} s  {:<8} {}", event.what.kind(), printable(&what));
    }
    if let Some(diagnosis) = &trace.diagnosis {
        let _ = writeln!(text, "\ndiagnosis: {}", printable(&diagnosis.text));
        if let Some(hint) = &diagnosis.hint {
            let _ = writeln!(text, "           {}", printable(hint));
        }
    }
    text
}

fn since(began: Option<Timestamp>, at: Timestamp) -> f64 {
    at.duration_since(began.unwrap_or(at)).as_secs_f64()
}
