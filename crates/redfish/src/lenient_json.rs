//! JSON as BMCs write it.

use serde_json::Value;

/// Parses JSON. Bytes that are not UTF-8 are replaced, and control characters become blanks: BMCs show serial numbers
/// and asset tags with both.
pub(crate) fn sanitized_json(body: &[u8]) -> Option<Value> {
    if let Ok(value) = serde_json::from_slice(body) {
        return Some(value);
    }
    let text = String::from_utf8_lossy(body);
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_bytes_in_a_text_do_not_hide_the_rest() {
        for body in [
            &b"{\"SerialNumber\": \"A\xff1\", \"PowerState\": \"On\"}"[..],
            b"{\"AssetTag\": \"\x01\x0b\", \"PowerState\": \"On\"}",
        ] {
            let json = sanitized_json(body).unwrap();

            assert_eq!(json["PowerState"], "On");
        }
    }
}
