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
                // An empty one is none: sent back, it is answered with 412 (sushy's ignore-empty-string-etags).
                let etag = etag.filter(|etag| !etag.trim().is_empty());
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
    path_in(value["@odata.id"].as_str()?)
}

/// The path of a link or of an action's target. It may be a whole URL, whose host is ignored, and end in the name of a
/// part of the resource.
pub(crate) fn path_in(link: &str) -> Option<&str> {
    let link = link.split_once('#').map_or(link, |(resource, _)| resource);
    let path = match link.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => &rest[rest.find('/')?..],
        Some(_) | None => link,
    };
    path.starts_with('/').then_some(path)
}

/// The strings in a list; null and others are left out. `None` if it is not a list.
pub(crate) fn strings(value: &Value) -> Option<Vec<&str>> {
    Some(value.as_array()?.iter().filter_map(Value::as_str).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_a_path_or_a_url_and_its_host_is_ignored() {
        for (link, path) in [
            ("/redfish/v1/Systems/1", Some("/redfish/v1/Systems/1")),
            ("https://192.0.2.1/redfish/v1/Systems/1/", Some("/redfish/v1/Systems/1/")),
            ("/redfish/v1/Chassis/1/Power#/PowerSupplies/0", Some("/redfish/v1/Chassis/1/Power")),
            (
                "/redfish/v1/Systems/a?next=http://x/y",
                Some("/redfish/v1/Systems/a?next=http://x/y"),
            ),
            ("https://192.0.2.1", None),
            ("Systems/1", None),
            ("", None),
        ] {
            assert_eq!(path_in(link), path, "{link}");
        }
    }

    #[test]
    fn an_empty_etag_is_none() {
        let answer = |etag: &str| RedfishAnswer {
            etag: Some(etag.to_owned()),
            body: b"{}".to_vec(),
            ..RedfishAnswer::default()
        };

        assert_eq!(RedfishResource::of("/a", &answer("")).unwrap().etag, None);
        assert_eq!(
            RedfishResource::of("/a", &answer("\"1\"")).unwrap().etag.as_deref(),
            Some("\"1\"")
        );
    }

    #[test]
    fn null_among_allowable_values_is_left_out() {
        assert_eq!(
            strings(&serde_json::json!(["Pxe", null, "UefiHttp", 5])).unwrap(),
            ["Pxe", "UefiHttp"]
        );
        assert_eq!(strings(&Value::Null), None);
    }
}
