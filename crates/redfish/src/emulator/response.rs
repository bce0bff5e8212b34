//! Responses of the emulated BMC: its bodies, and errors with messages of the Base registry.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

/// One response.
#[derive(Clone, Debug, PartialEq)]
pub struct EmulatorResponse {
    /// Its status.
    pub status: StatusCode,
    /// Headers in addition to those of every response.
    pub headers: Vec<(&'static str, String)>,
    /// The JSON body, if there is one. A string is not JSON: it is sent as it is, as a web page.
    pub body: Option<Value>,
    /// The time to wait before it is sent.
    pub delay: Duration,
    /// Whether the connection is closed instead.
    pub cut: bool,
}

impl EmulatorResponse {
    pub(super) fn new(status: StatusCode, body: Option<Value>) -> Self {
        Self { status, headers: Vec::new(), body, delay: Duration::ZERO, cut: false }
    }

    pub(super) fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

pub(super) fn ok(body: Value) -> EmulatorResponse {
    EmulatorResponse::new(StatusCode::OK, Some(body))
}

pub(super) fn no_content() -> EmulatorResponse {
    EmulatorResponse::new(StatusCode::NO_CONTENT, None)
}

pub(super) fn unauthorized() -> EmulatorResponse {
    let words = "The service requires valid credentials.";
    error(StatusCode::UNAUTHORIZED, "InsufficientPrivilege", words)
        .with_header("WWW-Authenticate", "Basic realm=\"Redfish\"".to_owned())
}

pub(super) fn not_found(path: &str) -> EmulatorResponse {
    let words = format!("The requested resource {path:?} was not found.");
    error(StatusCode::NOT_FOUND, "ResourceMissingAtURI", &words)
}

/// `allow` is the list of methods of the resource (RFC 9110 §15.5.6).
pub(super) fn not_allowed(allow: &str) -> EmulatorResponse {
    let words = "The HTTP method is not allowed on this resource.";
    error(StatusCode::METHOD_NOT_ALLOWED, "OperationNotAllowed", words)
        .with_header("Allow", allow.to_owned())
}

pub(super) fn malformed() -> EmulatorResponse {
    let words = "The request body could not be parsed: it must be a JSON object with the \
                 properties of this resource.";
    bad_request("MalformedJSON", words)
}

pub(super) fn unknown_property(name: &str) -> EmulatorResponse {
    let words = format!("The property {name:?} is unknown or cannot be written.");
    bad_request("PropertyUnknown", &words)
}

pub(super) fn not_writable(name: &str) -> EmulatorResponse {
    let words =
        format!("The property {name:?} is a read-only property and cannot be assigned a value.");
    bad_request("PropertyNotWritable", &words)
}

pub(super) fn wrong_value(property: &str, value: &Value) -> EmulatorResponse {
    let words = format!("The value {value} for the property {property} is not acceptable.");
    bad_request("PropertyValueNotInList", &words)
}

pub(super) fn wrong_format(property: &str) -> EmulatorResponse {
    let words = format!(
        "The value for the property {property} is of a different format than the property can accept."
    );
    bad_request("PropertyValueFormatError", &words)
}

pub(super) fn missing_parameter(action: &str, name: &str) -> EmulatorResponse {
    let words = format!("The action {action} requires the parameter {name}.");
    bad_request("ActionParameterMissing", &words)
}

pub(super) fn bad_request(message_id: &str, words: &str) -> EmulatorResponse {
    error(StatusCode::BAD_REQUEST, message_id, words)
}

/// An error body (DSP0266 §8.6), with a message of the Base registry.
pub(super) fn error(status: StatusCode, message_id: &str, words: &str) -> EmulatorResponse {
    vendor_error(status, &format!("Base.1.18.{message_id}"), words)
}

/// An error body with a message of a vendor's registry.
pub(super) fn vendor_error(status: StatusCode, message_id: &str, words: &str) -> EmulatorResponse {
    let body = json!({
        "error": {
            "code": message_id,
            "message": words,
            "@Message.ExtendedInfo": [{
                "@odata.type": "#Message.v1_1_2.Message",
                "MessageId": message_id,
                "Message": words,
                "MessageArgs": [],
                "Severity": "Critical",
                "Resolution": "",
            }],
        },
    });
    EmulatorResponse::new(status, Some(body))
}
