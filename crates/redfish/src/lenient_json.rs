//! JSON as BMCs write it.

use serde_json::Value;

/// Parses JSON. Bytes that are not UTF-8 are replaced, and control characters become blanks: BMCs show serial numbers
/// and asset tags with both. Where that is not enough, numbers that are none (`nan`) become null, commas before a
/// closing bracket and unknown escapes are left out, and so is what follows the first value.
pub(crate) fn sanitized_json(body: &[u8]) -> Option<Value> {
    if let Ok(value) = serde_json::from_slice(body) {
        return Some(value);
    }
    let text = String::from_utf8_lossy(body);
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = text.trim_start_matches('\u{feff}');
    serde_json::from_str(text).ok().or_else(|| first_value(&mended(text)))
}

fn first_value(text: &str) -> Option<Value> {
    let first: Value = serde_json::Deserializer::from_str(text).into_iter().next()?.ok()?;
    (first.is_object() || first.is_array()).then_some(first)
}

/// The text with what no parser takes mended, outside of strings and in them.
fn mended(text: &str) -> String {
    let mut mended = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('"') {
        let (between, string) = rest.split_at(start);
        mended.push_str(&mended_between(between));
        let end = end_of_string(string);
        mended.push_str(&mended_string(&string[..end]));
        rest = &string[end..];
    }
    mended.push_str(&mended_between(rest));
    mended
}

/// The length of the string that begins with a quotation mark.
fn end_of_string(string: &str) -> usize {
    let mut escaped = false;
    for (at, c) in string.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    string.len()
}

/// A string without the escapes that JSON does not know, and without halves of surrogate pairs.
fn mended_string(string: &str) -> String {
    if serde_json::from_str::<String>(string).is_ok() {
        return string.to_owned();
    }
    let mut mended = String::with_capacity(string.len());
    let mut rest = string;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        mended.push_str(before);
        let known = escape.chars().nth(1).filter(|c| "\"\\/bfnrt".contains(*c));
        match known {
            Some(c) => {
                mended.push('\\');
                mended.push(c);
                rest = &escape[2..];
            }
            None => rest = &escape[1..],
        }
    }
    mended.push_str(rest);
    mended
}

/// What is between strings: `nan` and infinity become null, and a comma before a closing bracket is left out.
fn mended_between(between: &str) -> String {
    let mut mended = String::with_capacity(between.len());
    let mut word = String::new();
    for c in between.chars().chain([' ']) {
        if c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.') {
            word.push(c);
            continue;
        }
        let number = word.trim_start_matches(['+', '-']).to_ascii_lowercase();
        let is_none = matches!(number.as_str(), "nan" | "inf" | "infinity");
        mended.push_str(if is_none { "null" } else { &word });
        word.clear();
        if matches!(c, '}' | ']') {
            let kept = mended.trim_end().strip_suffix(',').map(str::len);
            mended.truncate(kept.unwrap_or(mended.len()));
        }
        mended.push(c);
    }
    mended
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn odd_bytes_in_a_text_do_not_hide_the_rest() {
        for body in [
            &b"{\"SerialNumber\": \"A\xff1\", \"PowerState\": \"On\"}"[..],
            b"{\"AssetTag\": \"\x01\x0b\", \"PowerState\": \"On\"}",
            b"\xef\xbb\xbf{\"PowerState\": \"On\"}\0",
        ] {
            let json = sanitized_json(body).unwrap();

            assert_eq!(json["PowerState"], "On");
        }
    }

    #[test]
    fn what_is_no_json_here_and_there_does_not_hide_the_rest() {
        for body in [
            r#"{"Watts": nan, "Volts": [-Infinity, 1.5], "PowerState": "On"}"#,
            r#"{"Members": [{"Id": "a, ]",}, ], "PowerState": "On",}"#,
            r#"{"AssetTag": "C:\x41\_", "Model": "\ud800", "PowerState": "On"}"#,
            r#"{"PowerState": "On"} {"PowerState": "Off"}"#,
            r#"{"PowerState": "On"}</html>"#,
        ] {
            let json = sanitized_json(body.as_bytes()).unwrap_or_else(|| panic!("{body}"));

            assert_eq!(json["PowerState"], "On", "{body}");
        }
        let list = sanitized_json(br#"{"Members": [{"Id": "a, ]",}, ],}"#).unwrap();
        assert_eq!(list, json!({"Members": [{"Id": "a, ]"}]}));
    }

    #[test]
    fn a_text_that_begins_with_a_number_is_no_json() {
        assert_eq!(sanitized_json(b"404 Not Found"), None);
        assert_eq!(sanitized_json(br#"{"PowerState": "O"#), None);
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(
            body in prop::collection::vec(any::<u8>(), 0..100), text in r#"[{}\[\]":,\\a-fu0-9 né.-]{0,60}"#,
        ) {
            let _ = sanitized_json(&body);
            let _ = sanitized_json(text.as_bytes());
        }

        #[test]
        fn json_is_read_as_it_is(text in ".*", number in any::<i64>()) {
            let value = json!({"Text": text, "Numbers": [number, null, true]});
            prop_assert_eq!(sanitized_json(value.to_string().as_bytes()), Some(value));
        }
    }
}
