//! The two forms of an error body, both JSON inside a JSON string, as in Ironic.

use serde_json::{Value, json};

/// The body of an application error: the message is in `faultstring`.
#[must_use]
pub fn application(status: u16, faultstring: &str) -> Value {
    let faultcode = if status < 500 { "Client" } else { "Server" };
    doubly(&json!({ "faultcode": faultcode, "faultstring": faultstring, "debuginfo": null }))
}

/// The body of a framework error: unknown route, unacceptable version.
#[must_use]
pub fn framework(status: u16, title: &str, description: &str) -> Value {
    doubly(&json!({ "code": status, "title": title, "description": description }))
}

/// The body of a refused login: Ironic's form, which keystoneauth reads, and [`application`]'s, which
/// python-ironicclient and this project's command line read.
#[must_use]
pub fn login(status: u16, text: &str) -> Value {
    let mut body = application(status, text);
    body["error"] = json!({ "message": text, "code": status });
    body
}

/// The message of an error body, in either form; `None` for other bodies.
///
/// For this project's command line, which shows it to people.
#[must_use]
pub fn words(body: &Value) -> Option<String> {
    let inner = match body.get("error_message")? {
        Value::String(text) => serde_json::from_str(text).ok()?,
        inner @ Value::Object(_) => inner.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => return None,
    };
    let text = |key: &str| inner.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    text("faultstring").or_else(|| text("description")).or_else(|| text("title")).map(str::to_owned)
}

fn doubly(inner: &Value) -> Value {
    json!({ "error_message": inner.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_are_json_in_a_json_string() {
        let application = application(404, "Node n1 could not be found.");
        assert_eq!(
            application["error_message"],
            r#"{"debuginfo":null,"faultcode":"Client","faultstring":"Node n1 could not be found."}"#
        );
        let framework = framework(404, "Not Found", "");
        assert_eq!(
            framework["error_message"],
            r#"{"code":404,"description":"","title":"Not Found"}"#
        );
    }

    #[test]
    fn words_are_read_back_from_both_shapes() {
        assert_eq!(words(&application(500, "broken")).as_deref(), Some("broken"));
        assert_eq!(
            words(&framework(405, "Method Not Allowed", "")).as_deref(),
            Some("Method Not Allowed")
        );
        assert_eq!(words(&json!({ "detail": 1 })), None);
    }
}
