//! The reasons in a BMC's error body, in each shape that BMCs are known to send.

use serde_json::Value;

use crate::channel::RedfishRequest;
use crate::lenient_json::sanitized_json;

/// Length limit of a message for operators, in characters.
const MOST: usize = 500;

/// The messages and their identifiers in an error's body (DSP0266 §8.6), or the body itself if it is something else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RefusalReasons {
    /// In words, of at most 500 characters.
    pub(crate) words: String,
    /// `MessageId` of each.
    pub(crate) ids: Vec<String>,
}

/// The messages of a Redfish error body, in words. A web page is named as such. At most 500 characters.
#[must_use]
pub fn words_of(body: &[u8]) -> String {
    RefusalReasons::of_body(body).words
}

/// The same for the answer to `request`. BMCs quote what they refuse: a boot URL, whose ticket is a secret, is left out.
#[must_use]
pub fn words_of_refusal(request: &RedfishRequest, body: &[u8]) -> String {
    RefusalReasons::of(request, body).words
}

impl RefusalReasons {
    /// The reasons in the answer to `request`, without the URLs that it has.
    pub(crate) fn of(request: &RedfishRequest, body: &[u8]) -> Self {
        let mut urls = Vec::new();
        collect_urls(request.body.as_ref(), &mut urls);
        let mut text = String::from_utf8_lossy(body).into_owned();
        for url in urls {
            // JSON may escape the slashes.
            for quoted in [url.to_owned(), url.replace('/', "\\/")] {
                text = text.replace(&quoted, "(the boot URL)");
            }
        }
        Self::of_body(text.as_bytes())
    }

    fn of_body(body: &[u8]) -> Self {
        let Some(json) = sanitized_json(body) else {
            let words = text_of(body).chars().take(MOST).collect();
            return Self { words, ids: Vec::new() };
        };
        let mut reasons = Self::default();
        let mut words = Vec::new();
        collect(&json, 0, &mut words, &mut reasons.ids);
        words.dedup();
        if words.is_empty() {
            let whole = json.to_string();
            if !matches!(whole.as_str(), "null" | "{}" | "[]" | "\"\"") {
                words.push(whole);
            }
        }
        reasons.words = words.join("; ").chars().take(MOST).collect();
        reasons
    }
}

/// The URLs in a request's body.
fn collect_urls<'v>(value: Option<&'v Value>, urls: &mut Vec<&'v str>) {
    match value {
        Some(Value::String(text)) if text.contains("://") => urls.push(text),
        Some(Value::Array(items)) => items.iter().for_each(|item| collect_urls(Some(item), urls)),
        Some(Value::Object(items)) => {
            items.values().for_each(|item| collect_urls(Some(item), urls));
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) | None => {}
    }
}

/// A body that is not JSON.
fn text_of(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let start = text.get(..text.len().min(200)).unwrap_or(text).to_ascii_lowercase();
    if !start.contains("<html") && !start.contains("<!doctype html") {
        return text.to_owned();
    }
    match title(text) {
        Some(title) => format!("a web page, {title:?}, instead of JSON"),
        None => "a web page instead of JSON".to_owned(),
    }
}

fn title(page: &str) -> Option<String> {
    let (_, rest) = page.split_once("<title>")?;
    let (title, _) = rest.split_once("</title>")?;
    let title = title.trim();
    (!title.is_empty()).then(|| title.chars().take(100).collect())
}

/// `error` with `@Message.ExtendedInfo` as a list or one object, `Property@Message.ExtendedInfo`, messages without
/// text, and `error.message` as an object with `value` (OData 3).
fn collect(value: &Value, depth: usize, words: &mut Vec<String>, ids: &mut Vec<String>) {
    /// Error bodies are flat; a deeper one is no error body.
    const DEEPEST: usize = 4;
    let Value::Object(object) = value else { return };
    if depth > DEEPEST {
        return;
    }
    let before = words.len();
    for (name, inner) in object {
        if !name.ends_with("@Message.ExtendedInfo") {
            continue;
        }
        match inner.as_array() {
            Some(messages) => {
                messages.iter().for_each(|message| message_of(message, words, ids));
            }
            None => message_of(inner, words, ids),
        }
    }
    // sushy-tools says the reason in `error.message`; others refer to the extended information there.
    let has_text = words[before..].iter().any(|word| !ids.contains(word));
    let text = object.get("message").and_then(Value::as_str).unwrap_or_default();
    let is_reason = !text.is_empty() && !text.to_lowercase().contains("extended");
    if words.len() > before && !has_text && is_reason {
        words.insert(before, text.to_owned());
    }
    if words.len() == before
        && let Some(error) = object.get("error")
    {
        collect(error, depth + 1, words, ids);
    }
    if words.len() == before {
        let message = object.get("message").or_else(|| object.get("Message"));
        let text =
            message.and_then(|message| message.as_str().or_else(|| message["value"].as_str()));
        words.extend(text.filter(|text| !text.is_empty()).map(str::to_owned));
        let code = object.get("code").or_else(|| object.get("MessageId"));
        ids.extend(code.and_then(Value::as_str).map(str::to_owned));
    }
}

