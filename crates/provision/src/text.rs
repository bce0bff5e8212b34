//! Texts of BMCs, agents, DHCP clients and image servers, made safe for terminals and logs.

use std::borrow::Cow;
use std::fmt::Write as _;

use url::Url;

/// Whether a character has an effect on a terminal or in a log: control characters (C0, DEL, C1), which move the
/// cursor or begin lines; line and paragraph separators; characters that reorder or hide others (Unicode's
/// `Bidi_Control`, zero-width characters, tags).
#[must_use]
pub fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text with each [unprintable](is_unprintable) character escaped as in a Rust literal (`\n`, `\u{1b}`).
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |character, into| into.extend(character.escape_default()))
}

/// [`printable`], except that line feeds and tabs stay.
#[must_use]
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character, into| match character {
        '\n' | '\t' => into.push(character),
        _ => into.extend(character.escape_default()),
    })
}

/// JSON with each [unprintable](is_unprintable) character escaped as in JSON, except for line feeds and tabs, which
/// occur only outside of strings. The value stays the same.
#[must_use]
pub fn printable_json(json: &str) -> Cow<'_, str> {
    escaped(json, |character, into| match character {
        '\n' | '\t' | '\r' => into.push(character),
        _ => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(into, "\\u{unit:04x}");
            }
        }
    })
}

fn escaped(text: &str, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut into = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_unprintable(character) {
            escape(character, &mut into);
        } else {
            into.push(character);
        }
    }
    Cow::Owned(into)
}

/// The first `chars` characters, with a mark if the text is longer.
#[must_use]
pub fn shortened(text: &str, chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// A text with user name and password of each URL replaced: `http://…@host/`. For texts derived from a URL, such as a
/// parser's error that repeats its input.
#[must_use]
pub fn masked(text: &str) -> Cow<'_, str> {
    const ENDS: &[char] = &['/', '?', '#', '"', '\'', '`', '<', '>', '\\'];
    let mut into = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        let is_end = |it: char| it.is_whitespace() || ENDS.contains(&it);
        let authority = &after[..after.find(is_end).unwrap_or(after.len())];
        into.push_str(before);
        into.push_str("://");
        rest = after;
        if let Some(at) = authority.rfind('@') {
            into.push('…');
            rest = &after[at..];
        }
    }
    if into.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(into + rest) }
}

/// A URL for logs, traces and errors: without user name and password, and without its query, which is often a
/// signature.
#[must_use]
pub fn shown_url(url: &Url) -> String {
    let mut shown = url.clone();
    // URLs without a host have no user name and accept none.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    let query = shown.query().is_some();
    shown.set_query(None);
    shown.set_fragment(None);
    let mut text = String::from(shown);
    if query {
        text.push_str("?…");
    }
    text
}

/// [`shown_url`] for a text that may not be a URL: an unparsable text that may contain a password is not shown.
#[must_use]
pub fn shown_url_text(text: &str) -> String {
    match Url::parse(text) {
        Ok(url) if url.has_host() || !text.contains('@') => shown_url(&url),
        _ if text.contains('@') => "(not shown: it may hold a password)".to_owned(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn controls_and_what_turns_text_around_are_escaped() {
        let said = "ok\n\x1b]0;title\x07\u{9b}2J\u{202e}evil\u{200b}\u{2028}\u{feff}\x7f";

        assert_eq!(
            printable(said),
            r"ok\n\u{1b}]0;title\u{7}\u{9b}2J\u{202e}evil\u{200b}\u{2028}\u{feff}\u{7f}"
        );
        assert_eq!(printable("Grüße, 世界: 100 % \"\\\""), "Grüße, 世界: 100 % \"\\\"");
        assert_eq!(printable_lines("a\n\tb\r"), "a\n\tb\\r");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let value = serde_json::json!({"a": "\u{9b}\u{202e}\u{e0041}\n"});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let shown = printable_json(&text);

        assert!(!shown.chars().any(|it| is_unprintable(it) && it != '\n'), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn a_url_is_shown_without_what_is_secret_in_it() {
        let shown = |url: &str| shown_url(&Url::parse(url).unwrap());

        assert_eq!(shown("http://me:geheim@h:8080/a.iso?sig=geheim#x"), "http://h:8080/a.iso?…");
        assert_eq!(shown("http://192.0.2.1/a"), "http://192.0.2.1/a");
        assert_eq!(shown("file:///srv/a.iso"), "file:///srv/a.iso");
        assert_eq!(shown_url_text("postgres://me:geheim@db/x"), "postgres://db/x");
        assert_eq!(shown_url_text("me:geheim@db: no URL"), "(not shown: it may hold a password)");
    }

    #[test]
    fn passwords_of_urls_are_masked_in_any_text() {
        let said =
            "invalid port: \"http://me:ge@heim@h:x/y@z\" and postgres://u:p@db, see http://h/";

        assert_eq!(
            masked(said),
            "invalid port: \"http://…@h:x/y@z\" and postgres://…@db, see http://h/"
        );
        assert!(matches!(masked("a@b: none"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_text_that_is_cut_says_so() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöü", 2), "äö…");
    }

    proptest! {
        #[test]
        fn what_has_no_user_name_stays(text in "[^@]*") {
            prop_assert_eq!(masked(&text), text.as_str());
        }

        #[test]
        fn nothing_unprintable_is_left(text in any::<String>()) {
            prop_assert!(!printable(&text).contains(is_unprintable));
            prop_assert!(!printable_lines(&text).contains(|it| is_unprintable(it) && it != '\n' && it != '\t'));
        }
    }
}
