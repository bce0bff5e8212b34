//! Faults of real BMCs, switched on by rules: for some paths, for some requests, for a number of times.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::response::{EmulatorResponse, error};

/// The path of the resource with the fault rules: GET shows them, POST adds one, DELETE removes all.
pub const FAULTS: &str = "/redfish/v1/Oem/Ferroboot/Faults";

/// A fault, and the requests that it is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// Paths: `*` stands for any characters but the slash, `**` for any characters.
    #[serde(default = "all_paths")]
    pub path: String,
    /// The method; all of them by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Number of matching requests that are answered well before.
    #[serde(default)]
    pub after: u32,
    /// Of the requests from then on, each so-manieth has the fault; 1 by default.
    #[serde(default = "each", skip_serializing_if = "is_each")]
    pub every: u32,
    /// Number of requests with the fault; all further ones by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// The fault.
    pub fault: EmulatedFault,
}

/// What a BMC does wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EmulatedFault {
    /// Answers this, and does nothing.
    Answer {
        /// The status code.
        status: u16,
        /// The body: JSON, or a text that is sent as it is; by default an error of the Base registry.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<Value>,
        /// `Retry-After`, in seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_secs: Option<u32>,
        /// `Location`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        location: Option<String>,
    },
    /// Answers late.
    Delay {
        /// In milliseconds.
        millis: u32,
    },
    /// Closes the connection without doing anything.
    CutBefore,
    /// Does what it is asked, and closes the connection without an answer.
    CutAfter,
    /// Replaces the body of the answer; a text is sent as it is.
    Body(Value),
    /// Changes what a resource shows: a merge patch (RFC 7396), in which null removes.
    Merge(Value),
    /// Accepts a PATCH without keeping it.
    ForgetPatch,
    /// Forgets the boot override after the answer.
    DropOverride,
    /// Accepts a PATCH that is applied later.
    PatchLate {
        /// In seconds.
        secs: u32,
    },
    /// Shows the former power state after a change: for some seconds, or to a number of GETs.
    PowerLate {
        /// In seconds.
        #[serde(default)]
        secs: u32,
        /// Number of GETs.
        #[serde(default)]
        looks: u32,
    },
    /// Shows `PoweringOn` and `PoweringOff` after a change.
    PowerChanging {
        /// In seconds.
        secs: u32,
    },
    /// Shows this `BootProgress.LastState` from a start on: the firmware does not go on.
    BootStays {
        /// The state.
        state: String,
    },
    /// The self-test of a start ends with this entry in the log.
    PostError {
        /// Its `Message`.
        message: String,
    },
    /// Answers a PATCH or an action with 202 and the `Location` of a task, and acts when the task completes.
    Task {
        /// In seconds.
        secs: u32,
    },
    /// Answers 202 without a `Location` to what it has done.
    AcceptedWithoutTask,
    /// Is in POST after a start, and answers a PATCH as its vendor does then.
    Post {
        /// In seconds.
        secs: u32,
    },
    /// The table of sessions is full.
    SessionsFull {
        /// Whether Basic authentication needs a session as well.
        #[serde(default)]
        basic: bool,
    },
    /// Basic authentication is off.
    BasicOff,
    /// Sessions cannot be opened.
    SessionsOff,
    /// ETags are weak, so that none of them matches an `If-Match` (RFC 9110 §13.1.1).
    WeakEtags,
    /// There are no ETags, and any `If-Match` is refused.
    NoEtags,
    /// ETags change after each answer that shows them.
    ChangingEtags,
    /// The certificate has expired. For the listener, when it starts.
    CertificateExpired,
}

fn all_paths() -> String {
    "**".to_owned()
}

fn each() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_each(every: &u32) -> bool {
    *every == each()
}

impl FaultRule {
    /// A fault of all requests.
    #[must_use]
    pub fn always(fault: EmulatedFault) -> Self {
        Self { path: all_paths(), method: None, after: 0, every: each(), times: None, fault }
    }

    /// A fault of the requests with this method, for these paths.
    #[must_use]
    pub fn on(method: &Method, path: &str, fault: EmulatedFault) -> Self {
        Self { path: path.to_owned(), method: Some(method.to_string()), ..Self::always(fault) }
    }