fn message_of(message: &Value, words: &mut Vec<String>, ids: &mut Vec<String>) {
    if let Some(text) = message.as_str() {
        words.push(text.to_owned());
        return;
    }
    let id = message["MessageId"].as_str().or_else(|| message["MessageID"].as_str());
    ids.extend(id.map(str::to_owned));
    if let Some(text) = message["Message"].as_str().filter(|text| !text.is_empty()) {
        words.push(text.to_owned());
        return;
    }
    let Some(id) = id else { return };
    let args: Vec<_> = message["MessageArgs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|arg| arg.as_str().map_or_else(|| arg.to_string(), str::to_owned))
        .collect();
    words.push(if args.is_empty() { id.to_owned() } else { format!("{id} ({})", args.join(", ")) });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn words(body: &Value) -> String {
        words_of(body.to_string().as_bytes())
    }

    #[test]
    fn a_reason_is_found_in_every_shape_that_bmcs_send() {
        let extended = |info: Value| json!({"error": {"code": "Base.1.0.GeneralError", "message": "See", "@Message.ExtendedInfo": info}});
        let full =
            json!({"MessageId": "Base.1.8.PropertyNotWritable", "Message": "It is read-only."});
        let bare = json!({"MessageId": "iLO.2.14.UnsupportedOperation", "MessageArgs": ["Boot"]});

        assert_eq!(
            words(&extended(json!([full, bare]))),
            "It is read-only.; iLO.2.14.UnsupportedOperation (Boot)"
        );
        assert_eq!(words(&extended(full.clone())), "It is read-only.");
        assert_eq!(words(&json!({"Boot@Message.ExtendedInfo": [full]})), "It is read-only.");
        assert_eq!(words(&json!({"error": {"message": {"lang": "en", "value": "No"}}})), "No");
        assert_eq!(words(&json!({"error": {"message": "No"}})), "No");
        assert_eq!(words(&json!({"cause": "busy"})), r#"{"cause":"busy"}"#);
        assert_eq!(words(&json!({})), "");
    }

    #[test]
    fn a_message_without_text_does_not_hide_the_reason_beside_it() {
        let said = |message: &str| {
            let info = json!([{"MessageId": "Base.1.0.GeneralError"}]);
            words(&json!({"error": {"code": "Base.1.0.GeneralError", "message": message,
                "@Message.ExtendedInfo": info}}))
        };

        assert_eq!(said("No such device"), "No such device; Base.1.0.GeneralError");
        assert_eq!(
            said("See @Message.ExtendedInfo for more information."),
            "Base.1.0.GeneralError"
        );
    }

    #[test]
    fn the_identifiers_of_messages_are_kept() {
        let body = json!({"error": {"@Message.ExtendedInfo": [{"MessageId": "IDRAC.2.8.SYS011"}]}});

        assert_eq!(RefusalReasons::of_body(body.to_string().as_bytes()).ids, ["IDRAC.2.8.SYS011"]);
    }

    #[test]
    fn a_boot_url_that_a_bmc_quotes_is_left_out() {
        let url = "http://10.0.0.1/boot/s3cret/boot.iso";
        let request = RedfishRequest {
            purpose: hardware::RedfishPurpose::BootOverride,
            method: hardware::HttpMethod::Patch,
            path: "/redfish/v1/Systems/1".to_owned(),
            if_match: None,
            body: Some(json!({"Boot": {"HttpBootUri": url, "BootSourceOverrideEnabled": "Once"}})),
        };
        let quoted =
            json!({"error": {"message": format!("The value {url} is not accepted.")}}).to_string();

        for body in [quoted.clone(), quoted.replace('/', "\\/"), format!("no: {url}")] {
            let words = words_of_refusal(&request, body.as_bytes());
            assert!(words.contains("(the boot URL)") && !words.contains("s3cret"), "{words}");
        }
    }

    #[test]
    fn a_web_page_is_named_as_such() {
        let page = b"<!DOCTYPE html><html><head><title>Login</title></head>";

        assert_eq!(words_of(page), "a web page, \"Login\", instead of JSON");
    }

    #[test]
    fn a_long_text_is_cut_short() {
        assert_eq!(words_of("x".repeat(9_000).as_bytes()).len(), 500);
    }

    proptest! {
        #[test]
        fn no_error_body_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..200), text in ".*") {
            let _ = words_of(&body);
            let _ = words_of(text.as_bytes());
        }
    }
}
