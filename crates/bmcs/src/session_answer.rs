//! What a BMC's answer to a login means.

use http::StatusCode;
use redfish::channel::RedfishAnswer;
use serde_json::Value;
use url::Url;

/// The path of the sessions where the service root names no other (DSP0266 §13.3.4).
pub(crate) const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";

/// What the answer to `POST …/Sessions` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionAnswer {
    /// The session is open.
    Opened,
    /// User or password are wrong, or the user must not log in.
    Refused,
    /// All sessions of the BMC are in use.
    TableFull,
    /// The BMC cannot say now.
    Busy,
    /// There are no sessions, or they do not work.
    NotOffered,
    /// The BMC is to be called elsewhere.
    Moved,
}

/// What the answer means; `has_token` says whether it has a token.
pub(crate) fn meaning(answer: &RedfishAnswer, has_token: bool) -> SessionAnswer {
    match answer.status {
        status if status.is_success() && has_token => SessionAnswer::Opened,
        StatusCode::NOT_IMPLEMENTED => SessionAnswer::NotOffered,
        StatusCode::UNAUTHORIZED => SessionAnswer::Refused,
        status if !status.is_success() && says_table_full(&answer.body) => SessionAnswer::TableFull,
        StatusCode::FORBIDDEN => SessionAnswer::Refused,
        status if status.is_server_error() => SessionAnswer::Busy,
        status if status.is_redirection() => SessionAnswer::Moved,
        _ => SessionAnswer::NotOffered,
    }
}

/// `SessionLimitExceeded` of the Base registry, or a vendor's words for it.
fn says_table_full(body: &[u8]) -> bool {
    let words = String::from_utf8_lossy(body).to_ascii_lowercase();
    words.contains("session")
        && ["limit", "maximum", "exceed", "too many", "is full"]
            .iter()
            .any(|word| words.contains(word))
}

/// Whether the session of a request has ended: 401, or 403 with the Base registry's word for it, as some BMCs answer.
pub(crate) fn says_session_over(answer: &RedfishAnswer) -> bool {
    let has_id = || {
        let words = String::from_utf8_lossy(&answer.body);
        ["NoValidSession", "SessionTerminated"].iter().any(|id| words.contains(id))
    };
    match answer.status {
        StatusCode::UNAUTHORIZED => true,
        StatusCode::FORBIDDEN => has_id(),
        _ => false,
    }
}

/// The path of the sessions in a service root.
pub(crate) fn sessions_in_root(body: &[u8]) -> Option<String> {
    let root: Value = serde_json::from_slice(body).ok()?;
    path_of(root["Links"]["Sessions"]["@odata.id"].as_str()?)
}

/// The path of an opened session: of `Location`, or of the body.
pub(crate) fn opened_session(answer: &RedfishAnswer) -> Option<String> {
    let from_body = || {
        let session: Value = serde_json::from_slice(&answer.body).ok()?;
        let by_id = || session["Id"].as_str().filter(|id| !id.contains('/')).map(below_sessions);
        session["@odata.id"].as_str().and_then(path_of).or_else(by_id)
    };
    answer.location.as_deref().and_then(path_of).or_else(from_body)
}

fn below_sessions(id: &str) -> String {
    format!("{SESSIONS}/{id}")
}

/// The path of a link, which may be a whole URL.
fn path_of(link: &str) -> Option<String> {
    if link.starts_with('/') {
        return Some(link.to_owned());
    }
    Url::parse(link).ok().map(|url| url.path().to_owned())
}

/// The path that a redirect from `path` leads to, if scheme, host and port stay the same: iLO 4 and others redirect to
/// the same path with a slash.
pub(crate) fn redirect_within(address: &Url, path: &str, answer: &RedfishAnswer) -> Option<String> {
    let location = answer.location.as_deref().filter(|_| answer.status.is_redirection())?;
    let target = address.join(path).ok()?.join(location).ok()?;
    let is_same = target.origin() == address.origin() && target.path() != path;
    is_same.then(|| target.path().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> RedfishAnswer {
        RedfishAnswer {
            status: StatusCode::from_u16(status).unwrap(),
            body: body.into(),
            ..RedfishAnswer::default()
        }
    }

    #[test]
    fn a_full_table_of_sessions_is_known_by_its_words_whatever_the_status_is() {
        let by_id = r#"{"error": {"@Message.ExtendedInfo": [{"MessageId": "Base.1.8.SessionLimitExceeded"}]}}"#;
        let in_words =
            r#"{"error": {"message": "The maximum number of user sessions is reached."}}"#;
        for (status, body, expected) in [
            (201, "", SessionAnswer::Opened),
            (503, by_id, SessionAnswer::TableFull),
            (400, in_words, SessionAnswer::TableFull),
            (403, by_id, SessionAnswer::TableFull),
            (503, "", SessionAnswer::Busy),
            (500, "", SessionAnswer::Busy),
            (401, "", SessionAnswer::Refused),
            (403, "The user has no right to log in.", SessionAnswer::Refused),
            (404, "", SessionAnswer::NotOffered),
            (405, "", SessionAnswer::NotOffered),
            (501, "", SessionAnswer::NotOffered),
            (400, "", SessionAnswer::NotOffered),
            (308, "", SessionAnswer::Moved),
        ] {
            let has_token = status == 201;
            assert_eq!(meaning(&answer(status, body), has_token), expected, "{status} {body}");
        }
        assert_eq!(meaning(&answer(201, ""), false), SessionAnswer::NotOffered);
    }

    #[test]
    fn a_session_that_is_over_is_known_by_the_status_or_the_message() {
        let by_id = r#"{"error": {"code": "Base.1.8.NoValidSession"}}"#;
        for (status, body, over) in [
            (401, "", true),
            (403, by_id, true),
            (403, "The user may not do this.", false),
            (404, by_id, false),
            (200, "", false),
        ] {
            assert_eq!(says_session_over(&answer(status, body)), over, "{status} {body}");
        }
    }

    #[test]
    fn the_path_of_a_session_comes_from_location_or_from_the_body() {
        let path = Some("/redfish/v1/Sessions/7".to_owned());
        let at = |location: &str| RedfishAnswer {
            location: Some(location.to_owned()),
            ..RedfishAnswer::default()
        };

        assert_eq!(opened_session(&at("/redfish/v1/Sessions/7")), path);
        assert_eq!(opened_session(&at("https://bmc/redfish/v1/Sessions/7")), path);
        assert_eq!(
            opened_session(&answer(201, r#"{"@odata.id": "/redfish/v1/Sessions/7"}"#)),
            path
        );
        let by_id = opened_session(&answer(201, r#"{"Id": "7"}"#));
        assert_eq!(by_id.as_deref(), Some("/redfish/v1/SessionService/Sessions/7"));
        assert_eq!(opened_session(&answer(201, "")), None);
    }

    #[test]
    fn only_a_redirect_within_the_bmc_is_followed() {
        let address = Url::parse("https://bmc/").unwrap();
        let led = |status, location: &str| {
            let location = Some(location.to_owned());
            let answer = RedfishAnswer { location, ..answer(status, "") };
            redirect_within(&address, "/a", &answer)
        };

        for location in ["/a/", "https://bmc/a/", "//bmc/a/", "https://bmc:443/a/"] {
            assert_eq!(led(308, location), Some("/a/".to_owned()), "{location}");
        }
        for location in
            ["/a", "http://bmc/a/", "https://bmc:8443/a/", "//evil.example/a/", "https://"]
        {
            assert_eq!(led(308, location), None, "{location}");
        }
        assert_eq!(led(201, "/a/"), None);
    }
}