    /// The same, for the next requests only.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Every boot override is answered with 400 (HPE iLO 6).
    #[must_use]
    pub fn refused_override() -> Self {
        let words = "The requested boot override is not supported on this system.";
        let refusal = error(StatusCode::BAD_REQUEST, "UnsupportedOperation", words);
        let fault = EmulatedFault::Answer {
            status: 400,
            body: refusal.body,
            retry_after_secs: None,
            location: None,
        };
        Self::on(&Method::PATCH, "/redfish/v1/Systems/*", fault)
    }

    /// The same, for every second request, beginning with the second.
    #[must_use]
    pub fn every_second(self) -> Self {
        Self { every: 2, ..self }
    }

    /// Whether the fitting request with this number, from 1, has the fault.
    fn is_due(&self, number: u32) -> bool {
        let Some(number) = number.checked_sub(self.after).filter(|number| *number > 0) else {
            return false;
        };
        let every = self.every.max(1);
        let is_one = number.is_multiple_of(every);
        is_one && self.times.is_none_or(|times| number / every <= times)
    }

    fn fits(&self, method: &Method, path: &str) -> bool {
        let method_fits =
            self.method.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method.as_str()));
        method_fits && glob(self.path.trim_end_matches('/'), path)
    }
}

/// Whether a path fits a pattern.
fn glob(pattern: &str, path: &str) -> bool {
    if let Some(rest) = pattern.strip_prefix("**") {
        return (0..=path.len())
            .filter(|at| path.is_char_boundary(*at))
            .any(|at| glob(rest, &path[at..]));
    }
    if let Some(rest) = pattern.strip_prefix('*') {
        let end = path.find('/').unwrap_or(path.len());
        return (0..=end).filter(|at| path.is_char_boundary(*at)).any(|at| glob(rest, &path[at..]));
    }
    match (pattern.chars().next(), path.chars().next()) {
        (None, None) => true,
        (Some(wanted), Some(given)) if wanted == given => {
            glob(&pattern[wanted.len_utf8()..], &path[given.len_utf8()..])
        }
        (None | Some(_), None | Some(_)) => false,
    }
}

/// The rules of a BMC, and how often each has fitted.
#[derive(Debug, Default)]
pub(super) struct FaultTable(Vec<(FaultRule, u32)>);

impl FaultTable {
    pub(super) fn set(&mut self, rules: Vec<FaultRule>) {
        self.0 = rules.into_iter().map(|rule| (rule, 0)).collect();
    }

