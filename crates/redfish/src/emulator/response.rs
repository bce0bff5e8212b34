//! Responses of the emulated BMC: its bodies, and errors with messages of the Base registry.

use http::StatusCode;
use serde_json::{Value, json};

/// One response.
#[derive(Clone, Debug, PartialEq)]
pub struct EmulatorResponse {
    /// Its status.
    pub status: StatusCode,
    /// Headers in addition to those of every response.
    pub headers: Vec<(&'static str, String)>,
    /// The JSON body, if there is one.
    pub body: Option<Value>,
}

pub(super) fn ok(body: Value) -> EmulatorResponse {
    EmulatorResponse { status: StatusCode::OK, headers: Vec::new(), body: Some(body) }
}

pub(super) fn no_content() -> EmulatorResponse {
    EmulatorResponse { status: StatusCode::NO_CONTENT, headers: Vec::new(), body: None }
}

pub(super) fn unauthorized() -> EmulatorResponse {
    let words = "The service requires valid credentials.";
    let response = error(StatusCode::UNAUTHORIZED, "InsufficientPrivilege", words);
    let challenge = ("WWW-Authenticate", "Basic realm=\"Redfish\"".to_owned());
    EmulatorResponse { headers: vec![challenge], ..response }
}

pub(super) fn not_found(path: &str) -> EmulatorResponse {
    let words = format!("The requested resource {path:?} was not found.");
    error(StatusCode::NOT_FOUND, "ResourceMissingAtURI", &words)
}

pub(super) fn malformed() -> EmulatorResponse {
    let words = "The request body could not be parsed: it must be a JSON object with the \
                 properties of this resource.";
    error(StatusCode::BAD_REQUEST, "MalformedJSON", words)
}

pub(super) fn unknown_property(name: &str) -> EmulatorResponse {
    let words = format!("The property {name:?} is unknown or cannot be written.");
    error(StatusCode::BAD_REQUEST, "PropertyUnknown", &words)
}

pub(super) fn wrong_value(property: &str, value: &Value) -> EmulatorResponse {
    let words = format!("The value {value} for the property {property} is not acceptable.");
    error(StatusCode::BAD_REQUEST, "PropertyValueNotInList", &words)
}

/// An error body (DSP0266 §8.6), with a message of the Base registry.
pub(super) fn error(status: StatusCode, message_id: &str, words: &str) -> EmulatorResponse {
    let body = json!({
        "error": {
            "code": format!("Base.1.18.{message_id}"),
            "message": words,
            "@Message.ExtendedInfo": [{
                "@odata.type": "#Message.v1_1_2.Message",
                "MessageId": format!("Base.1.18.{message_id}"),
                "Message": words,
                "MessageArgs": [],
                "Severity": "Critical",
                "Resolution": "",
            }],
        },
    });
    EmulatorResponse { status, headers: Vec::new(), body: Some(body) }
}
