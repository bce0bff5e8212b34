//! The event log of an emulated BMC, and HPE's `PostState`: what a start of the machine leaves there. The clock of the BMC
//! is wrong: it began with [`EPOCH`].

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::faults::EmulatedFault;
use super::machine::EmulatedSystem;

/// The BMC's time at its start, in seconds since 1970: 2017-07-14.
const EPOCH: i64 = 1_500_000_000;
/// The age of the log then.
const BEFORE: SignedDuration = SignedDuration::from_hours(1);

/// What a log has its entries from.
pub(super) struct EmulatedLog<'a> {
    pub(super) system: &'a EmulatedSystem,
    pub(super) faults: &'a [EmulatedFault],
    pub(super) now: Duration,
}

/// The resources of a log with this name, by their paths.
pub(super) fn log_resources(owner: &str, name: &str) -> [(String, &'static str, Value); 2] {
    let services = format!("{owner}/LogServices");
    let log = format!("{services}/{name}");
    let entries = json!({"@odata.id": format!("{log}/Entries")});
    let body = json!({"Name": "Event Log", "DateTime": "", "Entries": entries});
    [
        (log.clone(), "LogService.v1_5_1", body),
        (format!("{log}/Entries"), "LogEntryCollection", json!({"Members": []})),
    ]
}

/// An entry, if `path` is one's.
pub(super) fn entry(path: &str, log: &EmulatedLog<'_>) -> Option<Value> {
    let (entries, _) = path.rsplit_once('/')?;
    let (_, below) = entries.split_once("/LogServices/")?;
    below.ends_with("/Entries").then_some(())?;
    log.entries(entries).into_iter().find(|entry| entry["@odata.id"] == path)
}

/// Shows the time in a log, and its entries.
pub(super) fn show(path: &str, body: &mut Value, log: &EmulatedLog<'_>) {
    let Some((_, below)) = path.split_once("/LogServices/") else { return };
    match below.split_once('/') {
        None => {
            if let Some(shown) = body.get_mut("DateTime") {
                *shown = json!(time(log.now));
            }
        }
        Some((_, "Entries")) => {
            let entries = log.entries(path);
            body["Members@odata.count"] = entries.len().into();
            body["Members"] = entries.into();
        }
        Some(_) => {}
    }
}

/// HPE's `PostState` beside `PowerState` and `BootProgress`.
pub(super) fn post_state(power: &str, progress: &str) -> &'static str {
    match (power, progress) {
        ("Off", _) => "PowerOff",
        (_, "SystemHardwareInitializationComplete") => "InPostDiscoveryComplete",
        (_, "OSBootStarted" | "OSRunning") => "FinishedPost",
        (_, _) => "InPost",
    }
}

impl EmulatedLog<'_> {
    /// An entry from before all starts; then the last start's.
    fn entries(&self, path: &str) -> Vec<Value> {
        let mut all = vec![(time_of_log(-BEFORE), "OK", "The BMC was started.")];
        if let Some(started) = self.system.started.map(time) {
            all.push((started.clone(), "OK", "The system was switched on."));
            let errors = self.faults.iter().filter_map(|fault| {
                let EmulatedFault::PostError { message } = fault else { return None };
                Some((started.clone(), "Critical", &message[..]))
            });
            all.extend(errors);
        }
        let entry = |(number, (created, severity, message)): (usize, (String, &str, &str))| {
            let id = match self.system.started {
                // Entries of another start are other entries.
                Some(started) if number > 0 => format!("{}{number}", started.as_micros()),
                Some(_) | None => "0".to_owned(),
            };
            json!({
                "@odata.id": format!("{path}/{id}"),
                "@odata.type": "#LogEntry.v1_15_0.LogEntry",
                "Id": id,
                "Name": "Log Entry",
                "EntryType": "SEL",
                "Severity": severity,
                "Message": message,
                "Created": created,
            })
        };
        all.into_iter().enumerate().map(entry).collect()
    }
}

fn time(since_start: Duration) -> String {
    time_of_log(SignedDuration::try_from(since_start).unwrap_or_default())
}

fn time_of_log(since_start: SignedDuration) -> String {
    let begin = Timestamp::from_second(EPOCH).unwrap_or_default();
    begin.checked_add(since_start).unwrap_or(begin).to_string()
}
