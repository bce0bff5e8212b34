//! Settings in TOML. A refusal names the line and the setting and never shows the value, which may be a secret.

use serde::de::DeserializeOwned;
use thiserror::Error;

/// The reason for refusing settings, with its place.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}{reason}")]
pub struct WrongSettings {
    /// Line, column and setting, as far as they are known, with a colon.
    place: String,
    reason: String,
}

/// Reads settings.
///
/// # Errors
/// The line, the setting and the reason.
pub fn read_settings<T: DeserializeOwned>(text: &str) -> Result<T, WrongSettings> {
    toml::from_str(text).map_err(|error| refusal(error, text))
}

fn refusal(mut error: toml::de::Error, text: &str) -> WrongSettings {
    let before = error.span().and_then(|span| text.get(..span.start));
    let position = before.map(|before| {
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        (before.matches('\n').count() + 1, column)
    });
    let reason = without_value(error.message().trim_end());
    // The library quotes the line if it has the text, and names the setting otherwise.
    error.set_input(None);
    let shown = error.to_string();
    let setting = shown.trim_end().rsplit_once("\nin `").map(|(_, keys)| keys);
    let setting = setting.and_then(|keys| keys.strip_suffix('`')).map(str::to_owned);
    let position = position.map(|(line, column)| format!("line {line}, column {column}"));
    let place: Vec<_> = position.into_iter().chain(setting).collect();
    let place = if place.is_empty() { String::new() } else { format!("{}: ", place.join(", ")) };
    WrongSettings { place, reason }
}

/// Leaves out the value in serde's `invalid type: string "…", expected …`.
fn without_value(message: &str) -> String {
    for kind in ["invalid type", "invalid value"] {
        let value = message.strip_prefix(kind).and_then(|rest| rest.strip_prefix(": "));
        if let Some(value) = value {
            let expected = value.rsplit_once(", expected ").map_or("another", |(_, text)| text);
            return format!("{kind}, expected {expected}");
        }
    }
    message.to_owned()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct AllSections {
        login: LoginSection,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct LoginSection {
        password: String,
        tries: u8,
        address: Option<IpAddr>,
    }

    fn refused(text: &str) -> String {
        read_settings::<AllSections>(text).unwrap_err().to_string()
    }

    #[test]
    fn a_refusal_names_line_and_setting() {
        assert_eq!(
            refused("[login]\ntries = 300"),
            "line 2, column 9, login.tries: invalid value, expected u8"
        );
        assert_eq!(
            refused("login = 5"),
            "line 1, column 9, login: invalid type, expected struct LoginSection"
        );
        let unknown = refused("\n[login]\nuser = 5");
        assert!(unknown.starts_with("line 3, column 1, login: unknown field `user`"), "{unknown}");
    }

    #[test]
    fn a_refusal_shows_no_value() {
        for value in [
            "password = 1234",
            "password = \"1234",
            "password = ['1234']",
            "password = { pin = '1234' }",
            "passwort = '1234'",
            "password = 1234a",
            "password = '1' '1234'",
            "password = \"\"\"\n\n1234\"\"\"\npassword = '1234'",
            "tries = '1234'",
            "tries = 1234",
            "address = '1234'",
        ] {
            let refused = refused(&format!("[login]\n{value}"));
            assert!(!refused.contains("1234"), "{value}: {refused}");
            assert!(refused.contains("line "), "{value}: {refused}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z\"'\\[\\]{}=.\nä0-9 ]{0,60}") {
            let _ = read_settings::<AllSections>(&text);
        }
    }
}
