//! `ferroboot trace NODE`: the timeline of a boot, and its diagnosis.

use std::fmt::Write as _;
use std::fs;
use std::io::{Write as _, stdout};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use ironic::trace::BootTrace;
use jiff::Timestamp;
use provision::text::{printable, printable_json, shown_url};
use reqwest::{Certificate, Client};
use transport::answers::read_body;
use url::Url;
use uuid::Uuid;

use crate::login::{ApiLogin, without_password};
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

    /// URL of the API.
    #[arg(long, value_name = "URL", env = "OS_ENDPOINT", default_value = "http://127.0.0.1:6385")]
    api: Url,

    /// CA certificates (PEM) to trust for an https URL, beside the host's; `ferroboot ca` prints the service's own.
    #[arg(long, value_name = "FILE", env = "OS_CACERT")]
    ca: Option<PathBuf>,
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
        without_password(&self.api)?;
        let login = ApiLogin::from_environment()?;
        let mut url = self.api.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("{} is not the URL of an API", shown_url(&self.api)))?
            .pop_if_empty()
            .extend(["v1", "nodes", &self.node, "boot-trace"]);
        if let Some(attempt) = self.attempt {
            url.query_pairs_mut().append_pair("attempt", &attempt.to_string());
        }
        let client = self.client()?;
        let request = client.get(url).header("X-OpenStack-Ironic-API-Version", "latest");
        let answer = login.sign(request).send().await.map_err(reqwest::Error::without_url);
        let answer = answer.with_context(|| {
            format!(
                "no answer from {}: does `ferroboot serve` run, and is its CA known here (--ca, or OS_CACERT)?",
                shown_url(&self.api)
            )
        })?;
        let status = answer.status();
        let text = String::from_utf8(read_body(answer, LONGEST_TRACE).await?)
            .context("the API's answer is not text")?;
        if status.is_success() {
            return Ok(text);
        }
        let words = serde_json::from_str(&text).ok().and_then(|body| ironic::error::words(&body));
        bail!("{status}: {}{}", words.unwrap_or(text), login.hint(status));
    }

    fn client(&self) -> Result<Client> {
        let mut client = Client::builder().timeout(Duration::from_secs(30)).no_proxy();
        if let Some(path) = &self.ca {
            let read = || format!("cannot read CA certificates from {}", path.display());
            let pem = fs::read(path).with_context(read)?;
            for certificate in Certificate::from_pem_bundle(&pem).with_context(read)? {
                client = client.add_root_certificate(certificate);
            }
        }
        Ok(client.build()?)
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
