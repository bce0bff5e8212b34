//! A resource as a BMC shows it, read with tolerance: a property of another type than the schema's is not there.

use http::StatusCode;
use serde_json::Value;

use crate::channel::RedfishAnswer;
use crate::lenient_json::sanitized_json;

/// A resource that was read from a BMC.
#[derive(Clone, Debug, PartialEq)]
pub struct RedfishResource {
    /// Its path.
    pub path: String,
    /// Its ETag: the header's, else the body's.
    pub etag: Option<String>,
    /// Its body.
    pub body: Value,
}

impl RedfishResource {
    /// From a BMC's answer.
    ///
    /// # Errors
    /// The body is not a JSON object; in words.
    pub fn of(path: &str, answer: &RedfishAnswer) -> Result<Self, String> {
        if answer.status == StatusCode::NO_CONTENT {
            return Err("an empty answer instead of JSON".to_owned());
        }
        match sanitized_json(&answer.body) {
            Some(body @ Value::Object(_)) => {
                let etag = answer.etag.clone();
                let etag = etag.or_else(|| body["@odata.etag"].as_str().map(str::to_owned));
                Ok(Self { path: path.to_owned(), etag, body })
            }
            Some(_) => Err("JSON that is not an object".to_owned()),
            None => Err(crate::messages::words_of(&answer.body)).map_err(|words: String| {
                if words.starts_with("a web page") {
                    words
                } else {
                    "text that is not JSON".to_owned()
                }
            }),
        }
    }

    /// The path of a linked resource.
    #[must_use]
    pub fn link(&self, property: &str) -> Option<&str> {
        link_in(&self.body[property])
    }

    /// The path of the resource that holds this one's settings until the next reset (`@Redfish.Settings`).
    #[must_use]
    pub fn settings(&self) -> Option<&str> {
        link_in(&self.body["@Redfish.Settings"]["SettingsObject"])
    }

    /// The paths of a collection's members.
    #[must_use]
    pub fn members(&self) -> Vec<String> {
        let members = self.body["Members"].as_array();
        members.into_iter().flatten().filter_map(|it| link_in(it).map(str::to_owned)).collect()
    }
}

/// The path in a link.
pub(crate) fn link_in(value: &Value) -> Option<&str> {
    value["@odata.id"].as_str().filter(|path| path.starts_with('/'))
}

/// The strings in a list; null and others are left out. `None` if it is not a list.
pub(crate) fn strings(value: &Value) -> Option<Vec<&str>> {
    Some(value.as_array()?.iter().filter_map(Value::as_str).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_among_allowable_values_is_left_out() {
        assert_eq!(
            strings(&serde_json::json!(["Pxe", null, "UefiHttp", 5])).unwrap(),
            ["Pxe", "UefiHttp"]
        );
        assert_eq!(strings(&Value::Null), None);
    }
}
