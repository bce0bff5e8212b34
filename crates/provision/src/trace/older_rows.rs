//! Events in the form of version 0.1, and of the versions just after it: texts instead of types.
//!
//! Only this file parses those texts. They are in databases, and never change.

use serde_json::{Map, Value, json};

const PURPOSES: [(&str, &str); 7] = [
    ("list of systems", "list_systems"),
    ("look at the system", "look_at_system"),
    ("boot override", "boot_override"),
    ("clearing of the boot override", "clear_override"),
    ("power on", "power_on"),
    ("power off", "power_off"),
    ("shutdown", "shutdown"),
];

/// The event in the current form; an event that has that form stays unchanged.
pub(super) fn in_present_form(mut event: Map<String, Value>) -> Map<String, Value> {
    match event.get("kind").and_then(Value::as_str) {
        Some("state") => state(&mut event),
        Some("redfish") => redfish(&mut event),
        Some("provider") => provider(&mut event),
        Some("agent") => agent(&mut event),
        Some(_) | None => {}
    }
    event
}

fn state(event: &mut Map<String, Value>) {
    match event.get_mut("reason") {
        Some(reason @ Value::String(_)) => *reason = reason_of_words(reason),
        Some(Value::Object(reason)) => typed_reason(reason),
        Some(_) | None => {}
    }
}

fn reason_of_words(words: &Value) -> Value {
    match words.as_str() {
        Some("a clean step asked for a reboot") => json!({ "reason": "step_reboot" }),
        Some("the daemon was away while the machine booted") => json!({ "reason": "boot_missed" }),
        Some(_) | None => json!({ "reason": "in_words", "words": words }),
    }
}

/// After version 0.1, reasons were types, but the failure of a step and the agent's steps were still texts.
fn typed_reason(reason: &mut Map<String, Value>) {
    let kind = reason.get("reason").and_then(Value::as_str).map(str::to_owned);
    match kind.as_deref() {
        Some("step_failed") => {
            if let Some(words) = reason.remove("error") {
                reason.insert("reason".to_owned(), json!("in_words"));
                reason.insert("words".to_owned(), words);
            }
        }
        Some("step_not_offered") => {
            if let Some(Value::String(names)) = reason.get("offered") {
                let names = names.split(", ").filter(|name| *name != "none");
                let offered = json!(names.collect::<Vec<_>>());
                reason.insert("offered".to_owned(), offered);
            }
        }
        Some(_) | None => {}
    }
}

fn redfish(event: &mut Map<String, Value>) {
    let purpose = event.get("purpose").and_then(Value::as_str);
    let named = PURPOSES.iter().find(|(words, _)| purpose == Some(words));
    if let Some((_, name)) = named {
        event.insert("purpose".to_owned(), json!(name));
    }
}

fn provider(event: &mut Map<String, Value>) {
    if let Some(Value::String(words)) = event.get("told") {
        let told = json!({ "announcement": "in_words", "words": words });
        event.insert("told".to_owned(), told);
    }
}

fn agent(event: &mut Map<String, Value>) {
    let Some(Value::String(result)) = event.remove("result") else { return };
    let is_success = event.remove("ok") == Some(Value::Bool(true));
    let outcome = match (result.as_str(), is_success) {
        ("taken on", true) => json!({ "outcome": "accepted" }),
        ("done", true) => json!({ "outcome": "done" }),
        (words, true) => json!({ "outcome": "in_words", "words": words }),
        (error, false) => json!({ "outcome": "failed", "error": error }),
    };
    let call = match event.get("call").and_then(Value::as_str).unwrap_or_default() {
        name @ ("lookup" | "heartbeat") => json!({ "call": name }),
        "list of commands" => json!({ "call": "list_commands" }),
        "clean.get_clean_steps" => json!({ "call": "get_steps" }),
        words => match words.strip_prefix("clean.execute_clean_step ") {
            Some(step) => json!({ "call": "execute_step", "step": step }),
            None => json!({ "call": "step_ended", "step": words }),
        },
    };
    for part in [call, outcome] {
        event.extend(part.as_object().cloned().unwrap_or_default());
    }
}