    pub(super) fn add(&mut self, rule: FaultRule) {
        self.0.push((rule, 0));
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = &FaultRule> {
        self.0.iter().map(|(rule, _)| rule)
    }

    /// The faults of a request, which is counted.
    pub(super) fn of_request(&mut self, method: &Method, path: &str) -> Vec<EmulatedFault> {
        let mut faults = Vec::new();
        for (rule, seen) in &mut self.0 {
            if !rule.fits(method, path) {
                continue;
            }
            *seen = seen.saturating_add(1);
            if rule.is_due(*seen) {
                faults.push(rule.fault.clone());
            }
        }
        faults
    }
}

/// The answer of the BMC instead of an action, if a fault has one.
pub(super) fn response_instead(faults: &[EmulatedFault]) -> Option<EmulatorResponse> {
    faults.iter().find_map(|fault| {
        if fault == &EmulatedFault::CutBefore {
            let closed = EmulatorResponse::new(StatusCode::INTERNAL_SERVER_ERROR, None);
            return Some(EmulatorResponse { cut: true, ..closed });
        }
        let EmulatedFault::Answer { status, body, retry_after_secs, location } = fault else {
            return None;
        };
        // 1xx would not be an answer.
        let status = StatusCode::from_u16(*status).ok().filter(|status| !status.is_informational());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let words = "The service cannot complete the request.";
        let mut response = error(status, "GeneralError", words);
        if let Some(body) = body {
            response.body = Some(body.clone()).filter(|body| !body.is_null());
        }
        if let Some(secs) = retry_after_secs {
            response = response.with_header("Retry-After", secs.to_string());
        }
        if let Some(location) = location {
            response = response.with_header("Location", location.clone());
        }
        Some(response)
    })
}

/// The response with the faults that change it.
pub(super) fn applied_to_response(
    mut response: EmulatorResponse,
    faults: &[EmulatedFault],
) -> EmulatorResponse {
    for fault in faults {
        if let EmulatedFault::Delay { millis } = fault {
            response.delay += Duration::from_millis(u64::from(*millis));
        }
        if let EmulatedFault::Body(body) = fault {
            response.body = Some(body.clone());
        }
        if fault == &EmulatedFault::CutAfter {
            response.cut = true;
        }
        if fault == &EmulatedFault::AcceptedWithoutTask && response.status.is_success() {
            response.status = StatusCode::ACCEPTED;
            response.body = None;
        }
    }
    response
}

/// What a resource shows with the faults that change it.
pub(super) fn apply_to_resource(body: &mut Value, faults: &[EmulatedFault]) {
    for fault in faults {
        if let EmulatedFault::Merge(patch) = fault {
            merge_patch(body, patch);
        }
        if fault == &EmulatedFault::WeakEtags
            && let Some(etag) = body["@odata.etag"].as_str()
        {
            body["@odata.etag"] = format!("W/{}", etag.trim_start_matches("W/")).into();
        }
        if fault == &EmulatedFault::NoEtags
            && let Some(body) = body.as_object_mut()
        {
            body.remove("@odata.etag");
        }
    }
}

/// RFC 7396 §2.
fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(target) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge_patch(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// The rules as a resource of the emulator.
pub(super) fn resource<'a>(rules: impl Iterator<Item = &'a FaultRule>) -> Value {
    let rules: Vec<_> = rules.map(|rule| serde_json::to_value(rule).unwrap_or_default()).collect();
    let body: BTreeMap<&str, Value> = [
        ("@odata.id", FAULTS.into()),
        ("@odata.type", "#FerrobootFaults.v1_0_0.FerrobootFaults".into()),
        ("Id", "Faults".into()),
        ("Name", "Faults of the emulated BMC".into()),
        ("Rules", rules.into()),
    ]
    .into();
    body.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_star_stays_in_its_part_of_the_path() {
        for (pattern, path, fits) in [
            ("/redfish/v1/Systems/*", "/redfish/v1/Systems/1", true),
            ("/redfish/v1/Systems/*", "/redfish/v1/Systems/1/Bios", false),
            ("/redfish/v1/Systems/**", "/redfish/v1/Systems/1/Bios", true),
            ("**", "/", true),
            ("**/Settings", "/redfish/v1/Systems/1/Bios/Settings", true),
            ("/redfish/v1/*/1", "/redfish/v1/Systems/2", false),
        ] {
            assert_eq!(glob(pattern, path), fits, "{pattern} {path}");
        }
    }

    #[test]
    fn a_rule_begins_and_ends_by_the_number_of_requests() {
        let mut table = FaultTable::default();
        let rule = FaultRule::on(&Method::PATCH, "/a", EmulatedFault::CutBefore).times(2);
        table.set(vec![FaultRule { after: 1, ..rule }]);

        let faulty: Vec<_> = (0..4).map(|_| table.of_request(&Method::PATCH, "/a").len()).collect();

        assert_eq!(faulty, [0, 1, 1, 0]);
        let rule = FaultRule::on(&Method::PATCH, "/a", EmulatedFault::CutBefore).every_second();
        table.set(vec![FaultRule { after: 1, ..rule.times(2) }]);
        let faulty: Vec<_> = (0..8).map(|_| table.of_request(&Method::PATCH, "/a").len()).collect();
        assert_eq!(faulty, [0, 0, 1, 0, 1, 0, 0, 0]);
        assert!(table.of_request(&Method::GET, "/a").is_empty());
    }

    #[test]
    fn a_rule_is_written_as_in_the_book() {
        let rule: FaultRule = serde_json::from_str(
            r#"{"path": "**/Settings", "method": "PATCH", "times": 3,
                "fault": {"answer": {"status": 503, "retry_after_secs": 5}}}"#,
        )
        .unwrap();
        assert!(matches!(rule.fault, EmulatedFault::Answer { status: 503, .. }));
        let simple: FaultRule = serde_json::from_str(r#"{"fault": "basic_off"}"#).unwrap();
        assert_eq!(simple, FaultRule::always(EmulatedFault::BasicOff));
        let wrong = serde_json::from_str::<FaultRule>(r#"{"fault": {"power_late": {"sec": 1}}}"#);
        assert!(wrong.is_err());
    }
}
