//! Patterns of `modules.alias`: `*`, `?` and `[0-9A-F]`, as in fnmatch(3) without flags.

/// Whether the whole `text` matches `pattern`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut read) = (0, 0);
    // The position to resume from if the last `*` matched too little.
    let mut retry = None;

    while read < text.len() {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            retry = Some((at, read));
        } else if let Some(len) = one(&pattern[at..], text[read]) {
            at += len;
            read += 1;
        } else if let Some((after_star, taken)) = retry {
            retry = Some((after_star, taken + 1));
            (at, read) = (after_star, taken + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

/// Length of the pattern's first element, if it matches `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', rest @ ..] => {
            // A `]` right after the bracket is a member, not the end.
            let end = rest.iter().skip(1).position(|&byte| byte == b']').map(|end| end + 1);
            match end {
                Some(end) => in_set(&rest[..end], byte).then_some(end + 2),
                None => (byte == b'[').then_some(1),
            }
        }
        [first, ..] => (*first == byte).then_some(1),
        [] => None,
    }
}

fn in_set(set: &[u8], byte: u8) -> bool {
    let (negated, mut set) = match set {
        [b'!', rest @ ..] if !rest.is_empty() => (true, rest),
        [..] => (false, set),
    };
    let mut found = false;
    while let [first, rest @ ..] = set {
        if let [b'-', last, rest @ ..] = rest {
            found |= (*first..=*last).contains(&byte);
            set = rest;
        } else {
            found |= *first == byte;
            set = rest;
        }
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_of_real_drivers_match_real_devices() {
        let cases = [
            (
                "pci:v00008086d000010D3sv*sd*bc*sc*i*",
                "pci:v00008086d000010D3sv0sd0bc02sc00i00",
                true,
            ),
            ("pci:v*d*sv*sd*bc01sc06i01*", "pci:v00008086d00002922sv1sd2bc01sc06i01", true),
            ("pci:v*d*sv*sd*bc01sc06i01*", "pci:v00008086d00002922sv1sd2bc01sc08i02", false),
            ("usb:v0BDAp815[0-3]d*", "usb:v0BDAp8152d2000", true),
            ("usb:v0BDAp815[0-3]d*", "usb:v0BDAp8154d2000", false),
            (
                "mdio:0000000000011100110010010001????",
                "mdio:00000000000111001100100100010010",
                true,
            ),
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4", true),
            ("acpi*:ACPI0012:*", "acpi:ACPI0012:", true),
            ("[!a]", "b", true),
            ("[!a]", "a", false),
            ("", "", true),
            ("*", "", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern, text), expected, "{pattern} against {text}");
        }
    }

    proptest! {
        #[test]
        fn text_without_special_characters_matches_itself_alone(text in "[a-z:]{0,20}", other in "[a-z:]{0,20}") {
            prop_assert!(matches(&text, &text));
            prop_assert_eq!(matches(&text, &other), text == other);
        }

        #[test]
        fn any_pattern_is_matched_without_panic(pattern in "[\\[\\]*?!a-c-]{0,12}", text in "[\\[\\]a-c-]{0,12}") {
            matches(&pattern, &text);
        }
    }
}
